"""Reads video files: only self-contained formats, with frames turned upright.

By default FFmpeg would follow a playlist to other files, or wait for a network named in an SDP file.
Axis letters: T frames, H W pixels.
"""

from collections.abc import Iterator
import contextlib
import io
import os
import pathlib
from typing import Any

from absl import logging
import av
from jaxtyping import UInt8
import numpy as np

from sgmg_jax import files, pictures

# Tags that are no UTF-8 do not stop a film. PyAV 19 has no such argument, and needs none.
TAGS: dict[str, Any] = {'metadata_errors': 'replace'} if int(av.__version__.split('.')[0]) < 19 else {}
FORMATS = 'mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,ogg,gif,flv'  # FFmpeg's names; all are self-contained
LARGEST = 2**33  # bytes of decoded frames that `read_frames` keeps in memory


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


def read_frames(path: str | os.PathLike) -> UInt8[np.ndarray, 'T H W 3']:
    """All frames of a film in RGB, turned upright as a player shows them.

    If the film ends early, the frames before that, with a warning.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming the file: it is not a film, has no frame, frames of several sizes, or more than LARGEST
            bytes of them.
    """
    path, lost, end = pathlib.Path(path), '', 0.0
    found: list[np.ndarray] = []
    try:
        with open_film(path) as (container, stream):
            try:
                for packet in container.demux(stream):
                    lost = lost or ('the file ends inside a frame' if packet.is_corrupt else '')
                    for frame in packet.decode():
                        found.append(_upright(frame))
                        end = max(end, frame.time or 0.0)
                        if len(found) * found[0].nbytes > LARGEST:
                            raise BrokenFilm(
                                f'has more than {LARGEST / 2**30:.0f} GiB of frames; shorten or downscale it'
                            )
            except av.FFmpegError as error:
                if not found:
                    raise
                lost = error.strerror or str(error)
            expected = stream.frames
            length = (
                float(stream.duration * stream.time_base)
                if stream.duration and stream.time_base
                else (container.duration or 0) / 1e6
            )
            if not lost and not expected and end < 0.9 * length - 0.5:  # `end` is where the last frame begins.
                lost = f'its header gives a length of {length:.1f} s, the frames end at {end:.1f} s'
        if not found:
            raise BrokenFilm('has no frame')
        if len({frame.shape for frame in found}) > 1:
            raise BrokenFilm(f'has frames of several sizes: {sorted({frame.shape[:2] for frame in found})}')
    except BrokenFilm as error:
        raise ValueError(f'{path}: {error}.') from error
    if lost or expected > len(found):
        logging.warning(
            '%s: only %d%s frames could be read%s.',
            path,
            len(found),
            f' of {expected}' if expected > len(found) else '',
            f' ({lost})' if lost else '',
        )
    return np.stack(found)


def _upright(frame: av.VideoFrame) -> UInt8[np.ndarray, 'H W 3']:
    """RGB, rotated by `frame.rotation`: degrees counterclockwise, which phones write in steps of 90."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format='rgb24'), round(frame.rotation / 90)))
