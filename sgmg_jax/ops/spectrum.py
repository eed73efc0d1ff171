"""The 2-D spectrum of a feature map and the Gaussian that attenuates it (SgMg, section 3.2).

Axis letters: N frames, h w a feature map, C channels.
"""
import jax.numpy as jnp
import numpy as np

SIGMA = 7.0


def gaussian(size, sigma=SIGMA):
    """[h w] with peak 1 at (h // 2, w // 2).

    The spectrum is not shifted, so that peak lies on the *highest* frequencies: one minus the
    Gaussian passes the low ones. On maps of few cells it attenuates low frequencies as well.
    """
    y, x = (np.arange(n) - n // 2 for n in size)
    return np.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / (2 * sigma ** 2)).astype(np.float32)


def to_spectrum(x):
    """Real x [N h w C] -> real and imaginary parts [N h w 2C] of its unnormalised transform."""
    spectrum = jnp.fft.fft2(x.astype(jnp.float32), axes=(1, 2))
    return jnp.concatenate([spectrum.real, spectrum.imag], axis=-1)


def from_spectrum(parts):
    """Real and imaginary parts [N h w 2C] -> the real part [N h w C] of the inverse transform."""
    real, imaginary = jnp.split(parts.astype(jnp.float32), 2, axis=-1)
    return jnp.fft.ifft2(real + 1j * imaginary, axes=(1, 2)).real
