"""The step with a model of four numbers: gradient accumulation, dropout, moving average, non-finite gradients."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import pytest

from sgmg_jax import sharding, systems, types
from sgmg_jax.losses import terms
from sgmg_jax.training import optimizer as optimizers
from sgmg_jax.training import step as steps

CLIPS, EACH, CHANNELS = 6, 2, 3
OTHER = 8.0, -4.0  # logits of query 1 in the two frames
OPTIMIZER = ConfigDict(
    dict(
        batch_size=CLIPS,
        learning_rate=1e-2,
        groups=(),
        freeze=('frozen',),
        weight_decay=0.1,
        clip_norm=10.0,
        warmup_steps=0,
        drop_steps=(),
    )
)


class Linear(nn.Module):
    """Query 0 scores a sentence by its clip's features times the parameters, equally in both frames; query 1 has a high
    score in one frame only."""

    @staticmethod
    def apply(variables, clip, text, select, train, rngs):
        parameters = variables['params']
        features = jnp.repeat(clip.frames[:, 0, 0, 0], EACH, axis=0)  # N C
        scores = features @ parameters['kernel'] * parameters['frozen']
        scores = jnp.stack([jnp.stack([scores, scores], -1), jnp.zeros((len(scores), 2)) + jnp.array(OTHER)], -1)
        proposals = types.Proposals(
            scores[None], jnp.zeros((1, *scores.shape, 4)), jnp.zeros((1, *scores.shape, 1, 1, 1))
        )
        return proposals, select(proposals), jax.random.uniform(rngs['dropout']) if train else jnp.zeros(())


def loss(outputs, targets, totals):
    """A mean over the sentences that are not padding; the named terms are the model's random number and its square."""
    proposals, _, draw = outputs
    errors = (proposals.scores[0, :, 0, 0] - targets.boxes[:, 0, 0]) ** 2
    return errors.sum(where=targets.asked) / totals.sentences, {'loss_draw': draw, 'loss_square': draw**2}


SYSTEM = systems.System(
    Linear,
    totals=lambda targets: terms.Totals(targets.present.sum(), targets.asked.sum()),
    match=lambda proposals, targets, totals: jnp.zeros((1, len(targets.asked)), int),
    loss=loss,
)


def make_batch(seed=0):
    rng = np.random.default_rng(seed)
    features, wanted = rng.normal(size=(CLIPS, 1, 1, 1, CHANNELS)), rng.normal(size=(CLIPS * EACH, 1, 1))
    clip = types.Clip(features.astype(np.float32), np.ones((CLIPS, 1, 1, 1), bool), np.ones((CLIPS, 2), int))
    words = types.Text(np.zeros((CLIPS * EACH, 1), int), np.ones((CLIPS * EACH, 1), bool))
    return types.Example(
        clip,
        words,
        types.Targets(
            np.zeros((CLIPS * EACH, 1, 1, 1), bool),
            np.tile(wanted, 4).astype(np.float32),
            np.ones((CLIPS * EACH, 1), bool),
            np.ones((CLIPS * EACH, 2), int),
            np.ones(CLIPS * EACH, bool),
        ),
    )


def start(ema_decay=0.0, seed=0, **options):
    trainable = {'kernel': jnp.array([1.0, -2.0, 0.5])}
    optimizer, _ = optimizers.make_optimizer(OPTIMIZER, trainable, CLIPS)
    average = dict(trainable) if ema_decay else {}
    state = steps.TrainState(
        jnp.zeros((), jnp.int32), trainable, {'frozen': jnp.array(2.0)}, average, optimizer.init(trainable)
    )
    step = jax.jit(steps.make_train_step(Linear(), SYSTEM, optimizer, ema_decay=ema_decay, **options))
    return state, functools.partial(step, seed=seed)


