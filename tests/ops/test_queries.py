"""Selects one query per sentence."""

import numpy as np

from sgmg_jax import types
from sgmg_jax.ops import queries


def proposals_of(scores):
    """types.Proposals with these class logits [D N T Q]."""
    scores = np.asarray(scores, np.float32)
    return types.Proposals(scores, np.zeros((*scores.shape, 4)), np.zeros((*scores.shape, 1, 1, 1)))


def test_the_best_query_has_the_highest_mean_probability():
    """Not the highest mean logit. In the last layer; the first on ties."""
    scores = np.array([[[2, 9, 0], [2, -5, 0]], [[0, 1, 1], [0, 1, 1]]], np.float32)
    proposals = proposals_of([-scores, scores])
    np.testing.assert_array_equal(queries.best_query(proposals), [[0, 1]])


def test_padded_frames_are_ignored():
    """Whatever is predicted there; per sentence."""
    scores = np.array([[[1, 0], [1, 0], [-9, 9], [-9, 9]]] * 2, np.float32)
    real = np.array([[True, True, False, False], [True, True, True, False]])
    np.testing.assert_array_equal(queries.best_query(proposals_of([scores]), real), [[0, 1]])
    np.testing.assert_array_equal(queries.best_query(proposals_of([scores])), [[1, 1]])
    scores[:, 2:] *= np.array([1, -1])[:, None, None]
    np.testing.assert_array_equal(queries.best_query(proposals_of([scores]), real), [[0, 0]])


def test_take_query_of_the_last_layers():
    x = np.random.default_rng(0).standard_normal((3, 2, 4, 5, 6), dtype=np.float32)  # D N T Q C
    query = np.array([[4, 0], [2, 3]])
    ours = queries.take_query(x, query)
    for k, n in np.ndindex(2, 2):
        np.testing.assert_array_equal(ours[k, n], x[1 + k, n, :, query[k, n]])
    np.testing.assert_array_equal(queries.take_query(x[..., 0], query), ours[..., 0])
