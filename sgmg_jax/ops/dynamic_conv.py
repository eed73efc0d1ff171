"""Pointwise convolutions whose kernels differ from query to query (SgMg, section 3.3).

Axis letters: N sentences, T frames, Q queries, h w a feature map, C channels, P the 16
positions of a 4x4 patch (row by row).
"""
import jax
import jax.numpy as jnp
import numpy as np

PATCH = 4
P = PATCH * PATCH
STRIDE = 8  # of the mask features, in pixels


def kernel_size(channels, layers):
    """Numbers in pointwise layers of so many channels each, the first of which takes `channels` and 2 coordinates."""
    widths = [channels + 2, *layers]
    return sum(inputs * outputs + outputs for inputs, outputs in zip(widths, layers))


def relative_coordinates(points, image_size, feature_size, stride=STRIDE):
    """Pixels from every cell's centre to the query's reference point.

    points [N T Q 2] (x, y) in [0, 1]; image_size [N 2] (height, width) without padding
    -> [N T Q h w 2] (x, y) = point - cell centre, in pixels, not normalised.
    """
    h, w = feature_size
    points = points * image_size[:, None, None, ::-1].astype(jnp.float32)
    y, x = (jnp.arange(n, dtype=jnp.float32) * stride + stride // 2 for n in (h, w))
    cells = jnp.stack(jnp.broadcast_arrays(x[None, :], y[:, None]), axis=-1)
    return points[:, :, :, None, None] - cells


def patch_convolution(features, coordinates, kernels, layers=(P, P)):
    """Pointwise layers of so many channels each, with a ReLU between.

    features [N T h w C]; coordinates [N T Q h w 2] or None; kernels [N T Q kernel_size(C, layers)], the layers'
    weights [out in] one after the other and then their biases, the first with weights for the two coordinates after
    those for C -> [N T Q h w layers[-1]].

    An einsum and not a grouped convolution: XLA gives wrong values for the latter when the batch
    is sharded. The coordinates have weights of their own, so they are never joined to C channels
    for every query.
    """
    channels = features.shape[-1]
    widths = [channels + 2, *layers]
    sizes = [inputs * outputs for inputs, outputs in zip(widths, layers)] + list(layers)
    parts = jnp.split(kernels, np.cumsum(sizes)[:-1], axis=-1)
    weights = [w.reshape(*w.shape[:-1], outputs, -1) for w, outputs in zip(parts, layers)]
    biases = [b[:, :, :, None, None] for b in parts[len(layers):]]

    x = jnp.einsum('bthwc,btqpc->btqhwp', features, weights[0][..., :channels]) + biases[0]
    if coordinates is not None:
        x = x + jnp.einsum('btqhwr,btqpr->btqhwp', coordinates, weights[0][..., channels:])
    for weight, bias in zip(weights[1:], biases[1:]):
        x = jnp.einsum('btqhwp,btqop->btqhwo', jax.nn.relu(x), weight) + bias
    return x


def pixel_shuffle(patches):
    """patches [... h w P] -> [... 4h 4w]: position 4 dy + dx of cell (i, j) goes to (4i + dy, 4j + dx)."""
    *lead, h, w, _ = patches.shape
    x = patches.reshape(*lead, h, w, PATCH, PATCH)
    return jnp.swapaxes(x, -3, -2).reshape(*lead, h * PATCH, w * PATCH)
