"""Video Swin Transformer (Liu et al., CVPR 2022), as SgMg uses it: no temporal stride, four feature maps.

Axis letters: B clips, T frames, H W pixels, h w a feature map, C channels, G windows per clip,
N tokens per window.
"""

import dataclasses
import itertools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from sgmg_jax import compilation
from sgmg_jax.models import layers
from sgmg_jax.models.chunks import by_chunks, check_remat
from sgmg_jax.models.in_turn import in_turn
from sgmg_jax.ops import padding
from sgmg_jax.sharding import batch_local
from sgmg_jax.types import ArrayLike

WINDOW = (8, 7, 7)
PATCH = 4
ONE_WINDOW = 7 * 32  # pixels of a side: the last map of a smaller frame is a single window in this axis
NORM_EPSILON = 1e-5
NEIGHBOURS = (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, -1), (-1, 1)  # of a token
SEPARATION = -100.0  # added to the logits of token pairs that share a window only because of the shift


@dataclasses.dataclass(frozen=True)
class Size:
    """Widths and depths: channels of the first stage (doubled at each next one), blocks and heads of each stage.

    near: in a new model each head begins by looking at one near place (as in ConViT, d'Ascoli et al., 2021), two frames
        before, not at its whole window alike. Without pretraining, the model otherwise hardly learns shapes, and no
        motion.
    """

    channels: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    near: bool = False


