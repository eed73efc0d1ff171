"""float32 is float32 on accelerators too, unless the user wants it otherwise."""
import jax
import jax.numpy as jnp
import pytest

from sgmg_jax import compilation


@pytest.mark.parametrize('set_by_user, expected', [
    (None, 'HIGHEST'), ('tensorfloat32', 'HIGH'), ('bfloat16', 'DEFAULT')])
def test_products_are_of_full_precision_unless_told(set_by_user, expected):
    x, kernel = jnp.ones((2, 5, 5, 3)), jnp.ones((3, 3, 3, 4))

    def loss(x, kernel):
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
        return jnp.einsum('bhwc,bhwd->cd', y, y).sum()

    with jax.default_matmul_precision(set_by_user):
        program = compilation.jit(jax.grad(loss, (0, 1))).lower(x, kernel).as_text()
    products = [line for line in program.splitlines() if 'dot_general' in line or 'convolution' in line]
    assert len(products) >= 5
    assert all(f'precision = [{expected}, {expected}]' in line or f'<precision {expected}>' in line
               for line in products)
