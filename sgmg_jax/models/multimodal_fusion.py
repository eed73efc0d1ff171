"""Multi-modal fusion, MMF (SOC, section 3.2): vision attends to language, and language to vision.

Axis letters: N sentences, T frames, h w a feature map, L tokens, C channels.
"""

from collections.abc import Sequence
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sgmg_jax.models.layers import uniform, xavier
from sgmg_jax.models.spectral_fusion import WordFusion, Words
from sgmg_jax.ops import positions
from sgmg_jax.types import ArrayLike

# Which modality receives the other: vision, language. In 'to_vision', language flows to vision.
DIRECTIONS = {'both': (True, True), 'to_vision': (True, False), 'to_language': (False, True), 'none': (False, False)}


class MultimodalFusion(nn.Module):
    """Each modality attends to the other's unfused features and is multiplied by the result. The weights are shared
    by all levels. The released code adds sine positions to the keys; the paper does not mention them."""

    heads: int
    dtype: Any = jnp.float32
    direction: str = 'both'  # a key of DIRECTIONS; the modality that does not attend stays as it is

    def setup(self) -> None:
        self.to_vision = WordFusion(self.heads, self.dtype)
        self.to_language = LanguageFusion(self.heads, self.dtype)

    def __call__(
        self,
        levels: Sequence[Float[ArrayLike, 'N T _h _w C']],
        valid: Sequence[Bool[ArrayLike, 'N T _h _w']],
        words: Words,
    ) -> tuple[list[Float[Array, 'N T _h _w C']], Float[Array, 'N C']]:
        """The fused levels; and the guidance, the sentence's meaning in this video: the mean of its words after they
        have attended to the stride-32 level.

        words: of N clips with one sentence each.
        """
        vision, language = DIRECTIONS[self.direction]
        fused = [self.to_vision(x, words) if vision else jnp.asarray(x) for x in levels]
        attended = self.to_language(levels[2], valid[2], words) if language else words.features[:, 0]
        real = words.valid[:, 0, :, None]
        return fused, (attended * real).sum(1) / real.sum(1).clip(1)


class LanguageFusion(nn.Module):
    """Every word attends to the pixels of all frames and is multiplied by the result."""

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[ArrayLike, 'N T h w C'], valid: Bool[ArrayLike, 'N T h w'], words: Words
    ) -> Float[Array, 'N L C']:
        """words: of N clips with one sentence each."""
        clips, channels = x.shape[0], x.shape[-1]
        keys = (x + positions.sine_2d(valid, channels)).reshape(clips, -1, channels)
        attention = nn.MultiHeadDotProductAttention(
            self.heads,
            dtype=self.dtype,
            kernel_init=xavier,
            out_kernel_init=uniform(channels),
            force_fp32_for_softmax=True,
            name='attention',
        )
        features = words.features[:, 0]
        return features * attention(features, keys, x.reshape(keys.shape), mask=valid.reshape(clips, 1, 1, -1))
