"""The raw A2D-Sentences layout: find what is there, check it, and say how to mend what is wrong.

    Release/videoset.csv                          no header, 9 columns: video first, subset (0 train, 1 test) last
    Release/CLIPS320/<video>.mp4                  or Release/clips320H/<video>.mp4, as the archive names it
    text_annotations/a2d_annotation.txt           CSV: video_id,instance_id,query
    text_annotations/a2d_missed_videos.txt        videos that have no sentence
    text_annotations/a2d_annotation_with_instances/<video>/<frame>.h5

The number in an h5 file's name counts frames from 1. `instance` in it names the N instances of the frame, `reMask`
holds their masks, (N, W, H) because MATLAB wrote it, (W, H) where N is 1. An instance may be away from a frame.
"""
import dataclasses
import functools
import pathlib
import re

import numpy as np

from sgmg_jax import arrays, files
from sgmg_jax.data import metadata, records
from sgmg_jax.raw import common
from sgmg_jax.raw.common import add_bytes, encode_png, find_files
from sgmg_jax.video import BrokenFilm, open_film

SUBSETS = {'0': 'train', '1': 'test'}
CLIP_FOLDERS = ('CLIPS320', 'clips320H')
FAULTY_INSTANCE = '1 (copy)'  # One row of the release has it; all who read the file drop that row.


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
    """The videos of each split, and how one is read; every text file is checked. Raises as `read_videos`."""
    videos = read_videos(root)
    read = functools.partial(read_record, root, find_clips(root))
    return {split: (of_split, read) for split, of_split in videos.items()}


def read_record(root: pathlib.Path, clips: dict[str, list[pathlib.Path]], video: Video) -> common.Parts | None:
    """None if all of its instances are away. Raises FileNotFoundError and ValueError as `read_film`, `read_masks`."""
    film, num_frames, height, width = read_film(root, video, clips)
    masks = read_masks(root, video, num_frames, height, width)
    annotated = {instance for _, instance in masks}
    # An object's id is its instance + 1, since 0 is background elsewhere.
    expressions = [{'id': str(expression.instance), 'text': expression.text, 'object_id': expression.instance + 1,
                    'tags': ''} for expression in video.expressions if expression.instance in annotated]
    if not expressions:
        return None
    entry = {'video': video.name, 'frame_names': [f'{number:05d}' for number in range(1, num_frames + 1)],
             'expressions': expressions, 'height': height, 'width': width}
    places = [[frame, instance + 1] for frame, instance in masks]
    return entry, {'has_masks': True, 'mask_places': places}, {'film': [film], 'masks': list(masks.values())}


def read_videos(raw: pathlib.Path) -> dict[str, list[Video]]:
    """Every video that has a sentence, by split ('train', 'test'), sorted by name.

    Raises:
        FileNotFoundError: when a text file or the folder of clips is missing; names every path.
        ValueError: for a bad line in a text file, for a sentence of a video that has no subset, and for a split that
            has no video.
    """
    subset_file = raw / 'Release' / 'videoset.csv'
    annotation_file = raw / 'text_annotations' / 'a2d_annotation.txt'
    missed_file = raw / 'text_annotations' / 'a2d_missed_videos.txt'
    clips = [raw / 'Release' / folder for folder in CLIP_FOLDERS]
    absent = [str(file) for file in (subset_file, annotation_file, missed_file) if not common.there(file)]
    if not any(folder.is_dir() for folder in clips):
        absent.append(' or '.join(map(str, clips)))
    if absent:
        raise FileNotFoundError(f'{", ".join(absent)}: missing. Unpack the archives there, or mend --raw.')
    subsets = read_subsets(subset_file, raw)
    annotations = read_annotations(annotation_file, raw)
    unknown = next(iter(annotations.keys() - subsets.keys()), None)
    if unknown is not None:
        raise ValueError(f'{annotation_file}: video {unknown} has no row in {subset_file}, which gives it its split. '
                         'Take both files of the whole release.')
    missed = set(files.read_text(missed_file, below=raw).split())
    silent = subsets.keys() - annotations.keys() - missed
    if silent:
        common.warn('%d videos of %s have no sentence in %s, and %s does not name them: %s', len(silent),
                    subset_file, annotation_file, missed_file, ', '.join(sorted(silent)))
    videos = {split: [Video(name, annotations[name]) for name in sorted(annotations.keys() - missed)
                      if subsets[name] == split] for split in SUBSETS.values()}
    for split, of_split in videos.items():
        if not of_split:
            raise ValueError(f'{annotation_file}: has no sentence of a video that {subset_file} has in the split '
                             f'{split!r}. Copy both files again from the archive.')
    return videos


