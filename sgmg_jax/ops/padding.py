"""Which cells of a feature map show the frame, and which only its padding at the bottom and on the right.

Axis letters: N frames or clips, h w a feature map, C channels.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sgmg_jax.types import ArrayLike


def real_cells(size: Int[ArrayLike, 'N 2'], stride: int, shape: Sequence[int]) -> Bool[Array, 'N h w']:
    """The cells of maps of this stride and `shape` = (h, w) that a frame of `size` pixels would have unpadded."""
    rows, columns = jnp.moveaxis(-(-jnp.asarray(size) // stride), -1, 0)
    return first_cells(rows, columns, shape)


def first_cells(
    rows: Int[ArrayLike, ' N'], columns: Int[ArrayLike, ' N'], shape: Sequence[int]
) -> Bool[Array, 'N h w']:
    """The first rows and columns of maps of `shape` = (h, w)."""
    h, w = shape
    return (jnp.arange(h)[:, None] < rows[:, None, None]) & (jnp.arange(w) < columns[:, None, None])


def content(size: Int[ArrayLike, 'N 2'] | None, stride: int, shape: Sequence[int]) -> Bool[Array, 'N h w C'] | None:
    """The `mask` of a norm of maps of this `shape`, which is not to see padding; None if nothing is padding."""
    return None if size is None else jnp.broadcast_to(real_cells(size, stride, shape[1:3])[..., None], tuple(shape))


def zero_padding(x: Float[ArrayLike, 'N h w C'], size: Int[ArrayLike, 'N 2'] | None, stride: int) -> ArrayLike:
    """`x`, a map of this stride, with zeros where it shows padding, as a convolution pads an unpadded one. If `size` is
    None, nothing is padding."""
    return x if size is None else jnp.where(real_cells(size, stride, x.shape[1:3])[..., None], x, 0)
