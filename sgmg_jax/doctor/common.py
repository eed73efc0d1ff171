"""What the checks of all data sets share: a finding, listings of folders, headers of images."""
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import json
import os
import pathlib

from PIL import Image
import tqdm

PART = 'This copy is a part of the data set, which can be built too; for all of it unpack its archives again.'
AGAIN = 'Unpack it again from its archive; if it stays so, download the archive again.'


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


def is_junk(name: str) -> bool:
    """What macOS and Windows leave behind."""
    return name in ('__MACOSX', '.DS_Store', 'Thumbs.db', 'desktop.ini') or name.startswith('._')


def listing(folder: str | os.PathLike) -> tuple[list[str], list[str]]:
    """Sorted names of the folders and of the files in a folder, without junk; empty where it cannot be read."""
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not is_junk(entry.name):
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError:
        pass
    return sorted(folders), sorted(files)


def file_sizes(folder: str | os.PathLike) -> dict[str, int] | None:
    """Bytes of every file of a folder by name, -1 for a dead link; None where there is no such folder."""
    sizes = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not is_junk(entry.name):
                    try:
                        sizes[entry.name] = entry.stat().st_size
                    except OSError:
                        sizes[entry.name] = -1
    except OSError:
        return None
    return sizes


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


def read_json(file: pathlib.Path, findings: list[Finding]):
    """The content of a JSON file; None, and a finding, where it has none."""
    try:
        return json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        empty = file.is_file() and not file.stat().st_size
        findings.append(Finding('wrong', 'is empty' if empty else f'is not JSON ({error})', str(file), AGAIN))
        return None


class Problems:
    """Faults of many files, gathered into one finding a kind."""

    def __init__(self):
        self._examples = defaultdict(list)

    def add(self, level: str, what: str, where: str | os.PathLike, mend: str, example: str):
        self._examples[level, what, str(where), mend].append(example)

    def findings(self) -> list[Finding]:
        return [Finding(level, f'{what}: {len(examples):,} ({some(examples)})', where, mend)
                for (level, what, where, mend), examples in self._examples.items()]


def open_image(file: str | os.PathLike, pixels: bool) -> Image.Image:
    """An image whose header is read, or, with `pixels`, all of it.

    Raises:
        OSError, SyntaxError: for a broken one; Pillow raises both.
    """
    with Image.open(file) as image:
        if pixels:
            image.load()
    return image


def progress(items: Iterable, what: str, unit: str = 'video'):
    """A progress bar that only long work shows."""
    return tqdm.tqdm(items, desc=what, unit=unit, delay=1)


def check_files(sizes: Mapping[str, int], wanted: Sequence[str], problems: Problems,
                where: str | os.PathLike, prefix: str = '') -> list[str]:
    """Those of the wanted files that are there and not empty; the others become problems."""
    good = []
    others = None
    for name in wanted:
        size = sizes.get(name)
        if size is not None and size > 0:
            good.append(name)
        elif size is None:
            others = others or {pathlib.PurePath(other).stem: other for other in sizes}
            other = others.get(pathlib.PurePath(name).stem)
            if other is None:
                problems.add('missing', 'files that are listed and not there', where, AGAIN, prefix + name)
            else:
                problems.add('wrong', f'files end in {pathlib.PurePath(other).suffix}, not in '
                             f'{pathlib.PurePath(name).suffix}', where,
                             'Take the files of the release; do not convert or rename them.', prefix + other)
        elif size < 0:
            problems.add('wrong', 'dead links', where, 'Mend the links, or put the files in their place.',
                         prefix + name)
        else:
            problems.add('wrong', 'files of zero bytes', where, 'Was the disk full? ' + AGAIN, prefix + name)
    return good


def check_frames(videos: Mapping[str, Sequence[str]], frames: pathlib.Path, masks: pathlib.Path | None, pixels: bool,
                 ending: str = '.jpg', on_masks: Callable[[str, set[int]], None] | None = None) -> list[Finding]:
    """Looks whether each listed frame, and its mask, is there, and at the headers of the first and the last.

    Args:
        videos: names of the frames of each video, without ending; a key may be a path of several folders.
        frames: <frames>/<video>/<frame><ending>.
        masks: <masks>/<video>/<frame>.png of palette or grey values; None without ground truth.
        pixels: decode all files instead of the headers of two a video.
        on_masks: called with each video and the ids in its masks, if `pixels`.
    """
    problems = Problems()
    for video, names in progress(videos.items(), f'looking at {frames}'):
        size = None
        for folder, end in ((frames, ending), (masks, '.png')):
            if folder is None:
                continue
            sizes = file_sizes(folder / video)
            if sizes is None:
                problems.add('missing', 'folders of videos that are listed and not there', folder, AGAIN, video)
                continue
            good = check_files(sizes, [name + end for name in names], problems, folder, f'{video}/')
            if folder is masks:
                lone = sorted({n[:-4] for n in sizes if n.endswith('.png')} - set(names))
                if lone:
                    problems.add('note', 'videos with masks of frames that are not listed, which are not used',
                                 masks, '', video)
            ids = set()
            for name in good if pixels else dict.fromkeys(good[:1] + good[-1:]):
                example = f'{video}/{name}'
                try:
                    image = open_image(folder / video / name, pixels)
                except (OSError, SyntaxError) as error:
                    reason = 'not an image' if 'cannot identify' in str(error) else error
                    problems.add('wrong', f'broken images ({reason})', folder, AGAIN, example)
                    continue
                if end == '.jpg' and image.format != 'JPEG':
                    problems.add('wrong', f'files that are {image.format}, not JPEG', folder,
                                 'Take the frames of the release as they are.', example)
                if folder is masks and image.mode not in ('P', 'L', '1'):
                    problems.add('wrong', f'masks of colour mode {image.mode}; a mask holds object ids (mode P or L)',
                                 folder, 'Take the masks of the release as they are.', example)
                elif folder is masks and pixels:
                    ids |= {value for _, value in image.getcolors(256)}
                size = size or image.size
                if image.size != size:
                    problems.add('wrong', 'images of another size than the first of their video', folder,
                                 'Take frames and masks of one release, at one size.',
                                 f'{example} is {image.width}x{image.height}, not {size[0]}x{size[1]}')
            if folder is masks and pixels and on_masks and len(good) == len(names):
                on_masks(video, ids)
    return problems.findings()
