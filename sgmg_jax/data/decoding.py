"""A video of a data set. Its frames are decoded strictly: a truncated picture is an error, not a grey area.

Axis letters: T frames, H W pixels.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools

import cv2
from jaxtyping import Bool, Int, UInt8
import numpy as np

from sgmg_jax import pictures
from sgmg_jax.data.metadata import Expression, Video
from sgmg_jax.video import BrokenFilm, open_film

LARGEST_RECORD = 2**30  # bytes of a video's frames; a protobuf message has at most twice as many
Indices = Sequence[int] | Int[np.ndarray, ' T']


def decode_picture(
    data: bytes, size: tuple[int, int] | None = None, formats: Sequence[str] = (pictures.JPEG, pictures.PNG)
) -> UInt8[np.ndarray, 'H W 3']:
    """RGB of a JPEG or PNG as stored: a camera's orientation tag is ignored, because masks have none.

    Args:
        size: the required (H, W); None: any.

    Raises:
        BrokenPicture: it has another size, or is broken or truncated.
    """
    try:
        stored = _size_of(data, formats)
        if size is not None and stored != tuple(size):
            raise pictures.BrokenPicture(f'is {stored[1]}x{stored[0]} pixels, not {size[1]}x{size[0]}')
        image = (
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
            if _has_end(data)
            else None
        )
    except cv2.error as error:
        raise pictures.BrokenPicture(f'is broken or truncated ({error})') from error
    if image is None or image.shape[:2] != stored:
        raise pictures.BrokenPicture('is broken or truncated')
    return image


def _size_of(data: bytes, formats: Sequence[str]) -> tuple[int, int]:
    try:
        return pictures.read_header(data, formats)[2:]
    except pictures.BrokenPicture as error:
        raise pictures.BrokenPicture(f'is broken or truncated ({error})') from error


def check_jpeg(data: bytes) -> tuple[int, int]:
    """Reads a whole JPEG and returns its (H, W). Raises BrokenPicture."""
    size = pictures.check_jpeg(data)
    if not _has_end(data):
        raise pictures.BrokenPicture('is broken or truncated')
    return size


def _has_end(data: bytes) -> bool:
    """Whether a JPEG has its end marker, which some versions of OpenCV and Pillow do not check; True for others."""
    return not data.startswith(b'\xff\xd8') or b'\xff\xd9' in data[-1024:]


@dataclasses.dataclass(frozen=True)
class Record:
    """A video with its frames (encoded as JPEG or PNG, or the film that contains them) and its masks (PNG; none where
    they are hidden)."""

    video: Video
    frames: tuple[bytes, ...]
    masks: tuple[bytes, ...]
    film: bytes | None = None

    def decode_frames(self, indices: Indices | None = None) -> UInt8[np.ndarray, 'T H W 3']:
        """RGB of the frames at `indices` (default: all).

        Raises:
            ValueError: an image is broken, or the film is broken or ends too early; names video and frame.
        """
        indices = range(len(self.video.frame_names)) if indices is None else indices
        if self.film is not None:
            return self._decode_film(self.film, indices)
        frames = np.empty((len(indices), self.video.height, self.video.width, 3), np.uint8)
        for frame, index in zip(frames, indices):  # one after the other, so that they are held once
            frame[:] = self._decode_frame(int(index))
        return frames

    def decode_masks(self, indices: Indices | None = None) -> UInt8[np.ndarray, 'T H W'] | None:
        """Maps of object ids at `indices` (default: all); None without ground truth.

        0 is background; 255 is void in data sets that have it (DAVIS). Only for videos without `mask_places` and
        `mask_layers`.

        Raises:
            ValueError: a PNG is broken or its size differs from the frame's; names video and frame. Or the video has
                `mask_layers`.
        """
        self._check_layers()
        if not self.masks:
            return None
        indices = range(len(self.masks)) if indices is None else indices
        return np.stack([self._decode_mask(int(index), int(index)) for index in indices])

    def decode_targets(self, indices: Indices | None = None) -> Callable[[Expression], Bool[np.ndarray, 'T H W']]:
        """Masks at `indices` (default: all). Only for videos with ground truth and without `mask_places`.

        Returns:
            function(expression) -> the pixels of any of its objects; none for a sentence without target. It raises
            ValueError as `decode_masks` does.
        """
        indices = range(len(self.video.frame_names)) if indices is None else indices
        length = len(self.video.frame_names)
        places = {
            number: (layer, value)
            for layer, numbers in enumerate(self.video.mask_layers or ())
            for value, number in enumerate(numbers, 1)
        }

        @functools.cache
        def decode_layer(layer: int) -> UInt8[np.ndarray, 'T H W']:
            return np.stack([self._decode_mask(layer * length + int(index), int(index)) for index in indices])

        def of_expression(expression: Expression) -> Bool[np.ndarray, 'T H W']:
            if self.video.mask_layers is None:
                return decode_layer(0) == expression.object_id
            found = np.zeros((len(indices), self.video.height, self.video.width), bool)
            for layer, value in (places[number] for number in expression.group or ()):
                found |= decode_layer(layer) == value
            return found

        return of_expression

    def decode_object(self, object_id: int, index: int) -> Bool[np.ndarray, 'H W']:
        """The mask of an object in one of its annotated frames.

        Raises:
            ValueError: the PNG is broken, the object is not annotated in this frame, or the video has `mask_layers`.
        """
        self._check_layers()
        if self.video.mask_places is None:
            return self._decode_mask(index, index) == object_id
        if (index, object_id) not in self.video.mask_places:
            raise ValueError(self._broken(index, f'object {object_id} has no mask here'))
        return self._decode_mask(self.video.mask_places.index((index, object_id)), index) > 0

    def _check_layers(self) -> None:
        if self.video.mask_layers is not None:
            raise ValueError(
                f'video {self.video.name}: its sentences refer to groups of objects that may overlap, as in MeViS. Use '
                "config.evaluation.protocol 'mevis' or 'ytvos', or `python -m sgmg_jax.score mevis`."
            )

    def _decode_film(self, film: bytes, indices: Indices) -> UInt8[np.ndarray, 'T H W 3']:
        wanted, number = {int(index) for index in indices}, -1
        found: dict[int, np.ndarray] = {}
        try:
            with open_film(film) as (container, stream):
                for number, frame in enumerate(container.decode(stream)):
                    if number in wanted:
                        if (frame.height, frame.width) != (self.video.height, self.video.width):
                            raise BrokenFilm(
                                f'its frames are {frame.width}x{frame.height} pixels, not '
                                f'{self.video.width}x{self.video.height}'
                            )
                        found[number] = frame.to_ndarray(format='rgb24')
                    if len(found) == len(wanted):
                        break
        except ValueError as error:
            raise ValueError(self._broken(max(wanted), f'film is broken ({error})')) from error
        if len(found) < len(wanted):
            missing = min(wanted - set(found))
            raise ValueError(self._broken(missing, f'film ends before it, after {number + 1} frames'))
        return np.stack([found[int(index)] for index in indices])

    def _decode_frame(self, index: int) -> UInt8[np.ndarray, 'H W 3']:
        try:
            return decode_picture(self.frames[index], (self.video.height, self.video.width))
        except pictures.BrokenPicture as error:
            raise ValueError(self._broken(index, f'image {error}')) from error

    def _decode_mask(self, number: int, index: int) -> UInt8[np.ndarray, 'H W']:
        size = self.video.height, self.video.width
        try:
            # Pillow keeps palette indices; OpenCV would turn them into colours.
            mask = pictures.read_pixels(self.masks[number], (pictures.PNG,), size, ('P', 'L', '1'))
            return np.asarray(mask, np.uint8)
        except pictures.BrokenPicture as error:
            raise ValueError(self._broken(index, f'mask is broken ({error})')) from error

    def _broken(self, index: int, what: str) -> str:
        return (
            f'video {self.video.name}, frame {self.video.frame_names[index]}: the {what}. '
            'Build the records again from intact files.'
        )
