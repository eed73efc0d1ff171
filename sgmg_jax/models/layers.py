"""Linear and convolution layers that start as PyTorch's do, which the released model keeps wherever it
says nothing else: kernels and biases uniform within ±1/sqrt(inputs of an output).

A bias that started at zero would do harm: the pixels that pad a frame are zero, and a zero vector that
meets LayerNorm after LayerNorm has its gradient multiplied by 1/sqrt(epsilon), some 300, by each, until
the gradients of everything else are lost beside it.
"""
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

xavier = nn.initializers.xavier_uniform()  # of the matrices for which the release asks for it
rare = nn.initializers.constant(-4.59511985)  # of class logits, -log(99): a query is the object once in a hundred


def dense(features, inputs, kernel_init=None, bias_init=None, **options):
    """nn.Dense of `inputs` channels; kernel and bias may start otherwise."""
    start = uniform(inputs)
    return nn.Dense(features, kernel_init=kernel_init or start, bias_init=bias_init or start, **options)


def conv(features, size, inputs, **options):
    """nn.Conv of `inputs` channels, with a kernel of `size`."""
    start = uniform(math.prod(size) * inputs)
    return nn.Conv(features, size, kernel_init=start, bias_init=start, **options)


def uniform(inputs):
    """An initializer, (key, shape, dtype) -> array, uniform within ±1/sqrt(inputs)."""
    bound = 1 / math.sqrt(inputs)

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
