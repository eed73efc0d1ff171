"""What all systems share before the transformer: a video's levels of features, and a text's features.

Axis letters: B clips, T frames, E sentences per clip, N = B E sentences, clip by clip, H W pixels,
h w a feature map, C channels, L tokens.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Shaped, UInt8

from sgmg_jax import types
from sgmg_jax.models.layers import Initializer, dense, xavier
from sgmg_jax.models.spectral_fusion import Words
from sgmg_jax.ops import padding, positions, queries, resize
from sgmg_jax.types import ArrayLike, pytree

# ImageNet's, of RGB from 0 to 1.
MEAN = 0.485, 0.456, 0.406
STD = 0.229, 0.224, 0.225
STRIDES = 4, 8, 16, 32  # of the backbone's maps
LEVEL_STRIDES = 8, 16, 32, 64


class Conventions(NamedTuple):
    """How a release evaluates; differences show only in the last digits.

    frames, pixels: clips are padded to multiples of these.
    shared: frames of several sizes are padded to multiples of this many pixels, to share programs; 1: they are not.
    mask_stride: of the mask logits, in pixels of the padded frames.
    annotated_in_the_middle: where edge frames are repeated to fill a clip, the annotated index is the clip's middle,
      not the first copy.
    cut_before_resizing: masks of annotated frames are thresholded before they are resized to the frame, not after.
    """

    frames: int
    pixels: int
    shared: int = 1
    mask_stride: int = 1
    annotated_in_the_middle: bool = False
    cut_before_resizing: bool = False


@pytree
class VideoFeatures:
    """Clips, encoded once for any number of sentences.

    levels: maps of strides 8, 16, 32 (and 64).
    valid: their masks.
    stride4, stride8: the backbone's first two maps, for the masks.
    size: height and width of the unpadded frames.
    """

    levels: tuple[Float[ArrayLike, 'B T _h _w C'], ...]
    valid: tuple[Bool[ArrayLike, 'B T _h _w'], ...]
    stride4: Float[ArrayLike, 'B T h4 w4 C4']
    stride8: Float[ArrayLike, 'B T h8 w8 C8']
    size: Int[ArrayLike, 'B 2']

    @classmethod
    def of(
        cls,
        levels: Sequence[Float[ArrayLike, 'B T _h _w C']],
        valid: Bool[ArrayLike, 'B T H W'],
        maps: Sequence[Float[ArrayLike, 'B T _h _w _C']],
        size: Int[ArrayLike, 'B 2'],
        frame_size: Int[ArrayLike, 'B 2'] | None = None,
    ) -> 'VideoFeatures':
        """valid: of the frames; maps: the backbone's; frame_size: see `project`. If it is None, cells are valid where
        the released code's resizing finds a valid pixel, which depends on the padding."""
        real = valid[:, :, 0, 0]
        masks = [
            resize.nearest(valid, x.shape[2:4])
            if frame_size is None
            else padding.real_cells(frame_size, stride, x.shape[2:4])[:, None] & real[:, :, None, None]
            for x, stride in zip(levels, LEVEL_STRIDES)
        ]
        return cls(tuple(levels), tuple(masks), maps[0], maps[1], size)


@pytree
class TextFeatures:
    """Features of words, with their `valid` mask, and of the sentence."""

    words: Float[ArrayLike, 'N L C']
    valid: Bool[ArrayLike, 'N L']
    sentence: Float[ArrayLike, 'N C']


class TextProjection(nn.Module):
    """Linear, LayerNorm, dropout.

    Attributes:
      hidden: channels of the result.
      dropout: rate.
      dtype: of the activations.
      start: initializers of kernel and bias; None for PyTorch's default.
    """

    hidden: int
    dropout: float
    dtype: Any
    start: tuple[Initializer, Initializer] | None = (xavier, nn.initializers.zeros)

    @nn.compact
    def __call__(self, x: Float[ArrayLike, '*batch C'], train: bool) -> Float[Array, '*batch {self.hidden}']:
        kernel, bias = self.start or (None, None)
        x = dense(self.hidden, x.shape[-1], kernel, bias, dtype=self.dtype, name='linear')(x)
        x = nn.LayerNorm(epsilon=1e-12, dtype=self.dtype, name='norm')(x)
        return nn.Dropout(self.dropout, deterministic=not train)(x)


def projection_layers(hidden: int, levels: int, dtype: Any) -> tuple[list[nn.Conv], list[nn.GroupNorm]]:
    """Convolutions and norms, for `project`, of 3 levels (strides 8, 16, 32) or 4 (and 64).

    Raises:
      ValueError: for another number of levels.
    """
    if levels not in (3, 4):
        raise ValueError(f'levels = {levels}: must be 3 (strides 8, 16, 32) or 4 (and 64).')
    convolutions = [nn.Conv(hidden, (1, 1), kernel_init=xavier, dtype=dtype) for _ in range(3)] + [
        nn.Conv(hidden, (3, 3), strides=2, padding=1, kernel_init=xavier, dtype=dtype) for _ in range(levels - 3)
    ]
    return convolutions, [nn.GroupNorm(32, epsilon=1e-5, dtype=dtype) for _ in range(levels)]


