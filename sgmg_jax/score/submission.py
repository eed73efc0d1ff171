"""Leaderboard files of Ref-YouTube-VOS, and of Ref-DAVIS in its layout: write, zip, read, check.

A submission is a zip with one top folder:

    Annotations/<video>/<expression id>/<frame name>.png

Its files are 8-bit single-channel PNGs (mode L) of the size of the frame with values 0 and 255, one for each frame of
each expression, all black where the object is absent. The evaluation server does not explain why it rejects a file, and
some faults only turn scores into nan. `check_submission` finds them before the upload.

Axis letters: T frames, H W pixels.
"""
import collections
from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import os
import pathlib
import typing
import zipfile

from jaxtyping import Bool, UInt8
import numpy as np
from PIL import Image

from sgmg_jax import files, pictures
from sgmg_jax.processes import for_each
from sgmg_jax.score import common, zips

TOP = 'Annotations'
LARGEST_PNG = 2 ** 26  # bytes of a mask: twice as many as pictures.MOST_PIXELS pixels need uncompressed
LARGEST_SUBMISSION = 2 ** 34  # bytes of all files in a zip


class ExpectedVideo(typing.NamedTuple):
    """What a submission must contain for one video: frame_names without suffix, size as (H, W)."""
    name: str
    frame_names: Sequence[str]
    size: tuple[int, int]
    expression_ids: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Submission:
    """A folder or a zip of masks, read alike.

    path: its path.
    files: the name of every file relative to the submission, with '/' as separator. For a folder that contains
        Annotations/, only the files in there: nothing else is zipped.
    read: function(name in `files`) -> bytes. Raises OSError or ValueError, with the reason, if the file is missing,
        damaged, larger than LARGEST_PNG, encrypted, a pipe, or a link out of the submission.
    """
    path: str
    files: tuple[str, ...]
    read: Callable[[str], bytes]


def mask_path(video: str, expression_id: str, frame_name: str) -> str:
    """The name of the mask of a frame in a submission."""
    return f'{TOP}/{video}/{expression_id}/{frame_name}.png'


@typing.no_type_check  # checks its own arguments
def write_masks(root: str | os.PathLike, video: str, expression_id: str, frame_names: Sequence[str],
                masks: Bool[np.ndarray, 'T H W']) -> None:
    """Writes masks of an expression, for all of its frames or some.

    Args:
        root: the parent folder of Annotations/, which may not exist yet.
        frame_names: T names without suffix, as in the data set.
        masks: at the size of the frames of the video.

    Raises:
        ValueError: the masks do not fit the frames, or a name is not a valid file name.
        OSError: the disk is full or read-only; no half-written mask remains.
    """
    masks = np.asarray(masks)
    if masks.dtype != bool or masks.ndim != 3:
        raise ValueError(f'video {video!r}, expression {expression_id!r}: masks must be bool [T H W], got '
                         f'{masks.dtype} {masks.shape}')
    images = [Image.fromarray(mask.astype(np.uint8) * 255) for mask in masks]
    _write_pngs(pathlib.Path(root), (TOP, video, expression_id), frame_names, images)


@typing.no_type_check  # checks its own arguments
def write_maps(root: str | os.PathLike, video: str, frame_names: Sequence[str], maps: UInt8[np.ndarray, 'T H W']
               ) -> None:
    """Writes index maps of the objects of a video, <root>/<video>/<frame>.png, with the palette of DAVIS.

    Args:
        root: for Ref-DAVIS17 the folder of one annotator, anno_0 to anno_3.
        frame_names: T names without suffix.
        maps: 0 for background, k for object k.

    Raises: as `write_masks`.
    """
    maps = np.asarray(maps)
    if maps.dtype != np.uint8 or maps.ndim != 3:
        raise ValueError(f'video {video!r}: maps must be uint8 [T H W], got {maps.dtype} {maps.shape}')
    images = [Image.fromarray(index) for index in maps]
    for image in images:
        image.putpalette(pictures.PALETTE)
    _write_pngs(pathlib.Path(root), (video,), frame_names, images)


