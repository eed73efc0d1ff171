"""Reads the raw JHMDB-Sentences.

jhmdb_sentences_samples_metadata.json            the sentences, and the frames that are scored
Rename_Images/<action>/<video>/<frame>.png       named from 00001
puppet_mask/<action>/<video>/puppet_mask.mat     part_mask (H, W, T), 0 and 1
"""

import dataclasses
import functools
import pathlib
import re
import reprlib

import numpy as np

from sgmg_jax import arrays, files, pictures
from sgmg_jax.data import decoding, metadata
from sgmg_jax.raw import common

METADATA = 'jhmdb_sentences_samples_metadata.json'
LARGEST_JSON = 2**26  # bytes
MOST_FRAMES = 1000


@dataclasses.dataclass(frozen=True)
class Video:
    """A video of the metadata file.

    frame_folder, mask_file: relative to the root of the raw data set.
    scored: sorted numbers of the scored frames, from 1.
    """

    name: str
    text: str
    frame_folder: pathlib.PurePosixPath
    mask_file: pathlib.PurePosixPath
    num_frames: int
    scored: tuple[int, ...]


def splits(root: pathlib.Path) -> common.Splits:
    """The videos of the only split, and the function that reads one. Raises like `read_videos`."""
    return {'test': (read_videos(root / METADATA, root), functools.partial(read_record, root))}


def read_record(root: pathlib.Path, video: Video) -> common.Parts:
    """Reads one video. Raises FileNotFoundError and ValueError like `read_frames` and `read_masks`."""
    names = [f'{number:05d}' for number in range(1, video.num_frames + 1)]
    frames, height, width = read_frames(root, video, names)
    masks = read_masks(root, video, height, width)
    entry = {
        'video': video.name,
        'frame_names': names,
        'height': height,
        'width': width,
        'expressions': [{'id': '0', 'text': video.text, 'object_id': 1, 'tags': ''}],
    }
    return (
        entry,
        {'has_masks': True, 'mask_places': [[frame - 1, 1] for frame in video.scored]},
        {'frames': frames, 'masks': masks},
    )


def read_videos(file: pathlib.Path, root: pathlib.Path | None = None) -> list[Video]:
    """All videos of the metadata file, sorted by name.

    In the file's paths, anything before Rename_Images or puppet_mask is ignored.

    Args:
        root: a folder that a link to the file must not lead out of.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it is not JSON or not a list of five-element lists, a path lacks these folders, samples of one
            video contradict each other, a frame is listed twice or is outside the video.
    """
    try:
        samples = files.read_json(file, LARGEST_JSON, root)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'{file}: missing. It comes with the release of MTTR (jhmdb_sentences in its data '
            'instructions); copy it there, or correct --raw.'
        ) from error
    if not isinstance(samples, list) or not samples:
        raise ValueError(f'{file}: must be a list of samples. Copy it again from the release of MTTR.')
    videos: dict[str, Video] = {}
    for number, sample in enumerate(samples):
        video = _read_sample(sample, f'{file}: sample {number}')
        first = videos.setdefault(video.name, video)
        if dataclasses.replace(first, scored=()) != dataclasses.replace(video, scored=()):
            raise ValueError(
                f'{file}: sample {number}: says of video {video.name} {reprlib.repr(sample)}; an earlier '
                'sample has other paths, another number of frames or another text. Make them agree.'
            )
        if first is not video:
            if video.scored[0] in first.scored:
                raise ValueError(
                    f'{file}: sample {number}: names frame {video.scored[0]} of video {video.name} a '
                    'second time. Remove one of the two.'
                )
            videos[video.name] = dataclasses.replace(first, scored=tuple(sorted(first.scored + video.scored)))
    return [videos[name] for name in sorted(videos)]


