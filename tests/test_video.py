"""Untrusted films: formats, orientation, truncation."""

from fractions import Fraction
import io
import logging as python_logging
import os

import av
import cv2
import numpy as np
from PIL import Image
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


def picture(path, value=100, size=(20, 30), **options):
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path, **options)
    return path


def test_a_folder_of_pictures_is_read_in_natural_order(tmp_path):
    for name, value in (('f10.png', 30), ('f9.jpg', 20), ('f1.PNG', 10), ('._f1.png', 0), ('notes.txt', 0)):
        picture(tmp_path / name, value, format='PNG')
    source = video.open_source(tmp_path)
    frames = list(video.stream(source))
    assert [frame.name for frame in frames] == ['f1', 'f9', 'f10'] and source.count == 3
    assert [frame.image.mean() for frame in frames] == [10, 20, 30]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.04, 0.08])


def test_pictures_are_turned_upright_and_converted(tmp_path):
    tag = Image.Exif()
    tag[274] = 6  # shown turned by 90 degrees
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :15] = 200
    Image.fromarray(pixels).save(tmp_path / 'a.png', exif=tag)
    (frame,) = video.stream(video.open_source(tmp_path / 'a.png'))
    np.testing.assert_array_equal(frame.image, np.rot90(pixels, -1))
    for mode, value in (('L', 77), ('RGBA', (77, 77, 77, 0)), ('P', 77), ('1', 1)):
        Image.new(mode, (30, 20), value).save(tmp_path / f'{mode}.png')
        assert video.read(tmp_path / f'{mode}.png').shape == (1, 20, 30, 3)
    Image.fromarray(np.full((20, 30), 77 * 256 + 5, np.uint16)).save(tmp_path / 'deep.png')
    assert (video.read(tmp_path / 'deep.png') == 77).all()


@pytest.mark.parametrize(
    'make, error, match',
    [
        (lambda p: None, FileNotFoundError, 'x: no such file. Give a film'),
        (lambda p: p.mkdir(), FileNotFoundError, 'x: a folder without pictures'),
        (lambda p: p.write_text('words'), ValueError, 'x: cannot be read as a film .* Give a film, a picture'),
        (lambda p: (p.mkdir(), picture(p / 'a.png'), picture(p / 'a.jpg')), ValueError, 'two pictures named a'),
        (
            lambda p: (p.mkdir(), picture(p / 'a.png'), picture(p / 'b.png', size=(20, 31))),
            ValueError,
            'several sizes: a has 30x20 pixels, b has 31x20',
        ),
        (lambda p: (p.mkdir(), (p / 'a.png').write_text('')), ValueError, r'a\.png: is not JPEG or PNG'),
        (lambda p: os.mkfifo(p), ValueError, 'x: is a pipe'),
    ],
)
def test_sources_that_cannot_be_read_are_named(tmp_path, make, error, match):
    make(tmp_path / 'x')
    with pytest.raises(error, match=match):
        video.read(tmp_path / 'x')


def test_selecting_frames(tmp_path, frames):
    source = video.open_source(write_film(tmp_path / 'a.mp4', frames, rate=25))

    def names(*selection):
        return [int(frame.name) for frame in video.stream(source, *selection)]

    assert source.count == len(frames) == 12 and source.rate == 25
    assert names() == list(range(12))
    assert names(5) == [0, 5, 10]
    assert names(2, 0.12, 0.4) == [4, 6, 8]  # frame t is shown from t / 25 s on
    assert names(1, 0, 0) == []
    (first, *_) = video.stream(source, max_side=40)
    assert first.image.shape == (24, 40, 3)
    (first, *_) = video.stream(source, max_side=80)
    assert first.image.shape == (48, 80, 3)


def test_variable_rates_keep_their_times(tmp_path, frames):
    times = [0.0, 0.04, 0.16, 0.36, 1.0, 1.04]
    with video.writer(tmp_path / 'a.mp4', 5) as append:
        for frame, time in zip(frames, times):
            append(frame, time)
    read = list(video.stream(video.open_source(tmp_path / 'a.mp4')))
    assert [frame.time for frame in read] == pytest.approx(times, abs=1e-4)
    with av.open(str(tmp_path / 'a.mp4')) as container:
        stream = container.streams.video[0]
        assert float(stream.duration * stream.time_base) == pytest.approx(1.04 + 0.2, abs=0.01)


