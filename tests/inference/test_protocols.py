"""The files of each benchmark, from a predictor with known answers."""

import dataclasses
import io
import json
import random
import zipfile

import numpy as np
from PIL import Image
from pycocotools import mask as rle
import pytest

from sgmg_jax import pictures
from sgmg_jax.data import metadata, records
from sgmg_jax.inference import protocols
from sgmg_jax.inference.predictor import Answer, Predictor
from sgmg_jax.ops import masks
from sgmg_jax.score import submission
from sgmg_jax.score.check import check_submission

SIZE = (6, 9)


class Known(Predictor):
    """A predictor without a model: its logits are a function of sentence and frame."""

    def __init__(self, window, threshold=0.0):
        self.window, self.threshold = window, threshold

    @staticmethod
    def logits(sentence, frame):
        return np.random.default_rng([*sentence.encode(), frame]).normal(0, 2, SIZE).astype(np.float32)

    def windows(self, read, length):
        for start in range(0, length, self.window):
            frames = range(start, min(start + self.window, length))
            assert len(read(frames)) == len(frames)
            yield start, lambda sentences, frames=frames: (self.answer(sentence, frames) for sentence in sentences)

    def answer(self, sentence, frames):
        logits = np.stack([self.logits(sentence, t) for t in frames])
        return Answer(np.ones(len(frames), np.float32), lambda binary: logits > 0 if binary else logits)

    def annotated(self, read, length, index):
        def ask(sentence):
            masks = np.stack([self.logits(f'{sentence} {query}', index) > 0 for query in range(3)])
            return np.array([0.2, 0.7, 0.7], np.float32), masks

        return ask


class Record(records.Record):
    def decode_frames(self, indices=None):
        return np.zeros((len(indices), *SIZE, 3), np.uint8)


def make_record(expressions, frames, mask_places=None):
    return Record(
        metadata.Video(
            '-a_b', tuple(f'{5 * t + 20:05d}' for t in range(frames)), *SIZE, tuple(expressions), True, mask_places
        ),
        (),
        (),
    )


def expression(number, text, object_id):
    return metadata.Expression(str(number), text, object_id, ())


def davis_record(objects, frames):
    return make_record(
        [expression(4 * k + a, f'object {k} by {a}', k + 1) for k in range(objects) for a in range(4)], frames
    )


def test_ytvos_masks_are_written_and_read_back(tmp_path):
    record = make_record([expression(0, 'a dog', -1), expression(1, 'a cat', -1)], 7)
    protocol = protocols.choose('ytvos')
    protocol.write(Known(3), record, tmp_path)
    assert protocol.finish(tmp_path, [record.video]).name == 'submission.zip'
    expected = [submission.ExpectedVideo(record.video.name, record.video.frame_names, SIZE, ('0', '1'))]
    assert check_submission(tmp_path / 'submission.zip', expected) == []
    for e in record.video.expressions:
        for t in range(7):
            np.testing.assert_array_equal(protocol.read(tmp_path, record.video, e, t), Known.logits(e.text, t) > 0)


def test_ytvos_submissions_are_checked(tmp_path):
    record, other = (make_record([expression(0, 'a dog', -1)], count) for count in (3, 4))
    protocol = protocols.choose('ytvos')
    protocol.write(Known(3), record, tmp_path)
    with pytest.raises(ValueError, match=r'(?s)submission.zip: the evaluation server would reject.*missing frame: 1'):
        protocol.finish(tmp_path, [other.video])


def test_mevis_submissions_have_the_videos_at_their_top(tmp_path):
    record = make_record([expression(0, 'a dog', -1), expression(1, 'a cat', -1)], 7)
    protocol = protocols.choose('mevis')
    protocol.write(Known(3), record, tmp_path)
    with zipfile.ZipFile(protocol.finish(tmp_path, [record.video])) as archive:
        assert archive.namelist() == [f'-a_b/{key}/{name}.png' for key in '01' for name in record.video.frame_names]
        png = Image.open(io.BytesIO(archive.read('-a_b/1/00045.png')))
        assert png.mode == 'L'
        np.testing.assert_array_equal(np.asarray(png), 255 * (Known.logits('a cat', 5) > 0))
    np.testing.assert_array_equal(
        protocol.read(tmp_path, record.video, record.video.expressions[1], 5), Known.logits('a cat', 5) > 0
    )
    other = dataclasses.replace(record.video, name='other')
    with pytest.raises(ValueError, match=r'(?s)submission.zip: the evaluation server would reject.*missing video: 1'):
        protocol.finish(tmp_path, [record.video, other])


