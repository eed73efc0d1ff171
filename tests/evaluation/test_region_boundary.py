"""J and F against numbers of the official evaluation and a naive implementation of the definition."""

import itertools
import json
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import pytest
import scipy.ndimage

from sgmg_jax.evaluation import region_boundary

GOLDENS = pathlib.Path(__file__).parent / 'goldens'
EXPECTED = json.loads((GOLDENS / 'jf_expected.json').read_text())
SIZES = [(1, 1), (1, 7), (7, 1), (2, 2), (5, 3), (33, 57), (101, 160)]


@pytest.fixture(scope='module')
def packed():
    with np.load(GOLDENS / 'jf_cases.npz') as arrays:
        return dict(arrays)


@pytest.mark.parametrize('case', EXPECTED['cases'], ids=lambda case: f'{case["h"]}x{case["w"]}-{case["kind"]}')
def test_scores_equal_the_official_evaluation(packed, case):
    def mask(name):
        bits = packed.get(f'{case["i"]}_{name}')
        if bits is None:
            return None
        return np.unpackbits(bits)[: case['h'] * case['w']].reshape(case['h'], case['w']).astype(bool)

    truth, prediction, void = mask('gt'), mask('pred'), mask('void')
    assert (void is not None) == (case['kind'] == 'void')
    assert abs(region_boundary.region_similarity(truth, prediction, void) - case['J']) < 1e-9
    assert abs(region_boundary.boundary_accuracy(truth, prediction, void) - case['F']) < 1e-9


@pytest.mark.parametrize('case', EXPECTED['db_statistics'], ids=lambda case: f'T{len(case["values"])}')
def test_statistics_equal_the_official_evaluation(case):
    expected = case['mean'], case['recall'], case['decay']
    np.testing.assert_allclose(region_boundary.statistics(case['values']), expected, rtol=0, atol=1e-9)


