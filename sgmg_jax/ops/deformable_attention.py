"""Multi-scale deformable sampling (Deformable DETR, equation 3).

Axis letters: N frames, S positions of all levels, concatenated, s those of one level, Q queries, M heads,
V levels, K points per level, C channels per head.

The same sums in three forms, because platforms differ in what they do well:

cpu  point by point: one point of every query at a time keeps the memory small.
gpu  all points at once, as gathers and scatters of rows of C numbers. Gradients are added in float32, which GPUs add
     natively; of bfloat16, every number would be a loop that retries.
tpu  as matrix products with every cell's weight for every query, because TPUs gather short rows slowly.
"""

from collections.abc import Iterator, Sequence
import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgmg_jax import compilation
from sgmg_jax.types import ArrayLike

# Gradients of levels with at most this many cells are computed by a matrix product, of larger ones by a scatter. On two
# CPU cores the product takes half the time at 60 cells, twice the time at 240.
DENSE_CELLS = {'cpu': 100, 'gpu': 256}
MATRIX = 2**26  # numbers of the largest matrix on a TPU
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # (down, right)


def level_starts(sizes: Sequence[Sequence[int]]) -> list[int]:
    """First position of each level (h, w) along S, and the end of the last."""
    starts = [0]
    for h, w in sizes:
        starts.append(starts[-1] + h * w)
    return starts


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def sample(
    values: Float[ArrayLike, 'N S M C'],
    sizes: Sequence[Sequence[int]],
    locations: Float[ArrayLike, 'N Q M V K 2'],
    weights: Float[ArrayLike, 'N Q M V K'],
) -> Float[Array, 'N Q M C']:
    """Weighted sum of bilinear samples; zero outside the map.

    sizes: (h, w) of each level; locations: (x, y), where [0, 1] spans the map's outer edges.

    The backward pass keeps only the arguments. Locations are float32 whatever the dtype of the
    values: bfloat16 would be off by a quarter pixel.
    """
    forms = {'cpu': _sum_point_by_point, 'gpu': _sum_rows, 'tpu': _sum_by_products}
    return forms[compilation.platform()](values, sizes, locations.astype(jnp.float32), weights).astype(values.dtype)


def _forward(values, sizes, locations, weights):
    return sample(values, sizes, locations, weights), (values, locations, weights)


def _backward(sizes, saved, cotangent):
    values, locations, weights = saved
    forms = {'cpu': _gradients_point_by_point, 'gpu': _gradients_of_rows, 'tpu': _gradients_by_products}
    gradients = forms[compilation.platform()](values, sizes, locations.astype(jnp.float32), weights, cotangent)
    return tuple(gradient.astype(x.dtype) for gradient, x in zip(gradients, saved))


sample.defvjp(_forward, _backward)


# Points, for all forms. x, y are in cells of a level of size (h, w).


def _points_of_levels(sizes, locations, weights) -> Iterator[tuple]:
    """Yields each level's slice of S, its size, and its points x, y, weight [N Q M K]."""
    starts = level_starts(sizes)
    for i, (h, w) in enumerate(sizes):
        x, y = locations[:, :, :, i, :, 0] * w - 0.5, locations[:, :, :, i, :, 1] * h - 0.5
        yield slice(starts[i], starts[i + 1]), (h, w), (x, y, weights[:, :, :, i])


def _shares(x, y):
    """Bilinear weights of the four CORNERS of a point's cell."""
    right, down = x - jnp.floor(x), y - jnp.floor(y)
    return [(down if dy else 1 - down) * (right if dx else 1 - right) for dy, dx in CORNERS]


def _corner_cells(size, x, y, outside):
    """The cells at the four CORNERS; `outside` for those outside the map."""
    h, w = size
    for dy, dx in CORNERS:
        row, column = jnp.floor(y) + dy, jnp.floor(x) + dx
        inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
        yield jnp.where(inside, row * w + column, outside).astype(jnp.int32)