class Unsure(Known):
    """Its score of a cat falls from window to window."""

    def windows(self, read, length):
        for start, ask in super().windows(read, length):

            def answer(sentences, start=start, ask=ask):
                for sentence, found in zip(sentences, ask(sentences)):
                    sure = 1 - 0.1 * start * ('cat' in sentence)
                    scores = np.linspace(sure - 0.1, sure + 0.1, len(found.scores)).astype(np.float32)
                    yield found._replace(scores=scores)

            yield start, answer


@pytest.mark.parametrize('benchmark', protocols.EMPTYING)
def test_masks_below_the_threshold_are_empty(tmp_path, benchmark):
    """In each window on its own, by the mean over its frames."""
    record = make_record([expression(0, 'a dog', -1), expression(1, 'a cat', -1)], 9)
    protocol = protocols.choose(benchmark)
    for threshold, kept in ((0.0, 9), (0.35, 9), (0.45, 6), (0.75, 3)):
        folder = tmp_path / str(threshold)
        protocol.write(Unsure(3, threshold), record, folder)
        protocol.finish(folder, [record.video])
        for e in record.video.expressions:
            for t in range(9):
                wanted = (Known.logits(e.text, t) > 0) & (e.text == 'a dog' or t < kept)
                np.testing.assert_array_equal(protocol.read(folder, record.video, e, t), wanted)


def brute_force(logits):
    """[N H W] -> [H W], pixel by pixel, in the released script's words."""
    out = np.zeros(logits.shape[1:], int)
    for y, x in np.ndindex(*out.shape):
        p = [0.1] + [v if (v := 1 / (1 + np.exp(-float(z)))) >= 0.5 else 0 for z in logits[:, y, x]]
        out[y, x] = int(np.argmax(p))
    return out


@pytest.mark.parametrize('objects', [1, 2, 5])
def test_davis_objects_of_each_annotator_are_merged(tmp_path, objects):
    record = davis_record(objects, 5)
    protocol = protocols.choose('davis')
    protocol.write(Known(4), record, tmp_path)
    protocol.finish(tmp_path, [record.video])
    for annotator in range(4):
        for t, name in enumerate(record.video.frame_names):
            image = Image.open(tmp_path / f'anno_{annotator}' / '-a_b' / f'{name}.png')
            assert image.mode == 'P' and image.getpalette()[3:6] == [128, 0, 0]
            logits = np.stack([Known.logits(f'object {k} by {annotator}', t) for k in range(objects)])
            np.testing.assert_array_equal(np.asarray(image), brute_force(logits))
    e = record.video.expressions[-1]
    np.testing.assert_array_equal(protocol.read(tmp_path, record.video, e, 4), np.asarray(image) == e.object_id)


def test_davis_objects_are_sorted_as_numbers(tmp_path):
    """Ids and objects of two digits, in any order; object 10 is not sorted before or confused with 1 or 2."""
    record = davis_record(11, 2)
    shuffled = random.Random(0).sample(record.video.expressions, 44)
    record = dataclasses.replace(record, video=dataclasses.replace(record.video, expressions=tuple(shuffled)))
    for annotator, group in enumerate(protocols.annotator_groups(record.video)):
        assert [e.object_id for e in group] == list(range(1, 12))
        assert [e.id for e in group] == [str(4 * k + annotator) for k in range(11)]
    protocol = protocols.choose('davis')
    protocol.write(Known(4), record, tmp_path)
    seen = set()
    for annotator in range(4):
        expected = brute_force(np.stack([Known.logits(f'object {k} by {annotator}', 1) for k in range(11)]))
        seen |= set(expected.ravel().tolist())
        for e in record.video.expressions:
            if int(e.id) % 4 == annotator:
                np.testing.assert_array_equal(protocol.read(tmp_path, record.video, e, 1), expected == e.object_id)
    assert seen == set(range(12))


