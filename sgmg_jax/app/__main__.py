"""Serves a page on which one uploads a film, writes sentences and gets masks.

    python -m sgmg_jax.app --model=models/sgmg-b

It needs gradio: pip install 'sgmg_jax[app]'. Only this machine can open the page, unless --host names another address;
whoever can reach it can use it, without a password. Nothing is sent elsewhere. Films and masks lie in a temporary
folder, which is removed at the end (Ctrl-C).

MODEL is what python -m sgmg_jax.predict takes; with 'demo' the page has examples.
"""

import argparse
from collections.abc import Sequence
import os
import pathlib
import signal
import socket
import sys
import tempfile
import threading

from sgmg_jax import commands


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = commands.make_parser('python -m sgmg_jax.app', __doc__)
    parser.add_argument('--model', default='demo', help='see above (default: %(default)s)')
    parser.add_argument('--tokenizer', metavar='DIR', help="folder of roberta-base, for the authors' weights")
    parser.add_argument('--host', default='127.0.0.1', help='address to serve at (default: %(default)s, this machine)')
    parser.add_argument('--port', type=commands.whole(1, 65535), default=7860, help='(default: %(default)s)')
    parser.add_argument(
        '--max-mb', type=commands.whole(1, 10**5), default=200, help='megabytes of an upload (default: %(default)s)'
    )
    return commands.exit_with(serve, parser, argv)


def serve(options: argparse.Namespace) -> None:
    """The command, with its parsed options; returns when it is interrupted.

    Raises:
        ModuleNotFoundError: gradio is not installed.
        OSError: the address cannot be used.
        FileNotFoundError, ValueError, ConnectionError: as models.open_model.
    """
    commands.log_plainly()
    with tempfile.TemporaryDirectory(prefix='sgmg_jax-') as temporary:
        # gradio reads these when it is imported.
        os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
        os.environ['GRADIO_RUN_HISTORY'] = 'False'  # would keep films in the browser
        os.environ['GRADIO_TEMP_DIR'] = os.path.join(temporary, 'gradio')
        from sgmg_jax import compilation
        from sgmg_jax.app import answers, page
        from sgmg_jax.inference import models

        _check_free(options.host, options.port)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Or the temporary folder would stay.
        predictor = models.open_model(options.model, options.tokenizer)
        compilation.keep_programs()
        root, films = (pathlib.Path(temporary, name) for name in ('answers', 'examples'))
        root.mkdir()
        films.mkdir()
        examples = answers.make_examples(films) if options.model == 'demo' else []
        served = page.build(predictor, root, examples)
        page.launch(served, options.host, options.port, options.max_mb)
        try:
            print(f'Open http://{options.host}:{options.port} in a browser. Ctrl-C ends it.', flush=True)
            threading.Event().wait()
        finally:
            served.close()


def _check_free(host: str, port: int) -> None:
    """Raises OSError now if the address cannot be used, rather than after the model is opened."""
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        reason = (error.strerror or '').partition(' (')[0]  # Python repeats the address in brackets.
        raise OSError(f'--host={host} --port={port}: {reason}. Give another --host or --port.') from error


if __name__ == '__main__':
    sys.exit(main())
