"""Deformable transformer with iterative box refinement (Deformable DETR, sections 4.1, 4.2; SgMg, section 3.1).

Axis letters: N frames (of all clips; in the decoder of all sentences), S positions of all levels, V levels,
h w a feature map, Q queries, C channels, D decoder layers. Validity masks are True = real.
"""
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from sgmg_jax.models.chunks import by_chunks
from sgmg_jax.models.dropout import Dropout
from sgmg_jax.models.layers import dense, xavier
from sgmg_jax.ops import deformable_attention
from sgmg_jax.sharding import batch_local

NORM_EPSILON = 1e-5


class DeformableTransformer(nn.Module):
    """Encodes the levels' features jointly; lets queries look into them.

    Attributes:
      hidden: channels C of features and queries.
      levels: how many.
      mlp: channels of the feed-forward layers.
      heads, points: of each deformable attention, points per head and level.
      encoder_layers, decoder_layers: how many.
      dropout: after every attention and inside every feed-forward.
      box_refinement: every decoder layer starts from the box the last one predicted; otherwise all
        start from the query's initial reference point.
      remat: keep only the layers' inputs for the backward pass.
      dtype: of the activations.
    """
    hidden: int = 256
    levels: int = 4
    mlp: int = 2048
    heads: int = 8
    points: int = 4
    encoder_layers: int = 4
    decoder_layers: int = 4
    dropout: float = 0.1
    box_refinement: bool = True
    remat: bool = False
    dtype: Any = jnp.float32

    def setup(self):
        def layers(layer, name, count, static):
            layer = nn.remat(layer, static_argnums=static) if self.remat else layer
            return [layer(self.hidden, self.mlp, self.heads, self.points, self.dropout, self.dtype, name=f'{name}{i}')
                    for i in range(count)]

        self.level_embedding = self.param('level_embedding', nn.initializers.normal(1.0), (self.levels, self.hidden))
        self.encoder = layers(EncoderLayer, 'encoder', self.encoder_layers, static=(4, 6))  # sizes, train
        self.reference_points = nn.Dense(2, kernel_init=xavier)
        self.decoder = layers(DecoderLayer, 'decoder', self.decoder_layers, static=(5, 7))
        self.box_heads = [MLP((self.hidden, self.hidden, 4), last_kernel=nn.initializers.zeros,
                              last_bias=_box_bias if i == 0 else nn.initializers.zeros, name=f'box_head{i}')
                          for i in range(self.decoder_layers)]

    def encode(self, levels, valid, positions, train=False):
        """One frame at a time: every position looks at a few others of all levels.

        Args:
          levels: features [N h w C] of each level, finest first.
          valid: their masks [N h w].
          positions: their sine encodings [N h w C].

        Returns:
          the memory: the encoded levels, [N h w C] each.
        """
        sizes = tuple(x.shape[1:3] for x in levels)
        position = _flat([p + embedding for p, embedding in zip(positions, self.level_embedding)]).astype(self.dtype)
        memory, memory_valid = _flat(levels), _flat(valid)
        references = _cell_centres(sizes, _valid_ratios(valid))
        for layer in self.encoder:
            memory = layer(memory, position, references, sizes, memory_valid, train)
        ends = deformable_attention.level_starts(sizes)
        return [memory[:, ends[i]:ends[i + 1]].reshape(x.shape) for i, x in enumerate(levels)]

    def decode(self, memory, valid, content, query_embedding, train=False):
        """The queries look into the memory of their frame.

        Args:
          memory: encoded levels [N h w C].
          valid: their masks [N h w].
          content: what the queries ask for at the start, [N Q C] (SgMg: the sentence feature, the same for all).
          query_embedding: [Q C], where the queries ask.

        Returns:
          states: queries after each decoder layer [D N Q C].
          boxes: predicted after each layer [D N Q 4] (cx, cy, w, h in [0, 1]).
          references: the point (x, y) each query stands at after each layer [D N Q 2]; no gradient
            flows into it when boxes are refined.
        """
        sizes, ratios = tuple(x.shape[1:3] for x in memory), _valid_ratios(valid)
        memory, memory_valid = _flat(memory), _flat(valid)
        content = content.astype(self.dtype)
        where = jnp.broadcast_to(query_embedding, content.shape).astype(self.dtype)
        initial = self.first_reference(query_embedding)
        reference = jnp.broadcast_to(initial, (len(content), *initial.shape))  # N Q 2, later N Q 4
        states, boxes, points = [], [], []
        for i, layer in enumerate(self.decoder):
            scale = jnp.tile(ratios, reference.shape[-1] // 2)[:, None]
            content = layer(content, where, reference[:, :, None] * scale, memory, sizes, memory_valid, train)
            states.append(content)
            box = self.box(i, content, reference)
            boxes.append(box)
            if self.box_refinement:
                reference = jax.lax.stop_gradient(box)
            points.append(reference[..., :2])
        return jnp.stack(states), jnp.stack(boxes), jnp.stack(points)

    def first_reference(self, query_embedding):
        """[Q C] -> the point (x, y) [Q 2] at which each query starts."""
        return jax.nn.sigmoid(self.reference_points(query_embedding.astype(jnp.float32)))

    def box(self, layer, states, reference):
        """What the box head of a decoder layer makes of queries [N Q C] that start from references [N Q 2 or 4]:
        (cx, cy, w, h) [N Q 4]."""
        offset, start = self.box_heads[layer](states.astype(jnp.float32)), _logit(reference)
        return jax.nn.sigmoid(offset.at[..., :start.shape[-1]].add(start))


class EncoderLayer(nn.Module):
    """Positions [N S C] look at each other, then a feed-forward; norms come last."""
    hidden: int
    mlp: int
    heads: int
    points: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x, position, references, sizes, valid, train):
        dropout = Dropout(self.dropout)
        y = DeformableAttention(self.heads, self.points, self.dtype, name='attention')(
            x + position, references, x, sizes, valid)
        x = _norm(self.dtype, 'attention_norm')(x + dropout(y, train))
        return FeedForward(self.mlp, self.dropout, self.dtype, name='feed_forward')(x, train)