def test_davis_ties_go_to_the_first_object():
    def merge(*logits):
        return masks.merge_objects(np.float32(logits).reshape(-1, 1, 1, 1), [2, 3, 7][: len(logits)]).item()

    assert merge(40, 40, 40) == 2 and merge(-0.001, -0.001) == 0 and merge(-1, 0) == 3 and merge(-1e5, 1e5, 1e5) == 3


def test_davis_needs_an_expression_per_annotator_and_object():
    check = protocols.choose('davis').check
    video = davis_record(2, 3).video
    check(video)
    gap = dataclasses.replace(
        video, expressions=tuple(dataclasses.replace(e, object_id=3 * e.object_id) for e in video.expressions)
    )
    check(gap)
    assert [e.object_id for e in protocols.annotator_groups(gap)[3]] == [3, 6]
    last = video.expressions[-1]
    names = 'a', '', '-1', '7.0', '\u00b2', '6'
    for wrong in (
        video.expressions[:-1],
        (),
        [*video.expressions, last],
        *((*video.expressions[:-1], dataclasses.replace(last, id=name)) for name in names),
        [dataclasses.replace(e, object_id=-1) for e in video.expressions],
        [dataclasses.replace(e, object_id=0) for e in video.expressions],
        [dataclasses.replace(e, object_id=20 + e.object_id) for e in video.expressions],
    ):
        with pytest.raises(ValueError, match=r"video -a_b: has \d expressions, .* from 1 to 20.*'ytvos'"):
            check(dataclasses.replace(video, expressions=tuple(wrong)))
    check(
        dataclasses.replace(
            video,
            expressions=tuple(
                dataclasses.replace(e, object_id=10 * e.object_id, id='9' * 5000 + e.id.zfill(2))
                for e in video.expressions
            ),
        )
    )


def test_a2d_results_of_every_query_in_every_annotated_frame(tmp_path):
    places = ((1, 1), (1, 2), (4, 2))
    record = make_record([expression(0, 'a dog', 1), expression(1, 'a cat', 2)], 6, places)
    protocol = protocols.choose('a2d')
    protocol.write(Known(5), record, tmp_path)
    results = json.loads(protocol.finish(tmp_path, [record.video]).read_text())
    assert [(row['image_id'], round(row['score'], 6)) for row in results] == [
        (f'v_-a_b_f_{frame}_i_{instance}', score)
        for frame, instance in ((25, 0), (25, 1), (40, 1))
        for score in (0.2, 0.7, 0.7)
    ]
    for row, (t, text, query) in zip(
        results, [(t, text, query) for t, text in ((1, 'a dog'), (1, 'a cat'), (4, 'a cat')) for query in range(3)]
    ):
        np.testing.assert_array_equal(rle.decode(row['segmentation']) > 0, Known.logits(f'{text} {query}', t) > 0)
    # On ties the last query wins.
    np.testing.assert_array_equal(
        protocol.read(tmp_path, record.video, record.video.expressions[1], 4), Known.logits('a cat 2', 4) > 0
    )


def test_image_ids_of_the_other_benchmarks():
    record = make_record([expression(7, 'a dog', 1)], 1, ((0, 1),))
    for benchmark, name in (('jhmdb', 'v_-a_b_f_20'), ('refcoco', 7)):
        assert {row['image_id'] for row in protocols.predict_annotated(Known(1), record, benchmark)} == {name}


def test_unknown_protocols_are_refused():
    with pytest.raises(ValueError, match="protocol = 'coco': must be one of ytvos, davis, a2d, jhmdb, refcoco"):
        protocols.choose('coco')


