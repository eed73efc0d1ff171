"""The raw JHMDB-Sentences: find what is there, check it, and say how to mend what is wrong.

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
from sgmg_jax.data import metadata, records
from sgmg_jax.raw import common

METADATA = 'jhmdb_sentences_samples_metadata.json'
LARGEST_JSON = 2 ** 26  # bytes
MOST_FRAMES = 1000


@dataclasses.dataclass(frozen=True)
class Video:
    """What the metadata list of one video.

    frame_folder, mask_file: relative to the root of the raw data set.
    scored: numbers, from 1, of the frames that are scored, sorted.
    """
    name: str
    text: str
    frame_folder: pathlib.PurePosixPath
    mask_file: pathlib.PurePosixPath
    num_frames: int
    scored: tuple[int, ...]


def splits(root: pathlib.Path) -> common.Splits:
    """The videos of the only split, and how one is read. Raises as `read_videos`."""
    return {'test': (read_videos(root / METADATA, root), functools.partial(read_record, root))}


def read_record(root: pathlib.Path, video: Video) -> common.Parts:
    """Raises FileNotFoundError and ValueError as `read_frames` and `read_masks`."""
    names = [f'{number:05d}' for number in range(1, video.num_frames + 1)]
    frames, height, width = read_frames(root, video, names)
    masks = read_masks(root, video, height, width)
    entry = {'video': video.name, 'frame_names': names, 'height': height, 'width': width,
             'expressions': [{'id': '0', 'text': video.text, 'object_id': 1, 'tags': ''}]}
    return entry, {'has_masks': True, 'mask_places': [[frame - 1, 1] for frame in video.scored]}, {
        'frames': frames, 'masks': masks}


def read_videos(file: pathlib.Path, root: pathlib.Path | None = None) -> list[Video]:
    """Every video of the metadata file, sorted by name.

    Paths in the file may begin with anything; what counts begins with Rename_Images and puppet_mask.

    Args:
        root: a folder that a link to the file must not lead out of.

    Raises:
        FileNotFoundError: when the file is missing.
        ValueError: for a file that is no JSON or no list of five-lists, for a path without these folders, for samples
            of one video that contradict each other, for a frame that is named twice or outside the video.
    """
    try:
        samples = files.read_json(file, LARGEST_JSON, root)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{file}: missing. It comes with the release of MTTR (jhmdb_sentences in its data '
                                'instructions); copy it there, or mend --raw.') from error
    if not isinstance(samples, list) or not samples:
        raise ValueError(f'{file}: must be a list of samples. Copy it again from the release of MTTR.')
    videos = {}
    for number, sample in enumerate(samples):
        video = _read_sample(sample, f'{file}: sample {number}')
        first = videos.setdefault(video.name, video)
        if dataclasses.replace(first, scored=()) != dataclasses.replace(video, scored=()):
            raise ValueError(f'{file}: sample {number}: says of video {video.name} {reprlib.repr(sample)}; an earlier '
                             'sample has other paths, another number of frames or another text. Make them agree.')
        if first is not video:
            if video.scored[0] in first.scored:
                raise ValueError(f'{file}: sample {number}: names frame {video.scored[0]} of video {video.name} a '
                                 'second time. Remove one of the two.')
            videos[video.name] = dataclasses.replace(first, scored=tuple(sorted(first.scored + video.scored)))
    return [videos[name] for name in sorted(videos)]


def read_frames(root: pathlib.Path, video: Video, names: list[str]) -> tuple[list[bytes], int, int]:
    """The PNGs of a video in order, all of which are decoded, and their common (height, width).

    Raises:
        FileNotFoundError: for a frame that is not there.
        ValueError: for a broken PNG, and for frames of different sizes.
    """
    folder = root / video.frame_folder
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder / names[0]}.png: missing, with its whole folder. Unpack the frames again.')
    # Decoded as records are; Pillow takes PNGs that OpenCV then refuses.
    return common.read_frames(
        common.find_files(folder, names, '.png'), root, 'PNG',
        lambda data: records.decode_picture(data, formats=(pictures.PNG,)).shape[:2],
        f'; {METADATA} counts {len(names)} frames from 00001')


def read_masks(root: pathlib.Path, video: Video, height: int, width: int) -> list[bytes]:
    """PNGs of 0 and 1 of the scored frames of a video, in their order.

    Raises:
        FileNotFoundError: for a missing puppet_mask.mat.
        ValueError: for a broken one or one without part_mask, for masks of another size than the frames, for other
            values than 0 and 1, and for a scored frame that it lacks.
    """
    file = root / video.mask_file
    try:
        file, = common.find_files(file.parent, [file.stem], '.mat')
        masks = arrays.read_mat(file, 'part_mask', root)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{file}: missing, though {METADATA} names it. Unpack puppet_mask.zip again.'
                                ) from error
    masks = np.atleast_3d(masks)  # MATLAB drops a last axis of 1.
    if masks.ndim > 3 or masks.shape[:2] != (height, width):
        turned = ' They are those of the frame transposed: part_mask must be (H, W, T).'
        raise ValueError(f'{file}: part_mask is {masks.shape[1]}x{masks.shape[0]} pixels, the frames {width}x{height}. '
                         'Take frames and masks of the same release.' + turned * (masks.shape[:2] == (width, height)))
    if not ((masks == 0) | (masks == 1)).all():
        raise ValueError(f'{file}: part_mask holds other values than 0 and 1. Unpack this file again.')
    if video.scored[-1] > masks.shape[2]:
        raise ValueError(f'{file}: part_mask ends after {masks.shape[2]} frames, but {METADATA} names frame '
                         f'{video.scored[-1]} of the video. Take both of the same release.')
    return [common.encode_png(masks[:, :, frame - 1]) for frame in video.scored]


def _read_sample(sample: list, where: str) -> Video:
    """The video of one sample, with one scored frame."""
    kinds = [str, str, str, int, str]
    if not isinstance(sample, list) or [type(value) for value in sample] != kinds:
        raise ValueError(f'{where}: must be [video, path of a frame, path of a mask, number of frames, sentence], is '
                         f'{reprlib.repr(sample)}. Copy the file again from the release of MTTR.')
    name, frame_path, mask_path, num_frames, text = sample
    files.check_name(name, f'{where}: the video')
    frame = _below('Rename_Images', frame_path, where)
    if not 0 < num_frames <= MOST_FRAMES:
        raise ValueError(f'{where}: the number of frames must be from 1 to {MOST_FRAMES:,}, is {num_frames}. Mend it.')
    if not (re.fullmatch('[0-9]{1,9}', frame.stem) and 0 < int(frame.stem) <= num_frames):
        raise ValueError(f'{where}: {files.printable(frame_path[:200])} must be named after a frame from 1 to '
                         f'{num_frames}, the number of frames in the same sample. Mend one of them.')
    metadata.check_sentence(text, f'{where}: the sentence')
    return Video(name, text, frame.parent, _below('puppet_mask', mask_path, where), num_frames, (int(frame.stem),))


def _below(folder: str, path: str, where: str) -> pathlib.PurePosixPath:
    """The path from `folder` on."""
    parts = pathlib.PurePosixPath(path).parts
    if folder not in parts:
        raise ValueError(f'{where}: the path {files.printable(path[:200])} does not lead through {folder}. Copy the '
                         'file again from the release of MTTR.')
    parts = parts[parts.index(folder):]
    for part in parts:
        files.check_name(part, f'{where}: the path {path!a:.200}: a part')
    return pathlib.PurePosixPath(*parts)