def naive_boundary(mask):
    """Pixel by pixel; nothing beyond the frame is compared."""
    height, width = mask.shape
    boundary = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            last_row, last_column = y == height - 1, x == width - 1
            neighbours = (
                []
                if last_row and last_column
                else [(y, x + 1)]
                if last_row
                else [(y + 1, x)]
                if last_column
                else [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            )
            boundary[y, x] = any(mask[y, x] != mask[there] for there in neighbours)
    return boundary


def naive_scores(truth, prediction, contours):
    """J and F of two masks without void, given the contours of both."""
    union = (truth | prediction).sum()
    region = (truth & prediction).sum() / union if union else 1.0
    radius = np.ceil(0.008 * np.hypot(*truth.shape))
    if not all(contour.any() for contour in contours):
        return region, float(not any(contour.any() for contour in contours))
    matched = []
    for contour, other in (contours, contours[::-1]):
        distance = scipy.ndimage.distance_transform_edt(~other)
        matched.append((distance[contour] <= radius + 1e-6).mean())
    return region, 2 * matched[0] * matched[1] / sum(matched) if sum(matched) else 0.0


def some_masks(size, rng):
    """Noise, blobs that touch each edge of the frame, a single pixel, an empty and a full mask."""
    height, width = size
    blobs = [
        scipy.ndimage.gaussian_filter(rng.normal(size=size), sigma, mode='constant') > level
        for sigma, level in ((1, 0.05), (3, 0.0), (5, 0.02))
    ]
    pixel, row, corner, box = (np.zeros(size, bool) for _ in range(4))
    pixel[rng.integers(height), rng.integers(width)] = True
    row[rng.integers(height)] = True
    corner[height // 2 :, width // 2 :] = True
    box[height // 3 : height // 2 + 1, width // 3 : width // 2 + 1] = True
    return [*blobs, rng.random(size) < 0.5, pixel, row, corner, box, np.zeros(size, bool), np.ones(size, bool)]


@pytest.mark.parametrize('size', SIZES, ids=str)
def test_scores_equal_the_naive_definition(size):
    rng = np.random.default_rng(0)
    masks = some_masks(size, rng)
    void = rng.random(size) < 0.1
    for unseen in (np.zeros(size, bool), void):
        seen = [mask & ~unseen for mask in masks]
        contours = [naive_boundary(mask) for mask in seen]
        for a, b in itertools.product(range(len(masks)), repeat=2):
            expected = naive_scores(seen[a], seen[b], (contours[a], contours[b]))
            actual = (
                region_boundary.region_similarity(masks[a], masks[b], unseen),
                region_boundary.boundary_accuracy(masks[a], masks[b], unseen),
            )
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12, err_msg=f'masks {a} and {b}')


def test_cropping_is_exact(monkeypatch):
    rng = np.random.default_rng(1)
    pairs = []
    for _ in range(150):
        size = tuple(rng.integers(1, 90, 2))
        truth, prediction = np.zeros(size, bool), np.zeros(size, bool)
        for mask in (truth, prediction):
            y, x = (np.sort(rng.integers(0, side + 1, 2)) for side in size)
            mask[y[0] : y[1], x[0] : x[1]] = rng.random((y[1] - y[0], x[1] - x[0])) < 0.8
        pairs.append((truth, prediction))
    cropped = [region_boundary.boundary_accuracy(*pair) for pair in pairs]
    monkeypatch.setattr(region_boundary, '_bounding_box', lambda mask: (slice(None), slice(None)))
    assert cropped == [region_boundary.boundary_accuracy(*pair) for pair in pairs]
    assert len(set(cropped)) > 50


@pytest.mark.parametrize('size', SIZES, ids=str)
def test_pairwise_scores_equal_single_scores(size):
    rng = np.random.default_rng(5)
    masks = some_masks(size, rng)
    for _ in range(6):
        maps = []
        for count in (3, 5):
            index_map = np.zeros(size, np.uint8)
            for number, which in enumerate(rng.integers(0, len(masks), count), 1):
                index_map[masks[which] & (rng.random(size) < rng.choice([0.3, 1]))] = number
            maps.append(index_map)
        truth, prediction = maps
        region = region_boundary.pairwise_region_similarity(truth, prediction, 3, 6)  # No pixel has id 6.
        boundary = region_boundary.pairwise_boundary_accuracy(
            region_boundary.contours(truth, 3), region_boundary.contours(prediction, 6)
        )
        assert region.shape == boundary.shape == (6, 3)
        for predicted, true in itertools.product(range(6), range(3)):
            pair = truth == true + 1, prediction == predicted + 1
            assert region[predicted, true] == region_boundary.region_similarity(*pair)
            assert boundary[predicted, true] == region_boundary.boundary_accuracy(*pair)


def test_pairwise_scores_without_objects():
    frame = np.zeros((5, 4), np.uint8)
    assert region_boundary.pairwise_region_similarity(frame, frame, 0, 2).shape == (2, 0)
    contours = [region_boundary.contours(frame, count) for count in (0, 2)]
    assert region_boundary.pairwise_boundary_accuracy(*contours).shape == (2, 0)


def test_disk_is_euclidean():
    for radius in (1, 2, 4, 8, 12):
        distance = np.ones((2 * radius + 1,) * 2)
        distance[radius, radius] = 0
        expected = scipy.ndimage.distance_transform_edt(distance) <= radius + 1e-6
        np.testing.assert_array_equal(region_boundary._disk(radius), expected)


def test_frames_are_scored_independently():
    rng = np.random.default_rng(2)
    truth, prediction, void = (rng.random((4, 31, 22)) < share for share in (0.5, 0.5, 0.1))
    truth[1], prediction[1] = False, False
    for measure in (region_boundary.region_similarity, region_boundary.boundary_accuracy):
        for given in (None, void):
            scores = measure(truth, prediction, given)
            assert scores.shape == (4,) and scores.dtype == np.float64
            assert scores.tolist() == [
                measure(truth[t], prediction[t], None if given is None else void[t]) for t in range(4)
            ]
        assert measure(truth[:0], prediction[:0]).shape == (0,)
        assert isinstance(measure(truth[0], prediction[0]), float)


def test_memory_order_does_not_matter():
    rng = np.random.default_rng(3)
    truth, prediction = (cv2.blur(rng.random((57, 83)), (9, 9)) > 0.5 for _ in range(2))
    for measure in (region_boundary.region_similarity, region_boundary.boundary_accuracy):
        assert measure(np.asfortranarray(truth), np.asfortranarray(prediction)) == measure(truth, prediction)
        assert measure(truth[::-1, ::2], prediction[::-1, ::2]) == measure(
            truth[::-1, ::2].copy(), prediction[::-1, ::2].copy()
        )


def test_inputs_are_not_modified():
    rng = np.random.default_rng(4)
    masks = [rng.random((3, 20, 30)) < 0.5 for _ in range(3)]
    copies = [mask.copy() for mask in masks]
    region_boundary.region_similarity(*masks)
    region_boundary.boundary_accuracy(*masks)
    for mask, copy in zip(masks, copies):
        np.testing.assert_array_equal(mask, copy)


@pytest.mark.parametrize('shapes', [((4, 5), (5, 4)), ((2, 4, 5), (4, 5)), ((5,), (5,)), ((1, 2, 4, 5),) * 2])
def test_shapes_must_match(shapes):
    with pytest.raises(ValueError, match='share one shape'):
        region_boundary.region_similarity(*(np.zeros(shape, bool) for shape in shapes))


def test_masks_must_be_bool():
    mask = np.zeros((4, 5), bool)
    with pytest.raises(ValueError, match='prediction must be bool, got uint8'):
        region_boundary.boundary_accuracy(mask, mask.astype(np.uint8))
    with pytest.raises(ValueError, match='void must be bool'):
        region_boundary.boundary_accuracy(mask, mask, mask.astype(np.uint8))


def test_statistics_by_hand():
    mean, recall, decay = region_boundary.statistics([0.9, 0.8, 0.5, 0.51, 0.1, 0.3, 0.2, 0.4])
    # Edges round(linspace(1, 8, 5)) - 1 = 0, 2, 4, 5, 7 (4.5 goes up), inclusive on both sides.
    np.testing.assert_allclose((mean, recall, decay), (3.71 / 8, 3 / 8, 2.2 / 3 - 0.3), atol=1e-12)
    assert region_boundary.statistics([0.7]) == (0.7, 1.0, 0.0)
    mean, recall, decay = region_boundary.statistics([0.8, float('nan'), 0.4, 0.6])
    np.testing.assert_allclose((mean, recall, decay), (0.6, 0.5, 0.8 - 0.5), atol=1e-12)


def test_statistics_wrap_after_256_frames_as_released():
    values = np.linspace(1, 0, 256)
    assert region_boundary.statistics(values)[2] == pytest.approx(values[:65].mean() - values[191:].mean())
    # 300 frames: edges 0, 75, 150 (149.5 goes up), 224, 299; the last wraps to 43, before the one it follows.
    mean, recall, decay = region_boundary.statistics(np.linspace(1, 0, 300))
    assert mean == pytest.approx(0.5) and recall == 0.5 and np.isnan(decay)
    # 1200 frames: edges 0, 300, 600, 899, 1199 wrap to 0, 44, 88, 131, 175.
    values = np.linspace(1, 0, 1200)
    assert region_boundary.statistics(values)[2] == pytest.approx(values[:45].mean() - values[131:176].mean())


@pytest.mark.parametrize('values', [[], [[0.5, 0.5]], 0.5])
def test_statistics_need_a_vector(values):
    with pytest.raises(ValueError, match='at least one frame'):
        region_boundary.statistics(values)


def test_metrics_do_not_import_jax():
    code = (
        'import sys, sgmg_jax.evaluation.scoring; '
        "sys.exit(any(name == 'jax' or name.startswith('jax.') for name in sys.modules))"
    )
    root = pathlib.Path(__file__).parents[2]
    assert subprocess.run([sys.executable, '-c', code], cwd=root).returncode == 0