@pytest.mark.parametrize('benchmark', protocols.PROTOCOLS)
@pytest.mark.parametrize('name', ['../outside', '/outside', 'a/b', '..', '', '\x1b[2J'])
def test_video_names_cannot_escape_the_folder(tmp_path, benchmark, name):
    """Files at the places they point to stay unchanged."""
    record = davis_record(1, 2)
    if benchmark in protocols.ANNOTATED:
        record = make_record([expression(0, 'a dog', 1)], 2, ((1, 1),))
    if name == '/outside':
        name = str(tmp_path / 'outside')
    record = dataclasses.replace(record, video=dataclasses.replace(record.video, name=name))
    (tmp_path / 'run' / 'results').mkdir(parents=True)
    for place in ('outside.json', 'run/outside.json'):
        (tmp_path / place).write_text('{}')
    before = sorted(tmp_path.rglob('*'))
    protocol = protocols.choose(benchmark)
    with pytest.raises(ValueError, match='must '):
        protocol.write(Known(3), record, tmp_path / 'run')
    with pytest.raises(ValueError, match='must '):
        protocol.read(tmp_path / 'run', record.video, record.video.expressions[0], 1)
    if benchmark in protocols.ANNOTATED:
        with pytest.raises(ValueError, match='must '):
            protocol.finish(tmp_path / 'run', [record.video])
    assert [path for path in sorted(tmp_path.rglob('*')) if path.is_file()] == [
        path for path in before if path.is_file()
    ]
    assert (tmp_path / 'outside.json').read_text() == '{}'


@pytest.mark.parametrize('benchmark', ['ytvos', 'davis'])
def test_masks_are_checked_when_they_are_read(tmp_path, benchmark):
    """The contact sheet is drawn from files that someone may have changed."""
    record = davis_record(1, 2)
    protocol = protocols.choose(benchmark)
    protocol.write(Known(2), record, tmp_path)
    e = record.video.expressions[0]
    path = next(path for path in sorted(tmp_path.rglob('*.png')))
    grey = np.tile(np.array([0, 1, 127, 128, 255, 1, 0, 0, 2], np.uint8), (6, 1))
    image = Image.fromarray(grey)
    if benchmark == 'davis':
        image.putpalette(pictures.PALETTE)
    image.save(path)
    expected = grey > 127 if benchmark == 'ytvos' else grey == 1
    np.testing.assert_array_equal(protocol.read(tmp_path, record.video, e, 0), expected)
    Image.new('RGB', SIZE[::-1]).save(path)
    with pytest.raises(ValueError, match='colour mode RGB'):
        protocol.read(tmp_path, record.video, e, 0)
    Image.new(image.mode, SIZE).save(path)
    with pytest.raises(ValueError, match='is 6x9 pixels, not 9x6'):
        protocol.read(tmp_path, record.video, e, 0)


def test_duplicate_image_ids_are_refused():
    dog, cat = expression(0, 'a dog', 1), expression(1, 'a cat', 2)
    for benchmark, expressions, places, right in (
        ('a2d', [dog, cat], ((1, 1), (1, 2)), True),
        ('jhmdb', [dog], ((1, 1), (2, 1)), True),
        ('jhmdb', [dog, cat], ((1, 1), (1, 2)), False),
        ('refcoco', [dog], ((0, 1), (1, 1)), False),
        ('refcoco', [dog, cat], ((0, 1), (0, 2)), True),
    ):
        check = protocols.choose(benchmark).check
        video = make_record(expressions, 3, places).video
        if right:
            check(video)
        else:
            with pytest.raises(ValueError, match=f'video -a_b: several images .* of {benchmark}'):
                check(video)
    with pytest.raises(ValueError, match='must be a whole number for refcoco'):
        protocols.choose('refcoco').check(make_record([dataclasses.replace(dog, id='x')], 1, ((0, 1),)).video)


def test_nan_scores_are_refused(tmp_path):
    class Broken(Known):
        def annotated(self, read, length, index):
            return lambda sentence: (np.array([np.nan], np.float32), np.ones((1, *SIZE), bool))

    record = make_record([expression(0, 'a dog', 1)], 2, ((1, 1),))
    protocol = protocols.choose('a2d')
    protocol.write(Broken(1), record, tmp_path)
    with pytest.raises(ValueError, match='-a_b.json: is not JSON .NaN is no number'):
        protocol.finish(tmp_path, [record.video])