def _write_pngs(root, parts, frame_names, images):
    for part in parts:
        files.check_name(part, 'the name of a folder of masks')
    where = '/'.join(parts)
    for name in frame_names:
        files.check_name(name, f'{where}: the name of a frame')
    if len(images) != len(frame_names) or len(set(frame_names)) != len(frame_names):
        raise ValueError(f'{where}: {len(images)} masks for {len(frame_names)} frame names, {len(set(frame_names))} of '
                         'them distinct: each frame must have one mask')
    folder = root.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(frame_names, images):
        with files.replacing(folder / f'{name}.png') as partial:
            image.save(partial, 'PNG')


def zip_submission(root: str | os.PathLike, zip_path: str | os.PathLike, tops: Sequence[str] = (TOP,)) -> int:
    """Zips the masks for the upload; the same masks always give the same bytes.

    Args:
        root: the parent folder of Annotations/.
        zip_path: appears whole or not at all; an existing file is replaced.
        tops: the folders of `root` to zip.

    Returns:
        The number of masks in the zip.

    Raises:
        FileNotFoundError: these folders contain no mask.
        ValueError: there is a link to a folder, or a mask is not a file or is a link out of `root`.
        OSError: the disk is full or read-only; nothing remains.
    """
    root, zip_path = pathlib.Path(root), pathlib.Path(zip_path)
    names = [name for top in tops for name in _files_below(root, root / top)
             if name.endswith('.png') and not name.rpartition('/')[2].startswith('.')]
    if not names:
        raise FileNotFoundError(f'{root}: no mask to zip in {" or ".join(tops)}. Give the folder that holds them.')
    with files.replacing(zip_path) as partial, zipfile.ZipFile(partial, 'w') as archive:
        for name in sorted(names):
            # The default date of ZipInfo is fixed; the time of writing would change the bytes.
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = 0o644 << 16
            archive.writestr(info, files.read_bytes(root / name, LARGEST_PNG, below=root))
    return len(names)


