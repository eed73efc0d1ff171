"""Reads the raw A2D-Sentences layout.

    Release/videoset.csv                          no header, 9 columns: video first, subset (0 train, 1 test) last
    Release/CLIPS320/<video>.mp4                  or Release/clips320H/<video>.mp4, as the archive names it
    text_annotations/a2d_annotation.txt           CSV: video_id,instance_id,query
    text_annotations/a2d_missed_videos.txt        videos that have no sentence
    text_annotations/a2d_annotation_with_instances/<video>/<frame>.h5

The name of an h5 file is the number of its frame, from 1. `instance` holds the numbers of the frame's N instances and
`reMask` their masks: (N, W, H), because MATLAB wrote it, or (W, H) if N is 1. Not every frame has every instance.
"""

import dataclasses
import functools
import pathlib
import re

from jaxtyping import Shaped
import numpy as np

from sgmg_jax import arrays, files
from sgmg_jax.data import decoding, metadata
from sgmg_jax.raw import common
from sgmg_jax.raw.common import add_bytes, encode_png, find_files
from sgmg_jax.video import BrokenFilm, open_film

SUBSETS = {'0': 'train', '1': 'test'}
CLIP_FOLDERS = ('CLIPS320', 'clips320H')
FAULTY_INSTANCE = '1 (copy)'  # in one row of the release, which all published readers skip


@dataclasses.dataclass(frozen=True)
class Expression:
    """One sentence and the number of the instance it refers to, from 0."""

    instance: int
    text: str


@dataclasses.dataclass(frozen=True)
class Video:
    """A video and its sentences in the order of the annotations file."""

    name: str
    expressions: tuple[Expression, ...]


def splits(root: pathlib.Path) -> common.Splits:
    """The videos of each split, and the function that reads one; checks all text files. Raises like `read_videos`."""
    videos = read_videos(root)
    read = functools.partial(read_record, root, find_clips(root))
    return {split: (of_split, read) for split, of_split in videos.items()}


def read_record(root: pathlib.Path, clips: dict[str, list[pathlib.Path]], video: Video) -> common.Parts | None:
    """Reads one video; None if none of its instances has a mask. Raises like `read_film` and `read_masks`."""
    film, num_frames, height, width = read_film(root, video, clips)
    masks = read_masks(root, video, num_frames, height, width)
    annotated = {instance for _, instance in masks}
    # An object's id is its instance + 1, because 0 is the background.
    expressions = [
        {'id': str(expression.instance), 'text': expression.text, 'object_id': expression.instance + 1, 'tags': ''}
        for expression in video.expressions
        if expression.instance in annotated
    ]
    if not expressions:
        return None
    entry = {
        'video': video.name,
        'frame_names': [f'{number:05d}' for number in range(1, num_frames + 1)],
        'expressions': expressions,
        'height': height,
        'width': width,
    }
    places = [[frame, instance + 1] for frame, instance in masks]
    return entry, {'has_masks': True, 'mask_places': places}, {'film': [film], 'masks': list(masks.values())}


def read_videos(raw: pathlib.Path) -> dict[str, list[Video]]:
    """The videos with sentences, by split ('train', 'test'), sorted by name.

    Raises:
        FileNotFoundError: a text file or the folder of clips is missing; names every path.
        ValueError: a line of a text file is wrong, a video with sentences has no subset, or a split has no video.
    """
    subset_file = raw / 'Release' / 'videoset.csv'
    annotation_file = raw / 'text_annotations' / 'a2d_annotation.txt'
    missed_file = raw / 'text_annotations' / 'a2d_missed_videos.txt'
    clips = [raw / 'Release' / folder for folder in CLIP_FOLDERS]
    absent = [str(file) for file in (subset_file, annotation_file, missed_file) if not common.there(file)]
    if not any(folder.is_dir() for folder in clips):
        absent.append(' or '.join(map(str, clips)))
    if absent:
        raise FileNotFoundError(f'{", ".join(absent)}: missing. Unpack the archives there, or correct --raw.')
    subsets = read_subsets(subset_file, raw)
    annotations = read_annotations(annotation_file, raw)
    unknown = next(iter(annotations.keys() - subsets.keys()), None)
    if unknown is not None:
        raise ValueError(
            f'{annotation_file}: video {unknown} has no row in {subset_file}, which gives it its split. '
            'Take both files of the whole release.'
        )
    missed = set(files.read_text(missed_file, below=raw).split())
    silent = subsets.keys() - annotations.keys() - missed
    if silent:
        common.warn(
            '%d videos of %s have no sentence in %s, and %s does not name them: %s',
            len(silent),
            subset_file,
            annotation_file,
            missed_file,
            ', '.join(sorted(silent)),
        )
    videos = {
        split: [
            Video(name, annotations[name]) for name in sorted(annotations.keys() - missed) if subsets[name] == split
        ]
        for split in SUBSETS.values()
    }
    for split, of_split in videos.items():
        if not of_split:
            raise ValueError(
                f'{annotation_file}: has no sentence of a video that {subset_file} has in the split '
                f'{split!r}. Copy both files again from the archive.'
            )
    return videos


