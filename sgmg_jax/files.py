"""Reads untrusted files and folders, with limits on size and memory; writes files atomically.

All files of unknown origin are read through this module: one reader of text, one of JSON, one of folders, one rule
for names.
"""

import codecs
from collections import Counter
from collections.abc import Collection, Iterator
import contextlib
import csv
import errno
import fcntl
import json
import os
import pathlib
import secrets
import shutil
import stat
import sys
import tempfile
from typing import Any, NoReturn
import unicodedata

LARGEST = 2**29  # bytes of a text or JSON file; the largest in use, COCO's instances, has a third of it
MOST_MEMORY = 3 * 2**29  # bytes of memory for the values of a JSON file; COCO's instances take half of it
LONGEST_NAME = 200  # bytes; file systems allow 255, which must hold endings and temporary names too
_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, 'utf-8-sig'), (codecs.BOM_UTF16_LE, 'utf-16'), (codecs.BOM_UTF16_BE, 'utf-16'))


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path to write to; it replaces `path` when the block ends without an exception.

    The temporary name is random, so that no two processes (on any host) share one; the last to finish wins.

    Raises:
        OSError: naming `path`: it cannot be written; the old content stays.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f'.partial-{secrets.token_hex(8)}{path.suffix[:20]}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, 'xb') as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)  # follows the umask, which threads cannot read safely
        yield partial
        os.chmod(partial, mode)  # Some libraries make it readable by the owner only.
        os.replace(partial, path)
    except OSError as error:
        hint = 'Free some space.' if error.errno == errno.ENOSPC else 'Check the path and its permissions.'
        message = f'cannot write ({error.strerror or error}). {hint} What was there stays'
        raise OSError(error.errno or errno.EIO, message, str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # If the folder is a file, there is nothing to remove.
            partial.unlink()


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields an empty folder beside `path`. It becomes `path`, which must be new or an empty folder, when the block
    ends without an exception; otherwise it is removed.

    Raises:
        OSError: it cannot be created or renamed.
    """
    path = pathlib.Path(path).absolute()
    partial = path.with_name(f'.partial-{secrets.token_hex(8)}')
    try:
        partial.mkdir(parents=True)
        yield partial
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def locked(path: str | os.PathLike, doing: str) -> Iterator[None]:
    """Holds the lock file `path` until the block ends or this process dies.

    The file names its holder. It is never removed, because that would let two processes in.

    Args:
        doing: what this process does there, such as 'training', for the error message of other processes.

    Raises:
        BlockingIOError: another process holds the lock; names that process.
        OSError: the file system does not support locks.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = printable(file.read(200).strip()) or 'another process'
            raise BlockingIOError(
                errno.EWOULDBLOCK,
                f'{owner} is at work here. Wait for it or stop it, or choose another folder',
                str(path.parent),
            ) from error
        except OSError as error:
            raise OSError(
                error.errno,
                f'cannot lock a file there ({error.strerror}), which keeps a second process '
                'out. Choose a folder on another file system',
                str(path.parent),
            ) from error
        file.truncate(0)
        try:  # Bypasses the buffer of `file`, which would be written again on close.
            os.write(file.fileno(), f'process {os.getpid()} of {os.uname().nodename}, {doing},'.encode())
        except OSError as error:
            raise OSError(
                error.errno,
                f'cannot write ({error.strerror}). Free some space, or choose another folder',
                str(path.parent),
            ) from error
        yield


def check_regular(path: str | os.PathLike, largest: int | None = None, below: str | os.PathLike | None = None) -> None:
    """Checks that `path` is a regular file, so that reading it ends.

    Args:
        largest: maximum size in bytes; None: no limit.
        below: a folder that a link must not lead out of; None: links may lead anywhere, as in one's own cache.

    Raises:
        FileNotFoundError: it does not exist, or is a dead link.
        ValueError: it is a folder, a pipe or a device, too large, or a link that leads out of `below`.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        kinds = (stat.S_ISDIR, 'a folder'), (stat.S_ISFIFO, 'a pipe'), (stat.S_ISSOCK, 'a socket')
        kind = next((name for test, name in kinds if test(status.st_mode)), 'a device')
        raise ValueError(f'{path}: is {kind}, not a file. Put the file in its place.')
    if largest is not None and status.st_size > largest:
        raise ValueError(f'{path}: has {status.st_size:,} bytes, at most {largest:,} are read. Is it the right file?')
    if below is not None and os.path.islink(path):
        target, root = os.path.realpath(path), os.path.realpath(below)
        if os.path.commonpath([target, root]) != root:
            raise ValueError(
                f'{path}: is a link to {target}, outside of {below}. Copy the file here, or link the '
                'whole folder that it lies in.'
            )


def check_folder(folder: str | os.PathLike) -> None:
    """Runs `check_regular` on everything below a folder: opening a pipe might block for ever.

    Files that another process removes meanwhile are ignored.
    """
    for inside, _, names in os.walk(os.fspath(folder)):
        for path in (os.path.join(inside, name) for name in names):
            try:
                check_regular(path)
            except FileNotFoundError:
                if os.path.islink(path):
                    raise


def check_new(path: str | os.PathLike, suffixes: Collection[str] | None = None) -> pathlib.Path:
    """Returns `path` if a new file or folder can be written there; to be called before the work that makes it.

    Args:
        suffixes: allowed ones ('' for no suffix); None: any.

    Raises:
        FileExistsError: it exists, or is a dead link.
        OSError: its parent is not a folder, or not writable.
        ValueError: it has another suffix.
    """
    path = pathlib.Path(path)
    if os.path.lexists(path):
        raise FileExistsError(f'{path}: exists already. Remove it or give another --out.')
    if suffixes is not None and path.suffix not in suffixes:
        raise ValueError(
            f'{path}: must end in {" or ".join(suffix or "no suffix" for suffix in suffixes)}. Give it another name.'
        )
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, 'is no folder, so nothing can be written below it', str(folder))
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(
            error.errno,
            f'nothing can be written there ({error.strerror}). Check its permissions, and whether there is space',
            str(folder),
        ) from error
    return path


def check_text(path: str | os.PathLike) -> None:
    """Raises ValueError unless the path is valid UTF-8; array_record cannot open others."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f'{path}: has bytes that are no text in UTF-8. Rename the folder.') from error


def read_bytes(path: str | os.PathLike, largest: int = LARGEST, below: str | os.PathLike | None = None) -> bytes:
    """The content of a file. Raises OSError, and like `check_regular`."""
    check_regular(path, largest, below)
    with open(path, 'rb') as file:
        return file.read(largest)


def read_text(
    path: str | os.PathLike, encoding: str = 'utf-8', largest: int = LARGEST, below: str | os.PathLike | None = None
) -> str:
    r"""The text of a file, with line ends converted to '\n' and without a byte order mark.

    Args:
        encoding: of files without a byte order mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not text in that encoding; and like `check_regular`.
    """
    return _decoded(read_bytes(path, largest, below), encoding, path)


def read_rows(
    path: str | os.PathLike, columns: int, below: str | os.PathLike | None = None
) -> list[tuple[str, list[str]]]:
    """The rows of a CSV file: the place of each ('<path>: line 3', for messages) and its fields; skips blank lines.

    Every line is a row: an unclosed quote would otherwise swallow the following lines.

    Raises:
        ValueError: naming the line: it is not CSV, or has another number of fields; and like `read_text`.
    """
    rows = []
    for number, line in enumerate(read_text(path, below=below).split('\n'), 1):
        where = f'{path}: line {number}'
        try:
            row = next(csv.reader([line], strict=True), [])
        except csv.Error as error:
            raise ValueError(f'{where}: is not CSV ({error}). Close its quotes, or copy the file again.') from error
        if row and len(row) != columns:
            raise ValueError(f'{where}: has {len(row)} fields, must have {columns}. Correct or remove the line.')
        if row:
            rows.append((where, row))
    return rows


def _decoded(data: bytes, encoding: str, where: str | os.PathLike) -> str:
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), encoding)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f'{where}: is not text in {encoding} ({error}). Copy it again, or save it as UTF-8.'
        ) from error
    return text.replace('\r\n', '\n').replace('\r', '\n')