class DecoderLayer(nn.Module):
    """Queries [N Q C] look at each other, then into the memory, then a feed-forward; norms come last."""
    hidden: int
    mlp: int
    heads: int
    points: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x, where, references, memory, sizes, valid, train):
        dropout = Dropout(self.dropout)
        y = nn.MultiHeadDotProductAttention(
            self.heads, dtype=self.dtype, kernel_init=xavier, dropout_rate=self.dropout,
            broadcast_dropout=False, deterministic=not train, force_fp32_for_softmax=True, name='self_attention')(
                x + where, x + where, x)
        x = _norm(self.dtype, 'self_attention_norm')(x + dropout(y, train))
        y = DeformableAttention(self.heads, self.points, self.dtype, name='attention')(
            x + where, references, memory, sizes, valid)
        x = _norm(self.dtype, 'attention_norm')(x + dropout(y, train))
        return FeedForward(self.mlp, self.dropout, self.dtype, name='feed_forward')(x, train)


class FeedForward(nn.Module):
    """Two layers with a ReLU between, residual, norm last. [... C]."""
    mlp: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x, train):
        def layers(module, x):
            dropout, channels = Dropout(self.dropout), x.shape[-1]
            y = nn.relu(dense(self.mlp, channels, xavier, dtype=self.dtype, name='in')(x))
            y = dense(channels, self.mlp, xavier, dtype=self.dtype, name='out')(dropout(y, train))
            return _norm(self.dtype, 'norm')(x + dropout(y, train))

        return by_chunks(layers, self, x, self.mlp)


