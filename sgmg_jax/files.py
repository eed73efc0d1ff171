"""Files and folders: checked before memory is taken, written whole or not at all.

Everything that comes from a stranger's disk goes through here: one reader of text, one of JSON, one of folders, one
rule for names.
"""
import codecs
from collections.abc import Collection, Iterator
import contextlib
import csv
import errno
import fcntl
import json
import os
import pathlib
import secrets
import stat
import sys
import tempfile
import unicodedata

LARGEST = 2 ** 29  # bytes of a text or JSON file; COCO's instances, the largest there is, have a third of it
MOST_MEMORY = 3 * 2 ** 29  # bytes that the values of a JSON file may take; of those, COCO's take half
LONGEST_NAME = 200  # bytes; file systems take 255, endings and temporary names included
_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, 'utf-8-sig'), (codecs.BOM_UTF16_LE, 'utf-16'), (codecs.BOM_UTF16_BE, 'utf-16'))


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path to write to, which takes the place of `path` when the block ends well.

    The temporary name is random: two processes, on one host or several, never share one; the last to end wins.

    Raises:
        OSError: naming `path`, if it cannot be written; what was there stays.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f'.partial-{secrets.token_hex(8)}{path.suffix[:20]}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(partial, 0o666 & ~mask)  # Some libraries write for the owner alone.
        os.replace(partial, path)
    except OSError as error:
        hint = 'Free some space.' if error.errno == errno.ENOSPC else 'Check the path and its permissions.'
        message = f'cannot write ({error.strerror or error}). {hint} What was there stays'
        raise OSError(error.errno or errno.EIO, message, str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # Where the folder is no folder, there is nothing to remove.
            partial.unlink()


@contextlib.contextmanager
def locked(path: str | os.PathLike, doing: str) -> Iterator[None]:
    """Holds the lock file `path` until the block ends, or this process does, in whatever way.

    The file stays, for removing it would let in two at once; it says who holds it.

    Args:
        doing: what this process does there, for the message of one that is refused: 'training'.

    Raises:
        BlockingIOError: another process holds it; names that process.
        OSError: the file system knows no locks.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = printable(file.read(200).strip()) or 'another process'
            raise BlockingIOError(errno.EWOULDBLOCK, f'{owner} is at work here. Wait for it or stop it, or choose '
                                  'another folder', str(path.parent)) from error
        except OSError as error:
            raise OSError(error.errno, f'cannot lock a file there ({error.strerror}), which keeps a second process '
                          'out. Choose a folder on another file system', str(path.parent)) from error
        file.truncate(0)
        try:  # Past the buffer of `file`, which would be written again when it is closed.
            os.write(file.fileno(), f'process {os.getpid()} of {os.uname().nodename}, {doing},'.encode())
        except OSError as error:
            raise OSError(error.errno, f'cannot write ({error.strerror}). Free some space, or choose another folder',
                          str(path.parent)) from error
        yield


def check_regular(path: str | os.PathLike, largest: int | None = None, below: str | os.PathLike | None = None) -> None:
    """Checks that `path` is a file that can be read to its end.

    Args:
        largest: bytes it may have; None: any number.
        below: a folder that a link must not lead out of; None: links may lead anywhere, as in one's own cache.

    Raises:
        FileNotFoundError: there is nothing, or a link to nothing.
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
            raise ValueError(f'{path}: is a link to {target}, outside of {below}. Copy the file here, or link the '
                             'whole folder that it lies in.')


def check_folder(folder: str | os.PathLike) -> None:
    """Raises as `check_regular` for what lies anywhere in a folder and is no file: who opened it might wait for ever.
    What another process removes meanwhile is passed over."""
    for inside, _, names in os.walk(folder):
        for path in (os.path.join(inside, name) for name in names):
            try:
                check_regular(path)
            except FileNotFoundError:
                if os.path.islink(path):
                    raise


def check_new(path: str | os.PathLike, suffixes: Collection[str] | None = None) -> pathlib.Path:
    """`path`, if something new can be written there; asked before the work that makes it.

    Args:
        suffixes: it may have; '' is none; None: any.

    Raises:
        FileExistsError: there is something already, be it a link to nothing.
        OSError: what it would lie in is no folder, or nothing can be written there.
        ValueError: for another suffix.
    """
    path = pathlib.Path(path)
    if os.path.lexists(path):
        raise FileExistsError(f'{path}: exists already. Remove it or give another --out.')
    if suffixes is not None and path.suffix not in suffixes:
        raise ValueError(f'{path}: must end in {" or ".join(suffix or "no suffix" for suffix in suffixes)}. Give it '
                         'another name.')
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, 'is no folder, so nothing can be written below it', str(folder))
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(error.errno, f'nothing can be written there ({error.strerror}). Check its permissions, and '
                      'whether there is space', str(folder)) from error
    return path


