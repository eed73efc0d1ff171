"""Spectrum-guided cross-modal fusion, SCF (SgMg, section 3.2).

Per level: spectrum augmentation, attention of every pixel to the words, spectrum augmentation again. AUGMENTATIONS has
what may stand in its place; without any, what is left is plain cross-attention.

Axis letters: B clips, T frames, N = B T, h w a feature map, E sentences per clip, L tokens, C channels, p pixels per
clip, m heads.
"""

from collections.abc import Callable, Sequence
import functools
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sgmg_jax.models import layers
from sgmg_jax.models.layers import xavier
from sgmg_jax.ops import resize, spectrum
from sgmg_jax.sharding import batch_local
from sgmg_jax.types import ArrayLike, pytree


def spectrum_filters(sizes: Sequence[Sequence[int]]) -> list[Float[Array, '_h _w']]:
    """The Gaussian of each level, from the levels' sizes (h, w). Only the finest is computed; each of the others is
    the previous one resized, as the released model passes its filter from block to block."""
    filters = [jnp.asarray(spectrum.gaussian(sizes[0]))]
    for size in sizes[1:]:
        filters.append(jnp.asarray(resize.bilinear(filters[-1][..., None], size)[..., 0]))
    return filters


class SpectrumAugmentation(nn.Module):
    """Applies two pointwise convolutions to a map's low-pass filtered spectrum and adds the result to the map.

    The filter's strength is one number per frame, predicted from the map.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[ArrayLike, 'N h w C'], gaussian: Float[ArrayLike, 'h w']) -> Float[Array, 'N h w C']:
        channels = x.shape[-1]
        strength = MeanOfConvolution(dtype=self.dtype, name='laplace')(x)
        strength = nn.relu(
            layers.dense(channels, channels, use_bias=False, dtype=self.dtype, name='strength_in')(strength)
        )
        strength = jax.nn.sigmoid(
            layers.dense(1, channels, use_bias=False, dtype=self.dtype, name='strength_out')(strength)
        )

        parts = batch_local(spectrum.to_spectrum)(x)
        parts = parts * (1 - strength[:, None, None].astype(jnp.float32) * gaussian[..., None])
        parts = nn.relu(layers.dense(2 * channels, 2 * channels, dtype=self.dtype, name='conv1')(parts))
        parts = layers.dense(2 * channels, 2 * channels, dtype=self.dtype, name='conv2')(parts)
        return x + batch_local(spectrum.from_spectrum)(parts).astype(x.dtype)


class MeanOfConvolution(nn.Module):
    """The mean over all positions of a 3x3 convolution without padding. Both are linear, so it is computed from nine
    means of the map, one for each place of the kernel, with 1/3588 of the products at 48x80."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[ArrayLike, 'N h w C']) -> Float[Array, 'N C']:
        x, (_, h, w, channels) = jnp.asarray(x, jnp.float32), x.shape
        start = layers.uniform(9 * channels)
        kernel = self.param('kernel', start, (3, 3, channels, channels))
        bias = self.param('bias', start, (channels,))
        columns = [x[:, :, i : w - 2 + i].sum(2) for i in range(3)]
        sums = jnp.stack([jnp.stack([column[:, i : h - 2 + i].sum(1) for column in columns], 1) for i in range(3)], 1)
        means = (sums / ((h - 2) * (w - 2))).astype(self.dtype)
        return jnp.einsum('nijc,ijcd->nd', means, kernel.astype(self.dtype)) + bias.astype(self.dtype)