def _point_gradients(size, x, y, weight, slopes):
    """Gradients of the location, as a fraction of the map (..., 2), and of the weight, from the products of the
    cotangent with the values at the four CORNERS."""
    right, down = x - jnp.floor(x), y - jnp.floor(y)
    to_weight = sum(slope * share for slope, share in zip(slopes, _shares(x, y)))
    to_x = (1 - down) * (slopes[1] - slopes[0]) + down * (slopes[3] - slopes[2])
    to_y = (1 - right) * (slopes[2] - slopes[0]) + right * (slopes[3] - slopes[1])
    return jnp.stack([to_x * weight * size[1], to_y * weight * size[0]], axis=-1), to_weight


def _matrix(size, x, y, weight):
    """Every cell's weight for every query, [... s], from points [K ...] of the queries."""
    h, w = size
    matrix = jnp.zeros(())
    for column, row, share in zip(x, y, weight):
        columns, rows = (
            jnp.maximum(1 - jnp.abs(position[..., None] - jnp.arange(n)), 0) for position, n in ((column, w), (row, h))
        )
        matrix = matrix + (rows * share[..., None])[..., None] * columns[..., None, :]
    return matrix.reshape(*matrix.shape[:-2], h * w)


def _spread_densely(cotangent, size, points):
    """The cells' gradient [N s M C], from cotangents [N Q M C] and points [N Q M K]."""
    matrix = _matrix(size, *(jnp.moveaxis(p, -1, 0) for p in points)).astype(cotangent.dtype)
    return jnp.einsum('nqms,nqmc->nsmc', matrix, cotangent)


# On a GPU: a table of all rows of C numbers, [N S M] of them.


def _corner_rows(shape, cells, size, x, y):
    """The rows at the CORNERS of a level's points; for those outside the map, past the table's end, where reads give
    zero and writes are dropped."""
    n, s, m, _ = shape
    frame, head = jnp.arange(n)[:, None, None, None], jnp.arange(m)[:, None]
    for cell in _corner_cells(size, x, y, outside=-1):
        yield jnp.where(cell < 0, n * s * m, (frame * s + cells.start + cell) * m + head)


def _sum_rows(values, sizes, locations, weights):
    table = values.reshape(-1, values.shape[-1])
    total = 0.0
    for cells, size, (x, y, weight) in _points_of_levels(sizes, locations, weights):
        for row, share in zip(_corner_rows(values.shape, cells, size, x, y), _shares(x, y)):
            total = total + (_take(table, row) * (share * weight)[..., None]).sum(3)
    return total


def _gradients_of_rows(values, sizes, locations, weights, cotangent):
    table = values.reshape(-1, values.shape[-1])
    to_table, dense, to_points = jnp.zeros(table.shape, jnp.float32), [], []
    update = cotangent.astype(jnp.float32)[:, :, :, None]
    for cells, size, (x, y, weight) in _points_of_levels(sizes, locations, weights):
        rows = list(_corner_rows(values.shape, cells, size, x, y))
        slopes = [(_take(table, row) * update).sum(-1) for row in rows]
        to_points.append(_point_gradients(size, x, y, weight, slopes))
        if size[0] * size[1] <= DENSE_CELLS['gpu']:
            dense.append((cells, _spread_densely(cotangent, size, (x, y, weight))))
            continue
        for row, share in zip(rows, _shares(x, y)):
            to_table = to_table.at[row].add(update * (share * weight)[..., None], mode='drop')
    to_values = to_table.reshape(values.shape)
    for cells, gradient in dense:
        to_values = to_values.at[:, cells].set(gradient)
    to_locations, to_weights = (jnp.stack(g, axis=3) for g in zip(*to_points))
    return to_values, to_locations, to_weights


def _take(table, row):
    return jnp.take(table, row, axis=0, mode='fill', fill_value=0).astype(jnp.float32)


# On a TPU: products with the matrix of all cells, of as many queries at a time as MATRIX allows.