def read_json(path: str | os.PathLike, largest: int = LARGEST, below: str | os.PathLike | None = None) -> Any:
    """The content of a JSON file. Raises OSError, and ValueError like `parse_json` and `check_regular`."""
    return parse_json(read_bytes(path, largest, below), path)


def parse_json(data: bytes | str, where: str | os.PathLike) -> Any:
    """Parses JSON.

    Args:
        data: UTF-8, or with a byte order mark.
        where: its file, for messages.

    Raises:
        ValueError: naming `where`: it is not JSON, has NaN or infinity, a key twice, too many levels or values.
    """
    if isinstance(data, bytes):
        data = _decoded(data, 'utf-8', where)
    # An upper bound: the three bytes "[]," become a list of eighty bytes.
    memory = 2 * sys.getsizeof(data) + sum(
        size * data.count(mark) for mark, size in (('[', 90), ('{', 200), (',', 40), ('"', 25))
    )
    if memory > MOST_MEMORY:
        raise ValueError(
            f'{where}: is JSON of too many values, which may take {memory:,} bytes of memory; the limit '
            f'is {MOST_MEMORY:,}. Is it the right file?'
        )
    try:
        return json.loads(data, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError(f'{where}: is JSON of too many levels. Copy it again from its source.') from error
    except ValueError as error:
        reason = 'it is empty' if not data.strip() else printable(str(error))
        raise ValueError(f'{where}: is not JSON ({reason}). Copy it again from its source.') from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f'{name} is no number')


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f'the key {twice!r:.80} is there twice')
    return found


