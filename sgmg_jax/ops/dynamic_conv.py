"""Pointwise convolutions whose kernels differ from query to query (SgMg, section 3.3).

Axis letters: N sentences, T frames, Q queries, h w a feature map, C channels, P the 16
positions of a 4x4 patch (row by row).
"""
import jax
import jax.numpy as jnp

PATCH = 4
P = PATCH * PATCH
STRIDE = 8  # of the mask features, in pixels


def kernel_size(channels):
    """Numbers in the two layers that turn channels + 2 coordinates into P patch values."""
    return (channels + 2) * P + P * P + P + P


def relative_coordinates(points, image_size, feature_size):
    """Pixels from every cell's centre to the query's reference point.

    points [N T Q 2] (x, y) in [0, 1]; image_size [N 2] (height, width) without padding
    -> [N T Q h w 2] (x, y) = point - cell centre, in pixels, not normalised.
    """
    h, w = feature_size
    points = points * image_size[:, None, None, ::-1].astype(jnp.float32)
    y, x = (jnp.arange(n, dtype=jnp.float32) * STRIDE + STRIDE // 2 for n in (h, w))
    cells = jnp.stack(jnp.broadcast_arrays(x[None, :], y[:, None]), axis=-1)
    return points[:, :, :, None, None] - cells


def patch_convolution(features, coordinates, kernels):
    """Two pointwise layers with a ReLU between.

    features [N T h w C]; coordinates [N T Q h w 2] or None; kernels [N T Q kernel_size(C)], laid
    out w0 [P C+2], w1 [P P], b0 [P], b1 [P] -> [N T Q h w P].

    An einsum and not a grouped convolution: XLA gives wrong values for the latter when the batch
    is sharded. The coordinates have weights of their own, so they are never joined to C channels
    for every query.
    """
    lead, channels = kernels.shape[:-1], features.shape[-1]
    ends = [(channels + 2) * P, (channels + 2) * P + P * P, (channels + 2) * P + P * P + P]
    w0, w1, b0, b1 = jnp.split(kernels, ends, axis=-1)
    w0, w1 = w0.reshape(*lead, P, channels + 2), w1.reshape(*lead, P, P)

    def bias(b):
        return b[:, :, :, None, None]

    x = jnp.einsum('bthwc,btqpc->btqhwp', features, w0[..., :channels]) + bias(b0)
    if coordinates is not None:
        x = x + jnp.einsum('btqhwr,btqpr->btqhwp', coordinates, w0[..., channels:])
    return jnp.einsum('btqhwp,btqop->btqhwo', jax.nn.relu(x), w1) + bias(b1)


def pixel_shuffle(patches):
    """patches [... h w P] -> [... 4h 4w]: position 4 dy + dx of cell (i, j) goes to (4i + dy, 4j + dx)."""
    *lead, h, w, _ = patches.shape
    x = patches.reshape(*lead, h, w, PATCH, PATCH)
    return jnp.swapaxes(x, -3, -2).reshape(*lead, h * PATCH, w * PATCH)
