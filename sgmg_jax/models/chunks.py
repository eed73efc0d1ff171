"""Layers that treat every position alike, a chunk of the positions at a time."""
from flax import linen as nn
import jax
import jax.numpy as jnp

LARGEST = 2 ** 21  # elements of a hidden layer that are held at once on a CPU


def by_chunks(layers, module, x, hidden):
    """layers(module, x), for layers that take each position [C] by itself.

    On a CPU, where more than LARGEST elements of the hidden layer would be held, the positions of every item go
    through in chunks, and the backward pass computes the hidden layer of a chunk again: the feed-forward layers
    otherwise take most of a training step's memory. Elsewhere all at once.

    Args:
      layers: function(module, x [B S C]) -> [B S C']; its parameters become those of `module`.
      x: [B ... C].
      hidden: channels of the widest layer.

    Returns:
      [B ... C'].
    """
    batch, *shape, channels = x.shape
    x = x.reshape(batch, -1, channels)
    positions = x.shape[1]
    count = -(-batch * positions * hidden // LARGEST)
    if jax.default_backend() != 'cpu' or count == 1:
        return layers(module, x).reshape(batch, *shape, -1)
    size = -(-positions // count)
    x = jnp.pad(x, [(0, 0), (0, -positions % size), (0, 0)]).reshape(batch, -1, size, channels)
    scan = nn.scan(nn.remat(lambda module, carry, x: (carry, layers(module, x)), prevent_cse=False),
                   variable_broadcast='params', split_rngs={'params': False, 'dropout': True},
                   in_axes=1, out_axes=1)
    _, x = scan(module, None, x)
    return x.reshape(batch, -1, x.shape[-1])[:, :positions].reshape(batch, *shape, -1)
