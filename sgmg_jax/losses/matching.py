"""Which query is the referred object: of one target a sentence, the cheapest query of each layer.

Axis letters: D decoder layers, N sentences, T frames, Q queries, H W pixels.
"""
import jax
import jax.numpy as jnp
import optax

from sgmg_jax.losses import terms
from sgmg_jax.ops import boxes as box_ops
from sgmg_jax.ops import dynamic_conv
from sgmg_jax.sharding import batch_local

WEIGHTS = {'class': 2.0, 'box': 5.0, 'giou': 2.0, 'mask': 2.0, 'dice': 5.0}


def half_resolution(masks):
    """[... H W] -> [... H/2 W/2]: every second pixel, from the second on."""
    return masks[..., 1::2, 1::2]


def totals_of(targets):
    """types.Targets of a whole batch -> the terms.Totals of SgMg: frames are those that show the object."""
    return terms.Totals(frames=jnp.maximum(targets.present.sum(where=targets.asked[:, None]), 1),
                        sentences=jnp.maximum(targets.asked.sum(), 1), size=targets.size.max(axis=0))


def matching_cost(proposals, targets, totals=None):
    """types.Proposals, types.Targets -> [D N Q] (SgMg, section 3.5; masks before refinement).

    totals: terms.Totals of the batch that the targets are a part of; None where they are the whole of it.

    The class is compared on frames where the object is present, the boxes on all frames (an absent
    object's is all zeros), the masks on all frames and counted pixels together.
    """
    class_costs = class_cost(jax.nn.sigmoid(proposals.scores), targets.present)
    box_targets = targets.boxes[:, :, None]
    box_cost = terms.l1(proposals.boxes, box_targets).mean(2)
    giou = box_ops.generalised_iou(box_ops.to_corners(proposals.boxes), box_ops.to_corners(box_targets)).mean(2)

    logits = jnp.swapaxes(dynamic_conv.pixel_shuffle(proposals.patch_masks), 2, 3)  # D N Q T H/2 W/2
    logits = logits.astype(jnp.float32)
    counted = half_resolution(terms.counted_pixels(targets, totals or totals_of(targets)))
    masks = half_resolution(targets.masks)[:, None]
    mask_cost = terms.mean_focal(logits, masks, counted)
    # Only the Dice coefficient itself, without the loss's 1.
    dice_cost = terms.dice(logits, masks, counted) - 1
    return (WEIGHTS['class'] * class_costs + WEIGHTS['box'] * box_cost - WEIGHTS['giou'] * giou
            + WEIGHTS['mask'] * mask_cost + WEIGHTS['dice'] * dice_cost)


def class_cost(probability, seen):
    """Focal cost [D N Q] of taking a query for the object: probability [D N T Q], mean over the frames seen [N T].
    Of a clip without one it is 0."""
    positive = terms.ALPHA * (1 - probability) ** 2 * -jnp.log(probability + 1e-8)
    negative = (1 - terms.ALPHA) * probability ** 2 * -jnp.log(1 - probability + 1e-8)
    seen = seen.astype(jnp.float32)
    return jnp.einsum('dntq,nt->dnq', positive - negative, seen) / jnp.maximum(seen.sum(1), 1)[:, None]


def match(proposals, targets, totals=None):
    """The cheapest query of every layer [D N]; the first on ties. No gradient. Arguments: see matching_cost."""
    return jnp.argmin(jax.lax.stop_gradient(matching_cost(proposals, targets, totals)), axis=-1)


def assign(cost, real):
    """The queries that the objects of a sentence's clip have together at the least cost (the Hungarian algorithm).

    Args:
      cost: [D N Q M] of M objects.
      real: [N M], False for objects that only fill up the axis.

    Returns:
      the query of each object [D N M]; of a single one the first on ties.

    Raises:
      ValueError: if there are more objects than queries.
    """
    most, objects = cost.shape[2:]
    if objects > most:
        raise ValueError(f'{objects} objects cannot be matched with {most} queries; raise config.model.queries.')
    if objects == 1:
        return jnp.argmin(cost, axis=2)

    def of_sentences(cost, real):  # N D Q M, N M
        # What is the same for every query is of no account.
        cost = jnp.where(real[:, None, None], cost, 0)
        queries, objects = jax.vmap(jax.vmap(optax.assignment.hungarian_algorithm))(cost)
        return jnp.take_along_axis(queries, jnp.argsort(objects, axis=-1), axis=-1)

    # Per device: the number of turns of its loop would otherwise be agreed upon by all.
    return jnp.moveaxis(batch_local(of_sentences)(jnp.moveaxis(cost, 1, 0), real), 0, 1)
