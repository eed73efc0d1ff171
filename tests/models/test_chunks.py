"""Layers applied in chunks equal the same layers applied at once."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmg_jax.models import chunks
from sgmg_jax.models.deformable_transformer import FeedForward


@pytest.fixture
def chunked(monkeypatch):
    """Sets the largest hidden layer held at once; makes the tests run as on a CPU on any device."""

    def choose(largest):
        monkeypatch.setattr(chunks, 'LARGEST', largest)

    monkeypatch.setattr(jax, 'default_backend', lambda: 'cpu')
    return choose


@pytest.mark.parametrize('shape', [(2, 7, 3, 16), (1, 1, 16), (3, 37, 16)])
@pytest.mark.parametrize('largest', [40, 500, 2000])
def test_values_and_gradients_in_chunks(chunked, shape, largest):
    module = FeedForward(40, 0.0, jnp.float32)
    rng = np.random.default_rng(0)
    x, cotangent = (jnp.asarray(rng.standard_normal(shape, np.float32)) for _ in range(2))
    parameters = module.init(jax.random.key(0), x, False)

    def run():
        out, pull = jax.vjp(lambda p, x: module.apply(p, x, True), parameters, x)
        return out, *pull(cotangent)

    chunked(2**30)
    expected = run()
    chunked(largest)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), run(), expected)
    in_chunks = module.init(jax.random.key(0), x, False)
    jax.tree.map(np.testing.assert_array_equal, in_chunks, parameters)


def test_chunk_size(chunked):
    seen = []

    class Layers(nn.Module):
        @nn.compact
        def __call__(self, x):
            def layers(module, x):
                seen.append(x.shape)
                return x + 1

            return chunks.by_chunks(layers, self, x, hidden=8)

    x = jnp.arange(2 * 25 * 3.0).reshape(2, 5, 5, 3)
    chunked(2 * 10 * 8)
    np.testing.assert_array_equal(Layers().apply({}, x), x + 1)
    assert set(seen) == {(2, 9, 3)}  # 25 positions in three chunks
    seen.clear()
    chunked(2 * 25 * 8)
    np.testing.assert_array_equal(Layers().apply({}, x), x + 1)
    assert seen == [(2, 25, 3)]


def test_chunks_have_independent_dropout(chunked):
    module = FeedForward(64, 0.5, jnp.float32)
    x = jnp.ones((1, 8, 16))
    parameters = module.init(jax.random.key(0), x, False)
    chunked(64)

    def out(seed):
        return np.asarray(module.apply(parameters, x, True, rngs={'dropout': jax.random.key(seed)}))[0]

    np.testing.assert_array_equal(out(0), out(0))
    assert len(np.unique(out(0).round(4), axis=0)) == 8
    # The backward pass uses the same dropout as the forward pass: the slope equals the difference quotient.
    rng = np.random.default_rng(0)
    direction, cotangent = (rng.standard_normal(x.shape).astype(np.float32) for _ in range(2))
    value = lambda x: jnp.vdot(module.apply(parameters, x, True, rngs={'dropout': jax.random.key(0)}), cotangent)
    slope, step = jnp.vdot(jax.grad(value)(x + direction), direction), 1e-3
    quotient = (value(x + (1 + step) * direction) - value(x + (1 - step) * direction)) / (2 * step)
    np.testing.assert_allclose(slope, quotient, rtol=2e-2)
