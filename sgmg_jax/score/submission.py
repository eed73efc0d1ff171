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
import os
import pathlib
import typing
import zipfile

import numpy as np
from PIL import Image

from sgmg_jax import files, pictures
from sgmg_jax.processes import for_each
from sgmg_jax.score import common, zips

TOP = 'Annotations'
LARGEST_PNG = 2 ** 26  # bytes of a mask; without compression, one of pictures.MOST_PIXELS has half of it
LARGEST_SUBMISSION = 2 ** 34  # bytes of all files in a zip


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
    read: the bytes of one of `files`. Raises OSError or ValueError, which says why, for one that is not there or
      damaged, larger than LARGEST_PNG, encrypted, a pipe, or a link that leads out of the submission.
    """
    path: str
    files: tuple[str, ...]
    read: Callable[[str], bytes]


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
    images = [Image.fromarray(mask.astype(np.uint8) * 255) for mask in masks]
    _write_pngs(pathlib.Path(root), (TOP, video, expression_id), frame_names, images)


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
    images = [Image.fromarray(index) for index in maps]
    for image in images:
        image.putpalette(pictures.PALETTE)
    _write_pngs(pathlib.Path(root), (video,), frame_names, images)


def _write_pngs(root: pathlib.Path, parts: Sequence[str], frame_names: Sequence[str], images: list[Image.Image]):
    for part in parts:
        files.check_name(part, 'the name of a folder of masks')
    where = '/'.join(parts)
    for name in frame_names:
        files.check_name(name, f'{where}: the name of a frame')
    if len(images) != len(frame_names) or len(set(frame_names)) != len(frame_names):
        raise ValueError(f'{where}: {len(images)} masks for {len(set(frame_names))} distinct frame names '
                         f'of {len(frame_names)}: each frame needs one')
    folder = root.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(frame_names, images):
        with files.replacing(folder / f'{name}.png') as partial:
            image.save(partial, 'PNG')


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
        ValueError: there is a link to a folder, or a mask is no file, or a link that leads out of `root`.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    root, zip_path = pathlib.Path(root), pathlib.Path(zip_path)
    names = [name for top in tops for name in _files_below(root, root / top)
             if name.endswith('.png') and not name.rpartition('/')[2].startswith('.')]
    if not names:
        raise FileNotFoundError(f'{root}: no mask to zip in {" or ".join(tops)}; give the folder that holds them')
    with files.replacing(zip_path) as partial, zipfile.ZipFile(partial, 'w') as archive:
        for name in sorted(names):
            # ZipInfo's own date is fixed: the time of writing would change the bytes.
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = 0o644 << 16
            archive.writestr(info, files.read_bytes(root / name, LARGEST_PNG, below=root))
    return len(names)


@contextlib.contextmanager
def open_submission(path, top: str = TOP) -> Iterator[Submission]:
    """Opens a submission, be it a folder or a zip.

    Args:
        top: of a folder that holds this one, only what is in there counts; '' for all.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: it is neither a folder nor a zip, the zip is damaged or too large, or the folder has a link to
            another.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        names = _files_below(path, path / top if (path / top).is_dir() else path)
        there = set(names)

        def read(name):
            if name not in there:
                raise FileNotFoundError('there is no such file')
            return files.read_bytes(path / name, LARGEST_PNG, below=path)

        yield Submission(str(path), tuple(names), read)
        return
    if not path.exists():
        raise FileNotFoundError(f'{path}: there is no such submission; give a zip, or a folder that '
                                f'holds {TOP}/')
    with zips.open_zip(path) as archive:
        infos = [info for info in archive.infolist() if not info.filename.endswith('/')]
        size = sum(info.file_size for info in infos)
        if size > LARGEST_SUBMISSION:
            raise ValueError(f'{path}: its files have {size:,} bytes when unpacked, at most {LARGEST_SUBMISSION:,} are '
                             'read. Is it the right zip?')
        yield Submission(str(path), tuple(info.filename for info in infos),
                         lambda name: zips.read_member(archive, name, LARGEST_PNG))


def _files_below(root: pathlib.Path, top: pathlib.Path) -> list[str]:
    """Names, relative to `root`, of all files below one of its folders. ValueError for a link to a folder."""
    def check(folder):
        if os.path.islink(folder):
            raise ValueError(f'{folder}: is a link to another folder, which is not followed. Copy that folder here.')

    def fail(error):
        raise error

    names = []
    if top != root:
        check(top)
    for folder, folders, others in os.walk(top, onerror=fail) if top.is_dir() else ():
        for name in folders:
            check(os.path.join(folder, name))
        names += [pathlib.Path(folder, name).relative_to(root).as_posix() for name in others]
    return sorted(names)


def read_mask(submission: Submission, video: str, expression_id: str, frame_name: str,
              size: tuple[int, int] | None = None) -> np.ndarray:
    """One mask of a submission: bool [H W], True where the PNG is above 127.

    Args:
        size: (H, W) that it must have; None: any.

    Raises:
        ValueError: the file is missing, unreadable, not 8-bit single-channel or of another size; the message names it.
    """
    name = mask_path(video, expression_id, frame_name)
    try:
        data = submission.read(name)
        header = pictures.read_header(data, [pictures.PNG])
        if size is None or (header.height, header.width) == tuple(size):
            return pictures.read_pixels(data, [pictures.PNG], modes=['L']) > 127
    except (OSError, ValueError) as error:
        raise ValueError(f'{submission.path}: cannot read {name} ({error}); '
                         f'check the submission, then write it again') from error
    raise ValueError(f'{submission.path}: {name} is {header.height, header.width} (H, W), its frame {tuple(size)}: '
                     'write masks at the size of the frames')


