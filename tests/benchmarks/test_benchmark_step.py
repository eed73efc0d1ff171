"""The FLOP count in the table of benchmarks.step."""

import jax
import jax.numpy as jnp
import pytest

from sgmg_jax.benchmarks import step


@pytest.mark.parametrize('rows, inner, columns', [(7, 5, 3), (1, 1, 1), (64, 48, 33)])
def test_operations_of_matmuls(rows, inner, columns):
    """A matmul, and the two of its gradient; from arrays or their shapes."""
    x, y = jnp.ones((rows, inner), jnp.bfloat16), jnp.ones((inner, columns), jnp.bfloat16)
    one = 2 * rows * inner * columns
    assert step.count_operations(jnp.matmul, x, y) == one
    weight = jnp.ones((rows, columns), jnp.bfloat16)
    assert (
        step.count_operations(lambda x, y: jax.vjp(jnp.matmul, x, y)[1](weight), *jax.eval_shape(lambda: (x, y)))
        == 2 * one
    )
