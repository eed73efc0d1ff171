"""Multi-modal fusion, MMF (SOC, section 3.2): vision reads language, and language vision.

Axis letters: N sentences, T frames, h w a feature map, L tokens, C channels.
"""
from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from sgmg_jax.models.layers import uniform, xavier
from sgmg_jax.models.spectral_fusion import WordFusion
from sgmg_jax.ops import positions


class MultimodalFusion(nn.Module):
    """Both directions read what the other has not fused yet, and multiply what they read by what asks; shared by all
    levels. The released code adds sine positions to the keys, of which the paper says nothing."""
    heads: int
    dtype: Any = jnp.float32

    def setup(self):
        self.to_vision = WordFusion(self.heads, self.dtype)
        self.to_language = LanguageFusion(self.heads, self.dtype)

    def __call__(self, levels, valid, words):
        """levels [N T h w C], their masks [N T h w], spectral_fusion.Words of N clips with a sentence each ->
        the fused levels; the guidance [N C], what the sentence means in this video: the mean of its words after they
        have read the stride-32 level."""
        fused = [self.to_vision(x, words) for x in levels]
        read, real = self.to_language(levels[2], valid[2], words), words.valid[:, 0, :, None]
        return fused, (read * real).sum(1) / real.sum(1).clip(1)


class LanguageFusion(nn.Module):
    """Every word attends to the pixels of all frames; the answer multiplies the word."""
    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, valid, words):
        """x [N T h w C], valid [N T h w], Words as above -> [N L C]."""
        clips, channels = x.shape[0], x.shape[-1]
        keys = (x + positions.sine_2d(valid, channels)).reshape(clips, -1, channels)
        attention = nn.MultiHeadDotProductAttention(
            self.heads, dtype=self.dtype, kernel_init=xavier, out_kernel_init=uniform(channels),
            force_fp32_for_softmax=True, name='attention')
        features = words.features[:, 0]
        return features * attention(features, keys, x.reshape(keys.shape), mask=valid.reshape(clips, 1, 1, -1))
