"""The features of SOC's masks: a feature pyramid from stride 32 up to stride 4 (SOC, section 3.4). SgMg has it as an
option, to decode before it segments.

Axis letters: N frames, h w the stride-4 map, C channels.
"""

from collections.abc import Sequence
import math
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sgmg_jax.ops import padding, resize
from sgmg_jax.types import ArrayLike

GROUPS = 8


class FeaturePyramid(nn.Module):
    """Attributes:
    channels: of the result.
    dtype: of the activations.
    """

    channels: int = 8
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        memory: Sequence[Float[ArrayLike, 'N _h _w C']],
        stride4: Float[ArrayLike, 'N h w C4'],
        frame_size: Int[ArrayLike, 'N 2'] | None = None,
    ) -> Float[Array, 'N h w {self.channels}']:
        """memory: encoded levels of strides 8, 16, 32; stride4: the backbone's first map; frame_size: H and W without
        padding, which then affects nothing; None, as released: padding is content."""
        maps = [stride4, *memory]
        finer, x, stride = maps[:-1], maps[-1], 32
        for i, width in enumerate([x.shape[-1] >> halvings for halvings in range(5)], start=1):
            x = self._conv(f'conv{i}', width, (3, 3))(padding.zero_padding(x, frame_size, stride))
            norm = nn.GroupNorm(math.gcd(GROUPS, width), epsilon=1e-5, dtype=self.dtype, name=f'norm{i}')
            x = nn.relu(norm(x, mask=padding.content(frame_size, stride, x.shape)))
            if i > 1 and finer:
                level, stride = finer.pop(), stride // 2
                x = resize.nearest(x, level.shape[1:3], axes=(1, 2))
                x = x + self._conv(f'lateral{i - 1}', width, (1, 1))(level)
        return self._conv('out', self.channels, (3, 3))(padding.zero_padding(x, frame_size, stride))

    def _conv(self, name, channels, size):
        start = nn.initializers.lecun_uniform()  # PyTorch's kaiming_uniform_ with a = 1
        return nn.Conv(channels, size, kernel_init=start, dtype=self.dtype, name=name)
