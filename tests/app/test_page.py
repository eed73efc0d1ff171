"""The page in a real browser, from the command to the downloaded zip. Run by `make app-test`."""

import io
import json
import pathlib
import socket
import subprocess
import sys
import zipfile

from browser import ROOT, opened, press, served, upload, wait
from flax import traverse_util
import numpy as np
from PIL import Image
from playwright.sync_api import expect
import pytest

from configs import synthetic
from sgmg_jax import Predictor, systems, video
from sgmg_jax.app import answers, page
from sgmg_jax.data import text
from sgmg_jax.synthetic import make_video

SENTENCES = ['the red star', 'the circle moving left']
SIDE, FRAMES = 72, 8


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """A model folder with random weights."""
    config = synthetic.get_config()
    config.model.update(hidden=32, heads=8, encoder_layers=1, decoder_layers=2, mlp=48, queries=3, points=2)
    config.evaluation.short_side = SIDE
    built = systems.build_model(config.model)
    rng = np.random.default_rng(0)
    parameters = {
        path: 0.1 * rng.standard_normal(x.shape, dtype=np.float32) + np.float32(path.endswith('scale'))
        for path, x in traverse_util.flatten_dict(systems.parameter_shapes(built), sep='/').items()
    }
    predictor = Predictor.from_config(
        config, built, traverse_util.unflatten_dict(parameters, sep='/'), text.train_tokenizer(SENTENCES, 300)
    )
    folder = tmp_path_factory.mktemp('models') / 'random'
    predictor.save_pretrained(folder)
    return folder


def test_a_film_in_and_masks_out(model, tmp_path):
    film, temporary = tmp_path / 'shapes.mp4', tmp_path / 'temporary'
    video.write(film, make_video(3, FRAMES, (SIDE, SIDE)).frames, rate=8)
    temporary.mkdir()
    with served(temporary, f'--model={model}', '--max-mb=1') as address, opened(address) as page:
        upload(page, film)
        press(page, SENTENCES)
        wait(page, SENTENCES)
        expect(page.locator('#film [aria-label^="Trim"]')).to_be_hidden()  # It would load code from elsewhere.
        legend = page.locator('#objects label').all_inner_texts()

        with page.expect_download() as download:
            page.click('#download')
        with zipfile.ZipFile(download.value.path()) as archive:
            result = json.loads(archive.read('result.json'))
            names = [f'masks/{k}/{name}.png' for k in range(len(SENTENCES)) for name in result['frames']]
            masks = np.array([np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names])
        assert masks.shape == (len(SENTENCES) * FRAMES, SIDE, SIDE) and set(np.unique(masks)) == {0, 255}
        assert legend == [f'{row["text"]} ({row["score"]:.2f})' for row in result['sentences']]

        picture = page.locator('#picture img')
        sources = [picture.get_attribute('src')]
        for change in (
            lambda: page.locator('#objects input').nth(1).uncheck(),
            lambda: page.locator('#frame input[type=range]').fill('5'),
        ):
            change()
            expect(picture).not_to_have_attribute('src', sources[-1])
            sources.append(picture.get_attribute('src'))
        assert len(set(sources)) == 3

        # The limit also holds for what does not come from the page.
        large = {'name': 'a.mp4', 'mimeType': 'video/mp4', 'buffer': bytes(2 * 10**6)}
        assert page.request.post(f'{address}/gradio_api/upload', multipart={'files': large}).status == 413

        press(page, ['the <b>red</b> star ' * 40])
        expect(page.locator('.toast-body')).to_contain_text('<b>red</b>')
        assert 'Traceback' not in page.content()

        # Two visitors at once: each gets the answer to their own sentences.
        other = page.context.new_page()
        other.goto(address)
        upload(other, film)
        asked = {page: ['the red star', 'the circle'], other: ['moving left', 'the star']}
        for visitor, sentences in asked.items():
            press(visitor, sentences)
        for visitor, sentences in asked.items():
            wait(visitor, sentences)
    assert list(temporary.iterdir()) == []


def test_an_address_in_use_is_refused_before_the_model_is_opened():
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        words = [sys.executable, '-m', 'sgmg_jax.app', f'--port={port}', '--model=nowhere']
        result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert f'--port={port}: Address already in use. Give another' in result.stderr


def test_examples_are_on_the_page(tmp_path, monkeypatch):
    monkeypatch.setenv('GRADIO_TEMP_DIR', str(tmp_path / 'gradio'))
    (tmp_path / 'answers').mkdir()
    examples = answers.make_examples(tmp_path)
    shown = str(page.build(None, tmp_path / 'answers', examples).get_config_file())
    for path, sentences in examples:
        assert pathlib.Path(path).name in shown and sentences.splitlines()[0] in shown
