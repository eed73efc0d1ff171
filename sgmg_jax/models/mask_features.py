"""The features that SOC's masks are made of: a feature pyramid from stride 32 up to stride 4 (SOC, section 3.4).

Axis letters: N frames, h w a feature map, C channels.
"""
from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from sgmg_jax.ops import resize

GROUPS = 8


class FeaturePyramid(nn.Module):
    """Attributes:
      channels: of what comes out.
    """
    channels: int = 8
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, memory, stride4):
        """Encoded levels [N h w C] of strides 8, 16, 32 and the backbone's first map -> [N h4 w4 channels]."""
        *finer, x = [stride4, *memory]
        for i, width in enumerate([x.shape[-1] >> halvings for halvings in range(5)], start=1):
            x = self._conv(f'conv{i}', width, (3, 3))(x)
            x = nn.relu(nn.GroupNorm(GROUPS, epsilon=1e-5, dtype=self.dtype, name=f'norm{i}')(x))
            if i > 1 and finer:
                level = finer.pop()
                x = resize.nearest(x, level.shape[1:3], axes=(1, 2))
                x = x + self._conv(f'lateral{i - 1}', width, (1, 1))(level)
        return self._conv('out', self.channels, (3, 3))(x)

    def _conv(self, name, channels, size):
        start = nn.initializers.lecun_uniform()  # PyTorch's Kaiming-uniform with a = 1
        return nn.Conv(channels, size, kernel_init=start, dtype=self.dtype, name=name)
