"""Multi-scale deformable sampling (Deformable DETR, equation 3).

Axis letters: N frames, S positions of all levels one after the other, Q queries, M heads,
V levels, K points a level, C channels of a head.
"""
import functools
import math

import jax
import jax.numpy as jnp

# The gradient of levels of at most so many cells is a matrix product, of larger ones a scatter: on two
# CPU cores the product was a quarter faster for small maps, and half again slower at 920 cells.
DENSE_CELLS = 256
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # (down, right)


def level_starts(sizes):
    """First position of each level in the S axis, and the end of the last."""
    starts = [0]
    for h, w in sizes:
        starts.append(starts[-1] + h * w)
    return starts


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def sample(values, sizes, locations, weights):
    """Weighted sum of bilinear samples; zero outside the map.

    values [N S M C]; sizes: (h, w) of each level; locations [N Q M V K 2] (x, y), where [0, 1]
    spans the map's outer edges; weights [N Q M V K] -> [N Q M C].

    The sum runs over one point at a time: a gather of all would hold 4 V K copies of the queries.
    The backward pass keeps only the arguments. Locations are float32 whatever the type of the
    values: bfloat16 errs by a quarter pixel.
    """
    out = 0
    for cells, size, points in _levels(values, sizes, locations, weights):
        def add_point(total, point, cells=cells, size=size):
            x, y, weight = point
            shares = [share * weight for share in _shares(x, y)]
            corners = _take_corners(cells, size, x, y)
            return total + sum(corner * share[..., None].astype(corner.dtype)
                               for corner, share in zip(corners, shares)), None

        start = jnp.zeros((*points[0].shape[1:], cells.shape[-1]), values.dtype)
        out = out + jax.lax.scan(add_point, start, points)[0]
    return jnp.swapaxes(out, 1, 2)


def _forward(values, sizes, locations, weights):
    return sample(values, sizes, locations, weights), (values, locations, weights)


def _backward(sizes, saved, cotangent):
    values, locations, weights = saved
    cotangent = jnp.swapaxes(cotangent, 1, 2)  # N M Q C
    value_gradients, point_gradients = [], []
    for cells, size, points in _levels(values, sizes, locations, weights):
        spread = _spread_densely if size[0] * size[1] <= DENSE_CELLS else _spread_sparsely
        value_gradients.append(spread(cotangent, size, points))
        point_gradients.append(_point_gradients(cotangent, cells, size, points))

    to_values = jnp.swapaxes(jnp.concatenate(value_gradients, axis=2), 1, 2).astype(values.dtype)
    # V times K N M Q (2) -> N Q M V K (2)
    to_locations, to_weights = (jnp.stack(g) for g in zip(*point_gradients))
    return (to_values, jnp.transpose(to_locations, (2, 4, 3, 0, 1, 5)).astype(locations.dtype),
            jnp.transpose(to_weights, (2, 4, 3, 0, 1)).astype(weights.dtype))


sample.defvjp(_forward, _backward)


def _levels(values, sizes, locations, weights):
    """For every level: cells [N M s C], its size, and its points: x, y in cells and weights, [K N M Q] each."""
    values = jnp.swapaxes(values, 1, 2)
    locations = jnp.transpose(locations.astype(jnp.float32), (3, 5, 4, 0, 2, 1))  # V 2 K N M Q
    weights = jnp.transpose(weights, (3, 4, 0, 2, 1))
    starts = level_starts(sizes)
    for i, (h, w) in enumerate(sizes):
        yield (values[:, :, starts[i]:starts[i + 1]], (h, w),
               (locations[i, 0] * w - 0.5, locations[i, 1] * h - 0.5, weights[i]))


def _shares(x, y):
    """Bilinear weights of the four CORNERS of a point's cell."""
    right, down = x - jnp.floor(x), y - jnp.floor(y)
    return [(down if dy else 1 - down) * (right if dx else 1 - right) for dy, dx in CORNERS]