def check_text(path: str | os.PathLike) -> None:
    """Raises ValueError for a path with bytes that are no UTF-8, which array_record cannot open."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f'{path}: has bytes that are no text in UTF-8. Rename the folder.') from error


def read_bytes(path: str | os.PathLike, largest: int = LARGEST, below: str | os.PathLike | None = None) -> bytes:
    """The content of a file. Raises OSError, and as `check_regular`."""
    check_regular(path, largest, below)
    with open(path, 'rb') as file:
        return file.read(largest)


def read_text(path: str | os.PathLike, encoding: str = 'utf-8', largest: int = LARGEST,
              below: str | os.PathLike | None = None) -> str:
    r"""The text of a file, with '\n' at the end of lines whatever it has, and without a byte order mark.

    Args:
        encoding: where no byte order mark says it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not text in that encoding; and as `check_regular`.
    """
    return _decoded(read_bytes(path, largest, below), encoding, path)


def read_rows(path: str | os.PathLike, columns: int, below: str | os.PathLike | None = None
              ) -> list[tuple[str, list[str]]]:
    """Where each line of a CSV file is ('<path>: line 3', for messages), and its fields; blank lines are left out.

    A line is a row: a quote that is not closed would otherwise swallow those that follow.

    Raises:
        ValueError: naming the line: it is no CSV, or has another number of fields; and as `read_text`.
    """
    rows = []
    for number, line in enumerate(read_text(path, below=below).split('\n'), 1):
        where = f'{path}: line {number}'
        try:
            row = next(csv.reader([line], strict=True), [])
        except csv.Error as error:
            raise ValueError(f'{where}: is no CSV ({error}). Close its quotes, or copy the file again.') from error
        if row and len(row) != columns:
            raise ValueError(f'{where}: has {len(row)} fields, must have {columns}. Mend or remove the line.')
        if row:
            rows.append((where, row))
    return rows


def _decoded(data: bytes, encoding: str, where: str | os.PathLike) -> str:
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), encoding)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f'{where}: is not text in {encoding} ({error}). Copy it again, or save it as UTF-8.'
                         ) from error
    return text.replace('\r\n', '\n').replace('\r', '\n')


def read_json(path: str | os.PathLike, largest: int = LARGEST, below: str | os.PathLike | None = None):
    """What a JSON file holds. Raises OSError, and ValueError as `parse_json` and `check_regular`."""
    return parse_json(read_bytes(path, largest, below), path)


def parse_json(data: bytes | str, where: str | os.PathLike):
    """What JSON holds.

    Args:
        data: UTF-8, or with a byte order mark.
        where: its file, for messages.

    Raises:
        ValueError: naming `where`: it is not JSON, has NaN or infinity, a key twice, too many levels or values.
    """
    if isinstance(data, bytes):
        data = _decoded(data, 'utf-8', where)
    # An upper bound: three bytes of text, "[],", become a list of eighty.
    memory = 2 * sys.getsizeof(data) + sum(
        size * data.count(mark) for mark, size in (('[', 90), ('{', 200), (',', 40), ('"', 25)))
    if memory > MOST_MEMORY:
        raise ValueError(f'{where}: is JSON of too many values, which may take {memory:,} bytes of memory; at most '
                         f'{MOST_MEMORY:,} are taken. Is it the right file?')
    try:
        return json.loads(data, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError(f'{where}: is JSON of too many levels. Copy it again from its source.') from error
    except ValueError as error:
        reason = 'it is empty' if not data.strip() else printable(str(error))
        raise ValueError(f'{where}: is not JSON ({reason}). Copy it again from its source.') from error


def _refuse_constant(name):
    raise ValueError(f'{name} is no number')


def _unique(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f'the key {twice!r:.80} is there twice')
    return found


def is_junk(name: str) -> bool:
    """Whether macOS or Windows leave files or folders of this name behind."""
    return name in ('__MACOSX', '.DS_Store', 'Thumbs.db', 'desktop.ini') or name.startswith('._')


def listing(folder: str | os.PathLike) -> tuple[list[str], list[str]]:
    """Sorted names of the folders and of the files in a folder, without what systems leave behind (`is_junk`).

    A link counts as what it leads to, one to nothing as a file. Raises OSError.
    """
    folders, others = [], []
    with os.scandir(folder) as entries:
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
    """Sorted names in a folder that have one of these endings, in capitals or not, by what stands before.

    Folders among them, and several names of one stem, are for the caller to refuse. Raises OSError.
    """
    found = {}
    for name in sorted(sum(listing(folder), [])):
        stem, ending = os.path.splitext(name)
        if ending.lower() in endings:
            found.setdefault(stem, []).append(name)
    return found


def check_name(name, what: str) -> str:
    """`name`, if it can name a file or folder below any other on any system.

    Names that come from files (videos, frames, expressions, pictures) become parts of paths, of commands and of lines
    on a terminal; they are checked once, where they come in.

    Args:
        what: what it names and where it stands, for the message: 'meta.json: field "videos", a name'.

    Raises:
        ValueError: it is not a string, is empty or too long, begins with a dot, or has slashes or characters that do
            not print.
    """
    reason = None
    if not isinstance(name, str) or not name:
        reason = 'must be a string that is not empty'
    elif '/' in name or '\\' in name:
        reason = 'must be one name, not a path'
    elif name.startswith('.') or name != name.strip():
        reason = 'must not begin with a dot, nor begin or end with a space'
    elif not name.isprintable():
        reason = 'must have printable characters alone'
    elif len(name.encode()) > LONGEST_NAME:
        reason = f'must have at most {LONGEST_NAME} bytes'
    if reason:
        raise ValueError(f'{printable(what)} {reason}, is {name!a:.100}. Rename it, or copy the file again from its '
                         'source.')
    return name


def printable(text: str) -> str:
    r"""`text` for a terminal: control characters, surrogates and marks of direction as escapes such as \x1b."""
    return ''.join(c if c.isprintable() or c in '\n\t' or unicodedata.category(c) == 'Zs' else
                   c.encode('unicode_escape').decode() for c in text)


def one_line(text: str, longest: int = 300) -> str:
    """`printable` text on one line of a table or a list, cut off where it is too long."""
    text = printable(text[:longest + 1]).replace('\n', '\\n').replace('\t', '\\t')
    return text if len(text) <= longest else f'{text[:longest - 2]}..'
