"""Spectrum-guided cross-modal fusion, SCF (SgMg, section 3.2).

Per level: spectrum augmentation, words attended by every pixel, spectrum augmentation again.
Axis letters: B clips, T frames, N = B T, h w a feature map, L tokens, C channels.
"""
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from sgmg_jax.models import layers
from sgmg_jax.ops import resize, spectrum
from sgmg_jax.sharding import batch_local


def spectrum_filters(sizes):
    """The Gaussian [h w] of each level. Only the finest level's is computed; every other one is
    the level before's resized, as the released model hands its filter from block to block."""
    filters = [jnp.asarray(spectrum.gaussian(sizes[0]))]
    for size in sizes[1:]:
        filters.append(resize.bilinear(filters[-1][..., None], size)[..., 0])
    return filters


class SpectrumAugmentation(nn.Module):
    """Adds to a map what two pointwise convolutions make of its low-pass filtered spectrum.

    The strength of the filter is a number per frame, read from the map itself.
    """
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, gaussian):
        """x [N h w C], gaussian [h w] -> [N h w C]."""
        channels = x.shape[-1]
        strength = layers.conv(channels, (3, 3), channels, padding='VALID', dtype=self.dtype, name='laplace')(x)
        strength = nn.relu(layers.dense(channels, channels, use_bias=False, dtype=self.dtype, name='strength_in')(
            strength.mean(axis=(1, 2))))
        strength = jax.nn.sigmoid(
            layers.dense(1, channels, use_bias=False, dtype=self.dtype, name='strength_out')(strength))

        parts = batch_local(spectrum.to_spectrum)(x)
        parts = parts * (1 - strength[:, None, None].astype(jnp.float32) * gaussian[..., None])
        parts = nn.relu(layers.dense(2 * channels, 2 * channels, dtype=self.dtype, name='conv1')(parts))
        parts = layers.dense(2 * channels, 2 * channels, dtype=self.dtype, name='conv2')(parts)
        return x + batch_local(spectrum.from_spectrum)(parts).astype(x.dtype)


class WordAttention(nn.Module):
    """Every pixel attends to the words; the answer multiplies the pixel. Shared by all levels."""
    heads: int = 8
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, words, word_positions, words_valid):
        """x [B T h w C]; words, word_positions [B L C]; words_valid [B L] -> [B T h w C]."""
        pixels = x.reshape(x.shape[0], -1, x.shape[-1])
        attended = nn.MultiHeadDotProductAttention(
            self.heads, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(),
            force_fp32_for_softmax=True, name='attention')(
                pixels, words + word_positions, words, mask=words_valid[:, None, None, :])
        return x * attended.reshape(x.shape)