def read_subsets(file: pathlib.Path, root: pathlib.Path | None = None) -> dict[str, str]:
    """The split of each video of videoset.csv, 'train' or 'test'. Raises ValueError, naming a wrong line."""
    subsets = {}
    for where, row in files.read_rows(file, 9, root):
        video, subset = files.check_name(row[0], f'{where}: the video'), row[-1].strip()
        if subset not in SUBSETS:
            raise ValueError(
                f'{where}: column 9, the subset, must be 0 (train) or 1 (test), is {subset!a:.80}. '
                'Copy the file again from the archive.'
            )
        if video in subsets:
            raise ValueError(f'{where}: names video {video} a second time. Remove one of the two lines.')
        subsets[video] = SUBSETS[subset]
    if not subsets:
        raise ValueError(f'{file}: has no line. Copy it again from the archive.')
    return subsets


def read_annotations(file: pathlib.Path, root: pathlib.Path | None = None) -> dict[str, tuple[Expression, ...]]:
    """The sentences of each video of a2d_annotation.txt, without the row of the instance '1 (copy)'.

    Raises:
        ValueError: the header or a line is wrong, an instance is not a whole number or occurs twice, no line is left.
    """
    rows = files.read_rows(file, 3, root)
    header = ['video_id', 'instance_id', 'query']
    if not rows or rows[0][1] != header:
        raise ValueError(
            f'{file}: the first line must be {",".join(header)!r}, is '
            f'{",".join(rows[0][1]) if rows else ""!a:.80}. Copy the file again from the archive.'
        )
    annotations: dict[str, dict[int, Expression]] = {}
    for where, (video, instance, text) in rows[1:]:
        files.check_name(video, f'{where}: the video')
        if instance == FAULTY_INSTANCE:
            continue
        if not re.fullmatch('[0-9]{1,5}', instance):
            raise ValueError(
                f'{where}: instance_id must be a whole number, is {instance!a:.80}. Correct or remove the line.'
            )
        metadata.check_sentence(text, f'{where}: query')
        known = annotations.setdefault(video, {})
        if int(instance) in known:
            raise ValueError(
                f'{where}: names instance {instance} of video {video} a second time. Remove one of the two lines.'
            )
        known[int(instance)] = Expression(int(instance), text)
    if not annotations:
        raise ValueError(f'{file}: has no sentence. Copy it again from the archive.')
    return {video: tuple(known.values()) for video, known in annotations.items()}


