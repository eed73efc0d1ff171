"""Reads films, folders of pictures and single pictures, upright as a player shows them, one frame at a time.

Only self-contained formats: by default FFmpeg would follow a playlist to other files, or wait for a network named in an
SDP file. Axis letters: T frames, H W pixels.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import io
import os
import pathlib
import re
from typing import Any, NamedTuple

from absl import logging
import av
import cv2
from jaxtyping import UInt8
import numpy as np

from sgmg_jax import files, pictures

# Tags that are no UTF-8 do not stop a film. PyAV 19 has no such argument, and needs none.
TAGS: dict[str, Any] = {'metadata_errors': 'replace'} if int(av.__version__.split('.')[0]) < 19 else {}
FORMATS = 'mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,ogg,gif,flv'  # FFmpeg's names; all are self-contained
LARGEST = 2**33  # bytes of decoded frames that `read` keeps in memory
PICTURES = 'JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF'  # Pillow's names of the formats of single pictures
SUFFIXES = '.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff'  # of the pictures in a folder
PICTURES_PER_SECOND = 25.0  # of a folder of pictures, which has no rate of its own


class BrokenFilm(ValueError):
    """A film cannot be used; the message gives the reason, without the file name."""


@contextlib.contextmanager
def open_film(source: str | os.PathLike | bytes) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Opens a film and yields it with its first video stream.

    Args:
        source: a path, or the bytes of the file.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenFilm: it is not a film of a known format, is damaged (also if decoding inside the block finds that), has
            no video stream, or frames of more than pictures.MOST_PIXELS.
    """
    try:
        if not isinstance(source, bytes):
            files.check_regular(source)
        opened = io.BytesIO(source) if isinstance(source, bytes) else os.fspath(source)
        options = {'format_whitelist': FORMATS, 'protocol_whitelist': 'file'}
        with av.open(opened, 'r', options=options, **TAGS) as container:
            if not container.streams.video:
                raise BrokenFilm('has no picture, only sound or text' if container.streams else 'is empty')
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise BrokenFilm('has pictures in an unknown encoding')
            stream.codec_context.options = {'max_pixels': str(pictures.MOST_PIXELS)}
            width, height = stream.codec_context.width or 0, stream.codec_context.height or 0
            if width * height > pictures.MOST_PIXELS:
                raise BrokenFilm(f'has frames of {width}x{height} pixels, at most {pictures.MOST_PIXELS:,} are read')
            yield container, stream
    except FileNotFoundError:
        raise
    except (av.FFmpegError, IndexError) as error:
        reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
        raise BrokenFilm(f'cannot be read as a film ({files.printable(reason)})') from error


class Frame(NamedTuple):
    """A frame of a film.

    name: its number in the film, in five digits; of a picture, the file's name without suffix.
    time: seconds from the film's first frame.
    image: RGB.
    """

    name: str
    time: float
    image: UInt8[np.ndarray, 'H W 3']


@dataclasses.dataclass(frozen=True)
class Source:
    """What can be read frame by frame: a film, a folder of pictures, or one picture.

    files: the film, or the pictures in order.
    rate: average frames per second.
    count: expected number of frames; None: unknown before they are read.
    """

    path: pathlib.Path
    files: tuple[pathlib.Path, ...]
    is_film: bool
    rate: float | int
    count: int | None


