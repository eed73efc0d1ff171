"""Picking one query a sentence.

Axis letters: D decoder layers, K the last of them, N sentences, T frames, Q queries.
"""
import jax
import jax.numpy as jnp


def best_query(proposals, real_frames=None):
    """The query with the highest mean score over the clip's frames, of the last layer.

    proposals: types.Proposals. real_frames [N T] bool: frames that count (all by default).
    Returns indices [1 N]; the first on ties.
    """
    scores = jax.nn.sigmoid(proposals.scores[-1])
    weights = jnp.ones(scores.shape[:2]) if real_frames is None else real_frames.astype(scores.dtype)
    mean = jnp.einsum('ntq,nt->nq', scores, weights) / weights.sum(axis=1, keepdims=True)
    return jnp.argmax(mean, axis=-1)[None]


def take_query(x, query):
    """x [D N T Q ...], query [K N] -> [K N T ...]: the chosen query of each of the last K layers."""
    x = x[x.shape[0] - query.shape[0]:]
    index = query.reshape(*query.shape, *[1] * (x.ndim - 2))
    return jnp.take_along_axis(x, index, axis=3)[:, :, :, 0]