@pytest.mark.parametrize('parts', [2, 3, 6])
def test_accumulation_gives_the_same_step(parts):
    """Also if parts have different numbers of sentences."""
    (whole, step), (state, in_parts) = start(ema_decay=0.9), start(ema_decay=0.9, accumulate=parts)
    for seed in range(3):
        batch = make_batch(seed)
        batch.targets.asked[[0, 1, 5]] = False  # clip 0, and a sentence of clip 2: both of part 0 of 2
        whole, expected = step(whole, batch)
        state, metrics = in_parts(state, batch)
        for name in set(expected) - {'loss_draw', 'loss_square'}:
            np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5, err_msg=name)
    for name in ('trainable', 'average'):
        np.testing.assert_allclose(getattr(state, name)['kernel'], getattr(whole, name)['kernel'], rtol=1e-5)


def test_dropout_differs_per_step_and_part():
    """It is on, and depends only on the seed and the step number."""
    (state, step), (_, in_parts) = start(), start(accumulate=3)
    one, again, later = (step(state.replace(step=jnp.array(n)), make_batch())[1]['loss_draw'] for n in (5, 5, 6))
    assert one == again != later
    _, other = start(seed=1)
    assert other(state.replace(step=jnp.array(5)), make_batch())[1]['loss_draw'] != one
    draws = [in_parts(state.replace(step=jnp.array(n)), make_batch())[1] for n in (5, 6)]
    assert draws[0]['loss_draw'] != draws[1]['loss_draw']
    for metrics in draws:  # if all were equal, the squared mean would be the mean square
        assert metrics['loss_square'] / 3 > (metrics['loss_draw'] / 3) ** 2 + 1e-3


def test_seeds_share_a_compiled_step():
    mesh = sharding.make_mesh(1, jax.devices()[:1])
    programs, draws = set(), set()
    for seed in range(2):
        state, step = start()
        shardings = sharding.parameter_shardings(mesh, jax.eval_shape(lambda state=state: state))
        train_step = steps.TrainStep(step.func, mesh, shardings, seed)
        train_step.compile(state, make_batch())
        programs.add(train_step._compiled.as_text())
        draws.add(float(train_step(state, make_batch())[1]['loss_draw']))
    assert len(programs) == 1 and len(draws) == 2


def test_query_accuracy():
    """The fraction of sentences, without padding, whose best query by mean score is the matched one, here query 0."""
    state, step = start()
    batch = make_batch()
    batch.targets.asked[[0, 3, 4]] = False
    scores = np.repeat(batch.clip.frames[:, 0, 0, 0], EACH, axis=0) @ np.array([1.0, -2.0, 0.5]) * 2
    right = 1 / (1 + np.exp(-scores)) > np.mean(1 / (1 + np.exp(-np.array(OTHER))))
    expected = right[batch.targets.asked].mean()
    assert 0 < expected < 1
    np.testing.assert_allclose(step(state, batch)[1]['query_accuracy'], expected, rtol=1e-6)


def test_a_part_takes_clips_from_every_device():
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


def test_steps_with_a_gradient_that_is_not_finite_are_skipped():
    state, step = start(ema_decay=0.9)
    state, _ = step(state, make_batch())
    bad = make_batch(1)
    bad.clip.frames[3, ..., 1] = np.nan
    after, count = state, 0
    for count in (1, 2):
        after, metrics = step(after, bad)
        assert metrics['skipped'] == metrics['skipped_in_a_row'] == count and not np.isfinite(metrics['loss'])
    assert after.step == 3
    for one, other in (
        (state.trainable, after.trainable),
        (state.average, after.average),
        (state.optimizer_state.inner_state, after.optimizer_state.inner_state),
    ):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    after, metrics = step(after, make_batch(2))
    assert metrics['skipped'] == 2 and metrics['skipped_in_a_row'] == 0
    expected, _ = step(state, make_batch(2))
    np.testing.assert_array_equal(after.trainable['kernel'], expected.trainable['kernel'])


def test_learning_rates_scale_with_the_batch_size():
    rates = [optimizers.make_optimizer(OPTIMIZER, {'kernel': np.zeros(3)}, size)[1](0) for size in (CLIPS, 2 * CLIPS)]
    assert rates == [1, 2]