def read_frames(root: pathlib.Path, video: Video, names: list[str]) -> tuple[list[bytes], int, int]:
    """The PNGs of a video in order, after decoding all of them, and their common height and width.

    Raises:
        FileNotFoundError: a frame is missing.
        ValueError: a PNG is broken, or the sizes differ.
    """
    folder = root / video.frame_folder
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder / names[0]}.png: missing, with its whole folder. Unpack the frames again.')
    # Decoded with OpenCV like the records; it refuses some PNGs that Pillow reads.
    return common.read_frames(
        common.find_files(folder, names, '.png'),
        root,
        'PNG',
        lambda data: decoding.decode_picture(data, formats=(pictures.PNG,)).shape[:2],
        f'; {METADATA} counts {len(names)} frames from 00001',
    )


def read_masks(root: pathlib.Path, video: Video, height: int, width: int) -> list[bytes]:
    """The masks of a video's scored frames in order, PNGs of 0 and 1.

    Raises:
        FileNotFoundError: puppet_mask.mat is missing.
        ValueError: it is broken or has no part_mask, or the masks differ in size from the frames, have values other
            than 0 and 1, or lack a scored frame.
    """
    file = root / video.mask_file
    try:
        (file,) = common.find_files(file.parent, [file.stem], '.mat')
        masks = arrays.read_mat(file, 'part_mask', root)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'{file}: missing, though {METADATA} names it. Unpack puppet_mask.zip again.'
        ) from error
    masks = np.atleast_3d(masks)  # MATLAB drops a last axis of 1.
    if masks.ndim > 3 or masks.shape[:2] != (height, width):
        turned = ' They are transposed: part_mask must be (H, W, T).'
        raise ValueError(
            f'{file}: part_mask is {masks.shape[1]}x{masks.shape[0]} pixels, the frames {width}x{height}. '
            'Take frames and masks of the same release.' + turned * (masks.shape[:2] == (width, height))
        )
    if not ((masks == 0) | (masks == 1)).all():
        raise ValueError(f'{file}: part_mask holds other values than 0 and 1. Unpack this file again.')
    if video.scored[-1] > masks.shape[2]:
        raise ValueError(
            f'{file}: part_mask ends after {masks.shape[2]} frames, but {METADATA} names frame '
            f'{video.scored[-1]} of the video. Take both of the same release.'
        )
    return [common.encode_png(masks[:, :, frame - 1]) for frame in video.scored]


def _read_sample(sample: object, where: str) -> Video:
    """The video of one sample, with one scored frame."""
    kinds = [str, str, str, int, str]
    if not isinstance(sample, list) or [type(value) for value in sample] != kinds:
        raise ValueError(
            f'{where}: must be [video, path of a frame, path of a mask, number of frames, sentence], is '
            f'{reprlib.repr(sample)}. Copy the file again from the release of MTTR.'
        )
    name, frame_path, mask_path, num_frames, text = sample
    files.check_name(name, f'{where}: the video')
    frame = _below('Rename_Images', frame_path, where)
    if not 0 < num_frames <= MOST_FRAMES:
        raise ValueError(
            f'{where}: the number of frames must be from 1 to {MOST_FRAMES:,}, is {num_frames}. Correct it.'
        )
    if not (re.fullmatch('[0-9]{1,9}', frame.stem) and 0 < int(frame.stem) <= num_frames):
        raise ValueError(
            f'{where}: {files.printable(frame_path[:200])} must be named after a frame from 1 to '
            f'{num_frames}, the number of frames in the same sample. Correct one of them.'
        )
    metadata.check_sentence(text, f'{where}: the sentence')
    return Video(name, text, frame.parent, _below('puppet_mask', mask_path, where), num_frames, (int(frame.stem),))


def _below(folder: str, path: str, where: str) -> pathlib.PurePosixPath:
    """The path from `folder` on."""
    parts = pathlib.PurePosixPath(path).parts
    if folder not in parts:
        raise ValueError(
            f'{where}: the path {files.printable(path[:200])} does not lead through {folder}. Copy the '
            'file again from the release of MTTR.'
        )
    parts = parts[parts.index(folder) :]
    for part in parts:
        files.check_name(part, f'{where}: the path {path!a:.200}: a part')
    return pathlib.PurePosixPath(*parts)