class SpatialAugmentation(nn.Module):
    """Two convolutions of a map itself, in place of those of its spectrum; adds the result to the map.

    A block with a kernel of 1 has as many parameters as a SpectrumAugmentation, one with a kernel of 3 twice as many.

    Attributes:
      kernel: side of the kernels, 1 or 3.
      dtype: of the activations.
    """

    kernel: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[ArrayLike, 'N h w C'], gaussian: Float[ArrayLike, 'h w']) -> Float[Array, 'N h w C']:
        """gaussian: ignored."""
        channels, side = x.shape[-1], (self.kernel, self.kernel)
        hidden = {1: 9, 3: 2}[self.kernel] * channels
        y = nn.relu(layers.conv(hidden, side, channels, dtype=self.dtype, name='conv1')(x))
        return jnp.add(x, layers.conv(channels, side, hidden, dtype=self.dtype, name='conv2')(y))


AUGMENTATIONS: dict[str, Callable[..., nn.Module] | None] = {
    'spectrum': SpectrumAugmentation,
    'attention': None,
    'convolution': functools.partial(SpatialAugmentation, 3),
    'linear': functools.partial(SpatialAugmentation, 1),
}


def augmentations(fusion: str, levels: int, dtype: Any) -> list[nn.Module]:
    """A module per level; none for plain attention. fusion: a key of AUGMENTATIONS."""
    make = AUGMENTATIONS[fusion]
    return [make(dtype=dtype) for _ in range(levels)] if make else []


def augment(
    maps: Sequence[Float[ArrayLike, 'N _h _w C']], modules: Sequence[nn.Module]
) -> list[Float[ArrayLike, 'N _h _w C']]:
    """Applies each level's augmentation; without modules, there is none."""
    if not modules:
        return list(maps)
    filters = spectrum_filters([x.shape[1:3] for x in maps])
    return [module(x, gaussian) for x, module, gaussian in zip(maps, modules, filters)]


@pytree
class Words:
    """The words of E sentences per clip: features and their sine positions.

    A sentence with no valid words is padding along E.
    """

    features: Float[ArrayLike, 'B E L C']
    positions: Float[ArrayLike, 'B E L C']
    valid: Bool[ArrayLike, 'B E L']


class WordFusion(nn.Module):
    """Every pixel attends to the words and is multiplied by the result. Shared by all levels.

    With several sentences, their results are summed first (multi-instance fusion, section 3.5, eq. 4 and the product
    of eq. 5).
    """

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[ArrayLike, 'B T h w C'], words: Words) -> Float[Array, 'B T h w C']:
        return jnp.multiply(x, WordAttention(self.heads, self.dtype, name='attention')(x, words, together=True))


class WordAttention(nn.Module):
    """Every pixel attends to the words of each sentence of its clip separately."""

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[ArrayLike, 'B T h w C'], words: Words, together: bool = False
    ) -> Float[Array, 'B E T h w C'] | Float[Array, 'B T h w C']:
        """together: sum the results over the sentences."""
        channels = x.shape[-1]

        def project(x, name):
            return nn.DenseGeneral(
                (self.heads, channels // self.heads), dtype=self.dtype, kernel_init=xavier, name=name
            )(x)

        pixels = project(x.reshape(x.shape[0], -1, channels), 'query') / math.sqrt(channels // self.heads)
        keys, values = project(words.features + words.positions, 'key'), project(words.features, 'value')
        logits = jnp.einsum('bpmc,belmc->bempl', pixels, keys).astype(jnp.float32)
        logits = jnp.where(words.valid[:, :, None, None], logits, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
        out = nn.DenseGeneral(channels, axis=(-2, -1), dtype=self.dtype, kernel_init=xavier, name='out')
        if not together:
            return out(jnp.einsum('bempl,belmc->bepmc', weights, values)).reshape(*words.valid.shape[:2], *x.shape[1:])
        real = words.valid.any(-1).astype(self.dtype)
        count = real.sum(1)[:, None, None, None]
        # The mean is projected, then scaled by the count, so that the sum includes the bias once per sentence.
        mean = jnp.einsum('bempl,belmc->bpmc', weights, values * real[..., None, None, None]) / count.clip(1)
        return (out(mean) * count[..., 0]).reshape(x.shape)
