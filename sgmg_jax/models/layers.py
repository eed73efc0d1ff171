"""Linear and convolution layers with PyTorch's default initialisation, which the released model uses unless it sets
another: kernels and biases are uniform within ±1/sqrt(fan in).

Biases must not start at zero. Padded pixels are zero, and each LayerNorm multiplies the gradient of a zero vector by
1/sqrt(epsilon), about 300. After several LayerNorms that gradient drowns out all others.
"""

from collections.abc import Callable, Sequence
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

Initializer = Callable[..., jax.Array]  # (key, shape, dtype) -> array

xavier = nn.initializers.xavier_uniform()  # where the release sets it
rare = nn.initializers.constant(-4.59511985)  # of class logits, -log(99): one query in a hundred is the object


def dense(
    features: int,
    inputs: int,
    kernel_init: Initializer | None = None,
    bias_init: Initializer | None = None,
    **options: Any,
) -> nn.Dense:
    """nn.Dense with `inputs` input channels; initializers override the default."""
    start = uniform(inputs)
    return nn.Dense(features, kernel_init=kernel_init or start, bias_init=bias_init or start, **options)


def conv(features: int, size: Sequence[int], inputs: int, **options: Any) -> nn.Conv:
    """nn.Conv with `inputs` input channels and a kernel of this size."""
    start = uniform(math.prod(size) * inputs)
    return nn.Conv(features, size, kernel_init=start, bias_init=start, **options)


def uniform(inputs: float | int) -> Initializer:
    """An initializer, uniform within ±1/sqrt(inputs)."""
    bound = 1 / math.sqrt(inputs)

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
