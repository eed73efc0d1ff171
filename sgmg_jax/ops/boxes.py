"""Boxes: centre and size (cx, cy, w, h) or corners (x1, y1, x2, y2), as fractions of the frame."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from sgmg_jax.types import ArrayLike


def to_corners(boxes: Float[ArrayLike, '... 4']) -> Float[Array, '... 4']:
    """(cx, cy, w, h) -> (x1, y1, x2, y2)."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([centre - size / 2, centre + size / 2], axis=-1)


def generalised_iou(a: Float[ArrayLike, '*#batch 4'], b: Float[ArrayLike, '*#batch 4']) -> Float[Array, '...']:
    """Generalised IoU in [-1, 1] of boxes given by their corners; leading axes broadcast.

    1e-6 keeps both quotients finite, as in the released SgMg: two empty boxes at the same point give 1.
    """

    def area(low, high):
        return jnp.prod(jnp.maximum(high - low, 0), axis=-1)

    low, high = a[..., :2], a[..., 2:]
    other_low, other_high = b[..., :2], b[..., 2:]
    intersection = area(jnp.maximum(low, other_low), jnp.minimum(high, other_high))
    # Areas are not clamped: a box with negative size keeps its sign, as in the released code.
    union = jnp.prod(high - low, axis=-1) + jnp.prod(other_high - other_low, axis=-1) - intersection
    enclosing = area(jnp.minimum(low, other_low), jnp.maximum(high, other_high))
    iou = (intersection + 1e-6) / (union + 1e-6)
    return iou - (enclosing - union + 1e-6) / (enclosing + 1e-6)
