"""Video-level object cluster, VOC (SOC, section 3.3): the object queries of all frames attend to each other, and video
queries that start from the sentence aggregate from them one object over time.

Axis letters: N sentences, D decoder layers, each processed independently, T frames, Q queries per frame, V video
queries, C channels, W frames per window, G windows, S queries per window, M heads.
"""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sgmg_jax.models.deformable_transformer import NORM_EPSILON, FeedForward
from sgmg_jax.models.dropout import Dropout
from sgmg_jax.models.layers import xavier
from sgmg_jax.types import ArrayLike

AGGREGATIONS = 'k-means', 'convolution'
MEANS_STEPS = 4


class ObjectCluster(nn.Module):
    """Attributes:
    queries: video queries.
    encoder_layers, decoder_layers, heads, mlp, dropout: of the two stacks.
    window: frames that attend to each other in the encoder; 0, as released, for the whole clip.
    dtype: of the activations.
    aggregation: what makes video queries of those of the frames: 'cluster', or one of AGGREGATIONS, which neither has
      layers nor sees the sentence. A cluster without decoder layers averages over time, too.
    """

    queries: int = 20
    encoder_layers: int = 3
    decoder_layers: int = 3
    heads: int = 8
    mlp: int = 2048
    window: int = 0
    dropout: float = 0.1
    dtype: Any = jnp.float32
    aggregation: str = 'cluster'

    @nn.compact
    def __call__(
        self,
        frame_queries: Float[ArrayLike, 'D N T Q C'],
        real_frames: Bool[ArrayLike, 'N T'],
        sentence: Float[ArrayLike, 'N C'],
        train: bool = False,
    ) -> Float[Array, 'D N V C']:
        """The video queries. real_frames: False for frames that pad a clip in time."""
        depth, count, _, each, channels = frame_queries.shape

        def table(name, rows):
            return self.param(name, nn.initializers.normal(1.0), (rows, channels)).astype(self.dtype)

        memory = jnp.moveaxis(frame_queries, 0, 1).astype(self.dtype)
        if self.aggregation == 'convolution':
            memory = self._convolve(memory, real_frames)
        if self.aggregation == 'cluster':
            memory = self.encode(memory, real_frames, train)
        if self.aggregation != 'cluster' or not self.decoder_layers:
            average = mean_over_time(memory, real_frames)
            if self.aggregation == 'k-means':
                average = cluster_by_means(memory, real_frames, average)
            return jnp.moveaxis(average, 1, 0)
        keys = (memory + table('frame_query_embedding', each)).reshape(count, depth, -1, channels)
        memory = memory.reshape(keys.shape)
        mask = jnp.repeat(real_frames, each, axis=1)[:, None, None, None]
        position = table('query_embedding', self.queries)
        x = jnp.broadcast_to(sentence[:, None, None].astype(self.dtype), (count, depth, self.queries, channels))
        for i in range(self.decoder_layers):
            x = self._attend(f'decoder{i}_attention', x, position, keys, memory, mask=mask, train=train)
            x = self._attend(f'decoder{i}_self_attention', x, position, x + position, x, train=train)
            x = FeedForward(self.mlp, self.dropout, self.dtype, name=f'decoder{i}_feed_forward')(x, train)
        x = nn.LayerNorm(epsilon=NORM_EPSILON, dtype=self.dtype, name='norm')(x)
        return jnp.moveaxis(x, 1, 0)

    def encode(
        self, x: Float[ArrayLike, 'N D T Q C'], real_frames: Bool[ArrayLike, 'N T'], train: bool
    ) -> Float[Array, 'N D T Q C']:
        """Self-attention between all queries of a window of frames, without positions."""
        count, depth, frames, each, channels = x.shape
        window = self.window or frames
        padding = -frames % window
        x = jnp.pad(x, [(0, 0), (0, 0), (0, padding), (0, 0), (0, 0)])
        real = jnp.pad(real_frames, [(0, 0), (0, padding)])
        for i in range(self.encoder_layers):
            # Windows are shifted only at inference, as released.
            shift = -(-window // 2) if self.window and i % 2 and not train else 0
            mask = _mask(jnp.roll(real, shift, axis=1).reshape(count, -1, window), shift)
            mask = jnp.repeat(jnp.repeat(mask, each, axis=-2), each, axis=-1)[:, None, :, None]  # N D G M S S
            y = jnp.roll(x, shift, axis=2).reshape(count, depth, -1, window * each, channels)
            y = self._attend(f'encoder{i}_attention', y, 0, y, y, mask=mask, train=train)
            y = FeedForward(self.mlp, self.dropout, self.dtype, name=f'encoder{i}_feed_forward')(y, train)
            x = jnp.roll(y.reshape(x.shape), -shift, axis=2)
        self.sow('intermediates', 'encoded', x)
        return x[:, :, :frames]

    def _convolve(self, x, real_frames):
        """One convolution over three frames of each query [N D T Q C]."""
        x = jnp.swapaxes(jnp.where(real_frames[:, None, :, None, None], x, 0), 2, 3)
        convolution = nn.Conv(x.shape[-1], (3,), kernel_init=xavier, dtype=self.dtype, name='convolution')
        return jnp.swapaxes(nn.relu(convolution(x)), 2, 3)

    def _attend(self, name, content, position, keys, values, *, train, mask=None):
        """Attention, residual and norm."""
        y = nn.MultiHeadDotProductAttention(
            self.heads,
            dtype=self.dtype,
            kernel_init=xavier,
            dropout_rate=self.dropout,
            broadcast_dropout=False,
            deterministic=not train,
            force_fp32_for_softmax=True,
            name=name,
        )(content + position, keys, values, mask=mask)
        y = content + Dropout(self.dropout)(y, train)
        return nn.LayerNorm(epsilon=NORM_EPSILON, dtype=self.dtype, name=f'{name}_norm')(y)


def mean_over_time(x: Float[ArrayLike, 'N D T Q C'], real_frames: Bool[ArrayLike, 'N T']) -> Float[Array, 'N D Q C']:
    """The mean of each query over the real frames."""
    real = jnp.asarray(real_frames, x.dtype)[:, None, :, None, None]
    return (x * real).sum(2) / real.sum(2).clip(1)


def cluster_by_means(
    x: Float[ArrayLike, 'N D T Q C'], real_frames: Bool[ArrayLike, 'N T'], centres: Float[ArrayLike, 'N D V C']
) -> Float[Array, 'N D V C']:
    """K-means of the queries of all real frames, from these centres. A centre without queries stays where it is. The
    gradient flows through the means, not through the choice of a centre."""
    each, centres = x.shape[3], jnp.asarray(centres)
    points = jnp.asarray(x).reshape(*x.shape[:2], -1, x.shape[-1])
    real = jnp.repeat(jnp.asarray(real_frames), each, axis=1)[:, None, :, None]
    for _ in range(MEANS_STEPS):
        similarity = jnp.einsum('ndsc,ndvc->ndsv', points, centres) - (centres**2).sum(-1)[:, :, None] / 2
        chosen = jax.nn.one_hot(jnp.argmax(similarity, axis=-1), centres.shape[2], dtype=x.dtype) * real
        count = chosen.sum(2)[..., None]
        means = jnp.einsum('ndsv,ndsc->ndvc', chosen, points) / count.clip(1)
        centres = jnp.where(count > 0, means, centres)
    return centres


def _mask(real, shift):
    """Which frames attend to which [N G W W] in windows of frames real [N G W] after a shift by `shift` frames.

    Padding of the last window is never attended to. In the first window, frames that the shift wrapped around from
    the end attend only to each other, and so do the others.
    """
    groups, window = real.shape[1:]
    wrapped = (jnp.arange(groups)[:, None] == 0) & (jnp.arange(window) < shift)
    together = real[:, :, None] & (wrapped[:, :, None] == wrapped[:, None])
    # Padding attends to everything, as released, so that the golden cases match; its output is cropped at the end.
    return together | ~real[..., None] if shift else together
