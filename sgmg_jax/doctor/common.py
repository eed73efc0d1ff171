"""Shared by the checks of all data sets: findings, listings of folders, headers of images."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import logging as python_logging
import os
import pathlib
import shlex
import stat
from typing import TypeVar

from absl import logging
import tqdm

from sgmg_jax import commands, files, pictures
from sgmg_jax.data.metadata import check_frame_size

T = TypeVar('T')
PART = 'This copy is a part of the data set and can be built; to get all of it, unpack its archives again.'
AGAIN = 'Unpack it again from its archive; if that does not help, download the archive again.'
NO_NAME = 'videos whose name is not a valid folder name'
# What can be wrong with a file before it is opened, and how to fix it.
FAULTS = {
    'dead links': 'Fix the links, or put the files in their place.',
    'files of zero bytes': 'Was the disk full? ' + AGAIN,
    'folders, pipes or devices in place of files': 'Put the files in their place.',
    'links that lead out of the data set': 'Copy the files here, or link the whole folder that contains them.',
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    level: 'ok', 'missing', 'wrong' (these two keep a data set from being complete) or 'note'.
    what: the fact, with counts and examples. where: the file or folder. mend: what to do, often a command.
    """

    level: str
    what: str
    where: str
    mend: str = ''


@dataclasses.dataclass(frozen=True)
class Copy:
    """A user's copy of a data set.

    root: the folder for its builder's --raw. found: the actual path of each part, by its place (the expected path
    relative to the root). archives: the commands that unpack parts which are still packed, by place.
    """

    root: pathlib.Path
    found: Mapping[str, pathlib.Path]
    archives: Mapping[str, str]

    def first(self, *places: str) -> pathlib.Path | None:
        """The path of the first of these parts that exists."""
        return next((self.found[place] for place in places if place in self.found), None)

    def lacks(self, place: str, source: str, level: str = 'missing') -> Finding:
        """The finding that a part is missing; `source` says where to get it."""
        return Finding(level, 'is not there', str(self.root / place), self.archives.get(place, source))


def listing(folder: str | os.PathLike) -> tuple[list[str], list[str]]:
    """Like `files.listing`; empty if the folder cannot be read."""
    try:
        return files.listing(folder)
    except OSError:
        return [], []


def is_name(name: object) -> bool:
    """Whether a name in a list is a valid file name; others must not become part of a path."""
    try:
        return bool(files.check_name(name, ''))
    except ValueError:
        return False


def quote(path: str | os.PathLike) -> str:
    """A path quoted for a shell; unprintable characters need Bash."""
    text = str(path)
    if text.isprintable():
        return shlex.quote(text)
    return (
        "$'"
        + ''.join(
            chr(byte) if 32 <= byte < 127 and chr(byte) not in "'\\" else f'\\x{byte:02x}' for byte in os.fsencode(text)
        )
        + "'"
    )


def faults(folder: str | os.PathLike, root: str | os.PathLike) -> dict[str, str] | None:
    """The fault of each file of a folder (a key of FAULTS, or ''), by name; None if the folder cannot be read."""
    found = {}
    try:
        with os.scandir(os.fspath(folder)) as entries:
            for entry in entries:
                if not files.is_junk(entry.name):
                    found[entry.name] = _fault(entry, root)
    except OSError:
        return None
    return found


def _fault(entry: os.DirEntry, root: str | os.PathLike) -> str:
    try:
        status = entry.stat()
        if not stat.S_ISREG(status.st_mode):
            return 'folders, pipes or devices in place of files'
        if not status.st_size:
            return 'files of zero bytes'
        if entry.is_symlink():
            files.check_regular(entry.path, below=root)
    except ValueError:
        return 'links that lead out of the data set'
    except OSError:
        return 'dead links'
    return ''


def some(names: Sequence, limit: int = 3) -> str:
    """The first few names, and the number of the others."""
    more = f' and {len(names) - limit:,} more' if len(names) > limit else ''
    return ', '.join(map(str, names[:limit])) + more


def counted(
    what: str, where: str | os.PathLike, found: int, known: int | None, about: bool = False, mend: str = ''
) -> Finding:
    """Compares a count with the known one. `about`: the known count is unreliable, so a difference is only a note."""
    if known is None:
        return Finding('ok', f'{what}: found {found:,}', str(where))
    text = f'{what}: found {found:,}, known {"about " if about else ""}{known:,}'
    if found == known or about:
        return Finding('ok' if found == known else 'note', text, str(where))
    mend = mend or (PART if found < known else 'Is it another release, or were two folders merged?')
    return Finding('missing' if found < known else 'wrong', text, str(where), mend)


def read(
    reader: Callable[..., T], file: pathlib.Path, findings: list[Finding], *arguments: object, mend: str = AGAIN
) -> T | None:
    """`reader(file, *arguments)`; if that raises OSError or ValueError, None and a finding."""
    try:
        return reader(file, *arguments)
    except (OSError, ValueError) as error:
        findings.append(Finding('wrong', reason(error, file), str(file), mend))
        return None


def reason(error: Exception, where: str | os.PathLike) -> str:
    """The message of an exception, without the path at its beginning."""
    return commands.message(error).removeprefix(files.printable(f'{where}: '))


class Problems:
    """Collects the faults of many files into one finding per kind of fault."""

    def __init__(self) -> None:
        self._examples: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)

    def add(self, level: str, what: str, where: str | os.PathLike, mend: str, example: str) -> None:
        self._examples[level, what, str(where), mend].append(example)

    def findings(self) -> list[Finding]:
        return [
            Finding(level, f'{what}: {len(examples):,} ({some(examples)})', where, mend)
            for (level, what, where, mend), examples in self._examples.items()
        ]


