"""Untrusted films: formats, orientation, truncation."""

from fractions import Fraction
import io
import logging as python_logging

import av
import numpy as np
import pytest

from sgmg_jax import video


def write_film(path, frames, rate=10, kind=None):
    """frames [T H W 3] uint8 as H.264."""
    with av.open(str(path), 'w', format=kind) as container:
        stream = container.add_stream('libx264', rate=rate, options={'crf': '0'})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], 'yuv444p'
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode())
    return path


@pytest.fixture
def frames():
    """Dark frames with a bright corner at the top left, each brighter than the one before."""
    frames = np.zeros((12, 48, 80, 3), np.uint8)
    frames += np.arange(0, 120, 10, np.uint8)[:, None, None, None]
    frames[:, :16, :24] = 230
    return frames


@pytest.mark.parametrize('ending', ['mp4', 'mkv', 'mov', 'avi'])
def test_every_frame_is_read(tmp_path, frames, ending):
    read = video.read(write_film(tmp_path / f'a.{ending}', frames))
    assert read.dtype == np.uint8 and read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).max() <= 6  # of colours' conversion


def test_tags_of_any_bytes_are_ignored(tmp_path, frames):
    film = write_film(tmp_path / 'a.mkv', frames).read_bytes()
    assert b'Lavf' in film  # the name of the writing program
    (tmp_path / 'b.mkv').write_bytes(film.replace(b'Lavf', b'\xff\xfe\x80\xc3'))
    assert len(video.read(tmp_path / 'b.mkv')) == len(frames)


def test_rotated_films_are_turned_upright(tmp_path, frames):
    """Writes the display matrix of 90 degrees, as phones do, into the mp4."""
    data = write_film(tmp_path / 'a.mp4', frames).read_bytes()
    identity = b''.join(n.to_bytes(4, 'big') for n in (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30))
    turned = b''.join(n.to_bytes(4, 'big', signed=True) for n in (0, 65536, 0, -65536, 0, 0, 48 << 16, 0, 1 << 30))
    place = data.index(identity, data.index(b'tkhd'))
    (tmp_path / 'turned.mp4').write_bytes(data[:place] + turned + data[place + len(identity) :])
    read = video.read(tmp_path / 'turned.mp4')
    assert read.shape == (12, 80, 48, 3)
    # By 90 degrees clockwise: the top left corner is now at the top right.
    assert read[0, :24, -16:].min() > 200 and read[0, 30:].max() < 60 and read[0, :, :30].max() < 60


def test_a_truncated_film_gives_a_warning(tmp_path, frames, caplog):
    film = write_film(tmp_path / 'a.mkv', np.concatenate([frames] * 20), rate=10).read_bytes()
    (tmp_path / 'cut.mkv').write_bytes(film[: len(film) // 2])
    with caplog.at_level(python_logging.WARNING):
        read = video.read(tmp_path / 'cut.mkv')
    assert 0 < len(read) < 240
    assert f'cut.mkv: only {len(read)} frames could be read' in caplog.text
    caplog.clear()
    video.read(tmp_path / 'a.mkv')
    assert not caplog.text


def sound(path):
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('aac', rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format='fltp', layout='mono')
        frame.rate, frame.pts, frame.time_base = 8000, 0, Fraction(1, 8000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_film_without_video_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r'a\.m4a: has no picture'):
        video.read(sound(tmp_path / 'a.m4a'))


@pytest.mark.parametrize(
    'text',
    [
        "ffconcat version 1.0\nfile '{film}'\n",
        'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n'
        'm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n',
        '#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:10,\n{film}\n#EXT-X-ENDLIST\n',
        'no film at all',
        '',
    ],
)
def test_films_cannot_name_other_files_or_the_network(tmp_path, frames, text):
    text = text.format(film=write_film(tmp_path / 'other.mp4', frames))
    (tmp_path / 'a.mp4').write_text(text)
    for source in (tmp_path / 'a.mp4', text.encode()):
        with pytest.raises(video.BrokenFilm, match='cannot be read as a film'):
            with video.open_film(source) as (container, stream):
                next(container.decode(stream))


def test_missing_films_and_absurd_sizes(tmp_path, frames, monkeypatch):
    with pytest.raises(FileNotFoundError):
        video.read(tmp_path / 'none.mp4')
    film = write_film(tmp_path / 'a.mp4', frames)
    monkeypatch.setattr('sgmg_jax.video.reading.LARGEST', 2 * frames[0].nbytes)
    with pytest.raises(ValueError, match=r'a\.mp4: has more than .* GiB of frames'):
        video.read(film)
    monkeypatch.setattr('sgmg_jax.pictures.MOST_PIXELS', 1000)
    with pytest.raises(ValueError, match=r'a\.mp4: has frames of 80x48 pixels, at most 1,000'):
        video.read(film)


def test_damage_anywhere_is_one_error(tmp_path, frames):
    data, rng = write_film(tmp_path / 'a.mp4', frames).read_bytes(), np.random.default_rng(2)
    for _ in range(100):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 4):
            damaged[place] = rng.integers(0, 256)
        try:
            with video.open_film(io.BytesIO(bytes(damaged)).getvalue()) as (container, stream):
                for frame in container.decode(stream):
                    assert frame.width * frame.height < 10**8
        except video.BrokenFilm as error:
            assert str(error)
