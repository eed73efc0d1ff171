"""From the features of a padded clip and sentences to mask logits: what Predictor and the benchmarks compile.

Axis letters: T frames, H W pixels, h w a feature map, e sentences processed together, Q queries.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import os
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8
import numpy as np

from sgmg_jax import compilation, types
from sgmg_jax.models import features, video_swin
from sgmg_jax.ops import masks, queries, resize


class Programs(NamedTuple):
    """What runs on the device for one model, jitted; the arguments are those of the functions named, less the model.

    encode: (parameters, clip) -> model.encode_video.
    best_masks, every_mask: of this module.
    original_size, above_zero, binary_at: of this module. Programs of their own: videos of equal padded size may differ
        in their original size.
    """

    encode: Callable
    best_masks: Callable
    every_mask: Callable
    original_size: Callable
    above_zero: Callable
    binary_at: Callable


@functools.lru_cache(maxsize=8)
def programs(model: nn.Module) -> Programs:
    """The programs of a module of systems.SYSTEMS; equal modules share them, and so what has been compiled."""
    return Programs(
        compilation.jit(lambda parameters, clip: model.apply({'params': parameters}, clip, method='encode_video')),
        compilation.jit(functools.partial(best_masks, model)),
        compilation.jit(functools.partial(every_mask, model)),
        compilation.jit(original_size, static_argnums=(1, 2)),
        compilation.jit(above_zero),
        compilation.jit(binary_at, static_argnums=(1, 2, 3, 4)),
    )


def pad_clip(
    frames: UInt8[np.ndarray, 'T h w 3'], size: tuple[int, int], conventions: features.Conventions, usual: int = 0
) -> types.Clip:
    """Pads frames of `size`, (h, w), to a types.Clip of one clip, whose T, H and W are multiples of `conventions`.

    Padding in time to a multiple of the backbone's window lets videos of many lengths share a few compiled programs,
    and so does padding to `conventions.shared` pixels; results for what is real stay the same. A single picture stays
    one frame, and small frames are not padded to share a program, as padding would change their windows.

    usual: a side that most frames have, which stays as it is.
    """
    length, (height, width) = len(frames), size
    bucket = conventions.frames if length > 1 else 1
    pixels = multiple_of(size, conventions)
    multiples = bucket, *(conventions.pixels if side == usual else pixels for side in size)
    pads = [-n % multiple for n, multiple in zip((length, height, width), multiples)]
    valid = np.ones((length, height, width), bool)
    widths = [(0, pad) for pad in pads]
    return types.Clip(np.pad(frames, [*widths, (0, 0)])[None], np.pad(valid, widths)[None], np.array([size], np.int32))


def multiple_of(size: Sequence[int], conventions: features.Conventions) -> int:
    """The pixels to whose multiple both sides of a frame of this size may be padded."""
    small = min(size) <= video_swin.ONE_WINDOW
    return conventions.pixels if small else max(conventions.shared, conventions.pixels)


def mask_size(clip: types.Clip, conventions: features.Conventions) -> tuple[int, int]:
    """Rows and columns of a clip's mask logits that are not padding."""
    height, width = (-(-int(side) // conventions.mask_stride) for side in clip.size[0])
    return height, width


def groups(sentences: Sequence, most: int) -> list[Sequence]:
    """Splits sentences, in order, into as few groups of at most `most` as possible, of nearly equal size."""
    count = -(-len(sentences) // most)
    ends = [len(sentences) * i // count for i in range(count + 1)]
    return [sentences[start:end] for start, end in zip(ends, ends[1:])]


def best_masks(
    model: nn.Module,
    parameters: Mapping,
    video: features.VideoFeatures,
    tokens: types.Text,
    real_frames: Bool[types.ArrayLike, '1 T'],
) -> tuple[Float[Array, 'e T'], Float[Array, 'e T H W']]:
    """Scores in [0, 1] and mask logits of the best query for each sentence, at the padded size; SOC's at stride 4.

    Args:
        model: a module of systems.SYSTEMS.
        parameters: its parameters, nested.
        video: features of one clip.
        tokens: e sentences, processed together.
        real_frames: False for padding in time.
    """

    def call(module):
        words = module.encode_text(tokens)
        proposals = module.segment(video, words)
        real = jnp.broadcast_to(real_frames, (len(words.sentence), real_frames.shape[1]))
        query = queries.best_query(proposals, real)
        scores = jax.nn.sigmoid(queries.take_query(proposals.scores, query)[0])
        return scores, module.optimize(queries.take_query(proposals.mask_logits, query), video)[0]

    # Without `mutable`, apply() returns what `call` does.
    return model.apply({'params': parameters}, method=call)  # type: ignore[return-value]


def every_mask(
    model: nn.Module, parameters: Mapping, video: features.VideoFeatures, tokens: types.Text
) -> tuple[Float[Array, ' Q'], Float[Array, 'Q H W']]:
    """For one sentence and frame: scores and mask logits of every query, at the padded size; SOC's at stride 4."""

    def call(module):
        proposals = module.segment(video, module.encode_text(tokens))
        every = jnp.moveaxis(proposals.mask_logits[-1], 2, 0)  # Q N T h w P
        return jax.nn.sigmoid(proposals.scores[-1, 0, 0]), module.optimize(every, video)[:, 0, 0]

    return model.apply({'params': parameters}, method=call)  # type: ignore[return-value]  # as in `best_masks`


def original_size(
    logits: Float[Array, 'T h w'], crop: tuple[int, int], size: tuple[int, int]
) -> Float[types.ArrayLike, 'T H W']:
    """Crops the padding, to `crop` cells, and resizes logits (not probabilities) to the original frames."""
    return resize.bilinear(logits[:, : crop[0], : crop[1], None], size)[..., 0]


def binary_at(
    logits: Float[Array, 'Q h w'],
    cells: tuple[int, int],
    grid: tuple[int, int],
    crop: tuple[int, int],
    size: tuple[int, int],
) -> Bool[types.ArrayLike, 'Q H W']:
    """ops.masks.binary_at of the first `cells` of the logits, those that are not padding."""
    return masks.binary_at(logits[:, : cells[0], : cells[1]], grid, crop, size)


def above_zero(
    logits: Float[types.ArrayLike, '*axes'],
) -> tuple[Bool[types.ArrayLike, '*axes'], Bool[types.ArrayLike, '']]:
    """Whether each is above 0, and whether all are finite."""
    return logits > 0, jnp.isfinite(logits).all()


def check_frames(frames: Any) -> UInt8[np.ndarray, 'T H W 3']:
    """Checks frames, RGB, in an array or a list of arrays, and returns them as one array.

    Raises:
        TypeError: for a path, None or anything else that holds no frames.
        ValueError: for frames of another dtype, number of axes or channels, of several sizes, or without pixels.
    """
    if isinstance(frames, str | os.PathLike):
        raise TypeError(
            f'frames = {os.fspath(frames)!r:.100}: give the frames themselves, such as sgmg_jax.video.read(path).'
        )
    wanted = 'must be uint8 [T H W 3], RGB'
    if isinstance(frames, list | tuple):
        shapes = sorted({np.shape(frame) for frame in frames if isinstance(frame, np.ndarray)})
        if len(shapes) > 1:
            raise ValueError(f'frames: have several sizes, {", ".join(map(str, shapes[:3]))}; must all have one.')
    elif not hasattr(frames, '__array__'):
        raise TypeError(f'frames: a {type(frames).__name__}: {wanted}.')
    try:
        frames = np.asarray(frames)
    except ValueError as error:
        raise ValueError(f'frames: do not form an array ({error}): {wanted}.') from error
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(f'frames: {frames.dtype} {frames.shape}: {wanted}.')
    return frames