def project(
    maps: Sequence[Float[ArrayLike, 'B T _h _w _C']],
    convolutions: Sequence[nn.Conv],
    norms: Sequence[nn.GroupNorm],
    frame_size: Int[ArrayLike, 'B 2'] | None = None,
) -> list[Float[Array, 'B*T _h _w C']]:
    """The backbone's four maps -> levels; both the stride-32 and the stride-64 level come from its last map.

    frame_size: H and W without padding, which then affects nothing. None, as released: padding is content.
    """
    sources = [*zip(STRIDES[1:], maps[1:]), *[(STRIDES[3], maps[3])] * (len(norms) - 3)]
    size = of_frames(frame_size, maps[0].shape[1])
    levels = []
    for (stride, x), convolve, norm, level in zip(sources, convolutions, norms, LEVEL_STRIDES):
        x = convolve(padding.zero_padding(fold(x), size, stride))
        levels.append(norm(x, mask=padding.content(size, level, x.shape)))
    return levels


def of_frames(size: Int[ArrayLike, 'B 2'] | None, frames: int) -> Int[Array, 'B*{frames} 2'] | None:
    """The clips' sizes, for each of their frames."""
    return None if size is None else jnp.repeat(jnp.asarray(size), frames, axis=0)


def normalise(frames: UInt8[ArrayLike, 'B T H W 3'], valid: Bool[ArrayLike, 'B T H W']) -> Float32[Array, 'B T H W 3']:
    """RGB / 255, standardised by ImageNet's mean and standard deviation; 0 on padding, whatever it holds.

    Batches hold uint8, a quarter of the bytes, until they are on the device.
    """
    normal = (jnp.asarray(frames, jnp.float32) / 255 - jnp.array(MEAN)) / jnp.array(STD)
    return jnp.where(valid[..., None], normal, 0)


def backbone_maps(
    encoder: nn.Module, clip: types.Clip, train: bool, frame_size: Int[ArrayLike, 'B 2'] | None = None
) -> tuple[list[Float[Array, 'B T _h _w _C']], Bool[ArrayLike, 'B T H W']]:
    """The four maps of models.video_swin.VideoSwin, which explains `frame_size`, and the `valid` mask of their frames.

    Of a clip with an annotated frame, only that frame is kept: the others give the backbone context. T is then 1.
    """
    frames, valid = clip.frames, clip.valid
    if frames.dtype == jnp.uint8:
        frames = normalise(frames, valid)
    maps = encoder(frames, valid[:, :, 0, 0], train, frame_size)
    if clip.annotated is not None:
        keep = lambda x: jnp.take_along_axis(x, clip.annotated.reshape(-1, *[1] * (x.ndim - 1)), axis=1)
        maps, valid = [keep(x) for x in maps], keep(valid)
    return maps, valid


def words_of_clips(text: TextFeatures, clips: int) -> Words:
    """The words of this many clips' sentences, with sine positions."""
    channels = text.words.shape[-1]
    features, valid, where = (
        x.reshape(clips, -1, *x.shape[1:]) for x in (text.words, text.valid, positions.sine_1d(text.valid, channels))
    )
    return Words(features, where, valid)


def four_steps(
    module: Any, clip: types.Clip, text: types.Text, select: Callable[[types.Proposals], Int[Array, 'K N']], train: bool
) -> tuple[types.Proposals, Int[Array, 'K N'], types.Predictions]:
    """SgMg.__call__ for any module with its four methods."""
    video = module.encode_video(clip, train)
    proposals = module.segment(video, module.encode_text(text, train), train)
    query = select(proposals)
    scores, boxes, mask_logits = (
        queries.take_query(x, query) for x in (proposals.scores, proposals.boxes, proposals.mask_logits)
    )
    return proposals, query, types.Predictions(scores, boxes, module.optimize(mask_logits, video))


def repeat_for_sentences(video: VideoFeatures, text: TextFeatures) -> VideoFeatures:
    """Features of B clips -> of N = B E, one copy per sentence."""
    each = len(text.sentence) // len(video.size)
    return jax.tree.map(lambda x: jnp.repeat(x, each, axis=0), video)


def fold(x: Shaped[ArrayLike, 'B T *rest']) -> Shaped[ArrayLike, ' B*T *rest']:
    """Treats frames as independent."""
    return x.reshape(-1, *x.shape[2:])


def unfold(x: Shaped[ArrayLike, ' N *rest'], frames: int) -> Shaped[ArrayLike, 'N//{frames} {frames} *rest']:
    """Undoes `fold`."""
    return x.reshape(-1, frames, *x.shape[1:])
