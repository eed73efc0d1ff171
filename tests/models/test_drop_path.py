"""Stochastic depth of the backbone: a block's branch is dropped for a whole clip."""

import jax
import jax.numpy as jnp
import numpy as np

from sgmg_jax.models import video_swin

CLIPS = 24


def test_branches_are_dropped_per_clip():
    """Attention and MLP independently; kept branches are scaled by 1 / (1 - rate)."""
    block = video_swin.Block(heads=1, shifted=False)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((CLIPS, 2, 3, 3, 4), dtype=np.float32)
    weights = jax.tree.map(
        lambda w: rng.standard_normal(w.shape).astype(np.float32),
        jax.eval_shape(lambda key: block.init(key, x, None, False, 0.0), jax.random.key(0))['params'],
    )

    @jax.jit
    def run(weights, x, key):
        return [
            block.apply({'params': weights}, x, None, drops, 0.25, rngs={'dropout': key}) for drops in (False, True)
        ]

    def without(*names):
        return weights | {name: jax.tree.map(np.zeros_like, weights[name]) for name in names}

    key = jax.random.key(0)
    attention = run(without('mlp_out'), x, key)[0] - x
    outcomes = {}
    for of_attention, of_mlp in np.ndindex(2, 2):
        middle = x + of_attention * attention / 0.75
        mlp = run(without('attention'), middle, key)[0] - middle
        outcomes[of_attention, of_mlp] = middle + of_mlp * mlp / 0.75
    ours = run(weights, x, key)[1]
    kept = [
        choice
        for clip in range(CLIPS)
        for choice, expected in outcomes.items()
        if np.allclose(ours[clip], expected[clip], atol=1e-4)
    ]
    assert len(kept) == CLIPS and set(kept) == set(outcomes)
    assert 0.6 < np.mean(kept) < 0.9
    assert not np.allclose(ours, run(weights, x, jax.random.key(1))[1])


def test_rates_grow_linearly_with_depth(monkeypatch):
    rates, call = [], video_swin.Block.__call__

    def noting(self, x, real_frames, drops, rate, map_size):
        rates.append(rate)
        return call(self, x, real_frames, drops, rate, map_size)

    monkeypatch.setattr(video_swin.Block, '__call__', noting)
    model = video_swin.VideoSwin(video_swin.Size(8, (2, 1, 3, 1), (1, 1, 2, 2)), drop_path=0.3)
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1, 32, 32, 3)))
    np.testing.assert_allclose(rates, np.linspace(0, 0.3, 7))
