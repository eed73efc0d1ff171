"""Leaderboard files of Ref-YouTube-VOS and Ref-DAVIS in that layout: write, zip, read, check.

A submission is a zip with one top folder:

    Annotations/<video>/<expression id>/<frame name>.png

8-bit single-channel PNGs (mode L) of the frame's own size with values 0 and 255, one for every frame of
every expression, all black where the object is absent. The evaluation server does not explain what it
rejects: some faults only turn the scores into nan. `check_submission` finds them before the upload.

Axis letters: T frames, H W pixels.
"""
import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import dataclasses
import io
import os
import pathlib
import struct
import typing
import zipfile
import zlib

import numpy as np
from PIL import Image

from sgmg_jax.files import replacing
from sgmg_jax.processes import for_each

TOP = 'Annotations'
EXAMPLES = 3  # shown for each kind of problem
JUNK = ('.DS_Store', 'Thumbs.db', 'desktop.ini')  # files that operating systems leave in folders

def _palette() -> list[int]:
    """PASCAL VOC's 256 colours: bits 0, 3, 6 of the index go to red, 1, 4, 7 to green, 2, 5, 8 to blue, high first."""
    return [sum((index >> 3 * bit + channel & 1) << 7 - bit for bit in range(8))
            for index in range(256) for channel in range(3)]


PALETTE = _palette()

# What Pillow and zipfile raise on a damaged file.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error, zlib.error,
              zipfile.BadZipFile, Image.DecompressionBombError)


class ExpectedVideo(typing.NamedTuple):
    """What a submission must hold for one video."""
    name: str
    frame_names: Sequence[str]  # without suffix
    size: tuple[int, int]  # (H, W)
    expression_ids: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Submission:
    """A folder or a zip of masks, read alike.

    path: where it lies.
    files: every file's name relative to the submission, '/' between its parts. Of a folder that has
      Annotations/ only what is in there: nothing beside it is ever zipped.
    read: the bytes of one of `files`.
    """
    path: str
    files: tuple[str, ...]
    read: Callable[[str], bytes]


@dataclasses.dataclass(frozen=True)
class Problem:
    """All faults of one kind.

    kind: what is wrong. count: how often. examples: the first few. mend: what to do about it.
    """
    kind: str
    count: int
    examples: tuple[str, ...]
    mend: str


def mask_path(video: str, expression_id: str, frame_name: str) -> str:
    """Where a submission keeps the mask of one frame."""
    return f'{TOP}/{video}/{expression_id}/{frame_name}.png'


def write_masks(root, video: str, expression_id: str, frame_names: Sequence[str], masks: np.ndarray):
    """Writes masks of one expression, for all of its frames or some.

    Args:
        root: the folder that holds, or will hold, Annotations/.
        frame_names: T names without suffix, as the data set lists them.
        masks: bool, [T H W], at the size of the video's frames.

    Raises:
        ValueError: the masks do not fit the frames, or a name cannot be a file's.
        OSError: the disk is full or not writable; no half-written mask is left behind.
    """
    masks = np.asarray(masks)
    if masks.dtype != bool or masks.ndim != 3:
        raise ValueError(f'video {video!r}, expression {expression_id!r}: masks must be bool [T H W], got '
                         f'{masks.dtype} {masks.shape}')
    pictures = [Image.fromarray(mask.astype(np.uint8) * 255) for mask in masks]
    _write_pngs(pathlib.Path(root), (TOP, video, expression_id), frame_names, pictures)


def write_maps(root, video: str, frame_names: Sequence[str], maps: np.ndarray):
    """Writes maps of all objects of a video, <root>/<video>/<frame>.png, with DAVIS's colours.

    Args:
        root: of Ref-DAVIS17 the folder anno_0 to anno_3 of one annotator.
        frame_names: T names without suffix.
        maps: uint8, [T H W], 0 for background, k for object k.

    Raises: as `write_masks`.
    """
    maps = np.asarray(maps)
    if maps.dtype != np.uint8 or maps.ndim != 3:
        raise ValueError(f'video {video!r}: maps must be uint8 [T H W], got {maps.dtype} {maps.shape}')
    pictures = [Image.fromarray(index) for index in maps]
    for picture in pictures:
        picture.putpalette(PALETTE)
    _write_pngs(pathlib.Path(root), (video,), frame_names, pictures)


def _write_pngs(root: pathlib.Path, parts: Sequence[str], frame_names: Sequence[str], pictures: list[Image.Image]):
    where = '/'.join(parts)
    if len(pictures) != len(frame_names) or len(set(frame_names)) != len(frame_names):
        raise ValueError(f'{where}: {len(pictures)} masks for {len(set(frame_names))} distinct frame names '
                         f'of {len(frame_names)}: each frame needs one')
    for name in (*parts, *frame_names):
        if not name or name.startswith('.') or '/' in name or '\\' in name:
            raise ValueError(f'{where}: {name!r} cannot name a file of a submission')
    folder = root.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in zip(frame_names, pictures):
        with replacing(folder / f'{name}.png') as partial:
            picture.save(partial, 'PNG')


