"""Records of videos, written by the builders of the repository's `datasets/`, read without TensorFlow.

One record is one video: its JPEG frames, its index masks, its sentences. Frames stay bytes until
somebody asks for them, so sampling five frames of a long video decodes five.

Axis letters: T frames, H W pixels.
"""
from collections.abc import Sequence
import dataclasses
import io
import os
import pathlib

import cv2
import numpy as np
from PIL import Image
import tensorflow_datasets as tfds


@dataclasses.dataclass(frozen=True)
class Expression:
    """A sentence that refers to one object of its video.

    id: its key in the benchmark's expressions file, and the name of its folder in a submission.
    object_id: the value of its object in the masks; -1 where the benchmark hides it.
    """
    id: str
    text: str
    object_id: int
    tags: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Video:
    """What is known of a video without reading its frames. `height` and `width` are pixels."""
    name: str
    frame_names: tuple[str, ...]
    height: int
    width: int
    expressions: tuple[Expression, ...]
    has_masks: bool


@dataclasses.dataclass(frozen=True)
class Record:
    """A video with its encoded frames (JPEG) and masks (PNG; none where they are hidden)."""
    video: Video
    frames: tuple[bytes, ...]
    masks: tuple[bytes, ...]

    def decode_frames(self, indices: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """RGB [T H W 3] uint8 of the frames at `indices`, or of all.

        Raises:
            ValueError: for a broken JPEG; names video and frame.
        """
        indices = range(len(self.frames)) if indices is None else indices
        return np.stack([self._decode_frame(index) for index in indices])

    def decode_masks(self, indices: Sequence[int] | np.ndarray | None = None) -> np.ndarray | None:
        """Object ids [T H W] uint8 of the masks at `indices`, or of all; None without ground truth.

        0 is background, 255 is void where the benchmark has it (DAVIS).

        Raises:
            ValueError: for a broken PNG or one of another size than the frame; names video and frame.
        """
        if not self.masks:
            return None
        indices = range(len(self.masks)) if indices is None else indices
        return np.stack([self._decode_mask(index) for index in indices])

    def _decode_frame(self, index: int) -> np.ndarray:
        data = self.frames[index]
        image = None
        # Some versions of OpenCV fill a truncated JPEG with grey instead of failing: look for its end.
        if b'\xff\xd9' in data[-1024:]:
            # The frame as stored: masks know nothing of a camera's orientation tag.
            image = cv2.imdecode(np.frombuffer(data, np.uint8),
                                 cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None:
            raise ValueError(self._broken(index, 'JPEG is broken or truncated'))
        if image.shape[:2] != (self.video.height, self.video.width):
            raise ValueError(self._broken(index, f'JPEG is {image.shape[1]}x{image.shape[0]} pixels, not '
                                                 f'{self.video.width}x{self.video.height}'))
        return image

    def _decode_mask(self, index: int) -> np.ndarray:
        try:
            # Pillow keeps palette indices; OpenCV would turn them into colours.
            mask = np.asarray(Image.open(io.BytesIO(self.masks[index])), np.uint8)
        except (OSError, SyntaxError) as error:  # Pillow raises both.
            raise ValueError(self._broken(index, f'mask is broken ({error})')) from error
        if mask.shape != (self.video.height, self.video.width):
            raise ValueError(self._broken(
                index, f'mask has the shape {mask.shape}, not {(self.video.height, self.video.width)}'))
        return mask

    def _broken(self, index: int, what: str) -> str:
        return (f'video {self.video.name}, frame {self.video.frame_names[index]}: the {what}. '
                'Build the records again from intact files.')


class KeepBytes(tfds.decode.SkipDecoding):
    """Leaves images encoded (tfds' own class lacks the method for sequences without TensorFlow)."""

    def decode_batch_example_np(self, serialized_images):
        return serialized_images


class Records(Sequence):
    """Random access to the videos of a split: `videos` costs nothing, `records[i]` reads one video.

    May be pickled and read from several threads.
    """

    def __init__(self, directory: pathlib.Path, split: str, videos: tuple[Video, ...], source):
        self.directory, self.split, self.videos = directory, split, videos
        self._source = source

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Record:
        index = range(len(self))[index]
        example, video = self._source[index], self.videos[index]
        if example['video'].decode() != video.name:
            raise ValueError(f'{self.directory}: record {index} of {self.split} is video '
                             f'{example["video"].decode()}, but metadata.json says {video.name}. '
                             'Build the data set again.')
        return Record(video, tuple(example['frames']), tuple(example['masks']))


def open_records(directory: str | os.PathLike, split: str) -> Records:
    """Opens a split of a built data set.

    Args:
        directory: the folder of records (<out>/<name>/<version>), or one above that holds only one.
        split: 'train', 'valid', 'test', or a slice such as 'valid[:4]' or 'train[10%:]'.

    Raises:
        FileNotFoundError: when there are no records under `directory`, or no metadata beside them.
        ValueError: when there are several data sets, or no such split; lists what is there.
    """
    folder = _records_folder(pathlib.Path(directory))
    if not (folder / 'metadata.json').exists():
        raise FileNotFoundError(f'{folder}: holds no metadata.json, so it was written by another builder. '
                                'Build the data set with `python -m datasets.build`.')
    builder = tfds.builder_from_directory(folder)
    splits = builder.info.splits
    try:
        parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(splits)
        source = builder.as_data_source(split=split, decoders={'frames': KeepBytes(), 'masks': KeepBytes()})
    except (ValueError, KeyError, AssertionError) as error:
        sizes = ', '.join(f'{name} ({value.num_examples} videos)' for name, value in splits.items())
        first = next(iter(splits))
        raise ValueError(f'{folder}: no split {split!r} there; it has {sizes}. Name one of these or a slice '
                         f'of it, such as {first!r} or {first + "[:4]"!r}.') from error
    videos = [_video(entry) for part in parts
              for entry in builder.info.metadata['videos'][part.splitname][part.from_:part.to]]
    if len(videos) != len(source):
        raise ValueError(f'{folder}: split {split!r} has {len(source)} records, metadata.json lists '
                         f'{len(videos)} videos. Build the data set again.')
    return Records(folder, split, tuple(videos), source)


def training_index(videos: Sequence[Video], num_frames: int) -> np.ndarray:
    """One row for each clip of an epoch: (video, expression, centre), all indices; int32 [N 3].

    Centres are every `num_frames`-th frame of a video from its first, as in the released code.

    Raises:
        ValueError: for an expression without object or a video without masks.
    """
    index = []
    for number, video in enumerate(videos):
        for position, expression in enumerate(video.expressions):
            if expression.object_id < 0 or not video.has_masks:
                raise ValueError(f'video {video.name}, expression {expression.id}: has no ground truth to '
                                 'train on. Train on a split that has it.')
            index += [(number, position, centre) for centre in range(0, len(video.frame_names), num_frames)]
    return np.array(index, np.int32).reshape(-1, 3)


def _records_folder(directory: pathlib.Path) -> pathlib.Path:
    if not directory.is_dir():
        raise FileNotFoundError(f'{directory}: no such folder. Build records with `python -m '
                                'datasets.build`, or mend the path.')
    found = [path.parent for level in ('', '*/', '*/*/', '*/*/*/')
             for path in sorted(directory.glob(level + 'dataset_info.json'))
             if not path.parent.name.startswith('incomplete.')]  # An interrupted build.
    if not found:
        there = ', '.join(sorted(path.name for path in directory.iterdir())) or 'nothing'
        raise FileNotFoundError(f'{directory}: holds no built data set (no dataset_info.json); it has '
                                f'{there}. Build one with `python -m datasets.build`.')
    if len(found) > 1:
        raise ValueError(f'{directory}: holds several data sets, name one of them: '
                         f'{", ".join(map(str, found))}.')
    return found[0]


def _video(entry: dict) -> Video:
    expressions = tuple(
        Expression(value['id'], value['text'], value['object_id'], tuple(value['tags'].split()))
        for value in entry['expressions'])
    return Video(entry['video'], tuple(entry['frame_names']), entry['height'], entry['width'], expressions,
                 entry['has_masks'])
