"""SOC's matching and training loss (SOC, section 3.5): every decoder layer is supervised.

A clip may have several trajectories, of which the sentence refers to one, and each a class. Records tell of the
referred object alone, as the release's data sets do.

Axis letters: D decoder layers, N sentences, T frames, Q queries, M trajectories of a sentence's clip, H W pixels of the
padded frames, h w of mask logits, K classes.
"""
from typing import Literal

from flax import struct
import jax
import jax.numpy as jnp

from sgmg_jax.losses import matching, terms
from sgmg_jax.ops import boxes as box_ops
from sgmg_jax.ops import resize
from sgmg_jax.types import ArrayLike

COST = {'class': 2.0, 'box': 2.0, 'giou': 2.0, 'dice': 5.0}
# What the released code has; the paper says 5 for the focal term of the masks, 2 for dice.
WEIGHTS = {'released': {'class': 2.0, 'box': 2.0, 'giou': 2.0, 'mask': 2.0, 'dice': 5.0, 'contrast': 1.0}}
WEIGHTS['paper'] = WEIGHTS['released'] | {'mask': 5.0, 'dice': 2.0}


@struct.dataclass
class Trajectories:
    """masks [N M T H W] bool and boxes [N M T 4] of the objects of a clip; real [N M], False where a clip has fewer;
    referred [N], the one that the sentence means, visible [N T] in these frames, of class label [N]; counted
    [N H W], pixels that the mask terms count."""
    masks: ArrayLike
    boxes: ArrayLike
    real: ArrayLike
    referred: ArrayLike
    visible: ArrayLike
    label: ArrayLike
    counted: ArrayLike


def of_targets(targets):
    """types.Targets as Trajectories: of the referred objects alone.

    Each clip's own pixels count: the release counts what pads a batch, too, but trains videos with one clip a device.
    """
    none = jnp.zeros(len(targets.asked), jnp.int32)
    return Trajectories(targets.masks[:, None], targets.boxes[:, None], targets.asked[:, None], none, targets.present,
                        none, terms.inside(targets.size, targets.masks.shape[-2:]))


def totals_of(targets):
    """types.Targets of a whole batch -> the terms.Totals of SOC: frames are all those of the sentences asked."""
    return _totals(of_targets(targets))


def _totals(trajectories):
    real, frames = trajectories.real, trajectories.boxes.shape[2]
    return terms.Totals(frames=jnp.maximum(real.sum() * frames, 1), sentences=jnp.maximum(real.any(-1).sum(), 1))


def costs(scores, boxes, masks, trajectories):
    """What it costs to take a query for a trajectory: the terms, unweighted, name -> [D N Q M] (class: M = 1).

    Args:
      scores: class logits [D N T Q K]; boxes [D N T Q 4]; masks: logits [D N T Q h w].
      trajectories: Trajectories.

    Terms are means over frames, those where the object is away included (its box is all zeros); but the class is
    compared where the referred one is visible. Where it never is, the class costs nothing (the released code fails).
    """
    probability = jax.nn.sigmoid(take_class(scores, trajectories.label))
    # One frame of one class is compared, whether or not the object is in it.
    seen = trajectories.visible | (scores.shape[2] * scores.shape[4] == 1)
    boxes, masks = jnp.swapaxes(boxes, 2, 3)[:, :, :, None], jnp.swapaxes(masks, 2, 3)  # D N Q 1 T 4, D N Q T h w
    targets = trajectories.boxes[:, None]
    size = trajectories.masks.shape[-2:]

    def dice(masks):
        """[N Q T h w] -> [N Q M]"""
        logits = resize.bilinear(masks[..., None].astype(jnp.float32), size)[..., 0]
        return 1 - terms.dice(logits[:, :, None], trajectories.masks[:, None],
                              trajectories.counted[:, None, None, None], terms.FRAME).mean(-1)

    return {'class': matching.class_cost(probability, seen)[..., None],
            'box': terms.l1(boxes, targets).mean(-1),
            'giou': -box_ops.generalised_iou(box_ops.to_corners(boxes), box_ops.to_corners(targets)).mean(-1),
            'dice': -jax.lax.map(dice, masks)}  # a layer after the other: all queries at full resolution are large


