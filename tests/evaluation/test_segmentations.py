"""Segmentations of every kind are drawn; those that would crash pycocotools are refused."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from pycocotools import mask as coco_mask
import pytest

from sgmg_jax.evaluation import segmentations

SIZE = 7, 9  # Height and width.
BOX = [2, 1, 6, 1, 6, 5, 2, 5]


def runs(mask):
    """Lengths of the runs down the columns, that of zeros first."""
    flat = mask.ravel(order='F')
    starts = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
    return np.diff([0, *starts, flat.size]).tolist()


@given(st.integers(0, 2**32 - 1))
def test_compressed_and_uncompressed_runs_are_drawn(seed):
    rng = np.random.default_rng(seed)
    mask = (rng.random(rng.integers(1, 12, 2)) < rng.choice([0.1, 0.5, 0.9])).astype(np.uint8)
    size = list(mask.shape)
    compressed = coco_mask.encode(np.asfortranarray(mask))['counts'].decode()
    for counts in (runs(mask), compressed):
        drawn = segmentations.draw({'size': size, 'counts': counts}, *size, 'x')
        assert drawn.dtype == np.uint8
        np.testing.assert_array_equal(drawn, mask)
    height, width = size
    assert segmentations.is_whole(compressed, height, width)
    assert not segmentations.is_whole(compressed, height + 1, width)
    assert not segmentations.is_whole(compressed[:-1], height, width)


def test_polygons_are_united():
    other = [0, 0, 3.5, 0, 3.5, 3, 0, 3]
    drawn = [segmentations.draw(polygons, *SIZE, 'x') for polygons in ([BOX], [other], [BOX, other])]
    np.testing.assert_array_equal(drawn[0][1:5, 2:6], 1)
    assert drawn[0].sum() == 16
    np.testing.assert_array_equal(drawn[2], drawn[0] | drawn[1])
    np.testing.assert_array_equal(segmentations.draw([[1, 1, 5, 5], BOX], *SIZE, 'x'), drawn[0])
    for nothing in ([], [[]], [[1, 1]], [[1, 1, 5, 5]]):  # The last is no box.
        assert not segmentations.draw(nothing, *SIZE, 'x').any()


def zigzag(length):
    return [value for step in range(length) for value in (step % 2 * 10, step % 3)]


@pytest.mark.parametrize(
    'segmentation, message',
    [
        (None, 'a polygon must be'),
        ('x', 'a polygon must be'),
        ([3], 'a polygon must be'),
        ([[[1] * 6]], 'a polygon'),
        ([[1, 2, 3]], 'a polygon must be'),
        ([[1, 2, 3, 4, 5, float('nan')]], 'a polygon must be'),
        ([[1, 2, 3, 4, 5, 1e9]], 'a polygon must be'),
        ([[1, 2, 3, 4, 5, 10**400]], 'a polygon must be'),
        ([[1, 2, 3, 4, 5, True]], 'a polygon must be'),
        ([[1, 2, 3, 4, 5, '6']], 'a polygon must be'),
        ([BOX] * (segmentations.MOST_POLYGONS + 1), 'an object must have at most 1,000 polygons'),
        ([zigzag(segmentations.LONGEST_OUTLINE // 10)], 'the outline of an object must be at most 1,048,576 pixels'),
        ({}, 'run lengths must have'),
        ({'size': [7, 9]}, 'run lengths'),
        ({'counts': [63]}, 'run lengths'),
        *(({'size': size, 'counts': [63]}, 'run lengths') for size in ([9, 7], [7.0, 9], [7, 9, 1], '79', 63, None)),
        *(
            ({'size': [7, 9], 'counts': counts}, 'run lengths')
            for counts in (
                [],
                [62],
                [64],
                [-1, 64],
                [63.0],
                ['63'],
                [True, 62],
                [10, 0, 53],
                [63, 0],
                63,
                None,
                'PP1',
                '',
                '\u4e00',
                '\ud800',
                'o' * 40,
                '\x00',
                'n1',
                'P1P',
                'oooooo1',
                'ooooooo1',
                'Q1n1',
                'o1\n',
                coco_mask.encode(np.zeros(SIZE, np.uint8, 'F'))['counts'],
            )
        ),
    ],
)
def test_malformed_segmentations_are_refused(segmentation, message):
    with pytest.raises(ValueError, match=rf'^a\.json: object 3: {message}.*Copy the file again'):
        segmentations.draw(segmentation, *SIZE, 'a.json: object 3')


def test_zero_runs_break_a_union_in_pycocotools():
    """So they are refused."""
    run = coco_mask.frPyObjects({'size': [4, 4], 'counts': [4, 4, 0, 0, 0, 8]}, 4, 4)
    assert coco_mask.area(run) == 12 and coco_mask.area(coco_mask.merge([run, run])) == 4
    assert not segmentations.is_whole(run['counts'].decode(), 4, 4)


def test_length_of_compressed_runs_is_limited(monkeypatch):
    code = coco_mask.encode(np.asfortranarray(np.eye(9, dtype=np.uint8)))['counts'].decode()
    monkeypatch.setattr(segmentations, 'LONGEST_CODE', len(code))
    assert segmentations.is_whole(code, 9, 9)
    monkeypatch.setattr(segmentations, 'LONGEST_CODE', len(code) - 1)
    assert not segmentations.is_whole(code, 9, 9)


@pytest.mark.parametrize(
    'size', [(0, 9), (-7, 9), (True, 9), (7.0, 9), ('7', 9), (None, 9), (10**9, 1), (2**13, 2**13)]
)
def test_malformed_sizes_are_refused(size):
    for height, width in (size, size[::-1]):
        with pytest.raises(ValueError, match='^x: "height" and "width" must be whole numbers from 1'):
            segmentations.draw([BOX], height, width, 'x')


COORDINATES = st.one_of(st.integers(-30, 30), st.floats(-30, 30), st.floats(), st.integers(), st.booleans(), st.none())
COUNTS = st.one_of(st.lists(st.integers(-2, 64), max_size=8), st.text(st.characters(max_codepoint=120), max_size=8))
ANYTHING = st.one_of(
    st.lists(st.lists(COORDINATES, max_size=12), max_size=4),
    st.fixed_dictionaries({'size': st.sampled_from([[7, 9], [9, 7], None]), 'counts': COUNTS}),
)


@given(ANYTHING)
def test_random_segmentations_are_drawn_or_refused(segmentation):
    try:
        drawn = segmentations.draw(segmentation, *SIZE, 'file')
    except ValueError as error:
        assert str(error).startswith('file: ')
    else:
        assert drawn.shape == SIZE and drawn.max() <= 1