class DeformableAttention(nn.Module):
    """Every query samples a few points near its reference in every level."""
    heads: int
    points: int
    dtype: Any

    @nn.compact
    def __call__(self, query, references, memory, sizes, valid):
        """query [N Q C]; references [N Q V 2 or 4] as fractions of the padded map; memory [N S C];
        valid [N S] -> [N Q C]."""
        frames, queries, channels = query.shape
        shape = (frames, queries, self.heads, len(sizes), self.points)
        values = nn.Dense(channels, dtype=self.dtype, kernel_init=xavier, name='values')(memory)
        # Zeroed after the projection: padding must not even contribute the bias.
        values = jnp.where(valid[..., None], values, 0)
        values = values.reshape(frames, -1, self.heads, channels // self.heads)

        bias = deformable_attention.grid_bias(self.heads, len(sizes), self.points).reshape(-1)
        offsets = nn.Dense(bias.size, kernel_init=nn.initializers.zeros, bias_init=lambda *_: bias,
                           name='offsets')(query.astype(jnp.float32)).reshape(*shape, 2)
        references = references[:, :, None, :, None].astype(jnp.float32)
        if references.shape[-1] == 2:
            offsets = offsets / jnp.array([(w, h) for h, w in sizes], jnp.float32)[:, None]
        else:
            offsets = offsets / self.points * references[..., 2:] * 0.5
        weights = nn.Dense(bias.size // 2, kernel_init=nn.initializers.zeros, dtype=self.dtype,
                           name='weights')(query)
        weights = weights.reshape(*shape[:3], -1).astype(jnp.float32)
        weights = jax.nn.softmax(weights, axis=-1).reshape(shape)
        locations = references[..., :2] + offsets
        self.sow('intermediates', 'samples', (locations, weights))
        out = batch_local(lambda *arrays: deformable_attention.sample(arrays[0], sizes, *arrays[1:]))(
            values, locations, weights)
        return nn.Dense(channels, dtype=self.dtype, kernel_init=xavier, name='projection')(
            out.reshape(query.shape))


class MLP(nn.Module):
    """Dense layers of the given widths with ReLUs between. [... C] -> [... widths[-1]].

    Kernels and biases start as given, the last layer's as its own; where None, as layers.dense says.
    """
    widths: tuple[int, ...]
    kernel: Any = None
    bias: Any = None
    last_kernel: Any = None
    last_bias: Any = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        for i, width in enumerate(self.widths[:-1]):
            x = nn.relu(dense(width, x.shape[-1], self.kernel, self.bias, dtype=self.dtype, name=f'layer{i}')(x))
        return dense(self.widths[-1], x.shape[-1], self.last_kernel or self.kernel, self.last_bias or self.bias,
                     dtype=self.dtype, name=f'layer{len(self.widths) - 1}')(x)


def _norm(dtype, name):
    return nn.LayerNorm(epsilon=NORM_EPSILON, dtype=dtype, name=name)


def _box_bias(key, shape, dtype=jnp.float32):
    """The first guess is a small box: sigmoid(-2) of the frame."""
    return jnp.array([0, 0, -2, -2], dtype)


def _logit(x, epsilon=1e-5):
    x = jnp.clip(x, 0, 1)
    return jnp.log(jnp.maximum(x, epsilon) / jnp.maximum(1 - x, epsilon))


def _flat(maps):
    """[N h w ...] of each level -> [N S ...]."""
    return jnp.concatenate([x.reshape(x.shape[0], -1, *x.shape[3:]) for x in maps], axis=1)


def _valid_ratios(valid):
    """How much of each level is not padding, [N V 2] (x, y)."""
    counts = [jnp.stack([v[:, 0].sum(1), v[:, :, 0].sum(1)], -1) for v in valid]
    # At least a cell, so that an empty frame that fills a clip in time stays finite.
    return jnp.stack([n.clip(1) / jnp.array(v.shape[:0:-1], jnp.float32) for n, v in zip(counts, valid)], axis=1)


def _cell_centres(sizes, ratios):
    """Every position's own centre, seen from every level: [N S V 2] (x, y) as fractions of the padded map."""
    centres = []
    for i, (h, w) in enumerate(sizes):
        y, x = jnp.meshgrid(jnp.arange(h) + 0.5, jnp.arange(w) + 0.5, indexing='ij')
        xy = jnp.stack([x, y], axis=-1).reshape(-1, 2)
        centres.append(xy / (ratios[:, None, i] * jnp.array([w, h], jnp.float32)))
    return jnp.concatenate(centres, axis=1)[:, :, None] * ratios[:, None]