def read_subsets(file: pathlib.Path, root: pathlib.Path | None = None) -> dict[str, str]:
    """Split of each video of videoset.csv, 'train' or 'test'. Raises ValueError for a bad line; names it."""
    subsets = {}
    for where, row in files.read_rows(file, 9, root):
        video, subset = files.check_name(row[0], f'{where}: the video'), row[-1].strip()
        if subset not in SUBSETS:
            raise ValueError(f'{where}: column 9, the subset, must be 0 (train) or 1 (test), is {subset!a:.80}. '
                             'Copy the file again from the archive.')
        if video in subsets:
            raise ValueError(f'{where}: names video {video} a second time. Remove one of the two lines.')
        subsets[video] = SUBSETS[subset]
    if not subsets:
        raise ValueError(f'{file}: has no line. Copy it again from the archive.')
    return subsets


def read_annotations(file: pathlib.Path, root: pathlib.Path | None = None) -> dict[str, tuple[Expression, ...]]:
    """Sentences of each video of a2d_annotation.txt, less the row of the instance '1 (copy)'.

    Raises:
        ValueError: for another header, a bad line, an instance that is no whole number or is named twice, no line.
    """
    rows = files.read_rows(file, 3, root)
    header = ['video_id', 'instance_id', 'query']
    if not rows or rows[0][1] != header:
        raise ValueError(f'{file}: the first line must be {",".join(header)!r}, is '
                         f'{",".join(rows[0][1]) if rows else ""!a:.80}. Copy the file again from the archive.')
    annotations = {}
    for where, (video, instance, text) in rows[1:]:
        files.check_name(video, f'{where}: the video')
        if instance == FAULTY_INSTANCE:
            continue
        if not re.fullmatch('[0-9]{1,5}', instance):
            raise ValueError(f'{where}: instance_id must be a whole number, is {instance!a:.80}. Mend or remove the '
                             'line.')
        metadata.check_sentence(text, f'{where}: query')
        known = annotations.setdefault(video, {})
        if int(instance) in known:
            raise ValueError(f'{where}: names instance {instance} of video {video} a second time. Remove one of the '
                             'two lines.')
        known[int(instance)] = Expression(int(instance), text)
    if not annotations:
        raise ValueError(f'{file}: has no sentence. Copy it again from the archive.')
    return {video: tuple(known.values()) for video, known in annotations.items()}


