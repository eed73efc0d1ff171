"""The contract between the parts: what flows from the records to the model and back.

Axis letters, the same in every file: B clips, T frames, H W pixels, h w a feature
map, C channels, Q queries, L tokens, E sentences per clip, N = B E sentences, clip by
clip, D decoder layers, P the 16 positions of a 4x4 patch. `_h` is an axis whose size
is not checked, as it differs from level to level. Channels come last. Validity masks
are True where the entry is real. Arrays may be NumPy or JAX.
"""

import dataclasses
import typing
from typing import TypeVar

import jax
from jaxtyping import Array, Bool, Float, Int, UInt8
import numpy as np

ArrayLike = Array | np.ndarray
T = TypeVar('T')


@typing.dataclass_transform(frozen_default=True)
def pytree(cls: type[T]) -> type[T]:
    """Makes a class a frozen dataclass that JAX can traverse.

    The shapes in the annotations are those of new objects. JAX rebuilds objects without `__init__`, as their leaves may
    then be anything, such as shardings, shapes, or the arrays of one clip; flax.struct would check these too.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    names = list(cls.__dataclass_fields__)  # type: ignore[attr-defined]  # by the line above

    def flatten(x):
        return [(jax.tree_util.GetAttrKey(name), getattr(x, name)) for name in names], None

    def unflatten(_, leaves):
        x = object.__new__(cls)
        for name, leaf in zip(names, leaves):
            object.__setattr__(x, name, leaf)
        return x

    jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
    return cls


@pytree
class Clip:
    """Frames of one video per clip, padded at the bottom and right to a common size.

    frames: RGB, which the models normalise (models.features.normalise); or, as floats, normalised already.
    valid: True on real pixels.
    size: height and width of the real pixels.
    annotated: index of the annotated frame if only one frame per clip has a mask (A2D, JHMDB);
        the others give the backbone context. None: every frame is used.

    A frame that pads the clip in time is False everywhere in `valid`.
    """

    frames: UInt8[ArrayLike, 'B T H W 3'] | Float[ArrayLike, 'B T H W 3']
    valid: Bool[ArrayLike, 'B T H W']
    size: Int[ArrayLike, 'B 2']
    annotated: Int[ArrayLike, ' B'] | None = None


@pytree
class Text:
    """Byte-pair tokens of the sentences; RoBERTa's padding id where `valid` is False.

    A sentence with no valid tokens is padding along E and is ignored everywhere.
    """

    tokens: Int[ArrayLike, 'N L']
    valid: Bool[ArrayLike, 'N L']


@pytree
class Targets:
    """The object that each sentence refers to.

    masks: at the padded size, False on padding.
    boxes: cx, cy, w, h as fractions of the unpadded frame; zeros where the object is absent.
    present: whether the object is in the frame.
    size: height and width of the clip's real pixels.
    asked: False for a sentence that is padding, see Text.
    """

    masks: Bool[ArrayLike, 'N T H W']
    boxes: Float[ArrayLike, 'N T 4']
    present: Bool[ArrayLike, 'N T']
    size: Int[ArrayLike, 'N 2']
    asked: Bool[ArrayLike, ' N']


@pytree
class Example:
    """What the loader yields and a training step takes.

    origin: for messages: the index of each clip's video in the split, and the clip's central frame.
    """

    clip: Clip
    text: Text
    targets: Targets
    origin: Int[ArrayLike, 'B 2'] | None = None


@pytree
class Proposals:
    """What every query of every decoder layer proposes, last layer last.

    scores: class logits.
    boxes: cx, cy, w, h as fractions of the unpadded frame.
    mask_logits: P logits per cell. SgMg: a 4x4 patch of half-resolution pixels per stride-8 cell, not yet refined;
        SOC: P = 1, one logit per stride-4 cell. SgMg's fields `labels` and `feature_decoder` change P and the stride.
    alignment: SOC's similarity of each video query and the sentence; only of the last layer while parameters
        are initialised.
    """

    scores: Float[ArrayLike, 'D N T Q']
    boxes: Float[ArrayLike, 'D N T Q 4']
    mask_logits: Float[ArrayLike, 'D N T Q h w P']
    alignment: Float[ArrayLike, '_D N Q'] | None = None


@pytree
class Predictions:
    """One chosen query per sentence: class logits, boxes, and mask logits at the padded size (SOC: at stride 4).

    masks: None in the training of an SgMg without optimizer.
    """

    scores: Float[ArrayLike, '*D N T']
    boxes: Float[ArrayLike, '*D N T 4']
    masks: Float[ArrayLike, '*D N T H W'] | None
