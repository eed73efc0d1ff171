"""The 2-D spectrum of a feature map and the Gaussian that attenuates it (SgMg, section 3.2).

Axis letters: N frames, h w a feature map, C channels.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from sgmg_jax.types import ArrayLike

SIGMA = 7.0


def gaussian(size: Sequence[int], sigma: float = SIGMA) -> Float[np.ndarray, 'h w']:
    """A Gaussian of size (h, w) with peak 1 at (h // 2, w // 2).

    The spectrum is not shifted, so the peak lies on the *highest* frequencies: one minus the
    Gaussian passes the low ones. On small maps it attenuates low frequencies as well.
    """
    y, x = (np.arange(n) - n // 2 for n in size)
    return np.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / (2 * sigma**2)).astype(np.float32)


def to_spectrum(x: Float[ArrayLike, 'N h w C']) -> Float[Array, 'N h w 2*C']:
    """Real and imaginary parts of the unnormalised transform."""
    spectrum = jnp.fft.fft2(x.astype(jnp.float32), axes=(1, 2))
    return jnp.concatenate([spectrum.real, spectrum.imag], axis=-1)


def from_spectrum(parts: Float[ArrayLike, 'N h w parts']) -> Float[Array, 'N h w parts//2']:
    """Real part of the inverse transform; the first half of `parts` is real, the second imaginary."""
    real, imaginary = jnp.split(parts.astype(jnp.float32), 2, axis=-1)
    return jnp.fft.ifft2(real + 1j * imaginary, axes=(1, 2)).real
