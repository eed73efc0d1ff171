"""Resizing exactly as PyTorch's `interpolate` with align_corners=False does it.

Axis letters: h w a feature map, C channels.
"""
import jax
from jax.image import ResizeMethod
import jax.numpy as jnp
import numpy as np


def bilinear(x, size):
    """Resizes x [... h w C] to size (height, width) without antialiasing."""
    return _resize(x, size, ResizeMethod.LINEAR)


def bicubic(x, size):
    """Resizes x [... h w C] to size (height, width): Keys' kernel with a = -0.75, border repeated."""
    return _resize(x, size, ResizeMethod.CUBIC_PYTORCH)


def nearest(x, size, axes=(-2, -1)):
    """Resizes x [... h w], or the given axes of it, to size (height, width); output i takes input floor(i * in / out).

    The product is taken in float32, as PyTorch does: at some sizes it lies one below the exact one.
    """
    rows, columns = (
        np.minimum(np.floor(np.arange(out, dtype=np.float32) * np.float32(full / out)), full - 1).astype(np.int32)
        for full, out in zip((x.shape[axis] for axis in axes), size))
    return x.take(rows, axis=axes[0]).take(columns, axis=axes[1])


def _resize(x, size, method):
    if x.shape[-3:-1] == tuple(size):
        return x
    shape = (*x.shape[:-3], *size, x.shape[-1])
    return jax.image.resize(x.astype(jnp.float32), shape, method, antialias=False).astype(x.dtype)
