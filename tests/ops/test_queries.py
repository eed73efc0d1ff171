"""Picking one query a sentence."""
import numpy as np

from sgmg_jax import types
from sgmg_jax.ops import queries


def proposals_of(scores):
    """types.Proposals of one layer and one sentence after the other, from logits [N T Q]."""
    return types.Proposals(np.asarray(scores, np.float32)[None], None, None)


def test_the_best_query_has_the_highest_mean_probability():
    """Not the highest mean logit; of the last layer; the first on ties."""
    scores = np.array([[[2, 9, 0], [2, -5, 0]], [[0, 1, 1], [0, 1, 1]]], np.float32)
    proposals = types.Proposals(np.stack([-scores, scores]), None, None)
    np.testing.assert_array_equal(queries.best_query(proposals), [[0, 1]])


def test_padded_frames_have_no_vote():
    """Whatever is predicted there, for each sentence by itself."""
    scores = np.array([[[1, 0], [1, 0], [-9, 9], [-9, 9]]] * 2, np.float32)
    real = np.array([[True, True, False, False], [True, True, True, False]])
    np.testing.assert_array_equal(queries.best_query(proposals_of(scores), real), [[0, 1]])
    np.testing.assert_array_equal(queries.best_query(proposals_of(scores)), [[1, 1]])
    scores[:, 2:] *= np.array([1, -1])[:, None, None]
    np.testing.assert_array_equal(queries.best_query(proposals_of(scores), real), [[0, 0]])


def test_takes_the_chosen_query_of_the_last_layers():
    x = np.random.default_rng(0).standard_normal((3, 2, 4, 5, 6), dtype=np.float32)  # D N T Q C
    query = np.array([[4, 0], [2, 3]])
    ours = queries.take_query(x, query)
    for k, n in np.ndindex(2, 2):
        np.testing.assert_array_equal(ours[k, n], x[1 + k, n, :, query[k, n]])
    np.testing.assert_array_equal(queries.take_query(x[..., 0], query), ours[..., 0])
