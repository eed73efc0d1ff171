"""The mean of a convolution, computed from means of the map. The whole augmentation is in the golden cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from sgmg_jax.models import spectral_fusion


@pytest.mark.parametrize('height, width', [(3, 3), (3, 8), (6, 5), (9, 13)])
def test_mean_of_a_convolution(height, width):
    """Against SciPy, in maps down to the kernel's size."""
    rng = np.random.default_rng(0)
    x, kernel, bias = rng.normal(size=(2, height, width, 4)), rng.normal(size=(3, 3, 4, 4)), rng.normal(size=4)
    expected = [
        [
            sum(signal.correlate2d(frame[..., c], kernel[..., c, d], 'valid') for c in range(4)).mean() + bias[d]
            for d in range(4)
        ]
        for frame in x
    ]
    parameters = {'kernel': jnp.asarray(kernel, jnp.float32), 'bias': jnp.asarray(bias, jnp.float32)}
    module = spectral_fusion.MeanOfConvolution()
    ours = module.apply({'params': parameters}, x.astype(np.float32))
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    half = spectral_fusion.MeanOfConvolution(dtype=jnp.bfloat16).apply(
        {'params': parameters}, jnp.asarray(x, 'bfloat16')
    )
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(np.float32), expected, atol=0.1)


def test_it_begins_as_a_convolution():
    """Kernel and bias are uniform within ±1/sqrt(9 C)."""
    x = np.zeros((1, 5, 5, 16), np.float32)
    start = spectral_fusion.MeanOfConvolution().init(jax.random.key(0), x)['params']
    assert start['kernel'].shape == (3, 3, 16, 16) and start['bias'].shape == (16,)
    for part in start.values():
        assert 0.8 / 12 < np.abs(part).max() <= 1 / 12