def open_source(path: str | os.PathLike) -> Source:
    """Recognises what is at `path`, by its content.

    Raises:
        FileNotFoundError: nothing is there; or a folder without pictures.
        ValueError: naming the file: it is neither a film nor a picture.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        names = [name for name in files.listing(path)[1] if name.lower().endswith(SUFFIXES)]
        if not names:
            raise FileNotFoundError(
                f'{path}: a folder without pictures ({", ".join(SUFFIXES)}). Give a film, a picture, or a folder of '
                'pictures.'
            )
        stems = [pathlib.Path(name).stem for name in names]
        twice = next((stem for stem in stems if stems.count(stem) > 1), None) if len(set(stems)) < len(stems) else None
        if twice is not None:
            raise ValueError(f'{path}: has two pictures named {files.printable(twice)}. Remove one of them.')
        names.sort(key=_natural)
        return Source(path, tuple(path / name for name in names), False, PICTURES_PER_SECOND, len(names))
    try:
        pictures.read_header(path, PICTURES)
        return Source(path, (path,), False, PICTURES_PER_SECOND, 1)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{path}: no such file. Give a film, a picture, or a folder of pictures.') from error
    except pictures.BrokenPicture as error:
        if path.suffix.lower() in SUFFIXES:
            raise ValueError(f'{path}: {error}.') from error
    try:
        with open_film(path) as (container, stream):
            rate = float(stream.average_rate or stream.guessed_rate or PICTURES_PER_SECOND)
            count = stream.frames or round(_duration(container, stream) * rate) or None
            return Source(path, (path,), True, rate, count)
    except BrokenFilm as error:
        raise ValueError(f'{path}: {error}. Give a film, a picture, or a folder of pictures.') from error


def stream(
    source: Source,
    every: int = 1,
    start: float | int = 0.0,
    end: float | int = float('inf'),
    max_side: int | None = None,
) -> Iterator[Frame]:
    """Yields frames one by one; only one is in memory. If a film ends early, the frames before that, and a warning
    with their number.

    Args:
        every: yield every so many frames.
        start, end: seconds from the first frame; frames from `start` on and before `end` are yielded.
        max_side: pixels; larger frames are scaled down until no side is longer.

    Raises:
        ValueError: naming the file: no frame can be read, or frames have several sizes.
    """
    first: tuple[str, tuple[int, ...]] | None = None
    number = -1
    for number, frame in enumerate(_film(source) if source.is_film else _pictures(source)):
        first = first or (frame.name, frame.image.shape)
        if frame.image.shape != first[1]:
            raise ValueError(
                f'{source.path}: has frames of several sizes: {first[0]} has {_size(first[1])} pixels, '
                f'{files.printable(frame.name)} has {_size(frame.image.shape)}. Bring all to one size.'
            )
        if frame.time >= end:
            return
        if frame.time >= start and number % every == 0:
            yield frame._replace(image=_within(frame.image, max_side))
    if number < 0:
        raise ValueError(f'{source.path}: has no frame.')


def read(path: str | os.PathLike) -> UInt8[np.ndarray, 'T H W 3']:
    """All frames of a film, a folder of pictures or a picture, RGB, upright. See `stream` to read frame by frame.

    Raises:
        FileNotFoundError, ValueError: as `open_source` and `stream`; ValueError also for more than LARGEST bytes.
    """
    found: list[np.ndarray] = []
    for frame in stream(open_source(path)):
        found.append(frame.image)
        if len(found) * frame.image.nbytes > LARGEST:
            raise ValueError(f'{path}: has more than {LARGEST / 2**30:.0f} GiB of frames. Read it by `stream`.')
    return np.stack(found)


def _film(source: Source) -> Iterator[Frame]:
    lost, end, origin, number = '', 0.0, None, -1
    try:
        with open_film(source.path) as (container, video):
            try:
                for packet in container.demux(video):
                    lost = lost or ('the file ends inside a frame' if packet.is_corrupt else '')
                    for frame in packet.decode():
                        number += 1
                        time = number / source.rate if frame.time is None else frame.time
                        origin = time if origin is None else origin
                        end = max(end, time)
                        yield Frame(f'{number:05d}', time - origin, _upright(frame))
            except av.FFmpegError as error:
                if number < 0:
                    raise
                lost = error.strerror or str(error)
            expected, length = video.frames, _duration(container, video)
            if not lost and not expected and end < 0.9 * length - 0.5:  # `end` is where the last frame begins.
                lost = f'its header gives a length of {length:.1f} s, the frames end at {end:.1f} s'
        if number < 0:
            raise BrokenFilm('has no frame')
    except BrokenFilm as error:
        raise ValueError(f'{source.path}: {error}.') from error
    if lost or expected > number + 1:
        logging.warning(
            '%s: only %d%s frames could be read%s.',
            source.path,
            number + 1,
            f' of {expected}' if expected > number + 1 else '',
            f' ({lost})' if lost else '',
        )


def _pictures(source: Source) -> Iterator[Frame]:
    for number, file in enumerate(source.files):
        try:
            image = pictures.read_upright(file, PICTURES)
        except pictures.BrokenPicture as error:
            raise ValueError(f'{file}: {error}.') from error
        yield Frame(file.stem, number / source.rate, image)


def _natural(name: str) -> list:
    """Sorts frame2 before frame10."""
    return [(int(part), '') if part.isdecimal() else (-1, part) for part in re.split(r'(\d+)', name)]


def _duration(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Seconds, as the header has them; 0 if it has none."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1e6


def _upright(frame: av.VideoFrame) -> UInt8[np.ndarray, 'H W 3']:
    """RGB, rotated by `frame.rotation`: degrees counterclockwise, which phones write in steps of 90."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format='rgb24'), round(frame.rotation / 90)))


def _within(image: np.ndarray, max_side: int | None) -> np.ndarray:
    height, width = image.shape[:2]
    if max_side is None or max(height, width) <= max_side:
        return image
    scale = max_side / max(height, width)
    return cv2.resize(
        image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )


def _size(shape: tuple[int, ...]) -> str:
    return f'{shape[1]}x{shape[0]}'
