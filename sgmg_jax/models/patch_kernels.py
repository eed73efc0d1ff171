"""Conditional patch kernels, CPK (SgMg, section 3.3): every query generates its own convolutions, which turn each
cell of the mask features into a patch of 4x4 half-resolution mask logits. SOC's generate one logit per cell.

Axis letters: N sentences, T frames, Q queries, h w the map of mask features, C channels, D decoder layers, P logits
per cell.
"""

from collections.abc import Sequence
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sgmg_jax.models.deformable_transformer import MLP
from sgmg_jax.models.layers import xavier
from sgmg_jax.ops import dynamic_conv, resize
from sgmg_jax.types import ArrayLike


def mask_features(memory: Sequence[Float[ArrayLike, 'N _h _w C']]) -> Float[ArrayLike, 'N h w C']:
    """The sum of the encoded levels of strides 8, 16, 32 at stride 8 (resized bicubically)."""
    finest = memory[0]
    return finest + sum(resize.bicubic(level, finest.shape[1:3]) for level in memory[1:3])


class PatchKernels(nn.Module):
    """Attributes:
    relative_coordinates: the convolutions also see each cell's offset from the query's point.
    layers: channels of the convolutions; the last has P.
    stride: of the features, in pixels.
    dtype: of the activations.
    """

    relative_coordinates: bool = True
    layers: tuple[int, ...] = (dynamic_conv.P, dynamic_conv.P)
    stride: int = dynamic_conv.STRIDE
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        states: Float[ArrayLike, 'D N T Q C'],
        references: Float[ArrayLike, 'D N T Q 2'],
        features: Float[ArrayLike, 'N T h w F'],
        image_size: Int[ArrayLike, 'N 2'],
    ) -> Float[Array, 'D N T Q h w {self.layers[-1]}']:
        """Mask logits of every decoder layer from the same features, by one shared controller.

        Args:
          states: queries.
          references: each query's reference point (x, y), as fractions of the unpadded frame.
          features: mask features.
          image_size: height and width of the unpadded frame.
        """
        channels, numbers = states.shape[-1], dynamic_conv.kernel_size(features.shape[-1], self.layers)
        kernels = MLP(
            (channels, channels, numbers),
            kernel=xavier,
            bias=nn.initializers.zeros,
            dtype=self.dtype,
            name='controller',
        )(states)
        masks = []
        for layer_kernels, points in zip(kernels, references):
            coordinates = None
            if self.relative_coordinates:
                coordinates = dynamic_conv.relative_coordinates(
                    points, image_size, features.shape[2:4], self.stride
                ).astype(self.dtype)
            masks.append(dynamic_conv.patch_convolution(features, coordinates, layer_kernels, self.layers))
        return jnp.stack(masks)
