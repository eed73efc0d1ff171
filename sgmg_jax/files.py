"""Files that appear whole or not at all."""
import contextlib
import errno
import os
import pathlib


@contextlib.contextmanager
def replacing(path):
    """Gives a temporary path to write to, which takes the place of `path` when the block ends well.

    Raises:
        OSError: naming `path`, if it cannot be written; what was there stays.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f'.partial-{os.getpid()}-{path.name}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        hint = 'Free some space.' if error.errno == errno.ENOSPC else 'Check the path and its permissions.'
        message = f'cannot write ({error.strerror}). {hint} What was there stays'
        raise OSError(error.errno, message, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)
