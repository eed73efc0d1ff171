"""Resizing exactly as PyTorch's `interpolate` with align_corners=False.

Axis letters: h w a feature map, H W its new size, C channels.
"""

from collections.abc import Sequence

import jax
from jax.image import ResizeMethod
import jax.numpy as jnp
from jaxtyping import Float, Shaped
import numpy as np

from sgmg_jax.types import ArrayLike


def bilinear(x: Float[ArrayLike, '*batch h w C'], size: Sequence[int]) -> Float[ArrayLike, '*batch H W C']:
    """Resizes to size (H, W) without antialiasing."""
    return _resize(x, size, ResizeMethod.LINEAR)


def bicubic(x: Float[ArrayLike, '*batch h w C'], size: Sequence[int]) -> Float[ArrayLike, '*batch H W C']:
    """Resizes to size (H, W) with Keys' kernel, a = -0.75; the border is repeated."""
    return _resize(x, size, ResizeMethod.CUBIC_PYTORCH)


def nearest(
    x: Shaped[ArrayLike, '...'], size: Sequence[int], axes: tuple[int, int] = (-2, -1)
) -> Shaped[ArrayLike, '...']:
    """Resizes two axes of x to size (H, W); output i is input floor(i * in / out).

    The product is in float32, as in PyTorch: at some sizes its floor is one below the exact one.
    """
    rows, columns = (
        np.minimum(np.floor(np.arange(out, dtype=np.float32) * np.float32(full / out)), full - 1).astype(np.int32)
        for full, out in zip((x.shape[axis] for axis in axes), size)
    )
    return x.take(rows, axis=axes[0]).take(columns, axis=axes[1])


def _resize(x, size, method):
    if x.shape[-3:-1] == tuple(size):
        return x
    shape = (*x.shape[:-3], *size, x.shape[-1])
    return jax.image.resize(x.astype(jnp.float32), shape, method, antialias=False).astype(x.dtype)