def match_trajectories(scores, boxes, masks, trajectories):
    """The queries that all trajectories of a clip have together at the least cost: [D N M], and the cost [D N Q M].

    Raises:
      ValueError: if there are more trajectories than queries.
    """
    cost = jax.lax.stop_gradient(sum(COST[name] * x for name, x in costs(scores, boxes, masks, trajectories).items()))
    return matching.assign(cost, trajectories.real), cost


def match(proposals, targets, totals=None):
    """types.Proposals, types.Targets -> the query of each sentence's object [D N]. `totals` makes no difference, as
    each clip's own pixels count."""
    query, _ = match_trajectories(proposals.scores[..., None], proposals.boxes, proposals.patch_masks[..., 0],
                                  of_targets(targets))
    return query[..., 0]


def loss_terms(scores, boxes, masks, alignment, query, trajectories, totals=None):
    """Every term of every layer, unweighted: name -> [D].

    Args:
      scores, boxes, masks: as of `costs`.
      alignment: of video queries and guidance [D N Q].
      query: of each trajectory [D N M].
      totals: terms.Totals of the batch that the trajectories are a part of; None where they are the whole of it.

    Sums divided by the batch's number of target masks, empty ones included; the contrastive term is a mean over its
    sentences. A mask's terms are of a frame by itself (the paper's dice is "across frames").
    """
    totals, asked = totals or _totals(trajectories), trajectories.real.any(-1)

    def of_queries(x):
        """[D N T Q ...] -> [D N M T ...]"""
        index = query.reshape(*query.shape, *[1] * (x.ndim - 3))
        return jnp.take_along_axis(jnp.swapaxes(x, 2, 3), index, axis=2)

    def total(x):
        """Over [D N M T], of real trajectories."""
        return jnp.where(trajectories.real[..., None], x, 0).sum((1, 2, 3)) / totals.frames

    referred = jnp.take_along_axis(query, trajectories.referred[None, :, None], axis=2)  # D N 1
    chosen = jnp.arange(scores.shape[3]) == referred  # D N Q
    positive = chosen[:, :, None, :, None] & trajectories.visible[:, :, None, None] & (
        jnp.arange(scores.shape[4]) == trajectories.label[:, None, None, None])
    of_class = jnp.where(asked[:, None, None, None], terms.focal(scores, positive), 0)
    of_contrast = -(jax.nn.log_softmax(alignment) * chosen).sum(-1)
    boxes, targets = of_queries(boxes), trajectories.boxes
    logits = resize.bilinear(of_queries(masks)[..., None].astype(jnp.float32), trajectories.masks.shape[-2:])[..., 0]
    counted = trajectories.counted[:, None, None]
    return {
        'class': of_class.sum((1, 2, 3, 4)) / totals.frames,
        'box': total(terms.l1(boxes, targets)),
        'giou': total(1 - box_ops.generalised_iou(box_ops.to_corners(boxes), box_ops.to_corners(targets))),
        'mask': total(terms.mean_focal(logits, trajectories.masks, counted, terms.FRAME)),
        'dice': total(terms.dice(logits, trajectories.masks, counted, terms.FRAME)),
        'contrast': jnp.where(asked, of_contrast, 0).sum(1) / totals.sentences,
    }


def loss(model_outputs, targets, weights: Literal['released', 'paper'] = 'released', totals=None):
    """What SOC returns, types.Targets -> what terms.weighted says. weights: of WEIGHTS, config.loss.weights; totals: as
    of loss_terms.

    Raises:
      ValueError: for other weights.
    """
    if weights not in WEIGHTS:
        raise ValueError(f'config.loss.weights = {weights!r}: there is only {", ".join(WEIGHTS)}.')
    proposals, query, _ = model_outputs
    named = loss_terms(proposals.scores[..., None], proposals.boxes, proposals.patch_masks[..., 0], proposals.alignment,
                       query[..., None], of_targets(targets), totals)
    return terms.weighted(named, WEIGHTS[weights])


def take_class(scores, label):
    """[D N T Q K], [N] -> [D N T Q]: the logits of each sentence's class."""
    return jnp.take_along_axis(scores, label[None, :, None, None, None], axis=-1)[..., 0]