SIZES = {
    'tiny': Size(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    'small': Size(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    'base': Size(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    'demo': Size(32, (1, 1, 1, 1), (1, 2, 4, 8)),  # for small images on a CPU
    'pocket': Size(32, (1, 1, 2, 1), (2, 4, 8, 8), near=True),  # of the model that comes with the package
}


class VideoSwin(nn.Module):
    """Frames -> four maps of strides 4, 8, 16, 32, with C, 2C, 4C, 8C channels.

    Attributes:
      size: widths and depths.
      drop_path: stochastic depth rate of the last block, growing linearly from 0 at the first; drops whole clips.
      remat: what the backward pass computes again, see chunks.check_remat.
      dtype: of the activations.
    """

    size: Size
    drop_path: float = 0.2
    remat: str = 'hidden'
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        frames: Float[ArrayLike, 'B T H W 3'],
        real_frames: Bool[ArrayLike, 'B T'] | None = None,
        train: bool = False,
        frame_size: Int[ArrayLike, 'B 2'] | None = None,
    ) -> list[Float[Array, 'B T _h _w _C']]:
        """real_frames: False for frames that pad the clip in time.

        These do not affect the real ones if the clip is padded to the next multiple of 8 frames, or to at most 8.
        Longer clips are padded to whole windows anyway, with tokens that are zero after the first norm; shorter ones
        fit in one window, where padded tokens are masked as keys.

        frame_size: H and W without padding, which then affects nothing, if both are larger than ONE_WINDOW. None, as
        released: padding is content.
        """
        size = self.size
        rates = np.linspace(0, self.drop_path, sum(size.depths), dtype=np.float32)
        x = _pad_to_multiple(frames.astype(self.dtype), (1, PATCH, PATCH))
        x = layers.conv(
            size.channels,
            (PATCH, PATCH),
            x.shape[-1],
            strides=PATCH,
            padding='VALID',
            dtype=self.dtype,
            name='patch_embedding',
        )(x)
        x = _layer_norm(self.dtype, 'patch_norm')(x)
        remat = check_remat(self.remat)
        block = nn.remat(Block, static_argnums=(3,)) if remat == 'blocks' else Block
        options = dict(near=size.near, remat=remat != 'nothing', dtype=self.dtype)
        maps = []
        for stage, (depth, heads) in enumerate(zip(size.depths, size.heads)):
            map_size = None if frame_size is None else -(-frame_size // (PATCH << stage))

            def in_pairs(blocks, x, rates, map_size=map_size):
                for block, rate in zip(blocks, rates):
                    x = block(x, real_frames, train and self.drop_path > 0, rate, map_size)
                return x, None

            blocks = [
                block(heads=heads, shifted=i % 2 == 1, **options, name=f'stage{stage}_block{i}') for i in range(depth)
            ]
            each = depth if depth % 2 else 2
            pairs = [blocks[i : i + each] for i in range(0, depth, each)]
            x, _ = in_turn(self, in_pairs, pairs, x, rates[:depth].reshape(-1, each))
            rates = rates[depth:]
            maps.append(x)
            if stage < len(size.depths) - 1:
                x = _where_real(x, None, map_size)
                x = PatchMerging(dtype=self.dtype, name=f'merging{stage}')(x)
        return maps


class PatchMerging(nn.Module):
    """Halves the resolution (rounded up) and doubles the channels."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[ArrayLike, 'B T h w C']) -> Float[Array, 'B T (h+1)//2 (w+1)//2 2*C']:
        x = _pad_to_multiple(x, (1, 2, 2))
        x = jnp.concatenate([x[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)], axis=-1)
        x = _layer_norm(self.dtype, 'norm')(x)
        channels = x.shape[-1]
        return layers.dense(channels // 2, channels, use_bias=False, dtype=self.dtype, name='reduction')(x)


class Block(nn.Module):
    """Attention in 3-D windows, then an MLP; every second block shifts its windows by half their size."""

    heads: int
    shifted: bool
    near: bool = False
    remat: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[ArrayLike, 'B T h w C'],
        real_frames: Bool[ArrayLike, 'B T'] | None,
        drops: bool,
        rate: Float[ArrayLike, ''] | np.floating | float,
        map_size: Int[ArrayLike, 'B 2'] | None = None,
    ) -> Float[Array, 'B T h w C']:
        """drops: drop branches of whole clips, at this rate. It may be traced, as that of nn.Dropout may not."""
        shape, channels = x.shape[1:4], x.shape[-1]
        # Along axes where the map is no larger than the window, the window is the map and is not shifted.
        window = tuple(min(n, w) for n, w in zip(shape, WINDOW))
        shift = tuple(w // 2 if self.shifted and n > w else 0 for n, w in zip(shape, WINDOW))

        def drop_path(branch):
            if not drops:
                return branch
            kept = jax.random.bernoulli(self.make_rng('dropout'), 1 - rate, (len(branch), 1, 1, 1, 1))
            return jnp.where(kept, branch / (1 - rate), 0).astype(branch.dtype)

        y = _pad_to_multiple(_where_real(_layer_norm(self.dtype, 'norm1')(x), real_frames, map_size), window)
        padded = y.shape[1:4]
        regions = _regions(padded, window, shift) if any(shift) else None
        present = _present(padded, window, real_frames if shape[0] <= WINDOW[0] else None, map_size)

        def windows(x):
            return _partition(jnp.roll(x, [-s for s in shift], axis=(1, 2, 3)), window)

        y = WindowAttention(self.heads, self.near, self.remat, self.dtype, name='attention')(
            windows(y), regions, None if present is None else ~windows(present[..., None])[..., 0]
        )
        y = _unpartition(y, padded, window)
        y = jnp.roll(y, shift, axis=(1, 2, 3))[:, : shape[0], : shape[1], : shape[2]]
        x = x + drop_path(y)

        return x + drop_path(by_chunks(Block._mlp, self, x, 4 * channels, self.remat))

    def _mlp(self, x):
        channels = x.shape[-1]
        x = _layer_norm(self.dtype, 'norm2')(x)
        x = layers.dense(4 * channels, channels, dtype=self.dtype, name='mlp_in')(x)
        return layers.dense(channels, 4 * channels, dtype=self.dtype, name='mlp_out')(nn.gelu(x, approximate=False))


class WindowAttention(nn.Module):
    """Self-attention within windows with a relative position bias."""

    heads: int
    near: bool = False
    remat: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[ArrayLike, 'B G N C'],
        regions: Int[ArrayLike, 'G N'] | None = None,
        absent_keys: Bool[ArrayLike, 'B G N'] | None = None,
    ) -> Float[Array, 'B G N C']:
        """regions: tokens attend only within their region; absent_keys: tokens that are never attended to."""
        *lead, tokens, channels = x.shape
        width = channels // self.heads
        qkv = layers.dense(3 * channels, channels, dtype=self.dtype, name='qkv')(x)
        q, k, v = jnp.moveaxis(qkv.reshape(*lead, tokens, 3, self.heads, width), -3, 0)
        rows = np.prod([2 * w - 1 for w in WINDOW])
        start = _near_bias if self.near else nn.initializers.truncated_normal(0.02)
        table = self.param('relative_position_bias', start, (rows, self.heads))
        bias = jnp.moveaxis(table[relative_position_index()[:tokens, :tokens]], -1, 0)

        def attend(q, k, v, regions, absent_keys, bias):
            """One window of every clip: q, k, v [B N M C]; regions [N]; absent_keys [B N]."""
            logits = jnp.einsum('bnmc,bkmc->bmnk', q * width**-0.5, k).astype(jnp.float32) + bias
            if regions is not None:
                logits = logits + jnp.where(regions[:, None] != regions, SEPARATION, 0.0)
            if absent_keys is not None:
                logits = jnp.where(absent_keys[:, None, None, :], jnp.finfo(jnp.float32).min, logits)
            attention = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
            return jnp.einsum('bmnk,bkmc->bnmc', attention, v)

        def one_by_one(q, k, v, absent_keys, regions, bias):
            q, k, v, absent_keys = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (q, k, v, absent_keys))

            def window(x):
                return attend(*x, bias)

            window = jax.checkpoint(window) if self.remat else window
            return jnp.moveaxis(jax.lax.map(window, (q, k, v, regions, absent_keys)), 0, 1)

        if compilation.platform() == 'cpu':
            # One window's logits fit in the CPU cache: half the time of all at once, and nearly no memory.
            out = batch_local(one_by_one, shared=2)(q, k, v, absent_keys, regions, bias)
        else:
            out = jax.vmap(attend, in_axes=(1, 1, 1, 0, 1, None), out_axes=1)(q, k, v, regions, absent_keys, bias)
        # Three times as large as usual: as large as what it is added to.
        kernel = layers.uniform(channels / 9) if self.near else None
        return layers.dense(channels, channels, kernel, dtype=self.dtype, name='projection')(
            out.reshape(*lead, tokens, channels)
        )


def _near_bias(key, shape, dtype=jnp.float32):
    """The heads look at the eight neighbours of a token, one each, two frames before."""
    del key
    offsets = np.stack(np.meshgrid(*[np.arange(1 - w, w) for w in WINDOW], indexing='ij'), axis=-1).reshape(-1, 1, 3)
    places = np.resize(NEIGHBOURS, (shape[1], 2))
    distances = np.square(offsets[..., 1:] - places).sum(-1) + np.square(offsets[..., 0] - 2)
    return jnp.asarray(np.maximum(-4.0 * distances, -20), dtype)


def _layer_norm(dtype, name):
    return nn.LayerNorm(epsilon=NORM_EPSILON, dtype=dtype, name=name)


def _where_real(x, real_frames, map_size):
    """Zeros in padded frames, and in cells past the map's size without padding."""
    if real_frames is not None:
        x = jnp.where(real_frames[:, :, None, None, None], x, 0)
    if map_size is not None:
        x = jnp.where(padding.first_cells(*map_size.T, x.shape[2:4])[:, None, ..., None], x, 0)
    return x


def _present(shape, window, real_frames, map_size):
    """The tokens [B T h w] that are keys; None if all are. Without padding the map would be padded to whole windows,
    too, with zeros that are keys, as released."""
    present = None
    if real_frames is not None:
        present = jnp.broadcast_to(real_frames[:, :, None, None], (len(real_frames), *shape))
    if map_size is not None:
        ends = -(-map_size // np.array(window[1:])) * np.array(window[1:])
        cells = jnp.broadcast_to(padding.first_cells(*ends.T, shape[1:])[:, None], (len(ends), *shape))
        present = cells if present is None else present & cells
    return present


def _pad_to_multiple(x, multiples):
    """Pads T, h and w with zeros at the end."""
    pads = [(0, -n % m) for n, m in zip(x.shape[1:4], multiples)]
    return jnp.pad(x, [(0, 0), *pads, (0, 0)]) if any(p for _, p in pads) else x


def _partition(x, window):
    """[B T h w C] -> [B G N C]."""
    b, *shape, c = x.shape
    (nt, nh, nw), (wt, wh, ww) = (n // w for n, w in zip(shape, window)), window
    x = x.reshape(b, nt, wt, nh, wh, nw, ww, c).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(b, nt * nh * nw, wt * wh * ww, c)


def _unpartition(x, shape, window):
    """[B G N C] -> [B T h w C]."""
    b, c = x.shape[0], x.shape[-1]
    (nt, nh, nw), (wt, wh, ww) = (n // w for n, w in zip(shape, window)), window
    x = x.reshape(b, nt, nh, nw, wt, wh, ww, c).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(b, *shape, c)


def _regions(shape, window, shift):
    """[G N] int: which of the regions that the shift brings together in a window each token comes from."""
    axes = []
    for n, w, s in zip(shape, window, shift):
        bounds = [n] if s == 0 else [n - w, n - s, n]
        axes.append(np.searchsorted(bounds, np.arange(n), side='right'))
    t, h, w = axes
    labels = (t[:, None, None] * 3 + h[:, None]) * 3 + w
    return _partition(labels[None, ..., None], window)[0, :, :, 0]


def relative_position_index() -> Int[np.ndarray, 'N N']:
    """Row of the bias table for each pair of tokens of a full window, time-major.

    A smaller window takes the top-left corner of it. If it is smaller in height or width, these are not
    its own offsets, but the released weights were trained so.
    """
    tokens = np.array(list(itertools.product(*map(range, WINDOW))))
    offset = tokens[:, None] - tokens[None, :] + np.array(WINDOW) - 1
    return np.ravel_multi_index(tuple(np.moveaxis(offset, -1, 0)), [2 * w - 1 for w in WINDOW])
