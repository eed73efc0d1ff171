"""Deformable transformer with iterative box refinement (Deformable DETR, sections 4.1, 4.2; SgMg, section 3.1).

Axis letters: N frames (of all clips; in the decoder, of all sentences), S positions of all levels, V levels,
h w a feature map, Q queries, C channels, D decoder layers. Validity masks are True = real.
"""

from collections.abc import Sequence
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sgmg_jax.models.chunks import by_chunks, check_remat
from sgmg_jax.models.dropout import Dropout
from sgmg_jax.models.in_turn import in_turn
from sgmg_jax.models.layers import Initializer, dense, xavier
from sgmg_jax.ops import deformable_attention
from sgmg_jax.sharding import batch_local
from sgmg_jax.types import ArrayLike, pytree

NORM_EPSILON = 1e-5


@pytree
class Memory:
    """The encoded positions of all levels, concatenated, and which of them are valid."""

    features: Float[ArrayLike, 'N S C']
    valid: Bool[ArrayLike, 'N S']


class DeformableTransformer(nn.Module):
    """Encodes all levels of features jointly and decodes queries that attend to them.

    Attributes:
      hidden: channels C of features and queries.
      levels: number of levels.
      mlp: channels of the feed-forward layers.
      heads: per attention.
      points: of each deformable attention, per head and level.
      encoder_layers, decoder_layers: number of layers.
      dropout: after every attention and inside every feed-forward.
      box_refinement: every decoder layer starts from the box that the previous one predicted; otherwise all
        start from the query's initial reference point.
      remat: what the backward pass computes again, see chunks.check_remat.
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
    remat: str = 'hidden'
    dtype: Any = jnp.float32

    def setup(self) -> None:
        remat = check_remat(self.remat)
        sizes = self.hidden, self.mlp, self.heads, self.points

        def layers(layer, name, count, static):
            layer = nn.remat(layer, static_argnums=static) if remat == 'blocks' else layer
            return [
                layer(*sizes, self.dropout, remat != 'nothing', self.dtype, name=f'{name}{i}') for i in range(count)
            ]

        self.level_embedding = self.param('level_embedding', nn.initializers.normal(1.0), (self.levels, self.hidden))
        self.encoder = layers(EncoderLayer, 'encoder', self.encoder_layers, static=(4, 6))  # sizes, train
        self.reference_points = nn.Dense(2, kernel_init=xavier)
        self.decoder = layers(DecoderLayer, 'decoder', self.decoder_layers, static=(5, 6))
        self.box_heads = [
            MLP(
                (self.hidden, self.hidden, 4),
                last_kernel=nn.initializers.zeros,
                last_bias=_box_bias if i == 0 else nn.initializers.zeros,
                name=f'box_head{i}',
            )
            for i in range(self.decoder_layers)
        ]

    def encode(
        self,
        levels: Sequence[Float[ArrayLike, 'N _h _w C']],
        valid: Sequence[Bool[ArrayLike, 'N _h _w']],
        positions: Sequence[Float[ArrayLike, 'N _h _w C']],
        train: bool = False,
    ) -> list[Float[Array, 'N _h _w C']]:
        """The memory: the encoded levels. Every position attends to a few others of all levels of its frame.

        Args:
          levels: features, finest first.
          valid: their masks.
          positions: their sine encodings.
          train: dropout on.
        """
        sizes = tuple(x.shape[1:3] for x in levels)
        position = _flat([p + embedding for p, embedding in zip(positions, self.level_embedding)]).astype(self.dtype)
        memory, memory_valid = _flat(levels), _flat(valid)
        references = _cell_centres(sizes, _valid_ratios(valid))

        def one_layer(layers, memory, _):
            return layers[0](memory, position, references, sizes, memory_valid, train), None

        memory, _ = in_turn(self, one_layer, [[layer] for layer in self.encoder], memory.astype(self.dtype))
        ends = deformable_attention.level_starts(sizes)
        return [memory[:, ends[i] : ends[i + 1]].reshape(x.shape) for i, x in enumerate(levels)]

    def decode(
        self,
        memory: Sequence[Float[ArrayLike, 'N _h _w C']],
        valid: Sequence[Bool[ArrayLike, 'N _h _w']],
        content: Float[ArrayLike, 'N Q C'],
        query_embedding: Float[ArrayLike, 'Q C'],
        train: bool = False,
    ) -> tuple[Float[Array, 'D N Q C'], Float[Array, 'D N Q 4'], Float[Array, 'D N Q 2']]:
        """The queries attend to the memory of their frame.

        Args:
          memory: encoded levels.
          valid: their masks.
          content: the queries' initial content (SgMg: the sentence feature, the same for all).
          query_embedding: the queries' positional embedding.
          train: dropout on.

        Returns:
          states: queries after each decoder layer.
          boxes: predicted after each layer (cx, cy, w, h in [0, 1]).
          references: each query's reference point (x, y) after each layer; no gradient flows into
            it when boxes are refined.
        """
        sizes, ratios = tuple(x.shape[1:3] for x in memory), _valid_ratios(valid)
        flat = Memory(_flat(memory), _flat(valid))
        content = content.astype(self.dtype)
        position = jnp.broadcast_to(query_embedding, content.shape).astype(self.dtype)
        initial = self.first_reference(query_embedding)
        reference = jnp.broadcast_to(initial, (len(content), *initial.shape))  # N Q 2, later N Q 4

        def one_layer(modules, carry, _):
            layer, box_head = modules
            content, reference = carry
            scale = jnp.tile(ratios, reference.shape[-1] // 2)[:, None]
            content = layer(content, position, reference[:, :, None] * scale, flat, sizes, train)
            box = _moved(reference, box_head(content.astype(jnp.float32)))
            if self.box_refinement:
                reference = jax.lax.stop_gradient(box)
            return (content, reference), (content, box, reference[..., :2])

        layers = list(zip(self.decoder, self.box_heads))
        # The first layer starts from points, the others from boxes if those are refined.
        alike = 1 if self.box_refinement else len(layers)
        carry, outputs = in_turn(self, one_layer, layers[:alike], (content, reference))
        if layers[alike:]:
            _, others = in_turn(self, one_layer, layers[alike:], carry)
            outputs = jax.tree.map(lambda *parts: jnp.concatenate(parts), outputs, others)
        return outputs

    def first_reference(self, query_embedding: Float[ArrayLike, 'Q C']) -> Float[Array, 'Q 2']:
        """The point (x, y) at which each query starts."""
        return jax.nn.sigmoid(self.reference_points(query_embedding.astype(jnp.float32)))

    def box(
        self,
        layer: int,
        states: Float[ArrayLike, 'N Q C'],
        reference: Float[ArrayLike, '... Q 2'] | Float[ArrayLike, '... Q 4'],
    ) -> Float[Array, 'N Q 4']:
        """Boxes (cx, cy, w, h) that a decoder layer's head predicts for queries that start from a point or a box."""
        return _moved(reference, self.box_heads[layer](states.astype(jnp.float32)))


