"""Matches queries to the referred object: with one target per sentence, the cheapest query of each layer.

Axis letters: D decoder layers, N sentences, T frames, Q queries, H W pixels, M objects of a sentence's clip.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import optax

from sgmg_jax.losses import terms
from sgmg_jax.ops import boxes as box_ops
from sgmg_jax.ops import dynamic_conv
from sgmg_jax.sharding import batch_local
from sgmg_jax.types import ArrayLike, Proposals, Targets

WEIGHTS = {'class': 2.0, 'box': 5.0, 'giou': 2.0, 'mask': 2.0, 'dice': 5.0}


def at_resolution(masks: Bool[ArrayLike, '*batch H W'], rows: int) -> Bool[ArrayLike, '*batch {rows} _w']:
    """One pixel of each square of a grid with this many rows, that below and right of its centre. SgMg's masks before
    refinement have half the resolution: every second pixel, starting with the second."""
    stride = masks.shape[-2] // rows
    return masks[..., stride // 2 :: stride, stride // 2 :: stride]


def totals_of(targets: Targets) -> terms.Totals:
    """SgMg's totals of a whole batch; `frames` are those that show the object."""
    return terms.Totals(
        frames=jnp.maximum(targets.present.sum(where=targets.asked[:, None]), 1),
        sentences=jnp.maximum(targets.asked.sum(), 1),
        size=targets.size.max(axis=0),
    )


def matching_cost(proposals: Proposals, targets: Targets, totals: terms.Totals | None = None) -> Float[Array, 'D N Q']:
    """Cost of matching each query to the object (SgMg, section 3.5), with masks before refinement.

    totals: the whole batch's, if the targets are a part of it.

    The class is compared on frames that show the object, boxes on all frames (an absent object's box is all zeros),
    masks on the counted pixels of all frames together.
    """
    class_costs = class_cost(jax.nn.sigmoid(proposals.scores), targets.present)
    box_targets = targets.boxes[:, :, None]
    box_cost = terms.l1(proposals.boxes, box_targets).mean(2)
    giou = box_ops.generalised_iou(box_ops.to_corners(proposals.boxes), box_ops.to_corners(box_targets)).mean(2)

    logits = jnp.swapaxes(dynamic_conv.pixel_shuffle(proposals.mask_logits), 2, 3)  # D N Q T h w
    logits = logits.astype(jnp.float32)
    rows = logits.shape[-2]
    counted = at_resolution(terms.counted_pixels(targets, totals or totals_of(targets)), rows)
    masks = at_resolution(targets.masks, rows)[:, None]
    mask_cost = terms.mean_focal(logits, masks, counted)
    # Minus the Dice coefficient, without the loss's 1.
    dice_cost = terms.dice(logits, masks, counted) - 1
    return (
        WEIGHTS['class'] * class_costs
        + WEIGHTS['box'] * box_cost
        - WEIGHTS['giou'] * giou
        + WEIGHTS['mask'] * mask_cost
        + WEIGHTS['dice'] * dice_cost
    )


def class_cost(probability: Float[ArrayLike, 'D N T Q'], seen: Bool[ArrayLike, 'N T']) -> Float[Array, 'D N Q']:
    """Focal cost of classifying a query as the object: a mean over the frames that show it, 0 if none does."""
    positive = terms.ALPHA * (1 - probability) ** 2 * -jnp.log(probability + 1e-8)
    negative = (1 - terms.ALPHA) * probability**2 * -jnp.log(1 - probability + 1e-8)
    weights = seen.astype(jnp.float32)
    return jnp.einsum('dntq,nt->dnq', positive - negative, weights) / jnp.maximum(weights.sum(1), 1)[:, None]


def match(proposals: Proposals, targets: Targets, totals: terms.Totals | None = None) -> Int[Array, 'D N']:
    """The cheapest query of every layer; the first on ties. No gradient. Arguments: see matching_cost."""
    return jnp.argmin(jax.lax.stop_gradient(matching_cost(proposals, targets, totals)), axis=-1)


def assign(cost: Float[ArrayLike, 'D N Q M'], real: Bool[ArrayLike, 'N M']) -> Int[Array, 'D N M']:
    """The query of each object, such that a clip's total cost is minimal (the Hungarian algorithm); the first on ties
    if M is 1.

    real: False for objects that are padding along M.

    Raises:
      ValueError: if there are more objects than queries.
    """
    queries, objects = cost.shape[2:]
    if objects > queries:
        raise ValueError(f'{objects} objects cannot be matched with {queries} queries; raise config.model.queries.')
    if objects == 1:
        return jnp.argmin(cost, axis=2)

    def assign_batch(cost, real):  # N D Q M, N M
        # A cost that is the same for every query does not affect the assignment of the others.
        cost = jnp.where(real[:, None, None], cost, 0)
        queries, objects = jax.vmap(jax.vmap(optax.assignment.hungarian_algorithm))(cost)
        return jnp.take_along_axis(queries, jnp.argsort(objects, axis=-1), axis=-1)

    # Per device: otherwise all devices would have to agree on the number of iterations of its loop.
    return jnp.moveaxis(batch_local(assign_batch)(jnp.moveaxis(jnp.asarray(cost), 1, 0), real), 0, 1)