def find_clips(raw: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """The mp4s by name of the video; if both folders of clips have it, those of the first."""
    found: dict[str, list[pathlib.Path]] = {}
    for folder in (raw / 'Release' / name for name in CLIP_FOLDERS):
        if folder.is_dir():
            found = {
                stem: [folder / name for name in names] for stem, names in files.by_stem(folder, '.mp4').items()
            } | found
    return found


def read_film(
    raw: pathlib.Path, video: Video, clips: dict[str, list[pathlib.Path]] | None = None
) -> tuple[bytes, int, int, int]:
    """The bytes of a video's mp4, the number of its frames, and their height and width in pixels.

    Args:
        clips: the result of `find_clips`; None calls it.

    Raises:
        FileNotFoundError: there is no mp4.
        ValueError: it is broken or truncated, has no frames, or their sizes differ.
    """
    found = (find_clips(raw) if clips is None else clips).get(video.name, ())
    if not found:
        paths = [raw / 'Release' / folder / f'{video.name}.mp4' for folder in CLIP_FOLDERS]
        raise FileNotFoundError(
            f'{" or ".join(map(str, paths))}: missing, though a2d_annotation.txt has sentences '
            'about it. Unpack the clips again.'
        )
    if len(found) > 1:
        raise ValueError(f'{" and ".join(map(str, found))} are the same clip. Remove all but one.')
    file = found[0]
    film = files.read_bytes(file, decoding.LARGEST_RECORD, raw)
    sizes: list[tuple[int, int]] = []
    times: list[int | None] = []
    try:
        with open_film(film) as (container, stream):
            for packet in container.demux(stream):
                if packet.is_corrupt:  # The file ends inside it; the MPEG-4 decoder would not complain.
                    raise BrokenFilm(f'ends after {len(sizes)} frames')
                for frame in packet.decode():
                    sizes.append((frame.height, frame.width))
                    times.append(frame.pts)
    except BrokenFilm as error:
        raise ValueError(f'{file}: broken mp4 ({error}). Unpack this clip again.') from error
    if len(set(sizes)) != 1:
        raise ValueError(
            f'{file}: has frames of the sizes (height, width) {sorted(set(sizes))}; a clip must have '
            'one. Unpack this clip again.'
        )
    if len({time for time in times if time is not None and time >= 0}) != len(times):
        common.warn(
            "%s: some of its %d frames have a negative or duplicate time. All are kept; torchvision's "
            'read_video, which the authors use to count frames, drops them.',
            file,
            len(times),
        )
    metadata.check_frame_size(*sizes[0], f'{file}')
    return film, len(sizes), *sizes[0]


def read_masks(
    raw: pathlib.Path, video: Video, num_frames: int, height: int, width: int
) -> dict[tuple[int, int], bytes]:
    """The masks of a video as PNGs of 0 and 1, by (frame index from 0, instance), in that order.

    Raises:
        FileNotFoundError: the video has no h5 files.
        ValueError: an h5 is broken or lacks `instance` or `reMask`, the masks do not fit the instances or the frame,
            or the mp4 lacks the frame.
    """
    folder = raw / 'text_annotations' / 'a2d_annotation_with_instances' / video.name
    names = sorted(files.by_stem(folder, '.h5')) if folder.is_dir() else ()
    if not names:
        raise FileNotFoundError(
            f'{folder}: missing, or without h5 files, though a2d_annotation.txt has sentences '
            'about the video. Unpack the annotations again.'
        )
    found: dict[tuple[int, int], bytes] = {}
    total = 0
    for file in find_files(folder, names, '.h5'):
        if not (re.fullmatch('[0-9]{1,9}', file.stem) and 0 < int(file.stem) <= num_frames):
            raise ValueError(
                f'{file}: the name must be the number of a frame, from 1; the mp4 of the video has '
                f'{num_frames} frames. Take clips and annotations of the same release.'
            )
        instances, masks = _read_h5(file, raw)
        if not ((masks == 0) | (masks == 1)).all():
            raise ValueError(f'{file}: reMask holds other values than 0 and 1. Unpack this file again.')
        for instance, mask in zip(instances.tolist(), masks):
            mask = mask.T
            if mask.shape != (height, width):
                turned = ' They are transposed: reMask must be (N, W, H).'
                raise ValueError(
                    f'{file}: reMask is {mask.shape[1]}x{mask.shape[0]} pixels, its frame '
                    f'{width}x{height}. Take clips and annotations of the same release.'
                    + turned
                    * (mask.shape == (width, height))
                )
            # If an instance occurs twice, the first is used, as in the released code.
            place = int(file.stem) - 1, int(instance)
            if place not in found:
                found[place] = encode_png(mask)
                total = add_bytes(total, found[place], folder)
    return dict(sorted(found.items()))


def _read_h5(file: pathlib.Path, root: pathlib.Path) -> tuple[Shaped[np.ndarray, ' N'], Shaped[np.ndarray, '...']]:
    """The numbers of the instances and their transposed masks [N W H] (any shape if N is 0)."""
    instances, masks = arrays.read_h5(file, ('instance', 'reMask'), root)
    instances = instances.ravel()
    if not ((instances >= 0) & (instances % 1 == 0) & (instances < 10**5)).all():
        raise ValueError(
            f'{file}: instance must hold whole numbers, holds {instances.tolist()[:20]}. Unpack this file again.'
        )
    masks = masks[None] if masks.ndim == 2 else masks
    if instances.size and (masks.ndim != 3 or len(masks) != len(instances)):
        raise ValueError(
            f'{file}: reMask has the shape {masks.shape}, but instance names {len(instances)}; it must be '
            '(N, W, H), or (W, H) where N is 1. Unpack this file again.'
        )
    return instances, masks
