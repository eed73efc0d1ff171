"""One function a term. Axis letters: T frames, H W pixels; `...` are sentences, layers or queries."""
import jax
import jax.numpy as jnp

ALPHA = 0.25
CLIP = (-3, -2, -1)  # frames and pixels of a clip, taken together


def focal(logits, targets, alpha=ALPHA):
    """Focal loss, gamma 2 (Lin et al., 2017), element by element, of logits against targets in {0, 1}."""
    targets = targets.astype(logits.dtype)
    probability = jax.nn.sigmoid(logits)
    miss = probability + targets - 2 * probability * targets  # 1 - p of the true class
    cross_entropy = jax.nn.softplus(logits) - logits * targets
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return weight * cross_entropy * miss ** 2


def counted_pixels(targets):
    """[H W] bool: the pixels of a batch of types.Targets that the mask losses count.

    The release pads a batch to its largest clip, in multiples of 32, and counts this padding as background. What our
    static shape adds beyond it would only dilute the means over pixels, and does not count.
    """
    height, width = -(-targets.size.max(axis=0) // 32) * 32
    rows, columns = (jnp.arange(n) for n in targets.masks.shape[-2:])
    return (rows[:, None] < height) & (columns < width)


def mean_focal(logits, masks, counted):
    """Mean focal loss of a clip over frames and counted pixels [H W]: logits, masks [... T H W] -> [...]."""
    return (focal(logits, masks) * counted).sum(CLIP) / (logits.shape[-3] * counted.sum())


def dice(logits, masks, counted):
    """1 - soft Dice coefficient of a clip on the counted pixels [H W]: logits, masks [... T H W] -> [...]."""
    probability, masks = jax.nn.sigmoid(logits) * counted, masks.astype(logits.dtype)
    overlap = 2 * (probability * masks).sum(CLIP) + 1
    return 1 - overlap / (probability.sum(CLIP) + masks.sum(CLIP) + 1)


def l1(boxes, targets):
    """[... 4] -> [...]."""
    return jnp.abs(boxes - targets).sum(-1)
