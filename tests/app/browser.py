"""Serves the page by its command, and opens it in a headless Chromium."""

import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

from playwright.sync_api import expect, sync_playwright

ROOT = pathlib.Path(__file__).parent.parent.parent
CHROMIUM = 'chromium', 'chromium-browser', 'google-chrome'
SECONDS = 120  # for opening a model, or compiling one
# Until the film plays, as the browser sees it.
PLAYS = '() => { const film = document.querySelector("#overlay video"); '
PLAYS += 'return film && film.readyState >= 2 && film.videoWidth > 0 }'
expect.set_options(timeout=30_000)  # on a busy machine


@contextlib.contextmanager
def served(temporary, *words):
    """Runs the command with its temporary files in a folder; yields its address. Ends it by SIGTERM."""
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    # Compiled quickly, as in tests/conftest.py, and not kept.
    quick = {'XLA_FLAGS': '--xla_backend_optimization_level=0', 'JAX_COMPILATION_CACHE_DIR': ''}
    process = subprocess.Popen(
        [sys.executable, '-m', 'sgmg_jax.app', f'--port={port}', *words],
        cwd=ROOT,
        env=os.environ | quick | {'TMPDIR': str(temporary)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert line.startswith(f'Open http://127.0.0.1:{port} '), line
        yield f'http://127.0.0.1:{port}'
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 130


@contextlib.contextmanager
def opened(address):
    """Yields the page. In it and in others of its context no script may fail, and none may ask another server."""
    executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
    assert executable, f'found none of {", ".join(CHROMIUM)}. Install one: apt-get install chromium'
    problems, own = [], (address, 'data:', 'blob:')
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=['--no-sandbox', '--disable-dev-shm-usage']
        )
        context = browser.new_context(viewport={'width': 1200, 'height': 900}, accept_downloads=True)
        context.on('weberror', lambda failure: problems.append(str(failure.error)))
        context.on('console', lambda message: message.type == 'error' and problems.append(message.text))
        context.on('request', lambda request: request.url.startswith(own) or problems.append(f'asks {request.url}'))
        # Answered with 404, and an error in the console, once the upload has ended: a race with small films.
        done = {'content_type': 'text/event-stream', 'body': 'data: {"msg": "done"}\n\n'}
        context.route('**/upload_progress*', lambda route: route.fulfill(**done))
        page = context.new_page()
        page.goto(address)
        yield page
        browser.close()
    assert problems == []


def upload(page, film):
    page.set_input_files('#film input[type=file]', film)
    page.wait_for_selector('#film video')


def press(page, sentences):
    page.fill('#sentences textarea', '\n'.join(sentences))
    page.click('#segment')


def wait(page, sentences):
    """Until the overlay of these sentences plays."""
    labels = [re.compile(re.escape(sentence) + r' \(\d\.\d\d\)') for sentence in sentences]
    expect(page.locator('#objects label')).to_have_text(labels, timeout=SECONDS * 1000)
    page.wait_for_function(PLAYS)
    expect(page.locator('#picture img')).to_be_visible()