def find_clips(raw: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """The mp4s by name of the video; of a folder that is there twice under both of its names, the first is taken."""
    found = {}
    for folder in (raw / 'Release' / name for name in CLIP_FOLDERS):
        if folder.is_dir():
            found = {stem: [folder / name for name in names]
                     for stem, names in files.by_stem(folder, '.mp4').items()} | found
    return found


def read_film(raw: pathlib.Path, video: Video, clips: dict[str, list[pathlib.Path]] | None = None
              ) -> tuple[bytes, int, int, int]:
    """The bytes of a video's mp4; how many frames it has; their height and width in pixels.

    Args:
        clips: what `find_clips` gives, if it is known.

    Raises:
        FileNotFoundError: when there is no mp4.
        ValueError: for a broken or truncated one, one without frames or with frames of different sizes.
    """
    found = (find_clips(raw) if clips is None else clips).get(video.name, ())
    if not found:
        paths = [raw / 'Release' / folder / f'{video.name}.mp4' for folder in CLIP_FOLDERS]
        raise FileNotFoundError(f'{" or ".join(map(str, paths))}: missing, though a2d_annotation.txt has sentences of '
                                'it. Unpack the clips again.')
    if len(found) > 1:
        raise ValueError(f'{" and ".join(map(str, found))} are the same clip. Remove all but one.')
    file = found[0]
    film, sizes, times = files.read_bytes(file, records.LARGEST_RECORD, raw), [], []
    try:
        with open_film(film) as (container, stream):
            for packet in container.demux(stream):
                if packet.is_corrupt:  # The file ends inside it; MPEG-4 would be decoded all the same.
                    raise BrokenFilm(f'ends after {len(sizes)} frames')
                for frame in packet.decode():
                    sizes.append((frame.height, frame.width))
                    times.append(frame.pts)
    except BrokenFilm as error:
        raise ValueError(f'{file}: broken mp4 ({error}). Unpack this clip again.') from error
    if len(set(sizes)) != 1:
        raise ValueError(f'{file}: has frames of the sizes (height, width) {sorted(set(sizes))}; a clip has one. '
                         'Unpack this clip again.')
    if len({time for time in times if time is not None and time >= 0}) != len(times):
        common.warn('%s: some of its %d frames have a negative time or one that another has. All are kept; '
                    "torchvision's read_video, by which the authors count frames, leaves them out.",
                    file, len(times))
    metadata.check_frame_size(*sizes[0], f'{file}')
    return film, len(sizes), *sizes[0]


def read_masks(raw: pathlib.Path, video: Video, num_frames: int, height: int, width: int
               ) -> dict[tuple[int, int], bytes]:
    """The masks of a video as PNGs of 0 and 1, by (frame index from 0, instance), in that order.

    Raises:
        FileNotFoundError: for a video without h5 files.
        ValueError: for a broken h5 or one without `instance` and `reMask`, for masks that do not fit the instances
            or the frame, and for a frame that the mp4 lacks.
    """
    folder = raw / 'text_annotations' / 'a2d_annotation_with_instances' / video.name
    names = sorted(files.by_stem(folder, '.h5')) if folder.is_dir() else ()
    if not names:
        raise FileNotFoundError(f'{folder}: missing, or without h5 files, though a2d_annotation.txt has sentences of '
                                'the video. Unpack the annotations again.')
    found, total = {}, 0
    for file in find_files(folder, names, '.h5'):
        if not (re.fullmatch('[0-9]{1,9}', file.stem) and 0 < int(file.stem) <= num_frames):
            raise ValueError(f'{file}: the name must be the number of a frame, from 1; the mp4 of the video has '
                             f'{num_frames} frames. Take clips and annotations of the same release.')
        instances, masks = _read_h5(file, raw)
        if not ((masks == 0) | (masks == 1)).all():
            raise ValueError(f'{file}: reMask holds other values than 0 and 1. Unpack this file again.')
        for instance, mask in zip(instances.tolist(), masks):
            mask = mask.T
            if mask.shape != (height, width):
                turned = ' They are those of the frame transposed: reMask must be (N, W, H).'
                raise ValueError(f'{file}: reMask is {mask.shape[1]}x{mask.shape[0]} pixels, its frame '
                                 f'{width}x{height}. Take clips and annotations of the same release.'
                                 + turned * (mask.shape == (width, height)))
            # Where an instance is named twice, the first is taken, as in the released code.
            place = int(file.stem) - 1, int(instance)
            if place not in found:
                found[place] = encode_png(mask)
                total = add_bytes(total, found[place], folder)
    return dict(sorted(found.items()))


def _read_h5(file: pathlib.Path, root: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the instances [N] and their masks, transposed [N W H]."""
    instances, masks = arrays.read_h5(file, ('instance', 'reMask'), root)
    instances = instances.ravel()
    if not ((instances >= 0) & (instances % 1 == 0) & (instances < 10 ** 5)).all():
        raise ValueError(f'{file}: instance must hold whole numbers, holds {instances.tolist()[:20]}. '
                         'Unpack this file again.')
    masks = masks[None] if masks.ndim == 2 else masks
    if instances.size and (masks.ndim != 3 or len(masks) != len(instances)):
        raise ValueError(f'{file}: reMask has the shape {masks.shape}, but instance names {len(instances)}; it must be '
                         '(N, W, H), or (W, H) where N is 1. Unpack this file again.')
    return instances, masks