@pytest.mark.parametrize('size', [(48, 80), (47, 81), (1, 1)])
def test_written_films_look_like_the_frames(tmp_path, size):
    rng = np.random.default_rng(0)
    low = rng.integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    pictures = np.stack([cv2.resize(x, size[::-1], interpolation=cv2.INTER_LINEAR) for x in low])
    video.write(tmp_path / 'a.mp4', pictures, rate=30)
    with av.open(str(tmp_path / 'a.mp4')) as container:
        (stream,) = container.streams
        assert stream.codec_context.name == 'h264' and stream.codec_context.pix_fmt == 'yuv420p'
        assert (stream.codec_context.height, stream.codec_context.width) == tuple(n + n % 2 for n in size)
        assert stream.codec_context.colorspace == 1  # BT.709, as players expect
        back = [frame.to_ndarray(format='rgb24', src_colorspace='ITU709') for frame in container.decode(stream)]
    assert len(back) == 3
    if min(size) > 1:
        assert np.abs(np.stack(back)[:, : size[0], : size[1]].astype(int) - pictures).mean() < 8


def film_with_sound(path, codec, rate=44100):
    with av.open(str(path), 'w') as output:
        pictures, sounds = output.add_stream('libx264', rate=25), output.add_stream(codec, rate=rate, layout='mono')
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, 'yuv420p'
        for t in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * t, np.uint8), format='rgb24')
            frame.pts = t
            output.mux(pictures.encode(frame))
        output.mux(pictures.encode(None))
        # Silence for a second, then a tone.
        wave = 8000 * np.sin(np.arange(2 * rate) * 440 * 2 * np.pi / rate) * (np.arange(2 * rate) >= rate)
        frame = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format='s16', layout='mono')
        frame.sample_rate, frame.pts = rate, 0
        output.mux(sounds.encode(frame))
        output.mux(sounds.encode(None))
    return path


@pytest.mark.parametrize('name, codec', [('a.mp4', 'aac'), ('a.mov', 'pcm_s16le'), ('a.mkv', 'flac'), ('a.mkv', 'mp3')])
@pytest.mark.parametrize('start', [0, 0.6])
def test_the_sound_of_the_source_stays_with_its_pictures(tmp_path, name, codec, start):
    source = video.open_source(film_with_sound(tmp_path / name, codec))
    with video.writer(tmp_path / 'b.mp4', source.rate, source.path, start) as append:
        for frame in video.stream(source, start=start):
            append(frame.image, frame.time - start)
    with av.open(str(tmp_path / 'b.mp4')) as container:
        (stream,) = container.streams.audio
        assert stream.codec_context.name == 'aac'
        heard = [(frame.time, np.abs(frame.to_ndarray()).max()) for frame in container.decode(stream)]
    loud = [time for time, level in heard if level > 0.1]
    assert loud[0] == pytest.approx(1 - start, abs=0.06)
    assert heard[-1][0] == pytest.approx(2 - start, abs=0.1)


def test_damaged_sound_is_left_out_with_a_warning(tmp_path, monkeypatch, caplog):
    source = video.open_source(film_with_sound(tmp_path / 'a.mp4', 'aac'))

    def fail(*_):
        raise av.FFmpegError(1, 'no')
        yield

    monkeypatch.setattr('sgmg_jax.video.writing._copy', fail)
    with caplog.at_level(python_logging.WARNING):
        with video.writer(tmp_path / 'b.mp4', 25, source.path) as append:
            append(np.zeros((48, 64, 3), np.uint8), 0.0)
    assert 'its sound, or the rest of it, is left out' in caplog.text
    assert len(video.read(tmp_path / 'b.mp4')) == 1


def test_films_that_cannot_be_written(tmp_path, frames):
    with pytest.raises(ValueError, match=r'a\.avi: films are written as \.mp4'):
        video.write(tmp_path / 'a.avi', frames)
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match='cannot write'):
        video.write(tmp_path / 'file' / 'a.mp4', frames)
    with pytest.raises(RuntimeError):
        with video.writer(tmp_path / 'a.mp4', 25) as append:
            append(frames[0], 0.0)
            raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ['file']
