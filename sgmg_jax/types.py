"""The contract between the parts: what flows from records to the model and back.

Axis letters, the same in every file: B clips, T frames, H W pixels, h w a feature
map, C channels, Q queries, L tokens, E sentences of a clip, N = B E sentences, those
of a clip one after the other, D decoder layers, P the 16 positions of a 4x4 patch.
Channels come last. Validity masks are always True = real. Arrays may be NumPy or JAX.
"""
from flax import struct
from jaxtyping import Array, Bool, Float, Int
import numpy as np

ArrayLike = Array | np.ndarray


@struct.dataclass
class Clip:
    """Frames of one video each, padded bottom and right to a common size.

    frames: RGB, divided by 255, ImageNet mean and standard deviation removed; 0 on padding.
    valid: True on real pixels.
    size: height and width of the real pixels.
    annotated: where only one frame of a clip is asked for (A2D, JHMDB), its index; the other
        frames are context for the backbone. None: every frame.

    A frame added to fill the clip in time is False in `valid` everywhere.
    """
    frames: Float[ArrayLike, 'B T H W 3']
    valid: Bool[ArrayLike, 'B T H W']
    size: Int[ArrayLike, 'B 2']
    annotated: Int[ArrayLike, 'B'] | None = None


@struct.dataclass
class Text:
    """Byte-pair tokens of the sentences; RoBERTa's padding id where `valid` is False.

    A sentence without a valid token is none: it fills up a clip's to E, and counts nowhere.
    """
    tokens: Int[ArrayLike, 'N L']
    valid: Bool[ArrayLike, 'N L']


@struct.dataclass
class Targets:
    """The object that each sentence refers to.

    masks: at the padded size, False on padding.
    boxes: cx, cy, w, h as fractions of the unpadded frame; zeros where the object is absent.
    present: whether the object is in the frame.
    size: height and width of the clip's real pixels.
    asked: False for a sentence that only fills up its clip's, see Text.
    """
    masks: Bool[ArrayLike, 'N T H W']
    boxes: Float[ArrayLike, 'N T 4']
    present: Bool[ArrayLike, 'N T']
    size: Int[ArrayLike, 'N 2']
    asked: Bool[ArrayLike, 'N']


@struct.dataclass
class Example:
    """What the loader yields and a training step takes.

    origin: for messages, of each clip the number of its video in the split and its central frame.
    """
    clip: Clip
    text: Text
    targets: Targets
    origin: Int[ArrayLike, 'B 2'] | None = None


@struct.dataclass
class Proposals:
    """What every query of every decoder layer proposes, last layer last.

    scores: class logits.
    boxes: cx, cy, w, h in [0, 1] of the unpadded frame.
    patch_masks: mask logits; the last axis is a 4x4 patch of half-resolution pixels. Of SOC, the stride-4 map; it is 1.
    alignment: of SOC, how much a query over all frames is what the sentence means.
    """
    scores: Float[ArrayLike, 'D N T Q']
    boxes: Float[ArrayLike, 'D N T Q 4']
    patch_masks: Float[ArrayLike, 'D N T Q h w P']
    alignment: Float[ArrayLike, 'D N Q'] | None = None


@struct.dataclass
class Predictions:
    """One chosen query a sentence: class logits, boxes, and mask logits at the padded size; SOC's at stride 4."""
    scores: Float[ArrayLike, '*D N T']
    boxes: Float[ArrayLike, '*D N T 4']
    masks: Float[ArrayLike, '*D N T H W']
