"""What all systems here do on the way to the transformer: levels of features of a video, and features of a text.

Axis letters: B clips, T frames, E sentences of a clip, N = B E sentences, those of a clip one after the other,
h w a feature map, C channels, L tokens.
"""
from typing import Any, NamedTuple

from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp

from sgmg_jax import types
from sgmg_jax.models.layers import dense, xavier
from sgmg_jax.models.spectral_fusion import Words
from sgmg_jax.ops import positions, queries, resize


class Conventions(NamedTuple):
    """How a release evaluates, where it shows in the last digits.

    frames, pixels: multiples that a clip is filled up to.
    annotated_in_the_middle: of frames that are alike, where a video begins or ends, the middle one of the clip is the
      annotated one, and not the first.
    cut_before_resizing: masks of annotated frames are made binary before they get the frame's own size, not after.
    """
    frames: int
    pixels: int
    annotated_in_the_middle: bool = False
    cut_before_resizing: bool = False


@struct.dataclass
class VideoFeatures:
    """A clip, encoded once for any number of sentences.

    levels: maps [B T h w C], strides 8, 16, 32 (and 64).
    valid: their masks [B T h w].
    stride4, stride8: the backbone's first two maps, for the masks.
    size: [B 2], height and width of the unpadded frame.
    """
    levels: tuple
    valid: tuple
    stride4: jax.Array
    stride8: jax.Array
    size: jax.Array

    @classmethod
    def of(cls, levels, valid, maps, size):
        """valid: of the frames [B T H W]; maps: of `backbone_maps`."""
        return cls(tuple(levels), tuple(resize.nearest(valid, x.shape[2:4]) for x in levels), *maps[:2], size)


@struct.dataclass
class TextFeatures:
    """words [N L C] with their `valid` mask [N L]; sentence [N C]."""
    words: jax.Array
    valid: jax.Array
    sentence: jax.Array


class TextProjection(nn.Module):
    """Linear, LayerNorm, dropout. [... C'] -> [... hidden].

    Attributes:
      start: of kernel and bias; None as PyTorch's.
    """
    hidden: int
    dropout: float
    dtype: Any
    start: tuple | None = (xavier, nn.initializers.zeros)

    @nn.compact
    def __call__(self, x, train):
        kernel, bias = self.start or (None, None)
        x = dense(self.hidden, x.shape[-1], kernel, bias, dtype=self.dtype, name='linear')(x)
        x = nn.LayerNorm(epsilon=1e-12, dtype=self.dtype, name='norm')(x)
        return nn.Dropout(self.dropout, deterministic=not train)(x)


def projection_layers(hidden, levels, dtype):
    """Convolutions and norms, for `project`, of 3 levels (strides 8, 16, 32) or 4 (and 64).

    Raises:
      ValueError: for another number of levels.
    """
    if levels not in (3, 4):
        raise ValueError(f'levels = {levels}: there are 3 (strides 8, 16, 32) or 4 (and 64).')
    convolutions = [nn.Conv(hidden, (1, 1), kernel_init=xavier, dtype=dtype) for _ in range(3)] + [
        nn.Conv(hidden, (3, 3), strides=2, padding=1, kernel_init=xavier, dtype=dtype) for _ in range(levels - 3)]
    return convolutions, [nn.GroupNorm(32, epsilon=1e-5, dtype=dtype) for _ in range(levels)]


def project(maps, convolutions, norms):
    """The backbone's four maps [B T h w C'] -> levels [B T together, h w C], the coarsest from its last map as well."""
    sources = maps[1:] + [maps[3]] * (len(norms) - 3)
    return [norm(convolve(fold(x))) for x, convolve, norm in zip(sources, convolutions, norms)]


def backbone_maps(encoder, clip, train):
    """types.Clip -> the four maps of models.video_swin.VideoSwin [B T h w C] and their frames' `valid` [B T H W].

    Of an annotated clip that frame alone: those around it are context for the backbone only, T is 1 from here on.
    """
    maps, valid = encoder(clip.frames, real_frames=clip.valid[:, :, 0, 0], train=train), clip.valid
    if clip.annotated is not None:
        keep = lambda x: jnp.take_along_axis(x, clip.annotated.reshape(-1, *[1] * (x.ndim - 1)), axis=1)
        maps, valid = [keep(x) for x in maps], keep(valid)
    return maps, valid


def words_of_clips(text, clips):
    """TextFeatures -> spectral_fusion.Words of so many clips, with sine positions."""
    channels = text.words.shape[-1]
    features, valid, where = (x.reshape(clips, -1, *x.shape[1:]) for x in (
        text.words, text.valid, positions.sine_1d(text.valid, channels)))
    return Words(features, where, valid)


def four_steps(module, clip, text, select, train):
    """What SgMg.__call__ says, of any module with its four methods."""
    video = module.encode_video(clip, train)
    proposals = module.segment(video, module.encode_text(text, train), train)
    query = select(proposals)
    scores, boxes, patch_masks = (queries.take_query(x, query) for x in (
        proposals.scores, proposals.boxes, proposals.patch_masks))
    return proposals, query, types.Predictions(scores, boxes, module.optimize(patch_masks, video))


def repeat_for_sentences(video, text):
    """VideoFeatures of B clips -> of N = B E, one for each sentence."""
    each = len(text.sentence) // len(video.size)
    return jax.tree.map(lambda x: jnp.repeat(x, each, axis=0), video)


def fold(x):
    """[B T ...] -> [B T together, ...]: frames are independent."""
    return x.reshape(-1, *x.shape[2:])


def unfold(x, frames):
    """[B T together, ...] -> [B T ...]."""
    return x.reshape(-1, frames, *x.shape[1:])
