"""Segmenting a whole film: what is written, for which frames, and that nothing is left behind after an error."""

import json

import av
import numpy as np
from PIL import Image
from pycocotools import mask as rle
import pytest

from sgmg_jax import video, visualize
from sgmg_jax.inference import film
from sgmg_jax.inference.predictor import Predictor, Window

SENTENCES = ['bright', 'left', 'nothing']


class Known(Predictor):
    """A predictor without a model: bright pixels, the left half, nothing. Its windows have four frames."""

    origin = 'known'

    def __init__(self):
        self.windows = []

    def stream(self, frames, sentences, threshold):
        frames, start = iter(frames), 0
        while window := [frame for _, frame in zip(range(4), frames)]:
            window = np.stack(window)
            left = np.zeros(window.shape[:3], bool)
            left[:, :, : window.shape[2] // 2] = True
            masks = np.stack([window[..., 0] > 128, left, left & False])
            scores = np.linspace(0.1, 0.9, 3 * len(window), dtype=np.float32).reshape(3, -1)
            owner = np.where(masks[0], 1, np.where(masks[1], 2, 0)).astype(np.uint8)
            self.windows.append(len(window))
            yield Window(start, window, masks, scores, owner)
            start += len(window)


def moving_square(count, size=(48, 64)):
    frames = np.full((count, *size, 3), 40, np.uint8)
    for t, frame in enumerate(frames):
        frame[10:30, 4 + 3 * t : 24 + 3 * t] = 220
    return frames


@pytest.fixture
def square(tmp_path):
    video.write(tmp_path / 'a.mp4', moving_square(10), rate=10)
    return tmp_path / 'a.mp4'


def pixels(path):
    return np.asarray(Image.open(path))


def test_what_is_written_of_a_film(square, tmp_path):
    seen = []
    predictor, out = Known(), tmp_path / 'new' / 'out'
    result = film.segment_film(
        predictor, video.open_source(square), SENTENCES, out, report=lambda *done: seen.append(done)
    )
    frames = video.read(square)
    names = [f'{t:05d}' for t in range(10)]
    assert predictor.windows == [4, 4, 2] and seen == [(4, 10), (8, 10), (10, 10)]
    assert sorted(path.name for path in out.iterdir()) == ['masks', 'objects', 'overlay.mp4', 'result.json']
    assert json.loads((out / 'result.json').read_text()) == result
    assert result['frames'] == names and result['times'] == pytest.approx(np.arange(10) / 10)
    assert (result['rate'], result['size'], result['model'], result['source']) == (10, [48, 64], 'known', 'a.mp4')
    for t, name in enumerate(names):
        bright = frames[t, ..., 0] > 128
        for number, mask in enumerate((bright, np.arange(64)[None].repeat(48, 0) < 32, bright & False)):
            image = Image.open(out / 'masks' / str(number) / f'{name}.png')
            assert image.mode == 'L'
            np.testing.assert_array_equal(np.asarray(image), 255 * mask)
            coded = result['sentences'][number]['masks'][t]
            assert (coded is None) == (not mask.any())
            if coded:
                np.testing.assert_array_equal(rle.decode(coded), mask)
        objects = Image.open(out / 'objects' / f'{name}.png')
        assert objects.mode == 'P' and objects.getpalette()[:6] == [0, 0, 0, 128, 0, 0]
        np.testing.assert_array_equal(np.asarray(objects)[bright], 1)
    for sentence, row in zip(SENTENCES, result['sentences']):
        assert row['text'] == sentence and len(row['scores']) == 10
        assert row['score'] == pytest.approx(np.mean(row['scores']), abs=1e-4)
    shown = video.read(out / 'overlay.mp4')
    strip = visualize.legend(SENTENCES, 64, 48)
    assert shown.shape[1] == 48 + len(strip) + len(strip) % 2 and len(shown) == 10
    with av.open(str(out / 'overlay.mp4')) as container:
        (stream,) = container.streams
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ('h264', 'yuv420p')
        assert stream.average_rate == 10


def test_every_start_and_end_choose_frames_and_keep_the_speed(square, tmp_path):
    result = film.segment_film(
        Known(), video.open_source(square), ['a', 'b', 'c'], tmp_path / 'out', every=2, start=0.15, end=0.85
    )
    assert result['frames'] == ['00002', '00004', '00006', '00008'] and result['rate'] == 5
    assert sorted(path.stem for path in (tmp_path / 'out' / 'objects').iterdir()) == result['frames']
    with av.open(str(tmp_path / 'out' / 'overlay.mp4')) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert np.diff(times) == pytest.approx([0.2] * 3)


def test_large_frames_are_scaled_down(square, tmp_path):
    result = film.segment_film(Known(), video.open_source(square), SENTENCES, tmp_path / 'out', max_side=32)
    assert result['size'] == [24, 32] and pixels(tmp_path / 'out/objects/00000.png').shape == (24, 32)


def test_pictures_keep_their_names_and_one_picture_gets_a_picture(tmp_path):
    (tmp_path / 'frames').mkdir()
    for name, frame in zip(('f2.jpg', 'f10.png', '.DS_Store'), moving_square(2)):
        Image.fromarray(frame).save(tmp_path / 'frames' / name, 'PNG')
    result = film.segment_film(Known(), video.open_source(tmp_path / 'frames'), SENTENCES, tmp_path / 'many')
    assert result['frames'] == ['f2', 'f10'] and (tmp_path / 'many/overlay.mp4').exists()
    one = tmp_path / 'frames/f10.png'
    result = film.segment_film(Known(), video.open_source(one), SENTENCES, tmp_path / 'one')
    assert result['frames'] == ['f10'] and not (tmp_path / 'one/overlay.mp4').exists()
    assert pixels(tmp_path / 'one/overlay.png').shape[1] == 64


@pytest.mark.parametrize('fail', ['model', 'selection', 'interrupt'])
def test_nothing_is_left_behind(square, tmp_path, fail):
    predictor, options, error = Known(), {}, ValueError
    if fail == 'selection':
        options = {'start': 5.0}
    else:
        error = FloatingPointError if fail == 'model' else KeyboardInterrupt

        def broken(frames, sentences, threshold):
            yield from Known().stream([next(iter(frames))], sentences, threshold)
            raise error('here')

        predictor.stream = broken
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(error, match='no frame from 5 s to inf s' if fail == 'selection' else 'here'):
        film.segment_film(predictor, video.open_source(square), SENTENCES, tmp_path / 'out', **options)
    assert sorted(tmp_path.rglob('*')) == before


def test_an_existing_folder_is_never_touched(square, tmp_path):
    (tmp_path / 'out').mkdir()
    with pytest.raises(FileExistsError, match='out: exists already'):
        film.segment_film(Known(), video.open_source(square), SENTENCES, tmp_path / 'out')


def test_memory_does_not_grow_with_the_length(tmp_path, monkeypatch):
    """Frames are read only when their window is segmented, and are not kept."""
    alive = []
    real = video.stream

    def counted(*args):
        for frame in real(*args):
            alive.append(frame.image)
            assert sum(1 for _ in alive) <= 4
            yield frame

    video.write(tmp_path / 'long.mp4', moving_square(12), rate=10)
    predictor = Known()
    stream = predictor.stream

    def forgetful(frames, sentences, threshold):
        for window in stream(frames, sentences, threshold):
            yield window
            alive.clear()

    predictor.stream = forgetful
    monkeypatch.setattr(video, 'stream', counted)
    assert (
        len(film.segment_film(predictor, video.open_source(tmp_path / 'long.mp4'), SENTENCES, tmp_path / 'o')['frames'])
        == 12
    )