class EncoderLayer(nn.Module):
    """Self-attention between positions, then a feed-forward; norms come last."""

    hidden: int
    mlp: int
    heads: int
    points: int
    dropout: float
    remat: bool
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[ArrayLike, 'N S C'],
        position: Float[ArrayLike, 'N S C'],
        references: Float[ArrayLike, 'N S V 2'],
        sizes: Sequence[Sequence[int]],
        valid: Bool[ArrayLike, 'N S'],
        train: bool,
    ) -> Float[Array, 'N S C']:
        dropout = Dropout(self.dropout)
        y = DeformableAttention(self.heads, self.points, self.dtype, name='attention')(
            x + position, references, x, sizes, valid
        )
        x = _norm(self.dtype, 'attention_norm')(x + dropout(y, train))
        return FeedForward(self.mlp, self.dropout, self.dtype, self.remat, name='feed_forward')(x, train)


class DecoderLayer(nn.Module):
    """Self-attention between queries, attention to the memory, then a feed-forward; norms come last."""

    hidden: int
    mlp: int
    heads: int
    points: int
    dropout: float
    remat: bool
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[ArrayLike, 'N Q C'],
        position: Float[ArrayLike, 'N Q C'],
        references: Float[ArrayLike, 'N Q V 2'] | Float[ArrayLike, 'N Q V 4'],
        memory: Memory,
        sizes: Sequence[Sequence[int]],
        train: bool,
    ) -> Float[Array, 'N Q C']:
        dropout = Dropout(self.dropout)
        y = nn.MultiHeadDotProductAttention(
            self.heads,
            dtype=self.dtype,
            kernel_init=xavier,
            dropout_rate=self.dropout,
            broadcast_dropout=False,
            deterministic=not train,
            force_fp32_for_softmax=True,
            name='self_attention',
        )(x + position, x + position, x)
        x = _norm(self.dtype, 'self_attention_norm')(x + dropout(y, train))
        y = DeformableAttention(self.heads, self.points, self.dtype, name='attention')(
            x + position, references, memory.features, sizes, memory.valid
        )
        x = _norm(self.dtype, 'attention_norm')(x + dropout(y, train))
        return FeedForward(self.mlp, self.dropout, self.dtype, self.remat, name='feed_forward')(x, train)


