"""SgMg's training loss: every decoder layer is supervised, masks before and after refinement.

Axis letters: D decoder layers, N sentences, T frames, Q queries, h w masks before refinement, of half resolution in the
released model.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sgmg_jax.losses import matching, terms
from sgmg_jax.ops import boxes as box_ops
from sgmg_jax.ops import dynamic_conv, queries
from sgmg_jax.types import ArrayLike, Predictions, Proposals, Targets

WEIGHTS = matching.WEIGHTS | {'mask_low': 2.0, 'dice_low': 5.0}
MASKS = 'mask', 'dice', 'mask_low', 'dice_low'


def loss_terms(
    proposals: Proposals,
    query: Int[ArrayLike, 'D N'],
    predictions: Predictions,
    low_masks: Float[ArrayLike, 'D N T h w'],
    targets: Targets,
    totals: terms.Totals | None = None,
) -> dict[str, Float[Array, ' D']]:
    """Every term of every layer, unweighted (SgMg, section 3.5).

    Args:
      proposals: of all queries; only their scores are used here.
      query: the matched query of each layer.
      predictions: of the matched queries [D N T ...]; without masks, no mask is supervised after refinement.
      low_masks: their mask logits before refinement.
      targets: one object per sentence.
      totals: the whole batch's, if the targets are a part of it.

    Terms are summed over the real sentences and divided by the number of the batch's frames that show the object.
    Mask terms are first averaged over a clip's frames and counted pixels, so they weigh a factor T less than the
    others, as in the released code.
    """
    totals = totals or matching.totals_of(targets)
    indices = jnp.arange(proposals.scores.shape[-1])
    positive = (indices == query[:, :, None, None]) & targets.present[:, :, None]

    def total(x):
        asked = targets.asked.reshape(-1, *[1] * (x.ndim - 2))
        return jnp.where(asked, x, 0).sum(tuple(range(1, x.ndim))) / totals.frames

    corners = box_ops.to_corners(predictions.boxes), box_ops.to_corners(targets.boxes)
    low_targets = matching.at_resolution(targets.masks, low_masks.shape[-2])
    low_masks = low_masks.astype(jnp.float32)
    counted = terms.counted_pixels(targets, totals)
    low_counted = matching.at_resolution(counted, low_masks.shape[-2])
    named = {
        'class': total(terms.focal(proposals.scores, positive)),
        'box': total(terms.l1(predictions.boxes, targets.boxes)),
        'giou': total(1 - box_ops.generalised_iou(*corners)),
    }
    if predictions.masks is not None:
        named['mask'] = total(terms.mean_focal(predictions.masks, targets.masks, counted))
        named['dice'] = total(terms.dice(predictions.masks, targets.masks, counted))
    named['mask_low'] = total(terms.mean_focal(low_masks, low_targets, low_counted))
    named['dice_low'] = total(terms.dice(low_masks, low_targets, low_counted))
    return named


def loss(
    model_outputs: tuple[Proposals, Int[ArrayLike, 'D N'], Predictions],
    targets: Targets,
    mask_scale: float | int = 1.0,
    class_scale: float | int = 1.0,
    totals: terms.Totals | None = None,
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
    """The total loss of SgMg's outputs and its terms for the log, as terms.weighted returns them.

    mask_scale: config.loss.mask_scale, times the released weights of the mask terms: T undoes what `loss_terms` says of
      them. class_scale: config.loss.class_scale, times that of the class term. totals: as in loss_terms.
    """
    proposals, query, predictions = model_outputs
    low = dynamic_conv.pixel_shuffle(queries.take_query(proposals.mask_logits, query))
    scales = dict.fromkeys(MASKS, mask_scale) | {'class': class_scale}
    weights = {name: weight * scales.get(name, 1) for name, weight in WEIGHTS.items()}
    return terms.weighted(loss_terms(proposals, query, predictions, low, targets, totals), weights)
