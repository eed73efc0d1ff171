"""Multi-granularity segmentation optimizer, MSO (SgMg, section 3.4): patch masks are refined with
the backbone's features, first at stride 8, then at stride 4.

Axis letters: N frames (of all clips), K masks per frame, h w a feature map, C channels, P = 16.
"""

from typing import Any

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgmg_jax.models import layers
from sgmg_jax.ops import dynamic_conv, resize
from sgmg_jax.types import ArrayLike


class MaskOptimizer(nn.Module):
    """Refines patch mask logits with the backbone's first two maps."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        patch_masks: Float[ArrayLike, 'N K h8 w8 P'],
        stride8: Float[ArrayLike, 'N h8 w8 C8'],
        stride4: Float[ArrayLike, 'N h4 w4 C4'],
    ) -> Float[Array, 'N K h4 w4 P']:
        masks = Refinement(dtype=self.dtype, name='stride8')(patch_masks.astype(self.dtype), stride8)
        return Refinement(dtype=self.dtype, name='stride4')(resize.bilinear(masks, stride4.shape[1:3]), stride4)


class Refinement(nn.Module):
    """masks + conv(relu(conv(relu([masks, features])))), 3x3 each."""

    dtype: Any

    @nn.compact
    def __call__(
        self, masks: Float[ArrayLike, 'N K h w P'], features: Float[ArrayLike, 'N h w C']
    ) -> Float[Array, 'N K h w P']:
        """The first convolution is split into a part over the masks and a part over the features; the latter is
        the same for every mask and computed once."""
        channels, hidden = masks.shape[-1], dynamic_conv.P
        both = channels + features.shape[-1]

        def conv(name, inputs, use_bias=True, outputs=hidden):
            return layers.conv(outputs, (3, 3), inputs, use_bias=use_bias, dtype=self.dtype, name=name)

        x = conv('masks', both)(nn.relu(masks)) + conv('features', both, use_bias=False)(nn.relu(features))[:, None]
        return masks + conv('out', hidden, outputs=channels)(nn.relu(x))
