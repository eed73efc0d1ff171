"""Gradient accumulation gives the same step as the whole batch, with the losses and the matching of every system."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgmg_jax import systems, types
from sgmg_jax.training import step as steps

CLIPS, FRAMES, LAYERS, QUERIES = 4, 3, 2, 3
SIZES = [(20, 50), (32, 33), (60, 60), (31, 64)]  # of the clips, padded to 64x96; the third is the largest
PRESENT = [3, 1, 0, 2]  # the number of frames per clip that show the object of its first sentence
SENTENCES = {'sgmg': 1, 'fast_sgmg': 2, 'soc': 2}  # per clip


def make_targets(each, frames=FRAMES, sizes=SIZES, shape=(64, 96)):
    """Clips that differ in everything that a loss divides by. All but the first sentence of the first clip, and the
    last sentence of the last clip, are padding."""
    rng = np.random.default_rng(0)
    count = len(sizes) * each
    size = np.repeat(np.array(sizes, np.int32), each, axis=0)
    present = np.arange(frames) < np.resize(PRESENT, (each, len(sizes))).T.reshape(-1, 1)
    asked = np.ones((len(sizes), each), bool)
    if each > 1:
        asked[0, 1:] = asked[-1, -1] = False
    asked = asked.ravel()
    present &= asked[:, None]
    rows, columns = (np.arange(n) < size[:, i, None] for i, n in enumerate(shape))
    masks = (rng.random((count, frames, *shape)) < 0.3) & (rows[:, :, None] & columns[:, None])[:, None]
    boxes = rng.uniform(0.2, 0.6, (count, frames, 4)).astype(np.float32) * present[..., None]
    return types.Targets(masks & present[..., None, None], boxes, present, size, asked)


class Free(nn.Module):
    """A model whose outputs are its parameters; sentence n has token n."""

    @staticmethod
    def parameters(name):
        rng = np.random.default_rng(1)
        lead = LAYERS, CLIPS * SENTENCES[name], FRAMES, QUERIES
        patches = (16, 24, 1) if name == 'soc' else (8, 12, 16)
        return {
            'scores': rng.standard_normal(lead, dtype=np.float32),
            'boxes': rng.uniform(0.2, 0.6, (*lead, 4)).astype(np.float32),
            # Large at the bottom, outside all but the largest clip, where queries differ.
            'masks': rng.standard_normal((*lead, *patches), dtype=np.float32)
            * np.linspace(0.1, 4, patches[0], dtype=np.float32)[:, None, None],
            'refined': rng.standard_normal((*lead[:3], 64, 96), dtype=np.float32),
            'alignment': rng.standard_normal((*lead[:2], QUERIES), dtype=np.float32),
        }

    @staticmethod
    def apply(variables, clip, text, select, train, rngs):
        own = {path: x[:, text.tokens[:, 0]] for path, x in variables['params'].items()}
        proposals = types.Proposals(own['scores'], own['boxes'], own['masks'], own['alignment'])
        query = select(proposals)
        boxes = jnp.take_along_axis(own['boxes'], query[:, :, None, None, None], axis=3)[:, :, :, 0]
        scores = jnp.take_along_axis(own['scores'], query[:, :, None, None], axis=3)[..., 0]
        return proposals, query, types.Predictions(scores, boxes, own['refined'])


def make_step(model, system, parameters, accumulate):
    """function(batch) -> metrics and gradients of a training step."""
    optimizer = optax.apply_if_finite(optax.trace(0), 1)  # its state is the gradient
    state = steps.TrainState(jnp.zeros((), jnp.int32), parameters, {}, {}, optimizer.init(parameters))
    step = jax.jit(steps.make_train_step(model, system, optimizer, accumulate))

    def outcome(batch):
        after, metrics = step(state, batch, 0)
        return metrics, after.optimizer_state.inner_state.trace

    return outcome


@pytest.mark.parametrize('name, accumulate', [('sgmg', 4), ('fast_sgmg', 2), ('soc', 4)])
def test_loss_terms_and_gradients_are_those_of_the_whole_batch(name, accumulate):
    numbers = np.arange(CLIPS * SENTENCES[name])[:, None]
    batch = types.Example(
        types.Clip(
            np.zeros((CLIPS, FRAMES, 1, 1, 3), np.float32),
            np.ones((CLIPS, FRAMES, 1, 1), bool),
            np.array(SIZES, np.int32),
        ),
        types.Text(numbers, numbers >= 0),
        make_targets(SENTENCES[name]),
    )
    whole, in_parts = (
        make_step(Free(), systems.SYSTEMS[name], Free.parameters(name), parts) for parts in (1, accumulate)
    )
    (metrics, gradients), (expected, of_batch) = in_parts(batch), whole(batch)
    assert set(metrics) == set(expected) and expected['loss'] > 0.1 and expected['skipped'] == 0
    for term, value in expected.items():
        np.testing.assert_allclose(metrics[term], value, rtol=1e-5, err_msg=term)
    for path, x in of_batch.items():
        np.testing.assert_allclose(gradients[path], x, rtol=1e-5, atol=1e-5 * np.abs(x).max(), err_msg=path)

    padding = dataclasses.replace(batch.targets, asked=np.zeros(len(numbers), bool))
    outcome = in_parts(dataclasses.replace(batch, targets=padding))
    assert not any(np.any(x) for x in jax.tree.leaves(outcome))  # zero, not NaN
