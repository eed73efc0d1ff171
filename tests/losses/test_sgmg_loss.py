"""Matching and losses beyond the golden cases (tests/parity/test_parity.py)."""

import jax
import jax.numpy as jnp
import numpy as np

from sgmg_jax import types
from sgmg_jax.losses import matching, sgmg, terms


def test_an_object_that_is_never_present_gives_finite_losses():
    """Sums over the frames that show it have nothing to divide by."""
    rng = np.random.default_rng(0)
    proposals = types.Proposals(
        rng.standard_normal((2, 1, 3, 5), dtype=np.float32),
        rng.random((2, 1, 3, 5, 4), dtype=np.float32),
        rng.standard_normal((2, 1, 3, 5, 2, 4, 16), dtype=np.float32),
    )
    targets = types.Targets(
        np.zeros((1, 3, 16, 32), bool),
        np.zeros((1, 3, 4), np.float32),
        np.zeros((1, 3), bool),
        np.array([[16, 32]]),
        np.ones(1, bool),
    )
    predictions = types.Predictions(
        np.zeros((2, 1, 3)), np.full((2, 1, 3, 4), 0.5), np.zeros((2, 1, 3, 16, 32), np.float32)
    )
    total, named = jax.jit(lambda *x: sgmg.loss((proposals, matching.match(proposals, x[1]), x[0]), x[1]))(
        predictions, targets
    )
    assert np.isfinite(total) and all(np.isfinite(x) for x in named.values())
    assert set(named) == {f'loss_{name}{layer}' for name in sgmg.WEIGHTS for layer in ('', '_0')}


def test_extreme_logits_stay_finite():
    logits = jnp.array([-1e4, 0.0, 1e4])
    for target in (0.0, 1.0):
        value, slope = jax.value_and_grad(lambda x, t=target: terms.focal(x, jnp.full(3, t)).sum())(logits)
        assert np.isfinite(value) and np.isfinite(slope).all()


def test_padding_beyond_the_largest_clip_is_ignored():
    """Whatever is predicted there. Padding up to the largest clip, in multiples of 32, counts."""
    rng = np.random.default_rng(0)

    def everything(size, rows, columns):
        """Total loss and costs of a batch whose clips have these sizes, padded to rows x columns."""
        cut = np.s_[..., : rows // 8, : columns // 8, :], np.s_[..., :rows, :columns]
        proposals = types.Proposals(scores, boxes, patches[cut[0]])
        targets = types.Targets(
            masks[cut[1]], boxes[0, :, :, 0], np.ones((2, 3), bool), np.array(size), np.ones(2, bool)
        )
        return loss_and_cost(proposals, types.Predictions(scores[..., 0], boxes[:, :, :, 0], full[cut[1]]), targets)

    @jax.jit
    def loss_and_cost(proposals, predictions, targets):
        query = matching.match(proposals, targets)
        return (*sgmg.loss((proposals, query, predictions), targets), matching.matching_cost(proposals, targets))

    scores = rng.standard_normal((2, 2, 3, 5), dtype=np.float32)
    boxes = rng.uniform(0.2, 0.6, (2, 2, 3, 5, 4)).astype(np.float32)
    patches = rng.standard_normal((2, 2, 3, 5, 12, 16, 16), dtype=np.float32)
    full = rng.standard_normal((2, 2, 3, 96, 128), dtype=np.float32)
    masks = np.zeros((2, 3, 96, 128), bool)
    masks[:, :, 5:40, 9:30] = True
    size = [[50, 70], [64, 33]]  # at most 64 x 96 in multiples of 32
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), everything(size, 64, 96), everything(size, 96, 128)
    )
    assert abs(everything(size, 96, 128)[0] - everything([[50, 70], [65, 33]], 96, 128)[0]) > 1e-3


def test_scales_weigh_their_terms_alone():
    rng = np.random.default_rng(4)
    scores, boxes = rng.standard_normal((2, 1, 3, 5)), rng.uniform(0.2, 0.6, (2, 1, 3, 5, 4))
    proposals = types.Proposals(scores, boxes, rng.standard_normal((2, 1, 3, 5, 4, 4, 16)).astype(np.float32))
    masks = np.zeros((1, 3, 32, 32), bool)
    masks[:, :, 5:20, 9:30] = True
    targets = types.Targets(masks, boxes[0, :, :, 0], np.ones((1, 3), bool), np.array([[32, 32]]), np.ones(1, bool))
    predictions = types.Predictions(
        scores[..., 0], boxes[:, :, :, 1], rng.standard_normal((2, 1, 3, 32, 32)).astype(np.float32)
    )
    query = np.zeros((2, 1), np.int32)
    outputs = proposals, query, predictions
    released, terms_of = sgmg.loss(outputs, targets)
    weights_of = {'mask_scale': {'mask': 2, 'dice': 5, 'mask_low': 2, 'dice_low': 5}, 'class_scale': {'class': 2}}
    for field, weights in weights_of.items():
        scaled, same = sgmg.loss(outputs, targets, **{field: 3})
        parts = [weight * terms_of[f'loss_{name}{layer}'] for name, weight in weights.items() for layer in ('', '_0')]
        np.testing.assert_allclose(scaled - released, 2 * sum(parts), rtol=1e-5)
        assert min(parts) > 0 and all(same[name] == terms_of[name] for name in terms_of)
