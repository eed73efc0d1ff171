"""SOC's matching and loss beyond the golden cases (tests/parity/test_parity.py)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from sgmg_jax import types
from sgmg_jax.losses import matching, soc


def make_case(sentences=2, frames=3, queries=4, seed=0):
    """types.Proposals of two layers, and types.Targets."""
    rng = np.random.default_rng(seed)
    lead = 2, sentences, frames, queries
    proposals = types.Proposals(
        rng.standard_normal(lead, dtype=np.float32),
        rng.uniform(0.1, 0.9, (*lead, 4)).astype(np.float32),
        rng.standard_normal((*lead, 4, 6, 1), dtype=np.float32),
        rng.standard_normal((2, sentences, queries), dtype=np.float32),
    )
    masks = rng.random((sentences, frames, 16, 24)) < 0.4
    targets = types.Targets(
        masks,
        rng.uniform(0.2, 0.6, (sentences, frames, 4)).astype(np.float32),
        np.ones((sentences, frames), bool),
        np.full((sentences, 2), (16, 24), np.int32),
        np.ones(sentences, bool),
    )
    return proposals, targets


@pytest.mark.parametrize('objects', [1, 2, 3, 5])
@pytest.mark.parametrize('queries', [5, 8])
def test_assignment_equals_scipys(queries, objects):
    """Batched; some clips have fewer objects than the axis."""
    rng = np.random.default_rng(queries * objects)
    cost = rng.standard_normal((2, 6, queries, objects)).astype(np.float32)
    real = np.arange(objects) < rng.integers(1, objects + 1, 6)[:, None]
    ours = jax.jit(matching.assign)(cost, real)
    assert ours.shape == (2, 6, objects)
    for (d, n), _ in np.ndenumerate(np.zeros((2, 6))):
        count = real[n].sum()
        rows, columns = scipy.optimize.linear_sum_assignment(cost[d, n, :, :count])
        np.testing.assert_array_equal(ours[d, n, :count], rows[np.argsort(columns)])
        assert len(set(ours[d, n].tolist())) == objects


def test_more_objects_than_queries_are_an_error():
    with pytest.raises(ValueError, match='3 objects cannot be matched with 2 queries; raise config.model.queries'):
        matching.assign(np.zeros((1, 1, 2, 3)), np.ones((1, 3), bool))


@functools.partial(jax.jit, static_argnames='weights')
def outcome(proposals, targets, weights='released'):
    query = soc.match(proposals, targets)
    return query, *soc.loss((proposals, query, None), targets, weights)


def test_padded_trajectories_are_ignored():
    proposals, targets = make_case()
    alone = soc.of_targets(targets)
    rng = np.random.default_rng(1)
    filled = dataclasses.replace(
        alone,
        masks=np.concatenate([alone.masks, rng.random((2, 2, 3, 16, 24)) < 0.5], axis=1),
        boxes=np.concatenate([alone.boxes, rng.random((2, 2, 3, 4), dtype=np.float32)], axis=1),
        real=np.array([[True, False, False]] * 2),
    )
    inputs = proposals.scores[..., None], proposals.boxes, proposals.mask_logits[..., 0]
    few, many = (jax.jit(soc.match_trajectories)(*inputs, x)[0] for x in (alone, filled))
    np.testing.assert_array_equal(few[..., 0], many[..., 0])
    terms = [jax.jit(soc.loss_terms)(*inputs, proposals.alignment, *case) for case in ((few, alone), (many, filled))]
    for name in terms[0]:
        np.testing.assert_allclose(terms[0][name], terms[1][name], rtol=1e-5, err_msg=name)


def test_padded_sentences_are_ignored():
    proposals, targets = make_case(sentences=3)
    targets = dataclasses.replace(
        targets, asked=np.array([True, False, True]), present=targets.present & np.array([[True], [False], [True]])
    )
    kept = np.array([0, 2])
    fewer = jax.tree.map(lambda x: x[:, kept], proposals), jax.tree.map(lambda x: x[kept], targets)
    query, total, named = outcome(proposals, targets)
    expected_query, expected, _ = outcome(*fewer)
    np.testing.assert_array_equal(query[:, kept], expected_query)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert set(named) == {f'loss_{term}{layer}' for term in soc.WEIGHTS['paper'] for layer in ('', '_0')}


@pytest.mark.parametrize('frames', [1, 3])
def test_an_object_that_is_never_visible_gives_finite_losses(frames):
    """The released code fails here: it has nothing to divide by."""
    proposals, targets = make_case(frames=frames)
    targets = dataclasses.replace(
        targets, masks=targets.masks & False, boxes=targets.boxes * 0, present=targets.present & False
    )
    _, total, named = outcome(proposals, targets)
    assert np.isfinite(total) and all(np.isfinite(x) for x in named.values())
    gradients = jax.grad(lambda x: outcome(x, targets)[1])(proposals)
    assert all(np.isfinite(x).all() and np.any(x) for x in jax.tree.leaves(gradients))


def test_bfloat16_masks_are_compared_in_float32():
    proposals, targets = make_case()
    masks = jnp.asarray(proposals.mask_logits, jnp.bfloat16)
    half, whole = (
        outcome(dataclasses.replace(proposals, mask_logits=x), targets) for x in (masks, masks.astype(jnp.float32))
    )
    jax.tree.map(np.testing.assert_array_equal, half, whole)


def test_weights_of_the_paper():
    proposals, targets = make_case()
    (_, released, named), (_, paper, _) = outcome(proposals, targets), outcome(proposals, targets, weights='paper')
    difference = sum(3 * named[f'loss_mask{layer}'] - 3 * named[f'loss_dice{layer}'] for layer in ('', '_0'))
    np.testing.assert_allclose(paper - released, difference, rtol=1e-4)
    with pytest.raises(ValueError, match="config.loss.weights = 'mine': must be one of released, paper"):
        outcome(proposals, targets, weights='mine')


def test_padded_pixels_are_ignored():
    """Whatever is predicted there, beyond the reach of bilinear resizing."""
    proposals, targets = make_case()

    def padded(value):
        masks = np.full((*proposals.mask_logits.shape[:4], 6, 8, 1), 0.3, np.float32)
        masks[..., :4, :6, :] = proposals.mask_logits
        masks[..., 5:, :, :] = masks[..., :, 7:, :] = value
        wide = np.zeros((*targets.masks.shape[:2], 24, 32), bool)
        wide[..., :16, :24] = targets.masks
        return outcome(dataclasses.replace(proposals, mask_logits=masks), dataclasses.replace(targets, masks=wide))

    (one, first, _), (other, second, _) = padded(0.3), padded(50.0)
    np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(first, second, rtol=1e-6)
