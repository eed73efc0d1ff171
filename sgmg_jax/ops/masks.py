"""From mask logits to the masks that a benchmark wants.

Axis letters: N objects, n frames, h w mask logits, H W pixels; `...` are queries or frames.
"""
import numpy as np
import scipy.special

from sgmg_jax.ops import resize

BACKGROUND = 0.1  # probability of Ref-DAVIS17's background


def merge_objects(logits, object_ids):
    """Mask logits [N n H W] of N objects -> uint8 [n H W], 0 for background, else an object's id.

    The released scripts': probabilities below one half are none, the background has 0.1, the greatest wins, the first
    on ties.
    """
    probabilities = scipy.special.expit(logits.astype(np.float32))
    probabilities[probabilities < 0.5] = 0
    winner = np.array(object_ids, np.uint8)[probabilities.argmax(axis=0)]
    return np.where(probabilities.max(axis=0) > BACKGROUND, winner, 0).astype(np.uint8)


def binary_at(logits, grid, crop, size):
    """Logits [... h w] -> bool [... H W], size (H, W): resized to `grid`, cut at 0 and to `crop`, resized by nearest
    neighbours; as the released SOC does for annotated frames (facts of SOC, 12)."""
    masks = resize.bilinear(logits[..., None], grid)[..., 0] > 0
    return resize.nearest(masks[..., :crop[0], :crop[1]], size)
