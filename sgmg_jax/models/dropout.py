"""Dropout with half the random bits."""

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from sgmg_jax.types import ArrayLike


class Dropout(nn.Module):
    """As `flax.linen.Dropout`, with 16 random bits per element instead of 32.

    On a CPU the random bits of the transformer's feed-forward layers cost as much as their matrix products.
    The rate is exact to 1e-5. Needs the random stream 'dropout' in training.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[ArrayLike, '*batch C'], train: bool) -> Float[ArrayLike, '*batch C']:
        if not train or self.rate == 0:
            return x
        keep = 1 - self.rate
        *lead, channels = x.shape
        words = jax.random.bits(self.make_rng('dropout'), (*lead, -(-channels // 2)), jnp.uint32)
        bits = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(*lead, -1)[..., :channels]
        return jnp.where(bits < round(keep * 2**16), x / keep, 0)
