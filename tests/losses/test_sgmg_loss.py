"""Matching and losses against the authors' release."""
import golden_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmg_jax import types
from sgmg_jax.losses import matching, sgmg, terms

OFFICIAL = {'class': 'ce', 'box': 'bbox'}


def patches(masks):
    """[... 4h 4w] -> [... h w 16], the inverse of the pixel shuffle."""
    *lead, height, width = masks.shape
    x = masks.reshape(*lead, height // 4, 4, width // 4, 4)
    return np.moveaxis(x, -2, -3).reshape(*lead, height // 4, width // 4, 16)


@pytest.mark.parametrize('case', ['comp_criterion_T1', 'comp_criterion_T3_invalid', 'comp_criterion_T4_two_invalid'])
def test_matching_losses_and_gradients_equal_the_release(case):
    arrays, _ = golden_cases.load(case)
    full = arrays['in/masks_full']
    masks = np.zeros(full.shape[1:], bool)
    for i in range(len(masks)):
        mask = arrays[f'in/tgt{i}_masks']
        masks[i, :, :mask.shape[1], :mask.shape[2]] = mask
    boxes, present = (np.stack([arrays[f'in/tgt{i}_{name}'] for i in range(len(masks))])
                      for name in ('boxes', 'valid'))
    targets = types.Targets(masks, boxes, present == 1)

    def total(scores, boxes, low, full):
        proposals = types.Proposals(scores[..., 0], boxes, patches(low))
        cost = matching.matching_cost(proposals, targets)
        query = matching.match(proposals, targets)
        index = query[:, :, None, None, None]
        chosen = types.Predictions(None, jnp.take_along_axis(boxes, index, axis=3)[:, :, :, 0], full)
        low = jnp.take_along_axis(low, index[..., None], axis=3)[:, :, :, 0]
        named = sgmg.loss_terms(proposals, query, chosen, low, targets)
        return sgmg.total_loss(named), (named, query, cost)

    names = ('pred_logits', 'pred_boxes', 'masks_low_all', 'masks_full')
    (value, (named, query, cost)), gradients = jax.value_and_grad(total, argnums=(0, 1, 2, 3), has_aux=True)(
        *(jnp.asarray(arrays[f'in/{name}']) for name in names))
    np.testing.assert_allclose(cost, arrays['out/cost'], atol=1e-4)
    np.testing.assert_array_equal(query, arrays['out/matched_query'])
    np.testing.assert_allclose(value, arrays['out/total'], rtol=1e-5)
    for name, values in named.items():
        official = 'loss_' + OFFICIAL.get(name, name)
        layers = [*(f'_{i}' for i in range(len(values) - 1)), '']
        expected = [arrays[f'out/loss/{official}{layer}'] for layer in layers]
        np.testing.assert_allclose(values, expected, rtol=1e-4, err_msg=name)
    for name, gradient in zip(names, gradients):
        np.testing.assert_allclose(gradient, arrays[f'grad/{name}'], atol=1e-5, err_msg=name)


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
