"""MCS, tIoU and vIoU against their definitions, written out frame by frame."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
from pycocotools import mask as coco_mask
import pytest

from sgmg_jax.evaluation import davis, scoring

SIZE = (9, 14)


def code(mask):
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))


def by_definition(truth, prediction):
    """J of each frame, tIoU and vIoU, from COCO's run lengths."""
    region, both, either = [], 0, 0
    for g, p in zip(truth, prediction):
        union = coco_mask.area(coco_mask.merge([code(g), code(p)]))
        common = coco_mask.area(coco_mask.merge([code(g), code(p)], intersect=True))
        region.append(common / union if union else 1.0)
        both += bool(g.any() and p.any())
        either += bool(g.any() or p.any())
    inside = sum(j for j, g, p in zip(region, truth, prediction) if g.any() and p.any())
    return region, both / either if either else 1.0, inside / either if either else 1.0


def random_masks(rng, frames):
    """Some frames are empty, some full, some random."""
    masks = rng.random((frames, *SIZE)) < rng.choice([0.02, 0.5, 0.9])
    for mask in masks:
        mask[:] = {0: False, 1: True}.get(int(rng.integers(5)), mask)
    return masks


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.booleans())
def test_random_and_degenerate_masks(seed, frames, alike):
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(4):
        truth = random_masks(rng, frames)
        prediction = truth ^ (rng.random(truth.shape) < 0.01) if alike else random_masks(rng, frames)
        pairs.append((truth, prediction))
    scores, lowest, times, volumes = [], [], [], []
    for number, (truth, prediction) in enumerate(pairs):
        score = scoring.score_expression(truth, None, prediction)
        region, time, volume = by_definition(truth, prediction)
        np.testing.assert_allclose(score['J'], region, rtol=0, atol=1e-9)
        assert score['tIoU'] == pytest.approx(time, abs=1e-9) and score['vIoU'] == pytest.approx(volume, abs=1e-9)
        scores.append(score | {'video': 'a', 'expression': str(number), 'tags': ('even',) if number % 2 == 0 else ()})
        lowest.append(min(region))
        times.append(time)
        volumes.append(volume)
    for means, part in (
        (scoring.summarise(scores), slice(None)),
        (scoring.summarise(scores)['tags']['even'], slice(0, 4, 2)),
    ):
        for name, threshold in (('MCS@0.5', 0.5), ('MCS@0.7', 0.7), ('MCS@0.9', 0.9)):
            assert means[name] == pytest.approx(100 * np.mean([x > threshold for x in lowest[part]]), abs=1e-9)
        assert means['tIoU'] == pytest.approx(100 * np.mean(times[part]), abs=1e-9)
        assert means['vIoU'] == pytest.approx(100 * np.mean(volumes[part]), abs=1e-9)


def test_by_hand():
    truth, prediction = np.zeros((2, 4, *SIZE), bool)
    truth[:3, :, :6] = True  # in frames 0 to 2
    prediction[1:, :, 3:9] = True  # in frames 1 to 3
    score = scoring.score_expression(truth, None, prediction)
    assert score['tIoU'] == 2 / 4 and score['vIoU'] == pytest.approx(2 * (3 / 9) / 4)
    empty = scoring.score_expression(truth[3:], None, truth[3:])
    assert (empty['tIoU'], empty['vIoU']) == (1, 1)


def test_void_is_in_neither():
    truth, prediction = np.zeros((2, *SIZE), np.uint8), np.zeros((2, *SIZE), bool)
    truth[:, 2] = scoring.VOID
    truth[0, 5] = 1
    prediction[1, 2] = True  # only on void
    score = scoring.score_expression(truth, 1, prediction)
    assert score['there'].tolist() == [True, False] and score['seen'].tolist() == [False, False]
    assert score['tIoU'] == score['vIoU'] == 0


@pytest.mark.parametrize('task', davis.TASKS)
@pytest.mark.parametrize('seed', range(6))
def test_objects_of_davis(task, seed):
    """The matched pairs have the numbers of their masks."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, (5, *SIZE)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = 255
    truth[0, 0, :2] = 1, 2
    truth[3][truth[3] == 2] = 0
    prediction = np.where(rng.random(truth.shape) < 0.8, np.where(truth == 255, 0, truth), 0).astype(np.uint8)
    prediction[2][prediction[2] == 1] = 0
    shown = davis.scored_frames(5, task)
    (scores,) = davis.score_sequence(truth, [prediction[shown]], task)
    assert len(scores) == 2
    for number, score in enumerate(scores, 1):
        void = truth[shown] == 255 if task == 'unsupervised' else np.zeros(truth[shown].shape, bool)
        _, time, volume = by_definition(truth[shown] == number, (prediction[shown] == number) & ~void)
        assert score['tIoU'] == pytest.approx(time, abs=1e-9) and score['vIoU'] == pytest.approx(volume, abs=1e-9)
    averages = davis.summarise({'a': {'s': scores}, 'b': {'s': scores}})
    assert averages['MCS@0.5'] == averages['annotators']['a']['MCS@0.5']
    assert averages['tIoU'] == pytest.approx(averages['annotators']['b']['tIoU'])
