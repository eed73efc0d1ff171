"""What the checks of all data sets share: a finding, listings of folders, headers of images."""
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import logging as python_logging
import os
import pathlib
import shlex
import stat

from absl import logging
import tqdm

from sgmg_jax import commands, files, pictures

PART = 'This copy is a part of the data set, which can be built too; for all of it unpack its archives again.'
AGAIN = 'Unpack it again from its archive; if it stays so, download the archive again.'
NO_NAME = 'videos whose name cannot be that of a folder'
# What can be wrong with a file before it is opened, and how to mend it.
FAULTS = {
    'dead links': 'Mend the links, or put the files in their place.',
    'files of zero bytes': 'Was the disk full? ' + AGAIN,
    'folders, pipes or devices in the place of files': 'Put the files in their place.',
    'links that lead out of the data set': 'Copy the files here, or link the whole folder that they lie in.'}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    level: 'ok', 'missing', 'wrong' (both stand in the way of a whole data set) or 'note'.
    what: the fact, with counts and examples. where: the file or folder. mend: what to do, often a command.
    """
    level: str
    what: str
    where: str
    mend: str = ''


@dataclasses.dataclass(frozen=True)
class Copy:
    """Somebody's copy of a data set.

    root: the folder that its builder takes. found: where each part lies, by the place where it belongs (relative
    to the root). archives: the commands that unpack parts which are still packed, by place.
    """
    root: pathlib.Path
    found: Mapping[str, pathlib.Path]
    archives: Mapping[str, str]

    def first(self, *places: str) -> pathlib.Path | None:
        """Where the first of these parts that is there lies."""
        return next((self.found[place] for place in places if place in self.found), None)

    def lacks(self, place: str, source: str, level: str = 'missing') -> Finding:
        """The finding that a part is not there; `source` says where it comes from."""
        return Finding(level, 'is not there', str(self.root / place), self.archives.get(place, source))


def listing(folder: str | os.PathLike) -> tuple[list[str], list[str]]:
    """As `files.listing`; empty where the folder cannot be read."""
    try:
        return files.listing(folder)
    except OSError:
        return [], []


def is_name(name) -> bool:
    """Whether a name in a list can be that of a file or folder; only then may it be looked for."""
    try:
        return bool(files.check_name(name, ''))
    except ValueError:
        return False


def quote(path: str | os.PathLike) -> str:
    """A path as a word of a command, for Bash if it has characters that do not print."""
    text = str(path)
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + ''.join(chr(byte) if 32 <= byte < 127 and chr(byte) not in "'\\" else f'\\x{byte:02x}'
                          for byte in os.fsencode(text)) + "'"


def faults(folder: str | os.PathLike, root: str | os.PathLike) -> dict[str, str] | None:
    """What is wrong with each file of a folder, a key of FAULTS or '', by name; None where it cannot be read."""
    found = {}
    try:
        with os.scandir(folder) as entries:
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
            return 'folders, pipes or devices in the place of files'
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
    """The first few names, and how many more there are."""
    more = f' and {len(names) - limit:,} more' if len(names) > limit else ''
    return ', '.join(map(str, names[:limit])) + more


def counted(what: str, where: str | os.PathLike, found: int, known: int | None, about: bool = False,
            mend: str = '') -> Finding:
    """Compares a count with the known one. `about`: the known one is hearsay, so that nothing follows from it."""
    if known is None:
        return Finding('ok', f'{what}: found {found:,}', str(where))
    text = f'{what}: found {found:,}, known {"about " if about else ""}{known:,}'
    if found == known or about:
        return Finding('ok' if found == known else 'note', text, str(where))
    mend = mend or (PART if found < known else 'Is it another release, or were two folders merged?')
    return Finding('missing' if found < known else 'wrong', text, str(where), mend)


def read(reader: Callable, file: pathlib.Path, findings: list[Finding], *arguments, mend: str = AGAIN):
    """`reader(file, *arguments)`; None, and a finding, where that raises."""
    try:
        return reader(file, *arguments)
    except (OSError, ValueError) as error:
        findings.append(Finding('wrong', reason(error, file), str(file), mend))
        return None


def reason(error: Exception, where: str | os.PathLike) -> str:
    """What an exception says, without the path that it begins with."""
    return commands.message(error).removeprefix(files.printable(f'{where}: '))


class Problems:
    """Faults of many files, gathered into one finding a kind."""

    def __init__(self):
        self._examples = defaultdict(list)

    def add(self, level: str, what: str, where: str | os.PathLike, mend: str, example: str):
        self._examples[level, what, str(where), mend].append(example)

    def findings(self) -> list[Finding]:
        return [Finding(level, f'{what}: {len(examples):,} ({some(examples)})', where, mend)
                for (level, what, where, mend), examples in self._examples.items()]


def begins_with(file: pathlib.Path, *heads: bytes, at: int = 0) -> bool:
    """Whether one of these bytes stands at a place of a file that is one of `check_files`' good ones."""
    try:
        with open(file, 'rb') as stream:
            return stream.read(at + len(heads[0]))[at:] in heads
    except OSError:
        return False


