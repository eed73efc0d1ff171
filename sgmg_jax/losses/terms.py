"""One function per loss term. Axis letters: T frames, H W pixels; leading axes are sentences, layers or queries."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from sgmg_jax.types import ArrayLike, Targets, pytree

ALPHA = 0.25
# Axes that a term reduces over: frames and pixels of a clip, or the pixels of a frame.
CLIP = (-3, -2, -1)
FRAME = (-2, -1)


@pytree
class Totals:
    """What a loss needs to know about the whole batch. If a batch is processed in parts, every part gets the whole
    batch's totals, so that the parts' losses and gradients sum to the batch's.

    frames: divisor of sums over sentences and frames, at least 1.
    sentences: number of real sentences, at least 1.
    size: height and width of the largest clip; None if the loss does not depend on it.
    """

    frames: Int[ArrayLike, '']
    sentences: Int[ArrayLike, '']
    size: Int[ArrayLike, '2'] | None = None


def focal(
    logits: Float[ArrayLike, '*#batch'], targets: Shaped[ArrayLike, '*#batch'], alpha: float = ALPHA
) -> Float[Array, '...']:
    """Elementwise focal loss with gamma 2 (Lin et al., 2017); targets are 0 or 1."""
    targets = jnp.asarray(targets, logits.dtype)
    probability = jax.nn.sigmoid(logits)
    miss = probability + targets - 2 * probability * targets  # 1 - p of the true class
    cross_entropy = jax.nn.softplus(logits) - logits * targets
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return weight * cross_entropy * miss**2


def counted_pixels(targets: Targets, totals: Totals) -> Bool[Array, 'H W']:
    """The pixels that SgMg's mask losses count; `totals` are the whole batch's.

    The release pads a batch to its largest clip, in multiples of 32, and counts this padding as background. Our
    fixed shape adds more padding, which would only dilute the means over pixels; it is ignored.
    """
    assert totals.size is not None  # as matching.totals_of gives it
    return inside(-(-totals.size // 32) * 32, targets.masks.shape[-2:])


def inside(size: Int[ArrayLike, '*batch 2'], shape: tuple[int, ...]) -> Bool[Array, '*batch H W']:
    """Which pixels of a padded shape (H, W) lie within each height and width."""
    rows, columns = (jnp.arange(n) for n in shape)
    return (rows[:, None] < size[..., :1, None]) & (columns < size[..., 1:, None])


def mean_focal(
    logits: Float[ArrayLike, '*#batch T H W'],
    masks: Bool[ArrayLike, '*#batch T H W'],
    counted: Bool[ArrayLike, '... H W'],
    axes: tuple[int, ...] = CLIP,
) -> Float[Array, '...']:
    """Mean focal loss over the counted pixels of each CLIP, or of each FRAME."""
    frames = logits.shape[-3] if axes == CLIP else 1
    return (focal(logits, masks) * counted).sum(axes) / (frames * counted.sum(FRAME))


def dice(
    logits: Float[ArrayLike, '*#batch T H W'],
    masks: Bool[ArrayLike, '*#batch T H W'],
    counted: Bool[ArrayLike, '... H W'],
    axes: tuple[int, ...] = CLIP,
) -> Float[Array, '...']:
    """1 - soft Dice coefficient over the counted pixels of each CLIP, or of each FRAME."""
    probability = jax.nn.sigmoid(logits) * counted
    targets = masks.astype(logits.dtype)
    overlap = 2 * (probability * targets).sum(axes) + 1
    return 1 - overlap / (probability.sum(axes) + targets.sum(axes) + 1)


def l1(boxes: Float[ArrayLike, '*#batch 4'], targets: Float[ArrayLike, '*#batch 4']) -> Float[Array, '...']:
    """Sum of absolute differences; leading axes broadcast."""
    return jnp.abs(boxes - targets).sum(-1)


def weighted(
    named: Mapping[str, Float[Array, ' D']], weights: Mapping[str, float]
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
    """The weighted sum of all terms of all layers; for the log, the terms unweighted: 'loss_<term>' of the last layer,
    'loss_<term>_<i>' of layer i."""
    logged = {f'loss_{name}': values[-1] for name, values in named.items()}
    logged.update({f'loss_{name}_{i}': value for name, values in named.items() for i, value in enumerate(values[:-1])})
    return sum((weights[name] * values.sum() for name, values in named.items()), start=jnp.zeros(())), logged
