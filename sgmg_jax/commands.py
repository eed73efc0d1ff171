"""What all commands have in common: how they begin, and how they end when something is wrong.

A command parses its arguments first and imports what it works with after, so that --help appears at once. A mistake of
the user's ends it with one message on stderr and exit status 2; --debug shows the traceback too.
"""
import argparse
from collections.abc import Callable, Sequence
import os
import runpy
import signal
import sys
import traceback

from sgmg_jax.files import check_regular, printable

INTERRUPTED = 128 + signal.SIGINT  # as a shell reports a process that Ctrl-C ended
# What the package raises for wrong input, in words for the user.
USER_ERRORS = OSError, ValueError, FloatingPointError


def make_parser(prog: str, description: str, **options) -> argparse.ArgumentParser:
    """A parser of arguments whose description and epilog keep their lines; with --debug."""
    parser = argparse.ArgumentParser(prog, description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter, **options)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def run(work: Callable[[], int | None], debug: bool = False) -> int:
    """Does the work of a command and returns its exit status: what `work` returns, 0 for None; 2 after an error of
    the user's, whose message goes to stderr; 130 after Ctrl-C.

    Any other exception comes through with its traceback: it is a fault of this package.

    Args:
        debug: show the traceback of a user's error too.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):  # File names may hold bytes that are no text.
            stream.reconfigure(errors='backslashreplace')
    try:
        status = work() or 0
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except USER_ERRORS as error:
        if debug:
            traceback.print_exc()
        print(f'error: {message(error)}', file=sys.stderr)
        return 2


def message(error: BaseException) -> str:
    """What an exception says, for a terminal; of an OSError the file first."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f'{error.filename}: {error.strerror}'
    return printable(text or type(error).__name__)


def exit_with(work: Callable[[argparse.Namespace], int | None], parser: argparse.ArgumentParser,
              argv: Sequence[str] | None = None) -> int:
    """Parses `argv` (by default the command line), and runs `work` with the options as `run` does."""
    options = parser.parse_args(argv)
    return run(lambda: work(options), options.debug)


def load_config(spec: str):
    """The config of --config=path:mode, by the rule of train.py: what its get_config(mode) gives, or get_config()
    without a colon.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming the file: its code fails, it has no get_config, or gives no config that could be one.
    """
    from ml_collections import ConfigDict

    from sgmg_jax import config

    path, colon, mode = spec.partition(':')
    try:
        check_regular(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{path}: no such file. Give that of a config, such as configs/ytvos.py.') from error
    try:
        get_config = runpy.run_path(path).get('get_config')
        if not callable(get_config):
            raise ValueError('it has no get_config()')
        found = get_config(*[mode] * bool(colon))
        if not isinstance(found, ConfigDict):
            raise ValueError(f'its get_config gives a {type(found).__name__}, not a ConfigDict')
        config.check(found)
    except (Exception, SystemExit) as error:  # whatever code may raise
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        kind = '' if isinstance(error, ValueError) else f'{type(error).__name__}: '
        raise ValueError(f'{spec}: gives no config{f", line {lines[-1]}" if lines else ""}: {kind}{error!s:.500}'
                         ) from error
    return found