def zip_submission(root, zip_path, tops: Sequence[str] = (TOP,)) -> int:
    """Zips the masks for the upload; the same masks always give the same bytes.

    Args:
        root: the folder that holds Annotations/.
        zip_path: appears whole or not at all; an earlier file there is replaced.
        tops: the folders of `root` that are zipped.

    Returns:
        How many masks the zip holds.

    Raises:
        FileNotFoundError: there is no mask in these folders.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    root, zip_path = pathlib.Path(root), pathlib.Path(zip_path)
    files = sorted(path.relative_to(root).as_posix() for top in tops for path in root.glob(f'{top}/**/*.png')
                   if not path.name.startswith('.'))
    if not files:
        raise FileNotFoundError(f'{root}: no mask to zip in {" or ".join(tops)}; give the folder that holds them')
    with replacing(zip_path) as partial, zipfile.ZipFile(partial, 'w') as archive:
        for name in files:
            # ZipInfo's own date is fixed: the time of writing would change the bytes.
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = 0o644 << 16
            archive.writestr(info, (root / name).read_bytes())
    return len(files)


@contextlib.contextmanager
def open_submission(path) -> Iterator[Submission]:
    """Opens a submission, be it a folder or a zip.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: it is neither a folder nor a zip, or the zip is damaged.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        yield Submission(str(path), tuple(_files_of_folder(path)), lambda name: (path / name).read_bytes())
        return
    if not path.exists():
        raise FileNotFoundError(f'{path}: there is no such submission; give a zip, or a folder that '
                                f'holds {TOP}/')
    with contextlib.ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(path))
        except zipfile.BadZipFile as error:
            raise ValueError(f'{path}: neither a folder nor a readable zip ({error}); '
                             f'zip the masks again') from error
        files = tuple(info.filename for info in archive.infolist() if not info.is_dir())
        yield Submission(str(path), files, archive.read)


def _files_of_folder(root: pathlib.Path) -> list[str]:
    top = root / TOP if (root / TOP).is_dir() else root
    return sorted(pathlib.Path(folder, name).relative_to(root).as_posix()
                  for folder, _, names in os.walk(top) for name in names)


def read_mask(submission: Submission, video: str, expression_id: str, frame_name: str) -> np.ndarray:
    """One mask of a submission: bool [H W], True where the PNG is above 127.

    Raises:
        ValueError: the file is missing, unreadable or not 8-bit single-channel; the message names it.
    """
    name = mask_path(video, expression_id, frame_name)
    try:
        with Image.open(io.BytesIO(submission.read(name)), formats=['PNG']) as image:
            if image.mode != 'L':
                raise ValueError(f'mode {image.mode}, not L')
            return np.asarray(image) > 127
    except (KeyError, *UNREADABLE) as error:
        raise ValueError(f'{submission.path}: cannot read {name} ({error}); '
                         f'check the submission, then write it again') from error


def check_submission(path, expected: Iterable[ExpectedVideo], processes: int = 1,
                     progress: bool = False) -> list[Problem]:
    """Finds whatever an evaluation server would choke on.

    Every mask is decoded. A wrong top folder is reported and then looked through, so that one check
    shows all that is wrong inside.

    Args:
        path: of the folder or zip.
        expected: a row (video, frame names, (H, W), expression ids) for each video.
        processes: that decode masks.
        progress: show a progress bar on stderr.

    Returns:
        One `Problem` for each kind found, an empty list if all is well.

    Raises:
        FileNotFoundError, ValueError: as `open_submission`.
    """
    expected = [ExpectedVideo(*row) for row in expected]
    found = collections.defaultdict(list)  # (kind, mend) -> where
    with open_submission(path) as submission:
        files = _under_top(submission, {video.name for video in expected}, found)
    for name, count in collections.Counter(submission.files).items():
        if count > 1:
            found['file twice in the zip', 'zip the folder anew'].append(name)
    _check_files(set(files), expected, found)
    for of_video in for_each(_open_masks, (path, files, expected), len(expected), processes, 'checking', progress):
        for key, where in of_video.items():
            found[key] += where
    return [Problem(kind, len(where), tuple(where[:EXAMPLES]), mend) for (kind, mend), where in found.items()]


def format_problems(problems: Sequence[Problem]) -> str:
    """The problems for people: kind and count, the first examples, how to mend it."""
    lines = []
    for problem in problems:
        lines.append(f'{problem.kind}: {problem.count:,}')
        lines.extend(f'    {example}' for example in problem.examples)
        if problem.count > len(problem.examples):
            lines.append(f'    ... and {problem.count - len(problem.examples):,} more')
        lines.append(f'    to mend: {problem.mend}')
    return '\n'.join(lines)


