"""Records of videos, written by the builders of the repository's `datasets/`, read without TensorFlow.

One record is one video (or one picture): its frames, its masks, its sentences. Frames stay bytes until
somebody asks for them, so sampling five frames of a long video decodes five.

Axis letters: T frames, H W pixels.
"""
from collections.abc import Sequence
import dataclasses
import io
import os
import pathlib

import av
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
    """What is known of a video without reading its frames. `height` and `width` are pixels.

    mask_places: where the masks are those of one object in one frame (A2D-Sentences, RefCOCO): frame index and
      object id of each mask. None where every frame has one map of all objects.
    """
    name: str
    frame_names: tuple[str, ...]
    height: int
    width: int
    expressions: tuple[Expression, ...]
    has_masks: bool
    mask_places: tuple[tuple[int, int], ...] | None = None

    def annotated_frames(self, object_id: int) -> list[int]:
        """Indices of the frames for which it is known where the object is, or that it is away."""
        if not self.has_masks:
            return []
        if self.mask_places is None:
            return list(range(len(self.frame_names)))
        return sorted(frame for frame, place in self.mask_places if place == object_id)


@dataclasses.dataclass(frozen=True)
class Record:
    """A video with its encoded frames (JPEG or PNG) or, in their place, the film that they are decoded from; and
    its masks (PNG; none where they are hidden)."""
    video: Video
    frames: tuple[bytes, ...]
    masks: tuple[bytes, ...]
    film: bytes | None = None

    def decode_frames(self, indices: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """RGB [T H W 3] uint8 of the frames at `indices`, or of all.

        Raises:
            ValueError: for a broken image, a broken film or one that ends too early; names video and frame.
        """
        indices = range(len(self.video.frame_names)) if indices is None else indices
        if self.film is not None:
            return self._decode_film(indices)
        return np.stack([self._decode_frame(index) for index in indices])

    def decode_masks(self, indices: Sequence[int] | np.ndarray | None = None) -> np.ndarray | None:
        """Object ids [T H W] uint8 of the maps at `indices`, or of all; None without ground truth.

        0 is background, 255 is void where the benchmark has it (DAVIS). Only for videos without `mask_places`.

        Raises:
            ValueError: for a broken PNG or one of another size than the frame; names video and frame.
        """
        if not self.masks:
            return None
        indices = range(len(self.masks)) if indices is None else indices
        return np.stack([self._decode_mask(index, index) for index in indices])

    def decode_object(self, object_id: int, index: int) -> np.ndarray:
        """Where an object is in one of its annotated frames, bool [H W].

        Raises:
            ValueError: for a broken PNG, and for a frame in which the object is not annotated.
        """
        if self.video.mask_places is None:
            return self._decode_mask(index, index) == object_id
        if (index, object_id) not in self.video.mask_places:
            raise ValueError(self._broken(index, f'object {object_id} has no mask here'))
        return self._decode_mask(self.video.mask_places.index((index, object_id)), index) > 0

    def _decode_film(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        wanted, found, number = {int(index) for index in indices}, {}, -1
        try:
            with av.open(io.BytesIO(self.film)) as container:
                for number, frame in enumerate(container.decode(video=0)):
                    if number in wanted:
                        found[number] = frame.to_ndarray(format='rgb24')
                    if len(found) == len(wanted):
                        break
        except (av.FFmpegError, IndexError) as error:  # IndexError: no video in it.
            raise ValueError(self._broken(max(wanted), f'film is broken ({error})')) from error
        if len(found) < len(wanted):
            missing = min(wanted - set(found))
            raise ValueError(self._broken(missing, f'film ends before it, after {number + 1} frames'))
        return np.stack([found[int(index)] for index in indices])

    def _decode_frame(self, index: int) -> np.ndarray:
        data = self.frames[index]
        image = None
        # Some versions of OpenCV fill a truncated JPEG with grey instead of failing: look for its end.
        if data and (not data.startswith(b'\xff\xd8') or b'\xff\xd9' in data[-1024:]):
            # The frame as stored: masks know nothing of a camera's orientation tag.
            image = cv2.imdecode(np.frombuffer(data, np.uint8),
                                 cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None:
            raise ValueError(self._broken(index, 'image is broken or truncated'))
        if image.shape[:2] != (self.video.height, self.video.width):
            raise ValueError(self._broken(index, f'image is {image.shape[1]}x{image.shape[0]} pixels, not '
                                                 f'{self.video.width}x{self.video.height}'))
        return image

    def _decode_mask(self, number: int, index: int) -> np.ndarray:
        try:
            # Pillow keeps palette indices; OpenCV would turn them into colours.
            mask = np.asarray(Image.open(io.BytesIO(self.masks[number])), np.uint8)
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

    def __init__(self, directory: str, split: str, videos: tuple[Video, ...], sources: tuple):
        """sources: tfds data sources that hold the videos, one after the other."""
        self.directory, self.split, self.videos = directory, split, videos
        self._sources = sources

    def __len__(self) -> int:
        return len(self.videos)

    def first(self, count: int) -> 'Records':
        """The first videos alone."""
        return Records(self.directory, self.split, self.videos[:count], self._sources)

    def __getitem__(self, index: int) -> Record:
        index = range(len(self))[index]
        video, place = self.videos[index], index
        for source in self._sources:
            if place < len(source):
                break
            place -= len(source)
        try:
            example = source[place]
        except (RuntimeError, OSError) as error:  # of array_record: damaged, or gone
            raise ValueError(f'{self.directory}: split {self.split}, video {video.name}: its record cannot be read '
                             f'({error}). Check the disk; build the data set again.') from error
        if example['video'].decode() != video.name:
            raise ValueError(f'{self.directory}: record {index} of {self.split} is video '
                             f'{example["video"].decode()}, but metadata.json says {video.name}. '
                             'Build the data set again.')
        film = example.get('film')
        return Record(video, tuple(example.get('frames', ())), tuple(example['masks']),
                      None if film is None else bytes(film[0]))


def open_records(directories: str | os.PathLike | Sequence[str | os.PathLike], split: str) -> Records:
    """Opens a split of a built data set, or of several as one, the videos of the first first.

    Args:
        directories: the folder of records (<out>/<name>/<version>), or one above that holds only one; or several.
        split: 'train', 'valid', 'test', or a slice such as 'valid[:4]' or 'train[10%:]', taken of each.

    Raises:
        FileNotFoundError: when there are no records under a directory, or no metadata beside them.
        ValueError: when there are several data sets, or no such split; lists what is there.
    """
    if isinstance(directories, str | os.PathLike):
        directories = [directories]
    videos, sources, folders = [], [], []
    for directory in directories:
        folder = _records_folder(pathlib.Path(directory))
        of_folder, source = _open_split(folder, split)
        videos += of_folder
        sources.append(source)
        folders.append(str(folder))
    return Records(', '.join(folders), split, tuple(videos), tuple(sources))


def _open_split(folder: pathlib.Path, split: str) -> tuple[list[Video], Sequence]:
    if not (folder / 'metadata.json').exists():
        raise FileNotFoundError(f'{folder}: holds no metadata.json, so it was written by another builder. '
                                'Build the data set with `python -m datasets.build`.')
    builder = tfds.builder_from_directory(folder)
    splits = builder.info.splits
    try:
        parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(splits)
        source = builder.as_data_source(split=split, decoders={
            name: KeepBytes() for name in ('frames', 'masks') if name in builder.info.features})
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
    return videos, source


def training_index(videos: Sequence[Video], num_frames: int, sentences: int = 1,
                   consecutive: bool = False) -> np.ndarray:
    """One row for each clip of an epoch: (video, expression, centre), all indices; int32 [N 3].

    As in the released code, centres are every `num_frames`-th frame of a video from its first; where only some
    frames are annotated (A2D-Sentences), these. Expressions tagged 'crowd' (RefCOCO) are left out.

    Args:
        consecutive: clips are windows of frames that follow each other, as SOC trains, and their first stands for the
          centre: windows without overlap, but for the last, which is moved back to be full.
        sentences: that are asked of a clip at most. If several, there is one row for a video and centre; its
          expression, the first, stands for all.

    Raises:
        ValueError: for an expression without object or a video without masks; for several sentences where frames are
            annotated for one object each.
    """
    index = []
    for number, video in enumerate(videos):
        if sentences > 1 and video.mask_places is not None:
            raise ValueError(f'config.data.sentences = {sentences}: video {video.name} has frames that are annotated '
                             'for one object each, of which one sentence can be asked.')
        for position, expression in enumerate(video.expressions):
            if expression.object_id < 0 or not video.has_masks:
                raise ValueError(f'video {video.name}, expression {expression.id}: has no ground truth to '
                                 'train on. Train on a split that has it.')
            if 'crowd' in expression.tags:
                continue
            length = len(video.frame_names)
            centres = range(0, length, num_frames) if video.mask_places is None else (
                video.annotated_frames(expression.object_id))
            if consecutive and video.mask_places is None:
                centres = [max(0, min(first, length - num_frames)) for first in centres]
            if sentences == 1 or position == 0:
                index += [(number, position, centre) for centre in centres]
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
    places = entry.get('mask_places')
    return Video(entry['video'], tuple(entry['frame_names']), entry['height'], entry['width'], expressions,
                 entry['has_masks'], None if places is None else tuple(map(tuple, places)))