@contextlib.contextmanager
def open_submission(path: str | os.PathLike, top: str = TOP) -> Iterator[Submission]:
    """Opens a submission, a folder or a zip.

    Args:
        top: if a folder contains a folder of this name, only files in there are listed; '' lists all.

    Raises:
        FileNotFoundError: `path` does not exist.
        ValueError: it is neither a folder nor a zip, the zip is damaged or too large, or the folder contains a link to
            another folder.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        names = _files_below(path, path / top if (path / top).is_dir() else path)
        there = set(names)

        def read(name: str) -> bytes:
            if name not in there:
                raise FileNotFoundError('no such file')
            return files.read_bytes(path / name, LARGEST_PNG, below=path)

        yield Submission(str(path), tuple(names), read)
        return
    if not path.exists():
        raise FileNotFoundError(f'{path}: no such submission. Give a zip, or a folder that contains {TOP}/.')
    with zips.open_zip(path) as archive:
        infos = [info for info in archive.infolist() if not info.filename.endswith('/')]
        size = sum(info.file_size for info in infos)
        if size > LARGEST_SUBMISSION:
            raise ValueError(f'{path}: its files have {size:,} bytes uncompressed, must have at most '
                             f'{LARGEST_SUBMISSION:,}. Is it the right zip?')
        yield Submission(str(path), tuple(info.filename for info in infos),
                         lambda name: zips.read_member(archive, name, LARGEST_PNG))


def _files_below(root: pathlib.Path, top: pathlib.Path) -> list[str]:
    """Names, relative to `root`, of all files below `top`. Raises ValueError for a link to a folder."""
    def check(folder: str | os.PathLike) -> None:
        if os.path.islink(folder):
            raise ValueError(f'{folder}: is a link to another folder; links are not followed. Copy that folder here.')

    def fail(error: OSError) -> None:
        raise error

    names: list[str] = []
    if top != root:
        check(top)
    for folder, folders, others in os.walk(top, onerror=fail) if top.is_dir() else ():
        for name in folders:
            check(os.path.join(folder, name))
        names += [pathlib.Path(folder, name).relative_to(root).as_posix() for name in others]
    return sorted(names)


def read_mask(submission: Submission, video: str, expression_id: str, frame_name: str,
              size: tuple[int, int] | None = None) -> Bool[np.ndarray, 'H W']:
    """One mask of a submission: True where the PNG is above 127.

    Args:
        size: required (H, W); None: any.

    Raises:
        ValueError: the file is missing, unreadable, not 8-bit single-channel or of another size; names it.
    """
    name = mask_path(video, expression_id, frame_name)
    try:
        data = submission.read(name)
        header = pictures.read_header(data, [pictures.PNG])
        if size is None or (header.height, header.width) == tuple(size):
            return pictures.read_pixels(data, [pictures.PNG], modes=['L']) > 127
    except (OSError, ValueError) as error:
        raise ValueError(f'{submission.path}: cannot read {name} ({error}). Check and write it again.') from error
    raise ValueError(f'{submission.path}: {name} is {header.height, header.width} (H, W), but its frame is '
                     f'{tuple(size)}. Write masks at the size of the frames.')


def check_submission(path: str | os.PathLike, expected: Sequence[ExpectedVideo], processes: int = 1,
                     progress: bool = False) -> list[common.Problem]:
    """Finds everything that an evaluation server would reject.

    Decodes every mask. Reports a wrong top folder and also checks its contents, so that one check shows all problems.

    Args:
        path: folder or zip.
        expected: the videos of the split.
        processes: number of processes that decode masks.
        progress: show a progress bar on stderr.

    Returns:
        one `common.Problem` per kind; empty if there are none.

    Raises:
        FileNotFoundError, ValueError: as `open_submission`.
    """
    found: common.Found = collections.defaultdict(list)
    with open_submission(path) as submission:
        there = _under_top(submission, {video.name for video in expected}, found)
    find_duplicates(submission, found)
    _check_files(set(there), expected, found)
    for of_video in for_each(_open_masks, (path, there, expected), len(expected), processes, 'checking', progress):
        for key, where in of_video.items():
            found[key] += where
    return common.problems_of(found)


def find_duplicates(submission: Submission, found: common.Found) -> None:
    """Adds names that occur more than once in a zip to `found`: only the last of them is ever read."""
    for name, count in collections.Counter(submission.files).items():
        if count > 1:
            found['file twice in the zip', 'zip the folder again'].append(name)


def _under_top(submission: Submission, videos: set[str], found: common.Found) -> dict[str, str]:
    """The files below the top folder: the name it should have -> the name it has."""
    names = []
    for name in submission.files:
        parts = name.split('/')
        if any(map(files.is_junk, parts)):
            found["operating system's junk", f"delete it; zip with: zip -r -X submission.zip {TOP} "
                  "-x '*/.*' '__MACOSX*'"].append(name)
        elif '\\' in name or {'', '.', '..'} & set(parts):
            found['path outside of the zip', 'names in a zip must be relative, separated by / and without . or ..; '
                  f'zip with: zip -r -X submission.zip {TOP}'].append(name)
        else:
            names.append(name)

    kind, top = 'wrong top folder', _find_top([name.split('/') for name in names], videos)
    if top is None:
        found[kind, f'it contains neither {TOP}/ nor a video of this split: is it the right folder or zip?'
              ].append(names[0] if names else f'{submission.path} contains no file')
        return {}
    if top == '':
        found[kind, f'put the videos into one folder {TOP}/ and zip that folder (without zipping, give the folder '
              f'that contains {TOP}/)'].append(f'{names[0]} should be {TOP}/{names[0]}')
    elif top.endswith(f'/{TOP}/'):
        found[kind, f'{TOP}/ must be at the top: in {top.removesuffix(TOP + "/")}, run '
              f'zip -r submission.zip {TOP}'].append(top)
    elif top != f'{TOP}/':
        found[kind, f'rename it to {TOP}/'].append(top)
    for name in names:
        if not name.startswith(top):
            found[f'file outside {files.one_line(top)}', f'zip only {TOP}/: delete the rest'].append(name)
    return {f'{TOP}/{name.removeprefix(top)}': name for name in names if name.startswith(top)}


def _find_top(names: list[list[str]], videos: set[str]) -> str | None:
    """The folder in the role of 'Annotations/', the likeliest one; None without any."""
    if any(len(parts) > 1 and parts[0] == TOP for parts in names):
        return f'{TOP}/'
    for parts in names:
        if TOP in parts[:-1]:
            return '/'.join(parts[:parts.index(TOP) + 1]) + '/'
    for depth in (0, 1):
        for parts in names:
            if len(parts) > depth + 1 and parts[depth] in videos:
                return ''.join(f'{part}/' for part in parts[:depth])
    return None


def _check_files(there: set[str], expected: Sequence[ExpectedVideo], found: common.Found) -> None:
    """Missing and unexpected files; a folder that is missing or unexpected as a whole is reported once."""
    if not there:
        return
    folders = {'/'.join(name.split('/')[:depth]) for name in there for depth in (2, 3)}
    wanted_folders, wanted_files = set(), set()
    for video in expected:
        folder = f'{TOP}/{video.name}'
        wanted_folders.add(folder)
        if folder not in folders:
            found['missing video', 'predict it: every video of the split is scored'].append(folder)
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
    seen: set[str] = set()
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
def _open_masks(path: str | os.PathLike, there: dict[str, str], expected: Sequence[ExpectedVideo]
                ) -> Iterator[Callable[[int], common.Found]]:
    with open_submission(path) as submission:
        def work(index: int) -> common.Found:
            """The problems of the masks of one video."""
            found: common.Found = collections.defaultdict(list)
            video = expected[index]
            for expression_id in video.expression_ids:
                for frame in video.frame_names:
                    name = mask_path(video.name, expression_id, frame)
                    if name in there:
                        _check_png(submission, there[name], video.size, found)
            return dict(found)
        yield work


def _check_png(submission: Submission, name: str, size: tuple[int, int], found: common.Found) -> None:
    pixels = read_png(submission, name, size, ['L'], "save 8-bit single-channel PNGs: Pillow's mode L, no palette, no "
                      'colour', found)
    if pixels is not None:
        counts = np.bincount(pixels.ravel(), minlength=256)
        values = [value for value in range(1, 255) if counts[value]]
        if values:
            found['values other than 0 and 255', 'write 0 for background and 255 for the object: '
                  '(logits > 0).astype(uint8) * 255'].append(f'{name}: {len(values)} others, from {values[0]} on')


def read_png(submission: Submission, name: str, size: tuple[int, int], modes: Sequence[str], fix_mode: str,
             found: common.Found) -> UInt8[np.ndarray, 'H W'] | None:
    """The pixels of a PNG of a submission; or None, with its problems added to `found`.

    Args:
        size: required (H, W). modes: allowed Pillow modes. fix_mode: how to fix another mode.
    """
    try:
        data = submission.read(name)
        header = pictures.read_header(data, [pictures.PNG])
        if (header.height, header.width) != tuple(size):
            found['wrong size', "resize the logits to the size of the video's frames before thresholding"].append(
                f'{name}: H x W is {header.height} x {header.width}, that of its frames {size[0]} x {size[1]}')
        if header.mode not in modes:
            found['wrong mode', fix_mode].append(f'{name}: mode {header.mode}, not {" or ".join(modes)}')
        elif (header.height, header.width) == tuple(size):
            return pictures.read_pixels(data, [pictures.PNG], size, modes)
    except (OSError, ValueError) as error:
        found['unreadable PNG', 'write it again: the file is damaged or not a PNG'].append(f'{name}: {error}')
    return None
