"""The page, and how its parts call each other. This file alone imports gradio."""

from collections.abc import Callable, Sequence
import html
import os
import pathlib
from typing import Any

import gradio as gr

from sgmg_jax import commands
from sgmg_jax.app import answers
from sgmg_jax.inference.predictor import Predictor

HEAD = '# Which object do you mean?\nA film and sentences in, masks out: one sentence per line, one mask per sentence.'
KEEP = 3600  # seconds after which gradio removes uploads and copies of films
QUEUE = 20  # requests that may wait
CSS = '#film [aria-label^="Trim"] { display: none }'  # cutting a film loads code from another server


def build(predictor: Predictor, root: pathlib.Path, examples: Sequence[tuple[str, str]] = ()) -> gr.Blocks:
    """The page; see `launch`.

    Args:
        root: an empty folder, in which it keeps the newest answers.
        examples: the path of a film and sentences for each.
    """

    progress_bar = gr.Progress()  # gradio recognises it as a default argument

    def segment(path: str | None, text: str, progress: Any = progress_bar) -> tuple:
        progress(0, 'reading')

        def report(done: int, expected: int | None) -> None:
            progress((done, expected), 'segmenting', unit='frames')

        found = _in_words(lambda: answers.answer(predictor, path, text, root, report), path)
        numbers = list(range(len(found.sentences)))
        labels = [f'{sentence} ({score:.2f})' for sentence, score in zip(found.sentences, found.scores)]
        return (
            found,
            str(found.overlay),
            gr.CheckboxGroup(list(zip(labels, numbers)), value=numbers, visible=True),
            gr.Slider(0, len(found.frames) - 1, 0, visible=len(found.frames) > 1),
            gr.Image(answers.picture(found, 0, numbers), visible=True),
            gr.DownloadButton(value=str(found.archive), visible=True),
        )

    def draw(found: answers.Answer, number: int, shown: list[int]) -> Any:
        return _in_words(lambda: answers.picture(found, number, shown))

    with gr.Blocks(title='sgmg_jax', analytics_enabled=False, delete_cache=(KEEP // 6, KEEP)) as page:
        gr.Markdown(HEAD)
        with gr.Row():
            with gr.Column():
                film = gr.Video(label='Film', sources=['upload'], height=320, elem_id='film')
                text = gr.Textbox(
                    label='Sentences, one per line', lines=3, placeholder='the dog on the left', elem_id='sentences'
                )
                button = gr.Button('Find the objects', variant='primary', elem_id='segment')
                if examples:
                    gr.Examples([list(row) for row in examples], [film, text], cache_examples=False, elem_id='examples')
            with gr.Column():
                overlay = gr.Video(label='Objects', autoplay=True, loop=True, height=320, elem_id='overlay')
                objects = gr.CheckboxGroup(
                    label='Show in the picture below (score from 0 to 1)', visible=False, elem_id='objects'
                )
                number = gr.Slider(0, 1, 0, step=1, label='Frame', visible=False, elem_id='frame')
                picture = gr.Image(
                    label='One frame',
                    visible=False,
                    interactive=False,
                    format='png',
                    height=320,
                    elem_id='picture',
                    buttons=['download', 'fullscreen'],
                )
                download = gr.DownloadButton('Download the masks', visible=False, elem_id='download')
        found = gr.State()
        button.click(
            segment, [film, text], [found, overlay, objects, number, picture, download], show_progress_on=overlay
        )
        for part in (objects, number):
            part.input(draw, [found, number, objects], picture, show_progress='hidden', trigger_mode='always_last')
    return page.queue(max_size=QUEUE, default_concurrency_limit=1)  # one film at a time


def launch(page: gr.Blocks, host: str, port: int, max_mb: int) -> None:
    """Starts to serve the page, in threads of its own; page.close() ends that.

    Args:
        max_mb: megabytes of an upload.
    """
    page.launch(
        server_name=host,
        server_port=port,
        max_file_size=f'{max_mb}mb',
        css=CSS,
        share=False,
        ssr_mode=False,
        footer_links=[],
        quiet=True,
        prevent_thread_lock=True,
    )


def _in_words(work: Callable[[], Any], path: str | None = None) -> Any:
    """The result of `work`; errors become messages on the page, in which the film has its own name."""
    try:
        return work()
    except commands.USER_ERRORS as error:
        message = commands.message(error)
        if path:
            message = message.replace(os.path.dirname(path) + os.sep, '')
        # gradio shows it as HTML, which a sentence or a file name must not become.
        raise gr.Error(html.escape(message, quote=False), duration=None, print_exception=False) from error
