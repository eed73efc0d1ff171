"""One function a term. Axis letters: T frames, H W pixels; `...` are clips, layers or queries."""
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


def dice(logits, masks):
    """1 - soft Dice coefficient of a clip: logits, masks [... T H W] -> [...]."""
    probability, masks = jax.nn.sigmoid(logits), masks.astype(logits.dtype)
    overlap = 2 * (probability * masks).sum(CLIP) + 1
    return 1 - overlap / (probability.sum(CLIP) + masks.sum(CLIP) + 1)


def l1(boxes, targets):
    """[... 4] -> [...]."""
    return jnp.abs(boxes - targets).sum(-1)
