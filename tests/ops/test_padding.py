"""Which cells of a map show the frame."""

import numpy as np
import pytest

from sgmg_jax.ops import padding


@pytest.mark.parametrize('stride', [1, 4, 32, 64])
def test_real_cells_are_those_that_see_a_pixel(stride):
    shape, sizes = (5, 6), np.array([(1, 2), (5 * stride, 6 * stride), (4 * stride + 1, 2 * stride - 1)])
    found = np.asarray(padding.real_cells(sizes, stride, shape))
    for cells, (height, width) in zip(found, sizes):
        pixels = np.zeros((shape[0] * stride, shape[1] * stride), bool)
        pixels[:height, :width] = True
        np.testing.assert_array_equal(cells, pixels.reshape(shape[0], stride, shape[1], stride).any((1, 3)))
    x = np.random.default_rng(0).standard_normal((3, *shape, 2)).astype(np.float32)
    np.testing.assert_array_equal(padding.zero_padding(x, sizes, stride), x * found[..., None])
    np.testing.assert_array_equal(padding.content(sizes, stride, x.shape), np.repeat(found[..., None], 2, -1))


def test_without_a_size_nothing_is_padding():
    x = np.ones((1, 2, 3, 4), np.float32)
    assert padding.zero_padding(x, None, 8) is x and padding.content(None, 8, x.shape) is None
