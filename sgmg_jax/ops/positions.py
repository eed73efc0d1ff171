"""Sine position encodings of the valid part of a map or a sentence (DETR, section 3 and appendix).

Axis letters: h w a feature map, L tokens, C channels. Validity masks are True = real.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
import numpy as np

from sgmg_jax.types import ArrayLike

EPSILON = np.float32(1e-6)
TURN = np.float32(2 * np.pi)


def sine_2d(valid: Bool[ArrayLike, '*batch h w'], channels: int) -> Float[Array, '*batch h w {channels}']:
    """The first half of the channels encodes y, the second x."""
    return jnp.concatenate([_encode_axis(valid, axis, channels // 2) for axis in (-2, -1)], axis=-1)


def sine_1d(valid: Bool[ArrayLike, '*batch L'], channels: int) -> Float[Array, '*batch L {channels}']:
    """Encodes each token's place in the sentence."""
    count = jnp.cumsum(valid, axis=-1, dtype=jnp.float32)
    return _waves(count / (count[..., -1:] + EPSILON) * TURN, channels)


def _encode_axis(valid, axis, channels):
    count = jnp.cumsum(valid, axis=axis, dtype=jnp.float32)
    last = jnp.take(count, jnp.array([valid.shape[axis] - 1]), axis=axis)
    waves = _waves((count - 0.5) / (last + EPSILON) * TURN, channels)
    # In a row or column that is all padding the angle is -3e6, where one bit of rounding changes the sine completely,
    # and the released model lets such cells affect their valid neighbours through the mask features. So the released
    # values are computed here by NumPy, not by whatever chip this runs on.
    all_padding = np.float32(-0.5) / EPSILON * TURN
    return jnp.where(last[..., None] > 0, waves, _waves(all_padding, channels, np))


def _waves(angle, channels, xp=jnp):
    """angle [...] -> [... channels]: alternating sines and cosines, wavelengths 1 to 10000 turns."""
    wavelength = np.power(10000.0, np.arange(channels) // 2 * 2 / channels).astype(np.float32)
    angle = angle[..., None] / wavelength
    return xp.where(np.arange(channels) % 2 == 0, xp.sin(angle), xp.cos(angle))
