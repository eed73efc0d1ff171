"""SOC's matching and training loss (SOC, section 3.5): every decoder layer is supervised.

A clip may have several trajectories, one of which the sentence refers to; each has a class. Records hold only the
referred object, as the release's data sets do.

Axis letters: D decoder layers, N sentences, T frames, Q queries, M trajectories of a sentence's clip, H W pixels of the
padded frames, h w of mask logits, K classes.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sgmg_jax.losses import matching, terms
from sgmg_jax.ops import boxes as box_ops
from sgmg_jax.ops import resize
from sgmg_jax.types import ArrayLike, Predictions, Proposals, Targets, pytree

COST = {'class': 2.0, 'box': 2.0, 'giou': 2.0, 'dice': 5.0}
# The released code's; the paper gives 5 for the masks' focal term and 2 for dice.
WEIGHTS = {'released': {'class': 2.0, 'box': 2.0, 'giou': 2.0, 'mask': 2.0, 'dice': 5.0, 'contrast': 1.0}}
WEIGHTS['paper'] = WEIGHTS['released'] | {'mask': 5.0, 'dice': 2.0}


@pytree
class Trajectories:
    """The objects of each sentence's clip.

    real: False for objects that are padding along M.
    referred: index of the object that the sentence refers to.
    visible: frames that show the referred object.
    label: its class.
    counted: pixels that the mask terms count.
    """

    masks: Bool[ArrayLike, 'N M T H W']
    boxes: Float[ArrayLike, 'N M T 4']
    real: Bool[ArrayLike, 'N M']
    referred: Int[ArrayLike, ' N']
    visible: Bool[ArrayLike, 'N T']
    label: Int[ArrayLike, ' N']
    counted: Bool[ArrayLike, 'N H W']


def of_targets(targets: Targets) -> Trajectories:
    """The trajectories of the referred objects.

    Each clip's own pixels count. The release also counts the padding of a batch, but trains on videos with one clip
    per device.
    """
    first = jnp.zeros(len(targets.asked), jnp.int32)
    return Trajectories(
        targets.masks[:, None],
        targets.boxes[:, None],
        targets.asked[:, None],
        first,
        targets.present,
        first,
        terms.inside(targets.size, targets.masks.shape[-2:]),
    )


def totals_of(targets: Targets) -> terms.Totals:
    """SOC's totals of a whole batch; `frames` are all frames of the real sentences."""
    return _totals(of_targets(targets))


def _totals(trajectories):
    real, frames = trajectories.real, trajectories.boxes.shape[2]
    return terms.Totals(frames=jnp.maximum(real.sum() * frames, 1), sentences=jnp.maximum(real.any(-1).sum(), 1))


def costs(
    scores: Float[ArrayLike, 'D N T Q K'],
    boxes: Float[ArrayLike, 'D N T Q 4'],
    masks: Float[ArrayLike, 'D N T Q h w'],
    trajectories: Trajectories,
) -> dict[str, Float[Array, 'D N Q _M']]:
    """Unweighted terms of the cost of matching a query to a trajectory; the class has M = 1.

    Scores and masks are logits. Terms are means over all frames, with a box of zeros where the object is absent; only
    the class is a mean over the frames that show the referred object, and 0 if none does (the released code fails).
    """
    probability = jax.nn.sigmoid(take_class(scores, trajectories.label))
    # With one frame and one class, that frame is compared whether or not it shows the object.
    seen = trajectories.visible | (scores.shape[2] * scores.shape[4] == 1)
    boxes, masks = jnp.swapaxes(boxes, 2, 3)[:, :, :, None], jnp.swapaxes(masks, 2, 3)  # D N Q 1 T 4, D N Q T h w
    targets = trajectories.boxes[:, None]
    size = trajectories.masks.shape[-2:]

    def dice(masks):
        """[N Q T h w] -> [N Q M]"""
        logits = resize.bilinear(masks[..., None].astype(jnp.float32), size)[..., 0]
        return 1 - terms.dice(
            logits[:, :, None], trajectories.masks[:, None], trajectories.counted[:, None, None, None], terms.FRAME
        ).mean(-1)

    return {
        'class': matching.class_cost(probability, seen)[..., None],
        'box': terms.l1(boxes, targets).mean(-1),
        'giou': -box_ops.generalised_iou(box_ops.to_corners(boxes), box_ops.to_corners(targets)).mean(-1),
        'dice': -jax.lax.map(dice, masks),
    }  # layer by layer: all queries at full resolution need much memory


def match_trajectories(
    scores: Float[ArrayLike, 'D N T Q K'],
    boxes: Float[ArrayLike, 'D N T Q 4'],
    masks: Float[ArrayLike, 'D N T Q h w'],
    trajectories: Trajectories,
) -> tuple[Int[Array, 'D N M'], Float[Array, 'D N Q M']]:
    """The query of each trajectory, such that a clip's total cost is minimal; and the cost of all pairs.

    Raises:
      ValueError: if there are more trajectories than queries.
    """
    cost = jax.lax.stop_gradient(
        sum((COST[name] * x for name, x in costs(scores, boxes, masks, trajectories).items()), start=jnp.zeros(()))
    )
    return matching.assign(cost, trajectories.real), cost


