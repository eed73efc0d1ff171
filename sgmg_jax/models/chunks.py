"""Applies positionwise layers to one chunk of positions at a time."""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgmg_jax import compilation
from sgmg_jax.types import ArrayLike

LARGEST = 2**21  # elements of a hidden layer that are held at once on a CPU
REMAT = 'nothing', 'hidden', 'blocks'


def check_remat(remat: str) -> str:
    """Returns `remat`, what the backward pass computes again instead of keeping it; each value includes the one before.

    nothing: what does not fit in a cache is still processed in parts.
    hidden: on a CPU, the hidden layers of feed-forward layers and the attention within windows.
    blocks: everything but the inputs of the blocks of backbone and transformer.

    Raises:
      ValueError: for any other value.
    """
    if remat not in REMAT:
        raise ValueError(f'remat = {remat!r}: must be one of {", ".join(map(repr, REMAT))}.')
    return remat


def by_chunks(
    layers: Callable[[Any, Array], Array],
    module: nn.Module,
    x: Float[ArrayLike, 'B *shape C'],
    hidden: int,
    remat: bool = True,
) -> Float[Array, 'B *shape _']:
    """layers(module, x), for layers that process each position [C] independently.

    On a CPU, if the hidden layer has more than LARGEST elements, the positions of every item are processed in chunks.
    On other devices, all positions are processed at once.

    Args:
      layers: function(module, x [B S C]) -> [B S C']; its parameters belong to `module`.
      module: the module that calls.
      x: one item per batch entry.
      hidden: channels of the widest layer.
      remat: the backward pass computes each chunk's hidden layer again: the feed-forward layers otherwise take most of
        a training step's memory.
    """
    batch, *shape, channels = x.shape
    x = jnp.asarray(x).reshape(batch, -1, channels)
    positions = x.shape[1]
    count = -(-batch * positions * hidden // LARGEST)
    if compilation.platform() != 'cpu' or count == 1:
        return layers(module, x).reshape(batch, *shape, -1)
    size = -(-positions // count)
    x = jnp.pad(x, [(0, 0), (0, -positions % size), (0, 0)]).reshape(batch, -1, size, channels)

    def one_chunk(module: Any, carry: Any, x: Array) -> tuple[Any, Array]:
        return carry, layers(module, x)

    scan = nn.scan(
        nn.remat(one_chunk, prevent_cse=False) if remat else one_chunk,
        variable_broadcast='params',
        split_rngs={'params': False, 'dropout': True},
        in_axes=1,
        out_axes=1,
    )
    _, x = scan(module, None, x)
    return x.reshape(batch, -1, x.shape[-1])[:, :positions].reshape(batch, *shape, -1)
