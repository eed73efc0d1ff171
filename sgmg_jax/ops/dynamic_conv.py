"""Pointwise convolutions whose kernels differ from query to query (SgMg, section 3.3).

Axis letters: N sentences, T frames, Q queries, h w a feature map, C channels, P the 16
positions of a 4x4 patch (row by row).
"""

from collections.abc import Sequence
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from sgmg_jax.types import ArrayLike

PATCH = 4
P = PATCH * PATCH
STRIDE = 8  # of the mask features, in pixels


def kernel_size(channels: int, layers: Sequence[int]) -> int:
    """Number of weights and biases of pointwise layers of these widths, whose input is `channels` and 2 coordinates."""
    widths = [channels + 2, *layers]
    return sum(inputs * outputs + outputs for inputs, outputs in zip(widths, layers))


def relative_coordinates(
    points: Float[ArrayLike, 'N T Q 2'],
    image_size: Int[ArrayLike, 'N 2'],
    feature_size: Sequence[int],
    stride: int = STRIDE,
) -> Float[Array, 'N T Q h w 2']:
    """Offset (x, y) in pixels from every cell's centre to the query's reference point.

    points: (x, y) in [0, 1]; image_size: (height, width) without padding; feature_size: (h, w).
    """
    h, w = feature_size
    points = jnp.asarray(points) * jnp.asarray(image_size)[:, None, None, ::-1].astype(jnp.float32)
    y, x = (jnp.arange(n, dtype=jnp.float32) * stride + stride // 2 for n in (h, w))
    cells = jnp.stack(jnp.broadcast_arrays(x[None, :], y[:, None]), axis=-1)
    return points[:, :, :, None, None] - cells


def patch_convolution(
    features: Float[ArrayLike, 'N T h w C'],
    coordinates: Float[ArrayLike, 'N T Q h w 2'] | None,
    kernels: Float[ArrayLike, 'N T Q _'],
    layers: Sequence[int] = (P, P),
) -> Float[Array, 'N T Q h w {layers[-1]}']:
    """Pointwise layers with these widths and a ReLU between.

    kernels: kernel_size(C, layers) numbers per query: the layers' weights [out in], concatenated, then their biases.
    The first layer's weights for the two coordinates follow those for the C channels.

    An einsum, not a grouped convolution: XLA computes wrong values for the latter when the batch
    is sharded. The coordinates are multiplied by their weights separately, so they need not be
    concatenated to the features for every query.
    """
    channels = features.shape[-1]
    widths = [channels + 2, *layers]
    sizes = [inputs * outputs for inputs, outputs in zip(widths, layers)] + list(layers)
    parts = jnp.split(kernels, np.cumsum(sizes)[:-1], axis=-1)
    weights = [w.reshape(*w.shape[:-1], outputs, -1) for w, outputs in zip(parts, layers)]
    biases = [b[:, :, :, None, None] for b in parts[len(layers) :]]

    x = jnp.einsum('bthwc,btqpc->btqhwp', features, weights[0][..., :channels]) + biases[0]
    if coordinates is not None:
        x = x + jnp.einsum('btqhwr,btqpr->btqhwp', coordinates, weights[0][..., channels:])
    for weight, bias in zip(weights[1:], biases[1:]):
        x = jnp.einsum('btqhwp,btqop->btqhwo', jax.nn.relu(x), weight) + bias
    return x


def pixel_shuffle(patches: Float[ArrayLike, '*batch h w P']) -> Float[Array, '*batch _ _']:
    """Moves position p dy + dx of cell (i, j) to pixel (p i + dy, p j + dx), where p, the side of a patch, is the
    square root of P: [*batch p h, p w]."""
    *lead, h, w, positions = patches.shape
    side = math.isqrt(positions)
    x = patches.reshape(*lead, h, w, side, side)
    return jnp.swapaxes(x, -3, -2).reshape(*lead, h * side, w * side)