def _under_top(submission: Submission, videos: set[str], found) -> dict[str, str]:
    """What lies under the top folder: the name it should have -> the name it has."""
    names = []
    for name in submission.files:
        parts = name.split('/')
        if '__MACOSX' in parts or parts[-1].startswith('._') or parts[-1] in JUNK:
            found["operating system's junk", f"delete it; zip with: zip -r -X submission.zip {TOP} "
                  "-x '*/.*' '__MACOSX*'"].append(name)
        else:
            names.append(name)

    kind, top = 'wrong top folder', _find_top([name.split('/') for name in names], videos)
    if top is None:
        found[kind, f'there is no {TOP}/ in it, nor a video of this split: is it the right folder or zip?'
              ].append(names[0] if names else f'{submission.path} holds no file')
        return {}
    if top == '':
        found[kind, f'put the videos into one folder {TOP}/ and zip that folder (of a folder, give the one '
              f'that holds {TOP}/)'].append(f'{names[0]} should be {TOP}/{names[0]}')
    elif top.endswith(f'/{TOP}/'):
        found[kind, f'{TOP}/ must be at the top: zip from inside {top.removesuffix(TOP + "/")} with '
              f'zip -r submission.zip {TOP}'].append(top)
    elif top != f'{TOP}/':
        found[kind, f'rename it to {TOP}/'].append(top)
    for name in names:
        if not name.startswith(top):
            found[f'file outside {top}', f'only {TOP}/ may be in the zip: delete the rest'].append(name)
    return {f'{TOP}/{name.removeprefix(top)}': name for name in names if name.startswith(top)}


def _find_top(names: list[list[str]], videos: set[str]) -> str | None:
    """What stands in the place of 'Annotations/', the likeliest first; None if nothing does."""
    for parts in names:
        if len(parts) > 1 and parts[0] == TOP:
            return f'{TOP}/'
    for parts in names:
        if TOP in parts[:-1]:
            return '/'.join(parts[:parts.index(TOP) + 1]) + '/'
    for depth in (0, 1):
        for parts in names:
            if len(parts) > depth + 1 and parts[depth] in videos:
                return ''.join(f'{part}/' for part in parts[:depth])
    return None


def _check_files(files: set[str], expected: list[ExpectedVideo], found):
    """Missing and unexpected files, each at the highest level that is whole missing or unexpected."""
    if not files:
        return
    there = {'/'.join(name.split('/')[:depth]) for name in files for depth in (2, 3)}
    wanted_folders, wanted_files = set(), set()
    for video in expected:
        folder = f'{TOP}/{video.name}'
        wanted_folders.add(folder)
        if folder not in there:
            found['missing video', 'predict it: the benchmark counts every video of the split'].append(folder)
        for expression_id in video.expression_ids:
            expression = f'{folder}/{expression_id}'
            wanted_folders.add(expression)
            if folder in there and expression not in there:
                found['missing expression', 'predict it: every expression of a video needs a folder named '
                      'as its key in meta_expressions.json'].append(expression)
            for frame in video.frame_names:
                name = mask_path(video.name, expression_id, frame)
                wanted_files.add(name)
                if expression in there and name not in files:
                    found['missing frame', 'write a PNG for every frame that meta_expressions.json lists; '
                          'all black where the object is absent'].append(name)
    seen = set()
    for name in sorted(files - wanted_files):
        parts = name.split('/')
        for depth, kind in ((2, 'unexpected video'), (3, 'unexpected expression')):
            folder = '/'.join(parts[:depth])
            if len(parts) > depth and folder not in wanted_folders:
                if folder not in seen:
                    seen.add(folder)
                    found[kind, 'delete it, or check that this is the right split: the validation file of '
                          'Ref-YouTube-VOS also lists the test videos'].append(folder)
                break
        else:
            found['unexpected file', 'delete it, or rename it as the frame it belongs to: '
                  '<frame name>.png'].append(name)


@contextlib.contextmanager
def _open_masks(path, files: dict[str, str], expected: list[ExpectedVideo]) -> Iterator[Callable[[int], dict]]:
    with open_submission(path) as submission:
        def work(index):
            """What is wrong with the masks of one video."""
            found, video = collections.defaultdict(list), expected[index]
            for expression_id in video.expression_ids:
                for frame in video.frame_names:
                    name = mask_path(video.name, expression_id, frame)
                    if name in files:
                        _check_png(submission, files[name], video.size, found)
            return dict(found)
        yield work


def _check_png(submission: Submission, name: str, size: tuple[int, int], found):
    try:
        with Image.open(io.BytesIO(submission.read(name)), formats=['PNG']) as image:
            width, height = image.size
            if (height, width) != tuple(size):
                found['wrong size', "resize the logits to the size of the video's frames before the threshold"
                      ].append(f'{name}: H x W is {height} x {width}, of its frames {size[0]} x {size[1]}')
            if image.mode != 'L':
                found['wrong mode', "save 8-bit single-channel PNGs: Pillow's mode L, no palette, no colour"
                      ].append(f'{name}: mode {image.mode}, not L')
                image.load()
                return
            counts = image.histogram()
    except UNREADABLE as error:
        found['unreadable PNG', 'write it again: the file is damaged or not a PNG'].append(f'{name}: {error}')
        return
    values = [value for value in range(1, 255) if counts[value]]
    if values:
        found['values other than 0 and 255', 'write 0 for background and 255 for the object: '
              '(logits > 0).astype(uint8) * 255'].append(f'{name}: {len(values)} others, from {values[0]} on')
