"""Conditional patch kernels, CPK (SgMg, section 3.3): every query makes its own convolutions,
which turn each cell of the mask features into a patch of 4x4 half-resolution mask pixels.

Axis letters: N sentences, T frames, Q queries, h w the stride-8 map, C channels, D decoder layers, P = 16.
"""
from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from sgmg_jax.models.deformable_transformer import MLP
from sgmg_jax.models.layers import xavier
from sgmg_jax.ops import dynamic_conv, resize


def mask_features(memory):
    """Encoded levels [N h w C], strides 8, 16, 32 -> their sum at stride 8 (resized bicubically)."""
    finest = memory[0]
    return finest + sum(resize.bicubic(level, finest.shape[1:3]) for level in memory[1:3])


class PatchKernels(nn.Module):
    """Attributes:
      relative_coordinates: kernels see, besides the features, where each cell lies from the query's point.
      layers: channels of the convolutions; the last makes the patch.
      stride: of the features, in pixels.
      dtype: of the activations.
    """
    relative_coordinates: bool = True
    layers: tuple[int, ...] = (dynamic_conv.P, dynamic_conv.P)
    stride: int = dynamic_conv.STRIDE
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, states, references, features, image_size):
        """Patch masks of every decoder layer from the same features, by one shared controller.

        Args:
          states: queries [D N T Q C].
          references: the point each stands at [D N T Q 2], (x, y) as fractions of the unpadded frame.
          features: [N T h w C'].
          image_size: [N 2], height and width of the unpadded frame.

        Returns:
          patch mask logits [D N T Q h w P].
        """
        channels, numbers = states.shape[-1], dynamic_conv.kernel_size(features.shape[-1], self.layers)
        kernels = MLP((channels, channels, numbers), kernel=xavier,
                      bias=nn.initializers.zeros, dtype=self.dtype, name='controller')(states)
        masks = []
        for layer_kernels, points in zip(kernels, references):
            coordinates = None
            if self.relative_coordinates:
                coordinates = dynamic_conv.relative_coordinates(
                    points, image_size, features.shape[2:4], self.stride).astype(self.dtype)
            masks.append(dynamic_conv.patch_convolution(features, coordinates, layer_kernels, self.layers))
        return jnp.stack(masks)
