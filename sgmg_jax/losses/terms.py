"""One function a term. Axis letters: T frames, H W pixels; `...` are sentences, layers or queries."""
from flax import struct
import jax
import jax.numpy as jnp

from sgmg_jax.types import ArrayLike

ALPHA = 0.25
# What is taken together: frames and pixels of a clip, or the pixels of a frame.
CLIP = (-3, -2, -1)
FRAME = (-2, -1)


@struct.dataclass
class Totals:
    """What a loss needs to know of the whole batch. Where a batch goes through the model in parts, each part is given
    those of the whole; losses and gradients of the parts then sum to those of the batch.

    frames: what sums over sentences and frames are divided by, at least 1.
    sentences: how many are asked, at least 1.
    size: height and width of the largest clip [2]; None where the loss does not depend on it.
    """
    frames: ArrayLike
    sentences: ArrayLike
    size: ArrayLike | None = None


def focal(logits, targets, alpha=ALPHA):
    """Focal loss, gamma 2 (Lin et al., 2017), element by element, of logits against targets in {0, 1}."""
    targets = targets.astype(logits.dtype)
    probability = jax.nn.sigmoid(logits)
    miss = probability + targets - 2 * probability * targets  # 1 - p of the true class
    cross_entropy = jax.nn.softplus(logits) - logits * targets
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return weight * cross_entropy * miss ** 2


def counted_pixels(targets, totals):
    """[H W] bool: the pixels of types.Targets that the mask losses of SgMg count; totals: Totals of their batch.

    The release pads a batch to its largest clip, in multiples of 32, and counts this padding as background. What our
    static shape adds beyond it would only dilute the means over pixels, and does not count.
    """
    return inside(-(-totals.size // 32) * 32, targets.masks.shape[-2:])


def inside(size, shape):
    """Heights and widths [... 2] -> [... H W] bool, the pixels within them; shape is (H, W)."""
    rows, columns = (jnp.arange(n) for n in shape)
    return (rows[:, None] < size[..., :1, None]) & (columns < size[..., 1:, None])


def mean_focal(logits, masks, counted, together=CLIP):
    """Mean focal loss of a clip, or a frame, over its counted pixels: logits, masks [... T H W] -> [...], or [... T];
    counted [H W], or of each frame, broadcast."""
    frames = logits.shape[-3] if together == CLIP else 1
    return (focal(logits, masks) * counted).sum(together) / (frames * counted.sum(FRAME))


def dice(logits, masks, counted, together=CLIP):
    """1 - soft Dice coefficient of a clip, or a frame, on its counted pixels; shapes as of mean_focal."""
    probability, masks = jax.nn.sigmoid(logits) * counted, masks.astype(logits.dtype)
    overlap = 2 * (probability * masks).sum(together) + 1
    return 1 - overlap / (probability.sum(together) + masks.sum(together) + 1)


def l1(boxes, targets):
    """[... 4] -> [...]."""
    return jnp.abs(boxes - targets).sum(-1)


def weighted(named, weights):
    """Terms of every layer, name -> [D] -> their weighted sum, {'loss_<term>': of the last layer, 'loss_<term>_<i>':
    of layer i}."""
    logged = {f'loss_{name}': values[-1] for name, values in named.items()}
    logged.update({f'loss_{name}_{i}': value for name, values in named.items()
                   for i, value in enumerate(values[:-1])})
    return sum(weights[name] * values.sum() for name, values in named.items()), logged
