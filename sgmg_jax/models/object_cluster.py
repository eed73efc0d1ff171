"""Video-level object cluster, VOC (SOC, section 3.3): the object queries of all frames talk to each other, and video
queries that ask with the sentence gather from them what is one object over time.

Axis letters: N sentences, D decoder layers whose queries go through (by themselves), T frames, Q queries a frame,
C channels, W frames of a window, G windows, S queries of a window, M heads.
"""
from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from sgmg_jax.models.deformable_transformer import NORM_EPSILON, FeedForward
from sgmg_jax.models.dropout import Dropout
from sgmg_jax.models.layers import xavier


class ObjectCluster(nn.Module):
    """Attributes:
      queries: of the video.
      encoder_layers, decoder_layers, heads, mlp, dropout: of the two stacks.
      window: frames that attend to each other in the encoder; 0, as released, for all of a clip.
    """
    queries: int = 20
    encoder_layers: int = 3
    decoder_layers: int = 3
    heads: int = 8
    mlp: int = 2048
    window: int = 0
    dropout: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, frame_queries, real_frames, sentence, train=False):
        """frame_queries [D N T Q C]; real_frames [N T] bool, False for frames that fill a clip in time; sentence [N C]
        -> video queries [D N queries C]."""
        depth, count, _, each, channels = frame_queries.shape

        def table(name, rows):
            return self.param(name, nn.initializers.normal(1.0), (rows, channels)).astype(self.dtype)

        memory = self.encode(jnp.moveaxis(frame_queries, 0, 1).astype(self.dtype), real_frames, train)
        keys = (memory + table('frame_query_embedding', each)).reshape(count, depth, -1, channels)
        memory = memory.reshape(keys.shape)
        mask = jnp.repeat(real_frames, each, axis=1)[:, None, None, None]
        where = table('query_embedding', self.queries)
        x = jnp.broadcast_to(sentence[:, None, None].astype(self.dtype), (count, depth, self.queries, channels))
        for i in range(self.decoder_layers):
            x = self._attend(f'decoder{i}_attention', x, where, keys, memory, mask, train)
            x = self._attend(f'decoder{i}_self_attention', x, where, x + where, x, None, train)
            x = FeedForward(self.mlp, self.dropout, self.dtype, name=f'decoder{i}_feed_forward')(x, train)
        x = nn.LayerNorm(epsilon=NORM_EPSILON, dtype=self.dtype, name='norm')(x)
        return jnp.moveaxis(x, 1, 0)

    def encode(self, x, real_frames, train):
        """Self-attention over all queries of a window of frames, without positions: x [N D T Q C] -> the same."""
        count, depth, frames, each, channels = x.shape
        window = self.window or frames
        filling = -frames % window
        x = jnp.pad(x, [(0, 0), (0, 0), (0, filling), (0, 0), (0, 0)])
        real = jnp.pad(real_frames, [(0, 0), (0, filling)])
        for i in range(self.encoder_layers):
            # Windows are shifted at inference alone, as released.
            shift = -(-window // 2) if self.window and i % 2 and not train else 0
            mask = _mask(jnp.roll(real, shift, axis=1).reshape(count, -1, window), shift)
            mask = jnp.repeat(jnp.repeat(mask, each, axis=-2), each, axis=-1)[:, None, :, None]  # N D G M S S
            y = jnp.roll(x, shift, axis=2).reshape(count, depth, -1, window * each, channels)
            y = self._attend(f'encoder{i}_attention', y, 0, y, y, mask, train)
            y = FeedForward(self.mlp, self.dropout, self.dtype, name=f'encoder{i}_feed_forward')(y, train)
            x = jnp.roll(y.reshape(x.shape), -shift, axis=2)
        self.sow('intermediates', 'encoded', x)
        return x[:, :, :frames]

    def _attend(self, name, content, where, keys, values, mask, train):
        """Attention, residual and norm."""
        y = nn.MultiHeadDotProductAttention(
            self.heads, dtype=self.dtype, kernel_init=xavier, dropout_rate=self.dropout,
            broadcast_dropout=False, deterministic=not train, force_fp32_for_softmax=True, name=name)(
                content + where, keys, values, mask=mask)
        y = content + Dropout(self.dropout)(y, train)
        return nn.LayerNorm(epsilon=NORM_EPSILON, dtype=self.dtype, name=f'{name}_norm')(y)


def _mask(real, shift):
    """Which frames attend to which [N G W W] in windows of frames real [N G W] that were shifted by so many.

    Frames that fill up the last window are never attended to; in the first window, those that the shift brought there
    from the end and the others only attend among themselves.
    """
    groups, window = real.shape[1:]
    brought = (jnp.arange(groups)[:, None] == 0) & (jnp.arange(window) < shift)
    together = real[:, :, None] & (brought[:, :, None] == brought[:, None])
    # What frames that fill up read is cut off at the end; as released, so that it can be compared.
    return together | ~real[..., None] if shift else together
