"""The optimizer, compared with AdamW in NumPy."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import pytest

from sgmg_jax.training import optimizer

CONFIG = ConfigDict(
    dict(
        batch_size=8,
        learning_rate=1e-2,
        groups=(('backbone/.*', 5e-3), ('.*/bias', 2e-3)),
        freeze=('text/.*',),
        weight_decay=0.5,
        clip_norm=0.1,
        warmup_steps=0,
        drop_steps=(3,),
    )
)
PATHS = {'backbone/kernel': 5e-3, 'backbone/bias': 5e-3, 'head/kernel': 1e-2, 'head/bias': 2e-3, 'norm/scale': 1e-2}


def adamw(parameters, gradients, rates, config, drops):
    """PyTorch's AdamW with clip_grad_norm_, step by step, in double precision."""
    first, second = ({k: 0.0 for k in parameters} for _ in range(2))
    parameters = {k: v.astype(np.float64) for k, v in parameters.items()}
    for step, gradient in enumerate(gradients, 1):
        norm = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in gradient.values()))
        clip = min(1.0, config.clip_norm / norm)
        for k in parameters:
            rate = rates[k] * 0.1 ** sum(step > d for d in drops)
            g = gradient[k] * clip
            first[k] = 0.9 * first[k] + 0.1 * g
            second[k] = 0.999 * second[k] + 0.001 * g**2
            update = first[k] / (1 - 0.9**step) / (np.sqrt(second[k] / (1 - 0.999**step)) + 1e-8)
            parameters[k] -= rate * (update + config.weight_decay * parameters[k])
    return parameters


def test_groups_clipping_decay_and_schedule():
    rng = np.random.default_rng(0)
    shapes = {path: (3, 4) if path.endswith('kernel') else (4,) for path in PATHS}
    start = {k: rng.standard_normal(s).astype(np.float32) for k, s in shapes.items()}
    # The last gradient is below the clipping norm.
    gradients = [
        {k: (scale * rng.standard_normal(s)).astype(np.float32) for k, s in shapes.items()}
        for scale in (10, 1, 1, 1, 1e-3)
    ]
    transformation, schedule = optimizer.make_optimizer(CONFIG, start, batch_size=8)
    state, ours, update = transformation.init(start), start, jax.jit(transformation.update)
    for gradient in gradients:
        updates, state = update(gradient, state, ours)
        ours = jax.tree.map(jnp.add, ours, updates)
    expected = adamw(start, gradients, PATHS, CONFIG, drops=CONFIG.drop_steps)
    for k in ours:
        np.testing.assert_allclose(ours[k], expected[k], rtol=1e-5, atol=1e-7, err_msg=k)
    np.testing.assert_allclose([schedule(step) for step in range(6)], [1, 1, 1, 0.1, 0.1, 0.1], rtol=1e-6)


def test_the_schedule_gives_the_learning_rate_of_the_update():
    """During warm-up, at a drop, for another batch size and after a skipped step; computed as in training.progress,
    from
    the numbers of done and skipped steps."""
    config = CONFIG.copy_and_resolve_references()
    config.update(groups=(), weight_decay=0.0, warmup_steps=2, drop_steps=(4,))
    parameters = {'head/kernel': jnp.ones(3)}
    transformation, schedule = optimizer.make_optimizer(config, parameters, batch_size=16)
    state, rates, update = transformation.init(parameters), [], jax.jit(transformation.update)
    for done in range(8):
        gradient = {'head/kernel': jnp.full(3, np.nan if done == 3 else 1.0)}
        updates, state = update(gradient, state, parameters)
        rates.append(-updates['head/kernel'][0])
        if done == 3:
            assert state.total_notfinite == 1 and not any(updates['head/kernel'])
        else:  # for a constant gradient, Adam's step is the learning rate
            logged = schedule(done - state.total_notfinite) * config.learning_rate
            np.testing.assert_allclose(rates[-1], logged, rtol=1e-3)
    np.testing.assert_allclose(rates, [0, 0.01, 0.02, 0, 0.02, 0.002, 0.002, 0.002], rtol=1e-3)


def test_warm_up_is_linear_and_does_not_shift_drops():
    schedule = optimizer.make_schedule(warmup_steps=4, drop_steps=(6, 8))
    np.testing.assert_allclose(
        [schedule(step) for step in range(10)], [0, 0.25, 0.5, 0.75, 1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6
    )


def test_partition_and_merge():
    tree = {'text': {'kernel': 1, 'deep': {'bias': 2}}, 'head': {'kernel': 3}}
    trainable, frozen = optimizer.partition(tree, ('text/.*',))
    assert trainable == {'head/kernel': 3} and frozen == {'text/kernel': 1, 'text/deep/bias': 2}
    assert optimizer.merge(trainable, frozen) == tree
    assert optimizer.partition(tree, ()) == ({'text/kernel': 1, 'text/deep/bias': 2, 'head/kernel': 3}, {})
    with pytest.raises(ValueError, match="freeze: 'txt/.*' matches no parameter"):
        optimizer.partition(tree, ('txt/.*',))


def test_groups_without_parameters_are_refused():
    config = CONFIG.copy_and_resolve_references()
    config.groups = (('.*', 1e-3), ('head/.*', 1e-4))
    with pytest.raises(ValueError, match="groups: 'head/.*' is not the first match of any trainable"):
        optimizer.make_optimizer(config, {'head/kernel': np.zeros(2)}, batch_size=8)
