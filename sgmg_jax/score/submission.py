"""Leaderboard files of Ref-YouTube-VOS, of MeViS, and of Ref-DAVIS in its layout: write, zip, read.

A submission is a zip with one top folder; that of MeViS has the folders of the videos at its top:

    Annotations/<video>/<expression id>/<frame name>.png
    <video>/<expression id>/<frame name>.png

Its files are 8-bit single-channel PNGs (mode L) of the size of the frame with values 0 and 255, one for each frame of
each expression, all black where the object is absent. `check.check_submission` finds faults before the upload.

Axis letters: T frames, H W pixels.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import os
import pathlib
import typing
import zipfile

from jaxtyping import Bool, UInt8
import numpy as np

from sgmg_jax import files, pictures
from sgmg_jax.score import zips

TOP = 'Annotations'
LARGEST_PNG = 2**26  # bytes of a mask: twice as many as pictures.MOST_PIXELS pixels need uncompressed
LARGEST_SUBMISSION = 2**34  # bytes of all files in a zip


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


def mask_path(video: str, expression_id: str, frame_name: str, top: str = TOP) -> str:
    """The name of the mask of a frame in a submission. top: its top folder; '' for none."""
    return f'{top}/{video}/{expression_id}/{frame_name}.png'.lstrip('/')


@typing.no_type_check  # checks its own arguments
def write_masks(
    root: str | os.PathLike,
    video: str,
    expression_id: str,
    frame_names: Sequence[str],
    masks: Bool[np.ndarray, 'T H W'],
) -> None:
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
        raise ValueError(
            f'video {video!r}, expression {expression_id!r}: masks must be bool [T H W], got '
            f'{masks.dtype} {masks.shape}'
        )
    write_pngs(pathlib.Path(root), (TOP, video, expression_id), frame_names, masks.view(np.uint8) * np.uint8(255))


@typing.no_type_check  # checks its own arguments
def write_maps(
    root: str | os.PathLike, video: str, frame_names: Sequence[str], maps: UInt8[np.ndarray, 'T H W']
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
    write_pngs(pathlib.Path(root), (video,), frame_names, maps, palette=True)


@typing.no_type_check  # checks its own arguments
def write_pngs(
    root: pathlib.Path,
    parts: Sequence[str],
    frame_names: Sequence[str],
    maps: UInt8[np.ndarray, 'T H W'],
    palette: bool = False,
) -> None:
    """Writes <root>/<parts>/<frame>.png for each frame. palette: see pictures.write_png. Raises as `write_masks`."""
    for part in parts:
        files.check_name(part, 'the name of a folder of masks')
    where = '/'.join(parts)
    for name in frame_names:
        files.check_name(name, f'{where}: the name of a frame')
    if len(maps) != len(frame_names) or len(set(frame_names)) != len(frame_names):
        raise ValueError(
            f'{where}: {len(maps)} masks for {len(frame_names)} frame names, {len(set(frame_names))} of '
            'them distinct: each frame must have one mask'
        )
    folder = root.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in zip(frame_names, maps):
        with files.replacing(folder / f'{name}.png') as partial:
            pictures.write_png(partial, pixels, palette)


def zip_submission(root: str | os.PathLike, zip_path: str | os.PathLike, tops: Sequence[str] = (TOP,)) -> int:
    """Zips the masks for the upload; the same masks always give the same bytes.

    Args:
        root: the parent folder of Annotations/.
        zip_path: appears whole or not at all; an existing file is replaced.
        tops: the folders of `root` to zip; '' is all of it.

    Returns:
        The number of masks in the zip.

    Raises:
        FileNotFoundError: these folders contain no mask.
        ValueError: there is a link to a folder, or a mask is not a file or is a link out of `root`.
        OSError: the disk is full or read-only; nothing remains.
    """
    root, zip_path = pathlib.Path(root), pathlib.Path(zip_path)
    names = [
        name
        for top in tops
        for name in _files_below(root, root / top)
        if name.endswith('.png') and not name.rpartition('/')[2].startswith('.')
    ]
    if not names:
        raise FileNotFoundError(
            f'{root}: no mask to zip in {" or ".join(tops) or "it"}. Give the folder that holds them.'
        )
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
            raise ValueError(
                f'{path}: its files have {size:,} bytes uncompressed, must have at most '
                f'{LARGEST_SUBMISSION:,}. Is it the right zip?'
            )
        yield Submission(
            str(path), tuple(info.filename for info in infos), lambda name: zips.read_member(archive, name, LARGEST_PNG)
        )


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


def read_mask(
    submission: Submission,
    video: str,
    expression_id: str,
    frame_name: str,
    size: tuple[int, int] | None = None,
    top: str = TOP,
) -> Bool[np.ndarray, 'H W']:
    """One mask of a submission: True where the PNG is above 127.

    Args:
        size: required (H, W); None: any.
        top: see `mask_path`.

    Raises:
        ValueError: the file is missing, unreadable, not 8-bit single-channel or of another size; names it.
    """
    name = mask_path(video, expression_id, frame_name, top)
    try:
        data = submission.read(name)
        header = pictures.read_header(data, [pictures.PNG])
        if size is None or (header.height, header.width) == tuple(size):
            return pictures.read_pixels(data, [pictures.PNG], modes=['L']) > 127
    except (OSError, ValueError) as error:
        raise ValueError(f'{submission.path}: cannot read {name} ({error}). Check and write it again.') from error
    raise ValueError(
        f'{submission.path}: {name} is {header.height, header.width} (H, W), but its frame is '
        f'{tuple(size)}. Write masks at the size of the frames.'
    )