def begins_with(file: pathlib.Path, *heads: bytes, at: int = 0) -> bool:
    """Whether a file (a good one of `check_files`) has one of these byte strings at offset `at`."""
    try:
        with open(file, 'rb') as stream:
            return stream.read(at + len(heads[0]))[at:] in heads
    except OSError:
        return False


@contextlib.contextmanager
def warnings() -> Iterator[list[str]]:
    """Yields a list that collects the warnings instead of logging them."""
    said: list[str] = []
    logger = logging.get_absl_logger()
    handler = _Collector(said)
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated


class _Collector(python_logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(python_logging.WARNING)
        self._said = said

    def emit(self, record: python_logging.LogRecord) -> None:
        self._said.append(files.printable(record.getMessage()))


def progress(items: Iterable[T], what: str, unit: str = 'video') -> Iterable[T]:
    """Iterates with a progress bar, which appears after a second."""
    return tqdm.tqdm(items, desc=what, unit=unit, delay=1)


def check_files(
    there: Mapping[str, str],
    wanted: Sequence[str],
    endings: Sequence[str],
    problems: Problems,
    where: str | os.PathLike,
    prefix: str = '',
) -> list[str]:
    """The good files among the wanted ones; adds a problem for each of the others.

    Args:
        there: the result of `faults`.
        wanted: names without ending.
        endings: allowed ones (case-insensitive); the first is the usual one.
    """
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in sorted(there):
        by_stem[os.path.splitext(name)[0]].append(name)
    good = []
    for stem in wanted:
        found = [name for name in by_stem[stem] if os.path.splitext(name)[1].lower() in endings]
        if len(found) == 1 and not there[found[0]]:
            good.append(found[0])
        elif len(found) == 1:
            problems.add('wrong', there[found[0]], where, FAULTS[there[found[0]]], prefix + found[0])
        elif found:
            problems.add(
                'wrong',
                'several files of one frame, with different endings',
                where,
                'Remove all but one.',
                prefix + ' '.join(found),
            )
        elif by_stem[stem]:
            other = by_stem[stem][0]
            problems.add(
                'wrong',
                f'files end in {os.path.splitext(other)[1]}, not in {endings[0]}',
                where,
                'Take the files of the release; do not convert or rename them.',
                prefix + other,
            )
        else:
            problems.add('missing', 'files that are listed and not there', where, AGAIN, prefix + stem + endings[0])
    return good


def check_frames(
    videos: Mapping[str, Sequence[str]],
    frames: Sequence[pathlib.Path],
    masks: Sequence[pathlib.Path] | None,
    root: pathlib.Path,
    kind: str = pictures.JPEG,
) -> list[Finding]:
    """Checks that each listed frame and its mask exist, and the headers of the first and the last.

    Args:
        videos: names of each video's frames, without ending; a key may be a path of several folders.
        frames: folders of videos; each video is taken from the first that has it: <frames>/<video>/<frame>.jpg (.png).
        masks: like frames: <masks>/<video>/<frame>.png, palette or grey; None without ground truth.
        root: of the data set.
        kind: format of the frames, 'JPEG' or 'PNG'.
    """
    problems = Problems()
    endings = ('.jpg', '.jpeg') if kind == pictures.JPEG else ('.png',)
    for video, names in progress(videos.items(), f'looking at {frames[0]}'):
        size = None
        for folders, of_kind, ends in ((frames, kind, endings), (masks, pictures.PNG, ('.png',))):
            if folders is None:
                continue
            folder = next((folder for folder in folders if (folder / video).is_dir()), folders[0])
            there = faults(folder / video, root)
            if there is None:
                problems.add('missing', 'folders of videos that are listed and not there', folder, AGAIN, video)
                continue
            good = check_files(there, names, ends, problems, folder, f'{video}/')
            unlisted = {os.path.splitext(name)[0] for name in there if name.lower().endswith('.png')} - set(names)
            if folders is masks and unlisted:
                problems.add('note', 'videos with masks of unlisted frames, which are ignored', folder, '', video)
            for name in dict.fromkeys(good[:1] + good[-1:]):
                example = f'{video}/{name}'
                try:
                    header = pictures.read_header(folder / video / name)
                    check_frame_size(header.height, header.width, 'the frame')
                except (OSError, ValueError) as error:
                    problems.add(
                        'wrong', f'broken images ({reason(error, folder / video / name)})', folder, AGAIN, example
                    )
                    continue
                if header.format != of_kind:
                    problems.add(
                        'wrong',
                        f'files that are {header.format}, not {of_kind}',
                        folder,
                        'Take the files of the release as they are.',
                        example,
                    )
                if folders is masks and header.mode not in ('P', 'L', '1'):
                    problems.add(
                        'wrong',
                        f'masks of colour mode {header.mode}; a mask holds object ids (mode P or L)',
                        folder,
                        'Take the masks of the release as they are.',
                        example,
                    )
                size = size or (header.width, header.height)
                if (header.width, header.height) != size:
                    problems.add(
                        'wrong',
                        'images that differ in size from the first of their video',
                        folder,
                        'Take frames and masks of one release, at one size.',
                        f'{example} is {header.width}x{header.height}, not {size[0]}x{size[1]}',
                    )
    return problems.findings()