class FeedForward(nn.Module):
    """Two layers with a ReLU between, residual, norm last."""

    mlp: int
    dropout: float
    dtype: Any
    remat: bool = True

    @nn.compact
    def __call__(self, x: Float[ArrayLike, '*batch C'], train: bool) -> Float[Array, '*batch C']:
        def layers(module, x):
            dropout, channels = Dropout(self.dropout), x.shape[-1]
            y = nn.relu(dense(self.mlp, channels, xavier, dtype=self.dtype, name='in')(x))
            y = dense(channels, self.mlp, xavier, dtype=self.dtype, name='out')(dropout(y, train))
            return _norm(self.dtype, 'norm')(x + dropout(y, train))

        return by_chunks(layers, self, x, self.mlp, self.remat)


class DeformableAttention(nn.Module):
    """Every query samples a few points near its reference in every level."""

    heads: int
    points: int
    dtype: Any

    @nn.compact
    def __call__(
        self,
        query: Float[ArrayLike, 'N Q C'],
        references: Float[ArrayLike, 'N Q V 2'] | Float[ArrayLike, 'N Q V 4'],
        memory: Float[ArrayLike, 'N S C'],
        sizes: Sequence[Sequence[int]],
        valid: Bool[ArrayLike, 'N S'],
    ) -> Float[Array, 'N Q C']:
        """references: points or boxes, as fractions of the padded map; sizes: (h, w) of each level."""
        frames, queries, channels = query.shape
        shape = (frames, queries, self.heads, len(sizes), self.points)
        bias = deformable_attention.grid_bias(self.heads, len(sizes), self.points).reshape(-1)
        offsets = nn.Dense(bias.size, kernel_init=nn.initializers.zeros, bias_init=lambda *_: bias, name='offsets')(
            query.astype(jnp.float32)
        ).reshape(*shape, 2)
        references = references[:, :, None, :, None].astype(jnp.float32)
        if references.shape[-1] == 2:
            offsets = offsets / jnp.array([(w, h) for h, w in sizes], jnp.float32)[:, None]
        else:
            offsets = offsets / self.points * references[..., 2:] * 0.5
        weights = nn.Dense(bias.size // 2, kernel_init=nn.initializers.zeros, dtype=self.dtype, name='weights')(query)
        weights = weights.reshape(*shape[:3], -1).astype(jnp.float32)
        weights = jax.nn.softmax(weights, axis=-1).reshape(shape)
        locations = references[..., :2] + offsets
        self.sow('intermediates', 'samples', (locations, weights))
        project = nn.Dense(channels, dtype=self.dtype, kernel_init=xavier, name='values')
        sample = batch_local(lambda *arrays: deformable_attention.sample(arrays[0], sizes, *arrays[1:]))
        if queries * self.heads < memory.shape[1]:
            out = self._sample_and_project(project, sample, memory, valid, locations, weights)
        else:
            # Zeroed after the projection, so that padding does not contribute the bias either.
            values = jnp.where(valid[..., None], project(memory), 0)
            out = sample(values.reshape(frames, -1, self.heads, channels // self.heads), locations, weights)
        return nn.Dense(channels, dtype=self.dtype, kernel_init=xavier, name='projection')(out.reshape(query.shape))

    def _sample_and_project(self, project, sample, memory, valid, locations, weights):
        """The same sums in the other order, faster for a few queries: samples for every head are projected instead of
        the memory."""
        frames, queries = locations.shape[:2]
        by_head = [x.reshape(frames, queries * self.heads, 1, *x.shape[3:]) for x in (locations, weights)]

        def sampled(values):
            found = sample(values.astype(self.dtype)[:, :, None], *by_head).astype(jnp.float32)
            return found.reshape(frames, queries, self.heads, -1)

        real = valid[..., None]
        # The mean of a head's samples is projected, then scaled by how much of their weight is inside the map and not
        # on padding, so that the sum has the bias as often.
        share = sampled(real)
        mean = sampled(jnp.where(real, memory, 0)) / share.clip(1e-6)
        every = project(mean).astype(jnp.float32) * share
        every = every.reshape(frames, queries, self.heads, self.heads, -1)
        return jnp.einsum('nqmmc->nqmc', every).astype(self.dtype)  # each head's own channels


class MLP(nn.Module):
    """Dense layers with these widths and ReLUs between.

    Attributes:
      widths: output channels of each layer.
      kernel, bias: initializers; None for the default of layers.dense.
      last_kernel, last_bias: initializers of the last layer; None for `kernel` and `bias`.
      dtype: of the activations.
    """

    widths: tuple[int, ...]
    kernel: Initializer | None = None
    bias: Initializer | None = None
    last_kernel: Initializer | None = None
    last_bias: Initializer | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[ArrayLike, '*batch C']) -> Float[Array, '*batch {self.widths[-1]}']:
        for i, width in enumerate(self.widths[:-1]):
            x = nn.relu(dense(width, x.shape[-1], self.kernel, self.bias, dtype=self.dtype, name=f'layer{i}')(x))
        return dense(
            self.widths[-1],
            x.shape[-1],
            self.last_kernel or self.kernel,
            self.last_bias or self.bias,
            dtype=self.dtype,
            name=f'layer{len(self.widths) - 1}',
        )(x)


def _norm(dtype, name):
    return nn.LayerNorm(epsilon=NORM_EPSILON, dtype=dtype, name=name)


def _box_bias(key, shape, dtype=jnp.float32):
    """Initially, boxes are small: sigmoid(-2) of the frame."""
    return jnp.array([0, 0, -2, -2], dtype)


def _moved(reference, offset):
    """Boxes [N Q 4] from points or boxes, and offsets [N Q 4] of their logits."""
    start = _logit(reference)
    return jax.nn.sigmoid(offset.at[..., : start.shape[-1]].add(start))


def _logit(x, epsilon=1e-5):
    x = jnp.clip(x, 0, 1)
    return jnp.log(jnp.maximum(x, epsilon) / jnp.maximum(1 - x, epsilon))


def _flat(maps):
    """[N h w ...] of each level -> [N S ...]."""
    return jnp.concatenate([x.reshape(x.shape[0], -1, *x.shape[3:]) for x in maps], axis=1)


def _valid_ratios(valid):
    """The fraction (x, y) of each level that is not padding, [N V 2]."""
    counts = [jnp.stack([v[:, 0].sum(1), v[:, :, 0].sum(1)], -1) for v in valid]
    # At least one cell, so that frames that pad a clip in time stay finite.
    return jnp.stack([n.clip(1) / jnp.array(v.shape[:0:-1], jnp.float32) for n, v in zip(counts, valid)], axis=1)


def _cell_centres(sizes, ratios):
    """Every position's centre (x, y) as fractions of each level's padded map, [N S V 2]."""
    centres = []
    for i, (h, w) in enumerate(sizes):
        y, x = jnp.meshgrid(jnp.arange(h) + 0.5, jnp.arange(w) + 0.5, indexing='ij')
        xy = jnp.stack([x, y], axis=-1).reshape(-1, 2)
        centres.append(xy / (ratios[:, None, i] * jnp.array([w, h], jnp.float32)))
    return jnp.concatenate(centres, axis=1)[:, :, None] * ratios[:, None]
