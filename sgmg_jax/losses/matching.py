"""Which query is the referred object: one target a sentence, so the cheapest query of each layer.

Axis letters: D decoder layers, N sentences, T frames, Q queries, H W pixels.
"""
import jax
import jax.numpy as jnp

from sgmg_jax.losses import terms
from sgmg_jax.ops import boxes as box_ops
from sgmg_jax.ops import dynamic_conv

WEIGHTS = {'class': 2.0, 'box': 5.0, 'giou': 2.0, 'mask': 2.0, 'dice': 5.0}


def half_resolution(masks):
    """[... H W] -> [... H/2 W/2]: every second pixel, from the second on."""
    return masks[..., 1::2, 1::2]


def matching_cost(proposals, targets):
    """types.Proposals, types.Targets -> [D N Q] (SgMg, section 3.5; masks before refinement).

    The class is compared on frames where the object is present, the boxes on all frames (an absent
    object's is all zeros), the masks on all frames and counted pixels together.
    """
    probability = jax.nn.sigmoid(proposals.scores)
    positive = terms.ALPHA * (1 - probability) ** 2 * -jnp.log(probability + 1e-8)
    negative = (1 - terms.ALPHA) * probability ** 2 * -jnp.log(1 - probability + 1e-8)
    present = targets.present.astype(jnp.float32)
    count = jnp.maximum(present.sum(1), 1)[:, None]  # a clip without the object has class cost 0
    class_cost = jnp.einsum('dntq,nt->dnq', positive - negative, present) / count

    box_targets = targets.boxes[:, :, None]
    box_cost = terms.l1(proposals.boxes, box_targets).mean(2)
    giou = box_ops.generalised_iou(box_ops.to_corners(proposals.boxes), box_ops.to_corners(box_targets)).mean(2)

    logits = jnp.swapaxes(dynamic_conv.pixel_shuffle(proposals.patch_masks), 2, 3)  # D N Q T H/2 W/2
    logits = logits.astype(jnp.float32)
    masks, counted = half_resolution(targets.masks)[:, None], half_resolution(terms.counted_pixels(targets))
    mask_cost = terms.mean_focal(logits, masks, counted)
    # Only the Dice coefficient itself, without the loss's 1.
    dice_cost = terms.dice(logits, masks, counted) - 1
    return (WEIGHTS['class'] * class_cost + WEIGHTS['box'] * box_cost - WEIGHTS['giou'] * giou
            + WEIGHTS['mask'] * mask_cost + WEIGHTS['dice'] * dice_cost)


def match(proposals, targets):
    """The cheapest query of every layer [D N]; the first on ties. No gradient."""
    return jnp.argmin(jax.lax.stop_gradient(matching_cost(proposals, targets)), axis=-1)
