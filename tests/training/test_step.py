"""The step's arithmetic, on a model of four numbers: parts of a batch, moving average, gradients not finite."""
import types as namespaces

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax
import pytest

from sgmg_jax import types
from sgmg_jax.training import optimizer as optimizers
from sgmg_jax.training import step as steps

CLIPS, EACH, CHANNELS = 6, 2, 3
OPTIMIZER = ConfigDict(dict(batch_size=CLIPS, learning_rate=1e-2, groups=(), freeze=('frozen',), weight_decay=0.1,
                            clip_norm=10.0, warmup_steps=0, drop_steps=()))


class Linear:
    """Scores a sentence by its clip's features and the product of its parameters."""

    @staticmethod
    def apply(variables, clip, text, select, train, rngs):
        parameters = variables['params']
        features = jnp.repeat(clip.frames, EACH, axis=0)  # N C
        scores = (features @ parameters['kernel'] * parameters['frozen']).reshape(1, -1, 1, 1)
        proposals = types.Proposals(scores, None, None)
        return proposals, select(proposals), None


SYSTEM = namespaces.SimpleNamespace(
    match=lambda proposals, targets: jnp.zeros((1, len(targets.asked)), int),
    loss=lambda outputs, targets: (
        ((outputs[0].scores[0, :, 0, 0] - targets.boxes) ** 2).mean(where=targets.asked), {'loss_box': 0.0}))


def make_batch(seed=0):
    rng = np.random.default_rng(seed)
    features, wanted = rng.normal(size=(CLIPS, CHANNELS)).astype(np.float32), rng.normal(size=CLIPS * EACH)
    clip = types.Clip(features, np.ones((CLIPS, 1)), np.ones((CLIPS, 2)))
    return types.Example(clip, types.Text(np.zeros((CLIPS * EACH, 1)), np.ones((CLIPS * EACH, 1))), types.Targets(
        np.zeros((CLIPS * EACH, 1)), wanted.astype(np.float32), np.ones((CLIPS * EACH, 1)),
        np.ones((CLIPS * EACH, 2)), np.ones(CLIPS * EACH, bool)))


def start(ema_decay=0.0, **options):
    trainable = {'kernel': jnp.array([1.0, -2.0, 0.5])}
    optimizer, _ = optimizers.make_optimizer(OPTIMIZER, trainable, CLIPS)
    average = dict(trainable) if ema_decay else {}
    state = steps.TrainState(jnp.zeros((), jnp.int32), trainable, {'frozen': jnp.array(2.0)}, average,
                             optimizer.init(trainable))
    return state, jax.jit(steps.make_train_step(Linear, SYSTEM, optimizer, 0, ema_decay=ema_decay, **options))


@pytest.mark.parametrize('parts', [2, 3, 6])
def test_a_batch_in_parts_gives_the_mean_of_theirs(parts):
    """Here that of the batch, as this loss is a mean over clips."""
    (whole, step), (state, in_parts) = start(), start(accumulate=parts)
    for seed in range(3):
        whole, expected = step(whole, make_batch(seed))
        state, metrics = in_parts(state, make_batch(seed))
        for name in expected:
            np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5, atol=1e-7, err_msg=name)
    np.testing.assert_allclose(state.trainable['kernel'], whole.trainable['kernel'], rtol=1e-5)


def test_every_part_counts_the_same():
    """Also where more sentences are asked in one than in the other, so that it is not the gradient of the batch."""
    batch = make_batch()
    batch.targets.asked[[0, 1, 5]] = False  # clip 0, and a sentence of clip 2: both of part 0
    before, _ = start()
    optimizer = optax.apply_if_finite(optax.sgd(1.0), 1)
    before = before.replace(optimizer_state=optimizer.init(before.trainable))

    def step(batch, accumulate):
        after, metrics = jax.jit(steps.make_train_step(Linear, SYSTEM, optimizer, 0, accumulate))(before, batch)
        return [*(before.trainable['kernel'] - after.trainable['kernel']), metrics['loss']]  # the gradient, the loss

    parts = [step(jax.tree.map(lambda x, i=i: x[i], steps.split_batch(batch, 2)), 1) for i in range(2)]
    np.testing.assert_allclose(step(batch, 2), np.mean(parts, axis=0), rtol=1e-5)
    assert not np.allclose(step(batch, 1), np.mean(parts, axis=0), rtol=1e-2)


def test_the_clips_of_a_part_lie_on_every_device():
    parts = steps.split_batch(make_batch(), 3)
    batch = make_batch()
    for i in range(3):
        np.testing.assert_array_equal(parts.clip.frames[i], batch.clip.frames[i::3])
        sentences = [EACH * clip + e for clip in range(i, CLIPS, 3) for e in range(EACH)]
        np.testing.assert_array_equal(parts.targets.boxes[i], batch.targets.boxes[sentences])


def test_moving_average():
    state, step = start(ema_decay=0.9)
    expected = np.array(state.trainable['kernel'], np.float64)
    for seed in range(5):
        state, _ = step(state, make_batch(seed))
        expected = 0.9 * expected + 0.1 * np.array(state.trainable['kernel'], np.float64)
    np.testing.assert_allclose(state.average['kernel'], expected, rtol=1e-6)
    parameters = state.parameters()
    assert set(parameters) == {'kernel', 'frozen'}
    np.testing.assert_array_equal(parameters['kernel'], state.average['kernel'])


def test_a_gradient_that_is_not_finite_changes_nothing_but_the_step():
    state, step = start(ema_decay=0.9)
    state, _ = step(state, make_batch())
    bad = make_batch(1)
    bad.clip.frames[3, 1] = np.nan
    after, count = state, 0
    for count in (1, 2):
        after, metrics = step(after, bad)
        assert metrics['skipped'] == metrics['skipped_in_a_row'] == count and not np.isfinite(metrics['loss'])
    assert after.step == 3
    for one, other in ((state.trainable, after.trainable), (state.average, after.average),
                       (state.optimizer_state.inner_state, after.optimizer_state.inner_state)):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    after, metrics = step(after, make_batch(2))
    assert metrics['skipped'] == 2 and metrics['skipped_in_a_row'] == 0
    expected, _ = step(state, make_batch(2))
    np.testing.assert_array_equal(after.trainable['kernel'], expected.trainable['kernel'])


def test_rates_follow_the_size_of_the_batch():
    rates = [optimizers.make_optimizer(OPTIMIZER, {'kernel': np.zeros(3)}, size)[1](0) for size in (CLIPS, 2 * CLIPS)]
    assert rates == [1, 2]
