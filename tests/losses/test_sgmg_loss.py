"""Matching and losses where the golden cases (tests/convert/test_parity.py) do not go."""
import jax
import jax.numpy as jnp
import numpy as np

from sgmg_jax import types
from sgmg_jax.losses import matching, sgmg, terms


def test_a_clip_that_never_shows_its_object():
    """Nothing to divide by: costs and losses stay finite."""
    rng = np.random.default_rng(0)
    proposals = types.Proposals(rng.standard_normal((2, 1, 3, 5), dtype=np.float32),
                                rng.random((2, 1, 3, 5, 4), dtype=np.float32),
                                rng.standard_normal((2, 1, 3, 5, 2, 4, 16), dtype=np.float32))
    targets = types.Targets(np.zeros((1, 3, 16, 32), bool), np.zeros((1, 3, 4), np.float32), np.zeros((1, 3), bool))
    query = matching.match(proposals, targets)
    predictions = types.Predictions(None, np.full((2, 1, 3, 4), 0.5), np.zeros((2, 1, 3, 16, 32), np.float32))
    total, named = sgmg.loss((proposals, query, predictions), targets)
    assert np.isfinite(total) and all(np.isfinite(x) for x in named.values())
    assert set(named) == {f'loss_{name}{layer}' for name in sgmg.WEIGHTS for layer in ('', '_0')}


def test_extreme_logits_stay_finite():
    logits = jnp.array([-1e4, 0.0, 1e4])
    for target in (0.0, 1.0):
        value, slope = jax.value_and_grad(lambda x, t=target: terms.focal(x, jnp.full(3, t)).sum())(logits)
        assert np.isfinite(value) and np.isfinite(slope).all()
