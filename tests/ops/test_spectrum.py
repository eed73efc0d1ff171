"""The spectrum in the form of every platform equals NumPy's."""

import jax
import numpy as np
import pytest

from sgmg_jax import compilation
from sgmg_jax.ops import spectrum


@pytest.mark.parametrize('platform', compilation.PLATFORMS)
@pytest.mark.parametrize('size', [(8, 8), (45, 80), (7, 3), (1, 5), (23, 1)])
def test_transforms_equal_numpys(platform, size):
    rng = np.random.default_rng(0)
    x, parts = rng.standard_normal((2, *size, 3)), rng.standard_normal((2, *size, 6))
    expected = np.fft.fft2(x, axes=(1, 2))
    inverse = np.fft.ifft2(parts[..., :3] + 1j * parts[..., 3:], axes=(1, 2)).real
    with compilation.tracing_for(platform):
        ours, back = jax.jit(lambda *a: (spectrum.to_spectrum(a[0]), spectrum.from_spectrum(a[1])))(
            x.astype(np.float32), parts.astype(np.float32)
        )
    np.testing.assert_allclose(
        ours, np.concatenate([expected.real, expected.imag], -1), atol=2e-6 * np.abs(expected).max()
    )
    np.testing.assert_allclose(back, inverse, atol=1e-6)


def test_only_a_tpus_program_has_no_fft():
    x = np.zeros((1, 5, 6, 2), np.float32)
    for platform in compilation.PLATFORMS:
        with compilation.tracing_for(platform):
            program = str(jax.make_jaxpr(lambda x: spectrum.from_spectrum(spectrum.to_spectrum(x)))(x))
        assert ('fft' in program.replace('from_fft', '')) == (platform != 'tpu')
