"""Pure functions equal the authors' release."""

import golden_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmg_jax import compilation
from sgmg_jax.ops import deformable_attention, dynamic_conv, positions, resize


def channels_last(x):
    return np.moveaxis(x, -3, -1)


def test_resize_equals_the_release():
    arrays, _ = golden_cases.load('comp_resize')
    compared = 0
    for name, resized in arrays.items():
        _, case = name.split('/')
        if not name.startswith('out/'):
            continue
        compared += 1
        if case.startswith('mask'):
            mask, size = case.split('_')
            size = tuple(map(int, size.split('x')))
            np.testing.assert_array_equal(resize.nearest(arrays[f'in/{mask}'], size), resized, err_msg=name)
        else:
            method = resize.bicubic if case.startswith('bicubic') else resize.bilinear
            ours = method(channels_last(arrays[f'in/{case}']), resized.shape[-2:])
            np.testing.assert_allclose(ours, channels_last(resized), atol=1e-5, err_msg=name)
    assert compared > 20


def test_position_encodings_equal_the_release():
    arrays, _ = golden_cases.load('comp_posenc')
    two = positions.sine_2d(jnp.asarray(~arrays['in/mask2d']), 64)
    np.testing.assert_allclose(two, channels_last(arrays['out/pos2d']), atol=1e-5)
    one = positions.sine_1d(jnp.asarray(~arrays['in/mask1d']), 64)
    np.testing.assert_allclose(one, np.moveaxis(arrays['out/pos1d'], 1, 2), atol=1e-5)


def test_patch_convolution_and_gradients_equal_the_release():
    arrays, _ = golden_cases.load('comp_cpk')
    features = arrays['in/mask_features'].transpose(0, 1, 3, 4, 2)
    (b, t, h, w, _), q = features.shape, 5
    kernels = arrays['in/params'].reshape(b, t, q, -1)
    points = arrays['in/reference_points'].reshape(b, t, q, 2)
    cotangent = arrays['in/cot'].reshape(b, t, q, 16, h, w).transpose(0, 1, 2, 4, 5, 3)

    def masks(features, kernels):
        coordinates = dynamic_conv.relative_coordinates(points, arrays['in/sizes'], (h, w))
        return dynamic_conv.patch_convolution(features, coordinates, kernels)

    ours, pull_back = jax.vjp(masks, features, kernels)
    expected = arrays['out/masks'].reshape(b, t, q, 16, h, w).transpose(0, 1, 2, 4, 5, 3)
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    np.testing.assert_allclose(dynamic_conv.pixel_shuffle(ours), arrays['out/masks_shuffled'], atol=1e-4)
    to_features, to_kernels = pull_back(cotangent)
    np.testing.assert_allclose(to_features, arrays['grad/mask_features'].transpose(0, 1, 3, 4, 2), atol=1e-4)
    np.testing.assert_allclose(to_kernels, arrays['grad/params'].reshape(kernels.shape), rtol=1e-4, atol=1e-3)


def brute_force_sample(values, sizes, locations, weights):
    """The definition, point by point."""
    n, queries, heads, levels, points, _ = locations.shape
    out = np.zeros((n, queries, heads, values.shape[-1]))
    starts = deformable_attention.level_starts(sizes)
    for index in np.ndindex(n, queries, heads, levels, points):
        i, q, m, v, _ = index
        h, w = sizes[v]
        x, y = locations[index] * (w, h) - 0.5
        for row in (int(np.floor(y)), int(np.floor(y)) + 1):
            for column in (int(np.floor(x)), int(np.floor(x)) + 1):
                if 0 <= row < h and 0 <= column < w:
                    share = (1 - abs(x - column)) * (1 - abs(y - row))
                    out[i, q, m] += weights[index] * share * values[i, starts[v] + row * w + column, m]
    return out


@pytest.mark.parametrize(
    'platform, dense_cells',
    [('cpu', 0), ('cpu', 10), ('cpu', 10000), ('gpu', 0), ('gpu', 10), ('gpu', 10000), ('tpu', 0)],
)
def test_sampling_and_gradients_equal_the_definition(monkeypatch, platform, dense_cells):
    """In the form of every platform, with dense and sparse gradients, queries in several chunks, the last of them not
    full; points inside, on and outside the border; levels of one row and of one cell."""
    monkeypatch.setattr(deformable_attention, 'DENSE_CELLS', dict(cpu=dense_cells, gpu=dense_cells))
    monkeypatch.setattr(deformable_attention, 'MATRIX', 2 * 2 * 39 * 3)
    sizes = ((5, 7), (1, 3), (1, 1))
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2, 39, 2, 3))
    locations = rng.uniform(-0.4, 1.4, (2, 4, 2, 3, 2, 2))
    weights = rng.standard_normal((2, 4, 2, 3, 2))
    cotangent = rng.standard_normal((2, 4, 2, 3)).astype(np.float32)
    arguments = [x.astype(np.float32) for x in (values, locations, weights)]
    with compilation.tracing_for(platform):
        ours, pull_back = jax.vjp(lambda v, x, y: deformable_attention.sample(v, sizes, x, y), *arguments)
        gradients = pull_back(cotangent)
    np.testing.assert_allclose(ours, brute_force_sample(values, sizes, locations, weights), atol=1e-5)

    # Central differences of the definition, in double precision, along a random direction per argument.
    for i, gradient in enumerate(gradients):
        direction = rng.standard_normal(gradient.shape)
        ends = []
        for sign in (1, -1):
            moved = [values, locations, weights]
            moved[i] = moved[i] + sign * 1e-6 * direction
            ends.append(np.sum(brute_force_sample(moved[0], sizes, moved[1], moved[2]) * cotangent))
        np.testing.assert_allclose(np.sum(gradient * direction), (ends[0] - ends[1]) / 2e-6, rtol=1e-3)


@pytest.mark.parametrize('platform', compilation.PLATFORMS)
def test_sampling_gradient_at_a_cell_centre_is_the_slope_to_the_right(platform):
    """At initialisation most points lie exactly on a cell's centre, where PyTorch's floor selects the slope."""
    values = jnp.array([0.0, 1.0, 10.0]).reshape(1, 3, 1, 1)
    location = jnp.array([0.5, 0.5]).reshape(1, 1, 1, 1, 1, 2)
    slope = jax.grad(lambda x: deformable_attention.sample(values, ((1, 3),), x, jnp.ones((1, 1, 1, 1, 1))).sum())
    with compilation.tracing_for(platform):
        assert slope(location)[..., 0].item() == pytest.approx(3 * (10 - 1))


@pytest.mark.parametrize('platform', compilation.PLATFORMS)
def test_sampling_keeps_dtypes_and_adds_gradients_in_float32_on_accelerators(platform):
    """Of bfloat16 values: 1000 queries that all read one cell give it a gradient of 1000, which bfloat16 additions of 1
    cannot reach: beyond 256 they change nothing."""
    values = jnp.ones((1, 400, 1, 2), jnp.bfloat16)
    locations = jnp.full((1, 1000, 1, 1, 1, 2), 0.525)
    weights = jnp.ones((1, 1000, 1, 1, 1))
    with compilation.tracing_for(platform):
        out, pull_back = jax.vjp(
            lambda *a: deformable_attention.sample(a[0], ((20, 20),), *a[1:]), values, locations, weights
        )
        gradients = pull_back(jnp.ones_like(out))
    assert [out.dtype, *(g.dtype for g in gradients)] == [jnp.bfloat16, jnp.bfloat16, jnp.float32, jnp.float32]
    if platform != 'cpu':
        assert gradients[0].max() == 1000