def _take_corners(cells, size, x, y):
    """The four CORNERS' values [N M Q C]; zero outside the map."""
    h, w = size
    take = jax.vmap(jax.vmap(lambda rows, i: rows.at[i].get(mode='fill', fill_value=0)))
    for dy, dx in CORNERS:
        row, column = jnp.floor(y) + dy, jnp.floor(x) + dx
        inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
        # Past the table's end, where reading gives zero.
        yield take(cells, jnp.where(inside, row * w + column, h * w).astype(jnp.int32))


def _point_gradients(cotangent, cells, size, points):
    """Of every point's location, in fractions of the map, and of its weight: [K N M Q 2], [K N M Q]."""
    def one_point(_, point):
        x, y, weight = point
        slopes = [(corner * cotangent).astype(jnp.float32).sum(-1) for corner in _take_corners(cells, size, x, y)]
        right, down = x - jnp.floor(x), y - jnp.floor(y)
        to_weight = sum(slope * share for slope, share in zip(slopes, _shares(x, y)))
        to_x = (1 - down) * (slopes[1] - slopes[0]) + down * (slopes[3] - slopes[2])
        to_y = (1 - right) * (slopes[2] - slopes[0]) + right * (slopes[3] - slopes[1])
        return None, (jnp.stack([to_x * weight * size[1], to_y * weight * size[0]], axis=-1), to_weight)

    return jax.lax.scan(one_point, None, points)[1]


def _spread_densely(cotangent, size, points):
    """The cells' gradient [N M s C], by way of every cell's weight for every query [N M s Q]."""
    h, w = size
    matrix = 0
    for x, y, weight in zip(*points):
        columns, rows = (jnp.maximum(1 - jnp.abs(position[:, :, None] - jnp.arange(n)[:, None]), 0)
                         for position, n in ((x, w), (y, h)))  # N M w Q, N M h Q
        rows = rows * weight[:, :, None]
        matrix = matrix + rows[:, :, :, None] * columns[:, :, None]
    matrix = matrix.reshape(*matrix.shape[:2], h * w, -1)
    return jnp.einsum('nmsq,nmqc->nmsc', matrix.astype(cotangent.dtype), cotangent)


def _spread_sparsely(cotangent, size, points):
    """The cells' gradient [N M s C], scattered a point at a time, its four corners together.

    A row of the table [N M (h+1)(w+1) 4C] is a cell with its CORNERS, on a map with a border of one cell.
    """
    h, w = size
    n, m, _, c = cotangent.shape
    add = jax.vmap(jax.vmap(lambda rows, i, update: rows.at[i].add(update, mode='drop')))

    def add_point(table, point):
        x, y, weight = point
        updates = jnp.concatenate([cotangent * (share * weight)[..., None].astype(cotangent.dtype)
                                   for share in _shares(x, y)], axis=-1)
        row, column = jnp.floor(y) + 1, jnp.floor(x) + 1
        inside = (row >= 0) & (row <= h) & (column >= 0) & (column <= w)
        return add(table, jnp.where(inside, row * (w + 1) + column, (h + 1) * (w + 1)).astype(jnp.int32), updates), None

    table = jax.lax.scan(add_point, jnp.zeros((n, m, (h + 1) * (w + 1), 4 * c), cotangent.dtype), points)[0]
    corners = jnp.split(table.reshape(n, m, h + 1, w + 1, 4 * c), 4, axis=-1)
    return sum(corner[:, :, 1 - dy:1 - dy + h, 1 - dx:1 - dx + w]
               for corner, (dy, dx) in zip(corners, CORNERS)).reshape(n, m, h * w, c)


def grid_bias(heads, levels, points):
    """Initial sampling offsets [heads levels points 2]: head m looks along angle 2 pi m / heads,
    its k-th point k + 1 cells away (Deformable DETR, appendix A.4)."""
    angles = [2 * math.pi * m / heads for m in range(heads)]
    directions = jnp.array([[math.cos(a), math.sin(a)] for a in angles])
    directions = directions / jnp.max(jnp.abs(directions), axis=-1, keepdims=True)
    return jnp.broadcast_to(
        directions[:, None, None] * jnp.arange(1, points + 1)[:, None], (heads, levels, points, 2))
