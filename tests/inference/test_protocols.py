"""What each benchmark's files hold, from a predictor whose answers are known."""
import dataclasses
import json

import numpy as np
from PIL import Image
from pycocotools import mask as rle
import pytest

from sgmg_jax.data import records
from sgmg_jax.inference import leaderboard, protocols
from sgmg_jax.ops import masks

SIZE = (6, 9)


class Known:
    """Logits follow from sentence and frame."""

    def __init__(self, window):
        self.window = window

    @staticmethod
    def logits(sentence, frame):
        return np.random.default_rng([*sentence.encode(), frame]).normal(0, 2, SIZE).astype(np.float32)

    def windows(self, read, length):
        for start in range(0, length, self.window):
            frames = range(start, min(start + self.window, length))
            assert len(read(frames)) == len(frames)
            yield start, lambda sentences, frames=frames: (
                np.stack([self.logits(sentence, t) for t in frames]) for sentence in sentences)

    def annotated(self, read, length, index):
        def ask(sentence):
            masks = np.stack([self.logits(f'{sentence} {query}', index) > 0 for query in range(3)])
            return np.array([0.2, 0.7, 0.7], np.float32), masks
        return ask


class Record:
    masks = ()

    def __init__(self, expressions, frames, mask_places=None):
        self.video = records.Video('-a_b', tuple(f'{5 * t + 20:05d}' for t in range(frames)), *SIZE,
                                   tuple(expressions), True, mask_places)

    def decode_frames(self, indices):
        return np.zeros((len(indices), *SIZE, 3), np.uint8)


def expression(number, text, object_id):
    return records.Expression(str(number), text, object_id, ())


def davis_record(objects, frames):
    return Record([expression(4 * k + a, f'object {k} by {a}', k + 1)
                   for k in range(objects) for a in range(4)], frames)


def test_ytvos_masks_and_what_is_read_back(tmp_path):
    record = Record([expression(0, 'a dog', -1), expression(1, 'a cat', -1)], 7)
    protocol = protocols.choose('ytvos')
    protocol.write(Known(3), record, tmp_path)
    assert protocol.finish(tmp_path, [record.video]).name == 'submission.zip'
    expected = [(record.video.name, record.video.frame_names, SIZE, ('0', '1'))]
    assert leaderboard.check_submission(tmp_path / 'submission.zip', expected) == []
    for e in record.video.expressions:
        for t in range(7):
            np.testing.assert_array_equal(protocol.read(tmp_path, record.video, e, t), Known.logits(e.text, t) > 0)


def test_ytvos_files_are_checked_before_they_are_done(tmp_path):
    record, other = (Record([expression(0, 'a dog', -1)], count) for count in (3, 4))
    protocol = protocols.choose('ytvos')
    protocol.write(Known(3), record, tmp_path)
    with pytest.raises(ValueError, match=r'(?s)submission.zip: not fit for upload.*missing frame: 1'):
        protocol.finish(tmp_path, [other.video])


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


def test_davis_ties_go_to_the_first_object():
    def merge(*logits):
        return masks.merge_objects(np.float32(logits).reshape(-1, 1, 1, 1), [2, 3, 7][:len(logits)]).item()

    assert merge(40, 40, 40) == 2 and merge(-0.001, -0.001) == 0 and merge(-1, 0) == 3 and merge(-1e5, 1e5, 1e5) == 3


def test_davis_wants_an_expression_of_each_annotator_for_each_object():
    check = protocols.choose('davis').check
    video = davis_record(2, 3).video
    check(video)
    gap = dataclasses.replace(video, expressions=tuple(
        dataclasses.replace(e, object_id=3 * e.object_id) for e in video.expressions))
    assert [e.object_id for e in check(gap)[3]] == [3, 6]
    for wrong in (video.expressions[:-1], (), (dataclasses.replace(video.expressions[0], id='a'),),
                  [dataclasses.replace(e, object_id=-1) for e in video.expressions]):
        with pytest.raises(ValueError, match=r"video -a_b: has \d expressions, .*'ytvos'"):
            check(dataclasses.replace(video, expressions=tuple(wrong)))


def test_a2d_results_of_every_query_in_every_annotated_frame(tmp_path):
    places = ((1, 1), (1, 2), (4, 2))
    record = Record([expression(0, 'a dog', 1), expression(1, 'a cat', 2)], 6, places)
    protocol = protocols.choose('a2d')
    protocol.write(Known(5), record, tmp_path)
    results = json.loads(protocol.finish(tmp_path, [record.video]).read_text())
    assert [(row['image_id'], round(row['score'], 6)) for row in results] == [
        (f'v_-a_b_f_{frame}_i_{instance}', score) for frame, instance in ((25, 0), (25, 1), (40, 1))
        for score in (0.2, 0.7, 0.7)]
    for row, (t, text, query) in zip(results, [(t, text, query) for t, text in (
            (1, 'a dog'), (1, 'a cat'), (4, 'a cat')) for query in range(3)]):
        np.testing.assert_array_equal(rle.decode(row['segmentation']) > 0, Known.logits(f'{text} {query}', t) > 0)
    # Of equal scores the last one counts.
    np.testing.assert_array_equal(protocol.read(tmp_path, record.video, record.video.expressions[1], 4),
                                  Known.logits('a cat 2', 4) > 0)


def test_image_ids_of_the_other_benchmarks():
    record = Record([expression(7, 'a dog', 1)], 1, ((0, 1),))
    for benchmark, name in (('jhmdb', 'v_-a_b_f_20'), ('refcoco', 7)):
        assert {row['image_id'] for row in protocols.predict_annotated(Known(1), record, benchmark)} == {name}


def test_unknown_protocol():
    with pytest.raises(ValueError, match="protocol = 'coco': there is only ytvos, davis, a2d, jhmdb, refcoco"):
        protocols.choose('coco')
