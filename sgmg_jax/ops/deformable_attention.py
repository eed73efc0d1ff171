"""Multi-scale deformable sampling (Deformable DETR, equation 3).

Axis letters: N frames, S positions of all levels one after the other, Q queries, M heads,
V levels, K points a level, C channels of a head.
"""
import functools
import math

import jax
import jax.numpy as jnp


def level_starts(sizes):
    """First position of each level in the S axis, and the end of the last."""
    starts = [0]
    for h, w in sizes:
        starts.append(starts[-1] + h * w)
    return starts


@functools.partial(jax.checkpoint, static_argnums=(1,))
def sample(values, sizes, locations, weights):
    """Weighted sum of bilinear samples; zero outside the map.

    values [N S M C]; sizes: (h, w) of each level; locations [N Q M V K 2] (x, y), where [0, 1]
    spans the map's outer edges; weights [N Q M V K] -> [N Q M C].

    The sum runs over one corner of one point at a time. One gather of all corners would hold
    4 V K copies of the queries; here only one is alive, and the backward pass computes them anew.
    Locations are float32 whatever the type of the values: bfloat16 errs by a quarter pixel.
    """
    locations = locations.astype(jnp.float32)
    starts = level_starts(sizes)
    out = 0
    by_head = jnp.swapaxes(values, 1, 2)  # N M S C
    for level, (h, w) in enumerate(sizes):
        table = by_head[:, :, starts[level]:starts[level + 1]]
        for point in range(locations.shape[4]):
            xy = jnp.swapaxes(locations[:, :, :, level, point], 1, 2)  # N M Q 2
            weight = jnp.swapaxes(weights[:, :, :, level, point], 1, 2)
            x, y = xy[..., 0] * w - 0.5, xy[..., 1] * h - 0.5
            left, top = jnp.floor(x), jnp.floor(y)
            right_share, bottom_share = x - left, y - top
            for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
                share = (right_share if dx else 1 - right_share) * (bottom_share if dy else 1 - bottom_share)
                column, row = left + dx, top + dy
                inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
                # Outside goes past the table's end, where reading gives zero and the gradient is dropped.
                index = jnp.where(inside, row * w + column, h * w).astype(jnp.int32)
                corner = _take(table, index)
                out = out + corner * (share * weight)[..., None].astype(values.dtype)
    return jnp.swapaxes(out, 1, 2)


def _take(table, index):
    """table [N M s C], index [N M Q] -> [N M Q C]; zero where the index is past the end."""
    take = lambda rows, i: rows.at[i].get(mode='fill', fill_value=0)
    return jax.vmap(jax.vmap(take))(table, index)


def grid_bias(heads, levels, points):
    """Initial sampling offsets [heads levels points 2]: head m looks along angle 2 pi m / heads,
    its k-th point k + 1 cells away (Deformable DETR, appendix A.4)."""
    angles = [2 * math.pi * m / heads for m in range(heads)]
    directions = jnp.array([[math.cos(a), math.sin(a)] for a in angles])
    directions = directions / jnp.max(jnp.abs(directions), axis=-1, keepdims=True)
    return jnp.broadcast_to(
        directions[:, None, None] * jnp.arange(1, points + 1)[:, None], (heads, levels, points, 2))