def is_junk(name: str) -> bool:
    """Whether macOS or Windows create files or folders of this name unasked."""
    return name in ('__MACOSX', '.DS_Store', 'Thumbs.db', 'desktop.ini') or name.startswith('._')


def listing(folder: str | os.PathLike) -> tuple[list[str], list[str]]:
    """Sorted names of the folders and of the files in a folder, without junk (`is_junk`).

    A link counts as its target, a dead link as a file. Raises OSError.
    """
    folders: list[str] = []
    others: list[str] = []
    with os.scandir(os.fspath(folder)) as entries:
        for entry in entries:
            if not is_junk(entry.name):
                (folders if _is_folder(entry) else others).append(entry.name)
    return sorted(folders), sorted(others)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link that leads to itself.
        return False


def by_stem(folder: str | os.PathLike, *endings: str) -> dict[str, list[str]]:
    """Sorted names in a folder that have one of these endings (case-insensitive), by stem.

    They may be folders, and a stem may have several names; the caller must handle both. Raises OSError.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(sum(listing(folder), [])):
        stem, ending = os.path.splitext(name)
        if ending.lower() in endings:
            found.setdefault(stem, []).append(name)
    return found


def check_name(name: object, what: str) -> str:
    """Returns `name` if it is a valid name of a file or folder on any system.

    Names read from files (of videos, frames, expressions, pictures) become parts of paths, commands and terminal
    output, so they are checked once, where they are read.

    Args:
        what: what it names and where it occurs, for the message: 'meta.json: field "videos", a name'.

    Raises:
        ValueError: it is not a string, is empty or too long, begins with a dot, or has slashes or unprintable
            characters.
    """
    text = name if isinstance(name, str) else ''
    reason = None
    if not text:
        reason = 'must be a string that is not empty'
    elif '/' in text or '\\' in text:
        reason = 'must be one name, not a path'
    elif text.startswith('.') or text != text.strip():
        reason = 'must not begin with a dot, nor begin or end with a space'
    elif not text.isprintable():
        reason = 'must have printable characters only'
    elif len(text.encode()) > LONGEST_NAME:
        reason = f'must have at most {LONGEST_NAME} bytes'
    if reason:
        raise ValueError(
            f'{printable(what)} {reason}, is {name!a:.100}. Rename it, or copy the file again from its source.'
        )
    return text


def printable(text: str) -> str:
    r"""`text` for a terminal: escapes control characters, surrogates and direction marks, for example as \x1b."""
    return ''.join(
        c if c.isprintable() or c in '\n\t' or unicodedata.category(c) == 'Zs' else c.encode('unicode_escape').decode()
        for c in text
    )


def one_line(text: str, longest: int = 300) -> str:
    """`printable` text on one line of a table or a list, truncated to `longest` characters."""
    text = printable(text[: longest + 1]).replace('\n', '\\n').replace('\t', '\\t')
    return text if len(text) <= longest else f'{text[: longest - 2]}..'