def check_submission(path, expected: Iterable[ExpectedVideo], processes: int = 1,
                     progress: bool = False) -> list[common.Problem]:
    """Finds whatever an evaluation server would choke on.

    Every mask is decoded. A wrong top folder is reported and then looked through, so that one check
    shows all that is wrong inside.

    Args:
        path: of the folder or zip.
        expected: a row (video, frame names, (H, W), expression ids) for each video.
        processes: that decode masks.
        progress: show a progress bar on stderr.

    Returns:
        One `common.Problem` for each kind found, an empty list if all is well.

    Raises:
        FileNotFoundError, ValueError: as `open_submission`.
    """
    expected = [ExpectedVideo(*row) for row in expected]
    found = collections.defaultdict(list)  # (kind, mend) -> where
    with open_submission(path) as submission:
        there = _under_top(submission, {video.name for video in expected}, found)
    find_duplicates(submission, found)
    _check_files(set(there), expected, found)
    for of_video in for_each(_open_masks, (path, there, expected), len(expected), processes, 'checking', progress):
        for key, where in of_video.items():
            found[key] += where
    return common.problems_of(found)


def find_duplicates(submission: Submission, found: dict[tuple[str, str], list[str]]):
    """Adds to what is found the names that a zip has more than once: only the last of them is ever read."""
    for name, count in collections.Counter(submission.files).items():
        if count > 1:
            found['file twice in the zip', 'zip the folder anew'].append(name)


def _under_top(submission: Submission, videos: set[str], found) -> dict[str, str]:
    """What lies under the top folder: the name it should have -> the name it has."""
    names = []
    for name in submission.files:
        parts = name.split('/')
        if any(map(files.is_junk, parts)):
            found["operating system's junk", f"delete it; zip with: zip -r -X submission.zip {TOP} "
                  "-x '*/.*' '__MACOSX*'"].append(name)
        elif '\\' in name or {'', '.', '..'} & set(parts):
            found['path that leads elsewhere', 'names in a zip are relative, with / between their parts and without '
                  f'. or ..; zip with: zip -r -X submission.zip {TOP}'].append(name)
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
            found[f'file outside {files.one_line(top)}', f'only {TOP}/ may be in the zip: delete the rest'].append(name)
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


def _check_files(there: set[str], expected: list[ExpectedVideo], found):
    """Missing and unexpected files, each at the highest level that is whole missing or unexpected."""
    if not there:
        return
    folders = {'/'.join(name.split('/')[:depth]) for name in there for depth in (2, 3)}
    wanted_folders, wanted_files = set(), set()
    for video in expected:
        folder = f'{TOP}/{video.name}'
        wanted_folders.add(folder)
        if folder not in folders:
            found['missing video', 'predict it: the benchmark counts every video of the split'].append(folder)
        for expression_id in video.expression_ids:
            expression = f'{folder}/{expression_id}'
            wanted_folders.add(expression)
            if folder in folders and expression not in folders:
                found['missing expression', 'predict it: every expression of a video needs a folder named '
                      'as its key in meta_expressions.json'].append(expression)
            for frame in video.frame_names:
                name = mask_path(video.name, expression_id, frame)
                wanted_files.add(name)
                if expression in folders and name not in there:
                    found['missing frame', 'write a PNG for every frame that meta_expressions.json lists; '
                          'all black where the object is absent'].append(name)
    seen = set()
    for name in sorted(there - wanted_files):
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
def _open_masks(path, there: dict[str, str], expected: list[ExpectedVideo]) -> Iterator[Callable[[int], dict]]:
    with open_submission(path) as submission:
        def work(index):
            """What is wrong with the masks of one video."""
            found, video = collections.defaultdict(list), expected[index]
            for expression_id in video.expression_ids:
                for frame in video.frame_names:
                    name = mask_path(video.name, expression_id, frame)
                    if name in there:
                        _check_png(submission, there[name], video.size, found)
            return dict(found)
        yield work


def _check_png(submission: Submission, name: str, size: tuple[int, int], found):
    pixels = read_png(submission, name, size, ['L'], "save 8-bit single-channel PNGs: Pillow's mode L, no palette, no "
                      'colour', found)
    if pixels is not None:
        counts = np.bincount(pixels.ravel(), minlength=256)
        values = [value for value in range(1, 255) if counts[value]]
        if values:
            found['values other than 0 and 255', 'write 0 for background and 255 for the object: '
                  '(logits > 0).astype(uint8) * 255'].append(f'{name}: {len(values)} others, from {values[0]} on')


def read_png(submission: Submission, name: str, size: tuple[int, int], modes: Sequence[str], mend_mode: str,
             found: dict[tuple[str, str], list[str]]) -> np.ndarray | None:
    """The pixels of a PNG of a submission, uint8 [H W]; None, and what is wrong with it added to `found`.

    Args:
        size: (H, W) that it must have. modes: Pillow's, that it may have. mend_mode: what to do about another.
    """
    try:
        data = submission.read(name)
        header = pictures.read_header(data, [pictures.PNG])
        if (header.height, header.width) != tuple(size):
            found['wrong size', "resize the logits to the size of the video's frames before the threshold"].append(
                f'{name}: H x W is {header.height} x {header.width}, of its frames {size[0]} x {size[1]}')
        if header.mode not in modes:
            found['wrong mode', mend_mode].append(f'{name}: mode {header.mode}, not {" or ".join(modes)}')
        elif (header.height, header.width) == tuple(size):
            return pictures.read_pixels(data, [pictures.PNG], size, modes)
    except (OSError, ValueError) as error:
        found['unreadable PNG', 'write it again: the file is damaged or not a PNG'].append(f'{name}: {error}')
    return None