def _chunks(sizes, *arrays):
    """[N Q ...] -> [chunks N q ...]; what pads the last chunk are zeros."""
    n, queries, heads = arrays[0].shape[:3]
    count = -(-n * queries * heads * level_starts(sizes)[-1] // MATRIX)
    size = -(-queries // count)
    for x in arrays:
        x = jnp.pad(x, [(0, 0), (0, -queries % size), *[(0, 0)] * (x.ndim - 2)])
        yield jnp.moveaxis(x.reshape(n, -1, size, *x.shape[2:]), 1, 0)


def _whole(chunks, queries):
    """The inverse of `_chunks`."""
    x = jnp.moveaxis(chunks, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :queries]


def _sum_by_products(values, sizes, locations, weights):
    def sum_chunk(chunk):
        matrix = jnp.concatenate(
            [
                _matrix(size, *(jnp.moveaxis(p, -1, 0) for p in points))
                for _, size, points in _points_of_levels(sizes, *chunk)
            ],
            axis=-1,
        )
        return jnp.einsum('nqms,nsmc->nqmc', matrix.astype(values.dtype), values)

    return _whole(jax.lax.map(sum_chunk, tuple(_chunks(sizes, locations, weights))), locations.shape[1])


def _gradients_by_products(values, sizes, locations, weights, cotangent):
    def add_chunk(to_values, chunk):
        locations, weights, cotangent = chunk
        parts, to_points = [], []
        for cells, size, points in _points_of_levels(sizes, locations, weights):
            parts.append(_spread_densely(cotangent, size, points))
            slopes = jnp.einsum('nqmc,nsmc->nqms', cotangent, values[:, cells])
            to_points.append(_point_gradients_of_slopes(size, *points, slopes))
        to_locations, to_weights = (jnp.stack(g, axis=3) for g in zip(*to_points))
        return to_values + jnp.concatenate(parts, axis=1), (to_locations, to_weights)

    to_values, to_points = jax.lax.scan(
        add_chunk, jnp.zeros(values.shape, jnp.float32), tuple(_chunks(sizes, locations, weights, cotangent))
    )
    return to_values, *(_whole(g, locations.shape[1]) for g in to_points)


def _point_gradients_of_slopes(size, x, y, weight, slopes):
    """As `_point_gradients`, from the products of the cotangent with the values of all cells, [N Q M s]."""
    h, w = size
    slopes = slopes.reshape(*slopes.shape[:3], h, w)

    def one_point(x, y, weight):
        rows = [(slopes * jax.nn.one_hot(jnp.floor(y).astype(int) + dy, h)[..., None]).sum(-2) for dy in (0, 1)]
        corners = [(rows[dy] * jax.nn.one_hot(jnp.floor(x).astype(int) + dx, w)).sum(-1) for dy, dx in CORNERS]
        return _point_gradients(size, x, y, weight, corners)

    points = [one_point(*point) for point in zip(*(jnp.moveaxis(p, -1, 0) for p in (x, y, weight)))]
    to_locations, to_weights = zip(*points)
    return jnp.stack(to_locations, axis=3), jnp.stack(to_weights, axis=3)


# On a CPU: one point of every query at a time, with heads outside, so that a head's rows fit in the cache.


def _points_by_head(values, sizes, locations, weights) -> Iterator[tuple]:
    """Yields each level's cells [N M s C], size and points: x, y, and weights, [K N M Q] each."""
    values = jnp.swapaxes(values, 1, 2)
    locations = jnp.transpose(locations, (3, 5, 4, 0, 2, 1))  # V 2 K N M Q
    weights = jnp.transpose(weights, (3, 4, 0, 2, 1))
    starts = level_starts(sizes)
    for i, (h, w) in enumerate(sizes):
        yield (
            values[:, :, starts[i] : starts[i + 1]],
            (h, w),
            (locations[i, 0] * w - 0.5, locations[i, 1] * h - 0.5, weights[i]),
        )


def _sum_point_by_point(values, sizes, locations, weights):
    total = jnp.zeros((), values.dtype)
    for cells, size, points in _points_by_head(values, sizes, locations, weights):

        def add_point(total, point, cells=cells, size=size):
            x, y, weight = point
            shares = [share * weight for share in _shares(x, y)]
            corners = _take_corners(cells, size, x, y)
            return total + sum(
                corner * share[..., None].astype(corner.dtype) for corner, share in zip(corners, shares)
            ), None

        start = jnp.zeros((*points[0].shape[1:], cells.shape[-1]), values.dtype)
        total = total + jax.lax.scan(add_point, start, points)[0]
    return jnp.swapaxes(total, 1, 2)


def _gradients_point_by_point(values, sizes, locations, weights, cotangent):
    cotangent = jnp.swapaxes(cotangent, 1, 2)  # N M Q C
    to_values, to_points = [], []
    for cells, size, points in _points_by_head(values, sizes, locations, weights):

        def one_point(_, point, cells=cells, size=size):
            x, y, weight = point
            corners = _take_corners(cells, size, x, y)
            slopes = [(corner * cotangent).astype(jnp.float32).sum(-1) for corner in corners]
            return None, _point_gradients(size, x, y, weight, slopes)

        if size[0] * size[1] <= DENSE_CELLS['cpu']:
            by_query = [jnp.transpose(p, (1, 3, 2, 0)) for p in points]
            to_values.append(jnp.swapaxes(_spread_densely(jnp.swapaxes(cotangent, 1, 2), size, by_query), 1, 2))
        else:
            to_values.append(_spread_sparsely(cotangent, size, points))
        to_points.append(jax.lax.scan(one_point, None, points)[1])
    # V times K N M Q (2) -> N Q M V K (2)
    to_locations, to_weights = (jnp.stack(g) for g in zip(*to_points))
    return (
        jnp.swapaxes(jnp.concatenate(to_values, axis=2), 1, 2),
        jnp.transpose(to_locations, (2, 4, 3, 0, 1, 5)),
        jnp.transpose(to_weights, (2, 4, 3, 0, 1)),
    )


def _take_corners(cells, size, x, y):
    """Yields the values [N M Q C] at the four CORNERS; zero outside the map."""
    take = jax.vmap(jax.vmap(lambda rows, i: rows.at[i].get(mode='fill', fill_value=0)))
    # Cells past the table's end read as zero.
    yield from (take(cells, cell) for cell in _corner_cells(size, x, y, outside=size[0] * size[1]))


def _spread_sparsely(cotangent, size, points):
    """The cells' gradient [N M s C], scattered one point at a time."""
    n, m, _, c = cotangent.shape
    cells = size[0] * size[1]
    add = jax.vmap(jax.vmap(lambda rows, i, update: rows.at[i].add(update, mode='drop')))

    def add_point(table, point):
        x, y, weight = point
        # Updates of cells past the table's end are dropped.
        for cell, share in zip(_corner_cells(size, x, y, outside=cells), _shares(x, y)):
            table = add(table, cell, cotangent * (share * weight)[..., None].astype(cotangent.dtype))
        return table, None

    return jax.lax.scan(add_point, jnp.zeros((n, m, cells, c), cotangent.dtype), points)[0]


def grid_bias(heads: int, levels: int, points: int) -> Float[Array, '{heads} {levels} {points} 2']:
    """Initial sampling offsets, in cells: head m looks along angle 2 pi m / heads, its k-th point k + 1 cells away
    (Deformable DETR, appendix A.4)."""
    angles = [2 * math.pi * m / heads for m in range(heads)]
    directions = jnp.array([[math.cos(a), math.sin(a)] for a in angles])
    directions = directions / jnp.max(jnp.abs(directions), axis=-1, keepdims=True)
    return jnp.broadcast_to(directions[:, None, None] * jnp.arange(1, points + 1)[:, None], (heads, levels, points, 2))
