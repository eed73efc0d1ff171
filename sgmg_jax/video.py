"""Films: which formats are opened, and frames as a person sees them.

FFmpeg would otherwise follow a playlist to other files, or wait for a network that an SDP file names.
Axis letters: T frames, H W pixels.
"""
from collections.abc import Iterator
import contextlib
import io
import os
import pathlib

from absl import logging
import av
import numpy as np

from sgmg_jax import files, pictures

FORMATS = 'mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,ogg,gif,flv'  # FFmpeg's names; all hold their own data
LARGEST = 2 ** 33  # bytes of decoded frames that `read_frames` takes memory for


class BrokenFilm(ValueError):
    """A film that cannot be used; the message is why, without the name of its file."""


@contextlib.contextmanager
def open_film(source: str | os.PathLike | bytes) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Opens a film and yields it with its first video stream.

    Args:
        source: a path, or the bytes of the file.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenFilm: it is no film of a known format, is damaged (also when that shows inside of the block), has no
            picture, or frames of more than pictures.MOST_PIXELS.
    """
    try:
        if not isinstance(source, bytes):
            files.check_regular(source)
        opened = io.BytesIO(source) if isinstance(source, bytes) else os.fspath(source)
        options = {'format_whitelist': FORMATS, 'protocol_whitelist': 'file'}
        with av.open(opened, options=options, metadata_errors='replace') as container:
            if not container.streams.video:
                raise BrokenFilm('has no picture, only sound or text' if container.streams else 'is empty')
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise BrokenFilm('has pictures in a coding that is not known')
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


def read_frames(path: str | os.PathLike) -> np.ndarray:
    """All frames of a film, RGB uint8 [T H W 3], turned upright as a player shows them.

    A film that ends early gives the frames that are there, and a warning.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming the file: it is no film, has no picture, frames of several sizes, or more than LARGEST bytes.
    """
    path, found, lost, end = pathlib.Path(path), [], None, 0.0
    try:
        with open_film(path) as (container, stream):
            try:
                for packet in container.demux(stream):
                    lost = lost or ('the file ends inside a frame' if packet.is_corrupt else None)
                    for frame in packet.decode():
                        found.append(_upright(frame))
                        end = max(end, frame.time or 0.0)
                        if len(found) * found[0].nbytes > LARGEST:
                            raise BrokenFilm(f'has more than {LARGEST / 2 ** 30:.0f} GiB of frames; cut it, or make '
                                             'it smaller')
            except av.FFmpegError as error:
                if not found:
                    raise
                lost = error.strerror or str(error)
            expected = stream.frames
            length = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1e6
            if not lost and not expected and end < 0.9 * length - 0.5:  # The last frame is shown for a while, too.
                lost = f'it says that it lasts {length:.1f} s, and they end at {end:.1f} s'
        if not found:
            raise BrokenFilm('has no frame')
        if len({frame.shape for frame in found}) > 1:
            raise BrokenFilm(f'has frames of several sizes: {sorted({frame.shape[:2] for frame in found})}')
    except BrokenFilm as error:
        raise ValueError(f'{path}: {error}.') from error
    if lost or expected > len(found):
        logging.warning('%s: only %d%s frames could be read%s.', path, len(found),
                        f' of {expected}' if expected > len(found) else '', f' ({lost})' if lost else '')
    return np.stack(found)


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """RGB [H W 3]; `rotation` is in degrees counterclockwise, as phones write it in steps of 90."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format='rgb24'), round(frame.rotation / 90)))