@contextlib.contextmanager
def warnings() -> Iterator[list[str]]:
    """Yields a list to which the warnings go that would be logged."""
    said, logger = [], logging.get_absl_logger()
    handler = python_logging.Handler(python_logging.WARNING)
    handler.emit = lambda record: said.append(files.printable(record.getMessage()))
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated


def progress(items: Iterable, what: str, unit: str = 'video'):
    """A progress bar that only long work shows."""
    return tqdm.tqdm(items, desc=what, unit=unit, delay=1)


def check_files(there: Mapping[str, str], wanted: Sequence[str], endings: Sequence[str], problems: Problems,
                where: str | os.PathLike, prefix: str = '') -> list[str]:
    """The good files among those that are wanted; the others become problems.

    Args:
        there: as `faults` gives it.
        wanted: names without ending.
        endings: that they may have, in capitals or not; the first is the usual one.
    """
    by_stem = defaultdict(list)
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
            problems.add('wrong', 'files of one frame, of several endings', where, 'Remove all but one.',
                         prefix + ' '.join(found))
        elif by_stem[stem]:
            other = by_stem[stem][0]
            problems.add('wrong', f'files end in {os.path.splitext(other)[1]}, not in {endings[0]}', where,
                         'Take the files of the release; do not convert or rename them.', prefix + other)
        else:
            problems.add('missing', 'files that are listed and not there', where, AGAIN, prefix + stem + endings[0])
    return good


def check_frames(videos: Mapping[str, Sequence[str]], frames: Sequence[pathlib.Path],
                 masks: Sequence[pathlib.Path] | None, root: pathlib.Path, kind: str = pictures.JPEG) -> list[Finding]:
    """Looks whether each listed frame, and its mask, is there, and at the headers of the first and the last.

    Args:
        videos: names of the frames of each video, without ending; a key may be a path of several folders.
        frames: folders of videos, of which the first that has one is taken: <frames>/<video>/<frame>.jpg, or .png.
        masks: <masks>/<video>/<frame>.png of palette or grey values; None without ground truth.
        root: of the data set.
        kind: of the frames, 'JPEG' or 'PNG'.
    """
    from sgmg_jax.data.metadata import check_frame_size  # Late: it takes a second.

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
            lone = {os.path.splitext(name)[0] for name in there if name.lower().endswith('.png')} - set(names)
            if folders is masks and lone:
                problems.add('note', 'videos with masks of frames that are not listed, which are not used',
                             folder, '', video)
            for name in dict.fromkeys(good[:1] + good[-1:]):
                example = f'{video}/{name}'
                try:
                    header = pictures.read_header(folder / video / name)
                    check_frame_size(header.height, header.width, 'the frame')
                except (OSError, ValueError) as error:
                    problems.add('wrong', f'broken images ({reason(error, folder / video / name)})', folder, AGAIN,
                                 example)
                    continue
                if header.format != of_kind:
                    problems.add('wrong', f'files that are {header.format}, not {of_kind}', folder,
                                 'Take the files of the release as they are.', example)
                if folders is masks and header.mode not in ('P', 'L', '1'):
                    problems.add('wrong', f'masks of colour mode {header.mode}; a mask holds object ids (mode P or L)',
                                 folder, 'Take the masks of the release as they are.', example)
                size = size or (header.width, header.height)
                if (header.width, header.height) != size:
                    problems.add('wrong', 'images of another size than the first of their video', folder,
                                 'Take frames and masks of one release, at one size.',
                                 f'{example} is {header.width}x{header.height}, not {size[0]}x{size[1]}')
    return problems.findings()
