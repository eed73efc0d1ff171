"""The clips of benchmarks.step, and the FLOP count in its table."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmg_jax import compilation
from sgmg_jax.benchmarks import operations, step


@pytest.mark.parametrize('rows, inner, columns', [(7, 5, 3), (1, 1, 1), (64, 48, 33)])
def test_operations_of_matmuls(rows, inner, columns):
    """A matmul, and with the two of its gradient; from arrays or their shapes."""
    x, y = jnp.ones((rows, inner), jnp.bfloat16), jnp.ones((inner, columns), jnp.bfloat16)
    one = 2 * rows * inner * columns
    assert operations.count(jnp.matmul, x, y) == one
    weight = jnp.ones((rows, columns), jnp.bfloat16)
    shapes = jax.eval_shape(lambda: (x, y))
    assert operations.count(lambda x, y: jax.vjp(jnp.matmul, x, y)[1](weight), *shapes) == 3 * one


@pytest.mark.parametrize('groups', [1, 2])
def test_operations_equal_those_that_xla_counts(groups):
    """Convolutions with strides and groups, products with several axes, a transform; additions are left out."""
    x, kernel = np.ones((2, 11, 9, 4), np.float32), np.ones((3, 3, 4 // groups, 6), np.float32)

    def products(x, kernel):
        y = jax.lax.conv_general_dilated(
            x, kernel, (2, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=groups
        )
        return jnp.einsum('nhwc,nhwd->ncd', y, y)

    assert operations.count(products, x, kernel) == jax.jit(products).lower(x, kernel).cost_analysis()['flops']
    signal = np.ones((3, 16, 8), np.complex64)
    expected = 3 * 5 * 16 * 8 * np.log2(16 * 8)
    assert operations.count(lambda x: jnp.fft.fft2(x), signal) == expected
    assert operations.count(lambda x: jnp.fft.rfft2(x), signal.real) == expected / 2


def test_the_body_of_a_loop_counts_as_often_as_it_runs():
    """Also in a gradient that recomputes, in what is compiled apart, and in the larger branch."""
    x = np.ones((4, 4), np.float32)

    def looped(x):
        body = jax.checkpoint(lambda y, _: (jax.jit(jnp.sin)(y @ y), None))
        return jax.lax.scan(body, x, None, length=5)[0].sum()

    assert operations.count(looped, x) == 5 * 128
    assert operations.count(jax.grad(looped), x) == 5 * (128 + 128 + 2 * 128)
    assert operations.count(lambda x: jax.lax.cond(x[0, 0] > 0, lambda: x, lambda: x @ x), x) == 128


def test_a_count_is_of_the_platform_that_is_traced_for():
    counted = []

    def noting(x):
        counted.append(compilation.platform())
        return x

    for platform in compilation.PLATFORMS:
        with compilation.tracing_for(platform):
            operations.count(noting, 1.0)
    assert counted == list(compilation.PLATFORMS)


def test_sentences_of_a_clip():
    """Text and targets have one row for each, clips one for all."""
    options = argparse.Namespace(height=150, width=200, tokens=4)
    example = step.make_example(options, (2, 3, 160, 224), sentences=5)
    assert example.clip.frames.shape == (2, 3, 160, 224, 3) and example.clip.size.tolist() == [[150, 200]] * 2
    for part in (example.text, example.targets):
        assert {len(x) for x in jax.tree.leaves(part)} == {10}
