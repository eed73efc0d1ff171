"""Dropout equals its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmg_jax.models.dropout import Dropout


def drop(x, rate, seed=0, train=True):
    return Dropout(rate).apply({}, x, train, rngs={'dropout': jax.random.key(seed)})


@pytest.mark.parametrize('shape', [(400, 501), (2, 300, 256), (40001, 1)])
@pytest.mark.parametrize('rate', [0.1, 0.5])
def test_drops_at_the_rate_and_keeps_the_mean(shape, rate):
    x = np.random.default_rng(0).uniform(1, 2, shape).astype(np.float32)
    out = np.asarray(drop(x, rate))
    kept = out != 0
    np.testing.assert_allclose(out[kept], x[kept] / (1 - rate), rtol=1e-6)
    deviation = np.sqrt(rate * (1 - rate) / x.size)
    assert abs(kept.mean() - (1 - rate)) < 4 * deviation
    # The two elements that share a word of random bits are independent.
    pairs = kept[..., : shape[-1] // 2 * 2].reshape(-1, 2)
    if len(pairs):
        assert abs(pairs.all(1).mean() - (1 - rate) ** 2) < 4 * np.sqrt(1 / 4 / len(pairs))


def test_seed():
    x = np.ones((30, 30), np.float32)
    np.testing.assert_array_equal(drop(x, 0.5), drop(x, 0.5))
    assert np.any(drop(x, 0.5) != drop(x, 0.5, seed=1))


def test_does_nothing_at_inference_or_rate_zero():
    x = np.ones((3, 5), np.float32)
    np.testing.assert_array_equal(drop(x, 0.5, train=False), x)
    np.testing.assert_array_equal(drop(x, 0.0), x)
    assert drop(jnp.ones((3, 5), jnp.bfloat16), 0.5).dtype == jnp.bfloat16