def match(proposals: Proposals, targets: Targets, totals: terms.Totals | None = None) -> Int[Array, 'D N']:
    """The query of each sentence's object. `totals` is ignored: a clip's cost depends on its own pixels only."""
    query, _ = match_trajectories(
        proposals.scores[..., None], proposals.boxes, proposals.mask_logits[..., 0], of_targets(targets)
    )
    return query[..., 0]


def loss_terms(
    scores: Float[ArrayLike, 'D N T Q K'],
    boxes: Float[ArrayLike, 'D N T Q 4'],
    masks: Float[ArrayLike, 'D N T Q h w'],
    alignment: Float[ArrayLike, 'D N Q'],
    query: Int[ArrayLike, 'D N M'],
    trajectories: Trajectories,
    *,
    totals: terms.Totals | None = None,
) -> dict[str, Float[Array, ' D']]:
    """Every term of every layer, unweighted.

    Args:
      scores, boxes, masks: as in `costs`.
      alignment: similarity of video queries and guidance.
      query: of each trajectory.
      trajectories: the targets.
      totals: the whole batch's, if the trajectories are a part of it.

    Sums are divided by the batch's number of target masks, empty ones included; the contrastive term is a mean over
    its sentences. Mask terms are computed frame by frame (the paper's dice is "across frames").
    """
    totals, asked = totals or _totals(trajectories), jnp.any(trajectories.real, axis=-1)

    def of_matches(x):
        """[D N T Q ...] -> [D N M T ...]"""
        index = query.reshape(*query.shape, *[1] * (x.ndim - 3))
        return jnp.take_along_axis(jnp.swapaxes(x, 2, 3), index, axis=2)

    def total(x):
        """Sums [D N M T] over real trajectories."""
        return jnp.where(trajectories.real[..., None], x, 0).sum((1, 2, 3)) / totals.frames

    referred = jnp.take_along_axis(query, trajectories.referred[None, :, None], axis=2)  # D N 1
    chosen = jnp.equal(jnp.arange(scores.shape[3]), referred)  # D N Q
    positive = (
        chosen[:, :, None, :, None]
        & trajectories.visible[:, :, None, None]
        & (jnp.arange(scores.shape[4]) == trajectories.label[:, None, None, None])
    )
    of_class = jnp.where(asked[:, None, None, None], terms.focal(scores, positive), 0)
    of_contrast = -(jax.nn.log_softmax(alignment) * chosen).sum(-1)
    boxes, targets = of_matches(boxes), trajectories.boxes
    logits = resize.bilinear(of_matches(masks)[..., None].astype(jnp.float32), trajectories.masks.shape[-2:])[..., 0]
    counted = trajectories.counted[:, None, None]
    return {
        'class': of_class.sum((1, 2, 3, 4)) / totals.frames,
        'box': total(terms.l1(boxes, targets)),
        'giou': total(1 - box_ops.generalised_iou(box_ops.to_corners(boxes), box_ops.to_corners(targets))),
        'mask': total(terms.mean_focal(logits, trajectories.masks, counted, terms.FRAME)),
        'dice': total(terms.dice(logits, trajectories.masks, counted, terms.FRAME)),
        'contrast': jnp.where(asked, of_contrast, 0).sum(1) / totals.sentences,
    }


def loss(
    model_outputs: tuple[Proposals, Int[ArrayLike, 'D N'], Predictions | None],
    targets: Targets,
    weights: str = 'released',
    contrast: bool = True,
    totals: terms.Totals | None = None,
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
    """The total loss of SOC's outputs and its terms for the log, as terms.weighted returns them.

    weights, contrast: of config.loss: a key of WEIGHTS; whether there is a contrastive term. totals: as in loss_terms.

    Raises:
      ValueError: for other weights.
    """
    if weights not in WEIGHTS:
        raise ValueError(f'config.loss.weights = {weights!r}: must be one of {", ".join(WEIGHTS)}.')
    proposals, query, _ = model_outputs
    assert proposals.alignment is not None  # as SOC returns it
    named = loss_terms(
        proposals.scores[..., None],
        proposals.boxes,
        proposals.mask_logits[..., 0],
        proposals.alignment,
        query[..., None],
        of_targets(targets),
        totals=totals,
    )
    if not contrast:
        del named['contrast']
    return terms.weighted(named, WEIGHTS[weights])


def take_class(scores: Float[ArrayLike, 'D N T Q K'], label: Int[ArrayLike, ' N']) -> Float[Array, 'D N T Q']:
    """The logits of each sentence's class."""
    return jnp.take_along_axis(scores, label[None, :, None, None, None], axis=-1)[..., 0]
