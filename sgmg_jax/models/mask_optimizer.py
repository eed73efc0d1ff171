"""Multi-granularity segmentation optimizer, MSO (SgMg, section 3.4): patch masks are refined with
the backbone's own features, first at stride 8, then at stride 4.

Axis letters: N frames (of all clips), K masks of a frame, h w a feature map, C channels, P = 16.
"""
from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from sgmg_jax.models import layers
from sgmg_jax.ops import resize


class MaskOptimizer(nn.Module):
    """Patch masks [N K h8 w8 P] -> mask logits [N K h4 w4 P]."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, patch_masks, stride8, stride4):
        """stride8 [N h8 w8 C8] and stride4 [N h4 w4 C4]: the backbone's first two maps."""
        masks = Refinement(dtype=self.dtype, name='stride8')(patch_masks.astype(self.dtype), stride8)
        masks = resize.bilinear(masks, stride4.shape[1:3])
        return Refinement(dtype=self.dtype, name='stride4')(masks, stride4)


class Refinement(nn.Module):
    """masks + conv(relu(conv(relu([masks, features])))), 3x3 each."""
    dtype: Any

    @nn.compact
    def __call__(self, masks, features):
        """masks [N K h w P], features [N h w C] -> [N K h w P].

        The first convolution is split into its part over the masks and its part over the features,
        which is the same for every mask and computed once.
        """
        channels = masks.shape[-1]
        both = channels + features.shape[-1]

        def conv(name, inputs, use_bias=True):
            return layers.conv(channels, (3, 3), inputs, use_bias=use_bias, dtype=self.dtype, name=name)

        x = conv('masks', both)(nn.relu(masks)) + conv('features', both, use_bias=False)(nn.relu(features))[:, None]
        return masks + conv('out', channels)(nn.relu(x))
