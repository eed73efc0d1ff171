"""Spectrum-guided cross-modal fusion, SCF (SgMg, section 3.2).

Per level: spectrum augmentation, words attended by every pixel, spectrum augmentation again.
Axis letters: B clips, T frames, N = B T, h w a feature map, E sentences of a clip, L tokens, C channels, p pixels of
a clip, m heads.
"""
import math
from typing import Any

from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp

from sgmg_jax.models import layers
from sgmg_jax.models.layers import xavier
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


class WordFusion(nn.Module):
    """Every pixel attends to the words; the answer multiplies the pixel. Shared by all levels.

    Of several sentences the answers are summed first (multi-instance fusion, section 3.5, eq. 4 and the product
    of eq. 5).
    """
    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, words):
        """x [B T h w C], words: Words of the same B -> [B T h w C]."""
        return x * WordAttention(self.heads, self.dtype, name='attention')(x, words, together=True)


@struct.dataclass
class Words:
    """The words of E sentences a clip: features and their sine positions [B E L C]; valid [B E L].

    A sentence without a valid word is none: it only fills up the axis E.
    """
    features: jax.Array
    positions: jax.Array
    valid: jax.Array


class WordAttention(nn.Module):
    """Every pixel attends to the words of each sentence of its clip by itself."""
    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, words, together=False):
        """x [B T h w C], words: Words -> [B E T h w C], or, `together`, the sum over sentences [B T h w C]."""
        channels = x.shape[-1]

        def project(x, name):
            return nn.DenseGeneral((self.heads, channels // self.heads), dtype=self.dtype, kernel_init=xavier,
                                   name=name)(x)

        pixels = project(x.reshape(x.shape[0], -1, channels), 'query') / math.sqrt(channels // self.heads)
        keys, values = project(words.features + words.positions, 'key'), project(words.features, 'value')
        logits = jnp.einsum('bpmc,belmc->bempl', pixels, keys).astype(jnp.float32)
        logits = jnp.where(words.valid[:, :, None, None], logits, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
        out = nn.DenseGeneral(channels, axis=(-2, -1), dtype=self.dtype, kernel_init=xavier, name='out')
        if not together:
            return out(jnp.einsum('bempl,belmc->bepmc', weights, values)).reshape(
                *words.valid.shape[:2], *x.shape[1:])
        real = words.valid.any(-1).astype(self.dtype)
        count = real.sum(1)[:, None, None, None]
        # Projected as a mean, so that the sum has the bias once a sentence.
        mean = jnp.einsum('bempl,belmc->bpmc', weights, values * real[..., None, None, None]) / count.clip(1)
        return (out(mean) * count[..., 0]).reshape(x.shape)
