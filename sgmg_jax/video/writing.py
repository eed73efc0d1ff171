"""Writes films that every browser plays: H.264 in mp4, with the sound of another film.

Axis letters: T frames, H W pixels.
"""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import errno
import fractions
import os
import pathlib
from typing import Any

from absl import logging
import av
from jaxtyping import UInt8
import numpy as np

from sgmg_jax import files
from sgmg_jax.video.reading import BrokenFilm, open_film

CLOCK = fractions.Fraction(1, 90_000)  # seconds; fine enough for every usual rate, and for variable ones
BT709 = 1  # FFmpeg's number of these colours
COPIED = ('aac',)  # sound that every browser plays in an mp4; other sound is encoded again, as AAC
Append = Callable[[UInt8[np.ndarray, 'H W 3'], float], None]


@contextlib.contextmanager
def writer(
    path: str | os.PathLike, rate: float | int, sound: str | os.PathLike | None = None, start: float | int = 0.0
) -> Iterator[Append]:
    """Writes a film frame by frame; it appears whole or not at all.

    Args:
        path: ending in .mp4.
        rate: nominal frames per second; the times given with the frames decide when they are shown.
        sound: a film whose sound is added; sound that cannot be read is left out, with a warning.
        start: seconds in that film at which the first frame is.

    Yields:
        function(image, time): appends a frame, RGB. time: seconds from the beginning, growing. Where a side is odd,
        its last pixels are doubled, because the encoding needs even ones.

    Raises:
        ValueError: for another suffix.
        OSError: naming the film: it cannot be written.
    """
    if pathlib.Path(path).suffix.lower() != '.mp4':
        raise ValueError(f'{path}: films are written as .mp4. Give it that ending.')
    with files.replacing(path) as partial, _as_os_error():
        with av.open(os.fspath(partial), 'w', options={'movflags': 'faststart'}) as output:
            video: Any = output.add_stream('libx264', rate=fractions.Fraction(rate).limit_denominator(1001))
            # Without B-frames: with them, films of variable rate claim to be shorter than they are.
            video.pix_fmt, video.options = 'yuv420p', {'crf': '20', 'preset': 'veryfast', 'bf': '0'}
            context = video.codec_context
            context.time_base = CLOCK
            context.color_primaries = context.color_trc = context.colorspace = BT709
            packets = _sound(sound, output, start) if sound is not None else iter(())
            waiting, ticks = next(packets, None), -1  # The first packet comes with its stream, before any frame.

            def mux_sound(until: float) -> None:
                # In the order of time: the muxer keeps in memory what is far ahead of the other stream.
                nonlocal waiting
                while waiting is not None and waiting[0] < until:
                    output.mux(waiting[1])
                    waiting = next(packets, None)

            def append(image: UInt8[np.ndarray, 'H W 3'], time: float) -> None:
                nonlocal ticks
                height, width = image.shape[:2]
                if ticks < 0:
                    video.width, video.height = width + width % 2, height + height % 2
                even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), 'edge')
                frame = av.VideoFrame.from_ndarray(even, format='rgb24').reformat(
                    format='yuv420p', dst_colorspace='ITU709'
                )
                ticks = max(ticks + 1, round(time / CLOCK))
                frame.pts, frame.time_base, frame.duration = ticks, CLOCK, round(1 / rate / CLOCK)
                mux_sound(time)
                output.mux(video.encode(frame))

            yield append
            if ticks >= 0:
                output.mux(video.encode(None))
                mux_sound(float(ticks * CLOCK) + 1 / rate)


def write(path: str | os.PathLike, frames: Iterable[UInt8[np.ndarray, 'H W 3']], rate: float | int = 25.0) -> None:
    """Writes frames, RGB, as an mp4. Raises as `writer` does."""
    with writer(path, rate) as append:
        for number, frame in enumerate(frames):
            append(frame, number / rate)


def _sound(
    film: str | os.PathLike, output: av.container.OutputContainer, start: float | int
) -> Iterator[tuple[float, Any]]:
    """Adds a stream of sound to `output` and yields (seconds from `start`, packet or packets)."""
    try:
        with open_film(film) as (container, video):
            if not container.streams.audio:
                return
            audio: Any = container.streams.audio[0]
            origin = float(video.start_time * video.time_base) if video.start_time and video.time_base else 0.0
            change = _copy if audio.codec_context.name in COPIED else _encode
            for time, packet in change(container, audio, output, origin + start):
                if time >= 0:
                    yield time, packet
    except (BrokenFilm, av.FFmpegError, ValueError) as error:
        logging.warning('%s: its sound, or the rest of it, is left out: %s.', film, files.printable(str(error)))


def _copy(container: Any, audio: Any, output: Any, shift: float) -> Iterator[tuple[float, Any]]:
    copy = output.add_stream_from_template(audio)
    ticks = round(shift / audio.time_base)
    for packet in container.demux(audio):
        if packet.pts is not None:
            packet.pts -= ticks
            packet.dts = packet.pts
            packet.stream = copy
            yield float(packet.pts * audio.time_base), packet


def _encode(container: Any, audio: Any, output: Any, shift: float) -> Iterator[tuple[float, Any]]:
    encoded = output.add_stream('aac', rate=48_000, layout='stereo')
    resampler = av.AudioResampler(format='fltp', layout='stereo', rate=48_000)
    time = 0.0
    for frame in container.decode(audio):
        time = (frame.time or 0.0) - shift
        if time >= 0:
            frame.pts = None  # counted by the resampler, from the first frame of sound on
            for part in resampler.resample(frame):
                yield time, encoded.encode(part)
    yield time, encoded.encode(None)


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Turns FFmpeg's other exceptions into an OSError."""
    try:
        yield
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise OSError(errno.EIO, str(error)) from error
