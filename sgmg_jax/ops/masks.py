"""From mask logits to the masks that the benchmarks expect.

Axis letters: N objects, T frames, h w mask logits, H W pixels; `...` are queries or frames.
"""

from collections.abc import Sequence

from jaxtyping import Bool, Float, UInt8
import numpy as np
import scipy.special

from sgmg_jax.ops import resize
from sgmg_jax.types import ArrayLike

BACKGROUND = 0.1  # probability of Ref-DAVIS17's background


def merge_objects(logits: Float[np.ndarray, 'N T H W'], object_ids: Sequence[int]) -> UInt8[np.ndarray, 'T H W']:
    """One label map of N objects' mask logits: 0 for background, else the object's id.

    As in the released scripts: probabilities below one half count as 0 and the background's is 0.1; the largest wins,
    the first on ties.
    """
    probabilities = scipy.special.expit(logits.astype(np.float32))
    probabilities[probabilities < 0.5] = 0
    winner = np.array(object_ids, np.uint8)[probabilities.argmax(axis=0)]
    return np.where(probabilities.max(axis=0) > BACKGROUND, winner, 0).astype(np.uint8)


def binary_at(
    logits: Float[ArrayLike, '*batch h w'], grid: Sequence[int], crop: Sequence[int], size: Sequence[int]
) -> Bool[ArrayLike, '*batch H W']:
    """Logits resized to `grid`, thresholded at 0, cropped to `crop` and resized to `size` = (H, W) by nearest
    neighbour, as the released SOC does for annotated frames."""
    masks = resize.bilinear(logits[..., None], grid)[..., 0] > 0
    return resize.nearest(masks[..., : crop[0], : crop[1]], size)
