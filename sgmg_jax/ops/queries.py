"""Selects one query per sentence.

Axis letters: D decoder layers, K the last of them, N sentences, T frames, Q queries.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sgmg_jax.types import ArrayLike, Proposals


def best_query(proposals: Proposals, real_frames: Bool[ArrayLike, 'N T'] | None = None) -> Int[Array, '1 N']:
    """The last layer's query with the highest mean score over the real frames (default: all frames); the first on
    ties."""
    scores = jax.nn.sigmoid(proposals.scores[-1])
    weights = jnp.ones(scores.shape[:2]) if real_frames is None else real_frames.astype(scores.dtype)
    mean = jnp.einsum('ntq,nt->nq', scores, weights) / weights.sum(axis=1, keepdims=True)
    return jnp.argmax(mean, axis=-1)[None]


def take_query(x: Float[ArrayLike, 'D N T Q *rest'], query: Int[ArrayLike, 'K N']) -> Float[Array, 'K N T *rest']:
    """The chosen query of each of the last K layers."""
    x = jnp.asarray(x)[x.shape[0] - query.shape[0] :]
    # The indices are unique, so that on a GPU the gradient is stored, not added atomically, which in bfloat16 is slow.
    take = jax.vmap(jax.vmap(lambda queries, i: queries.at[:, i].get(unique_indices=True)))
    return take(x, query)
