"""One training step, a pure function of state, batch and seed."""
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import optax

from sgmg_jax import systems
from sgmg_jax.training import optimizer as optimizers


@struct.dataclass
class TrainState:
    """step: how many are done. trainable, frozen: parameters, flat dicts path -> array."""
    step: jax.Array
    trainable: dict[str, jax.Array]
    frozen: dict[str, jax.Array]
    optimizer_state: Any

    def parameters(self):
        """All parameters, nested as the module wants them."""
        return optimizers.merge(self.trainable, self.frozen)


def init_state(model, config):
    """The state before the first step.

    Returns:
        function(key) -> TrainState, to be jitted with the shardings wanted; and the optimizer with its schedule.
    """
    def parameters(key):
        return optimizers.partition(systems.init_parameters(model, key), config.optimizer.freeze)

    shapes, _ = jax.eval_shape(parameters, jax.random.key(0))
    optimizer, schedule = optimizers.make_optimizer(config.optimizer, shapes)

    def init(key):
        trainable, frozen = parameters(key)
        return TrainState(jnp.zeros((), jnp.int32), trainable, frozen, optimizer.init(trainable))

    return init, optimizer, schedule


def make_train_step(model, system, optimizer, seed):
    """function(state, batch) -> state, metrics; batch is a types.Example.

    Frozen parameters take no part in the gradient, nor in the norm it is clipped by. Dropout
    follows from the seed and the step. Metrics are scalars: the loss, its terms for every decoder
    layer, the gradient's norm, the share of sentences whose best-scored query is the matched one.
    """
    def objective(trainable, state, batch):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        outputs = model.apply(
            {'params': optimizers.merge(trainable, state.frozen)}, batch.clip, batch.text,
            lambda proposals: system.match(proposals, batch.targets), train=True, rngs={'dropout': key})
        total, named = system.loss(outputs, batch.targets)
        return total, (named, outputs)

    def train_step(state, batch):
        (total, (named, (proposals, query, _))), gradients = jax.value_and_grad(objective, has_aux=True)(
            state.trainable, state, batch)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.trainable)
        best = jax.nn.sigmoid(proposals.scores[-1]).mean(axis=1).argmax(axis=-1)
        metrics = {'loss': total, **named, 'gradient_norm': optax.tree.norm(gradients),
                   'query_accuracy': (best == query[-1]).mean(where=batch.targets.asked)}
        state = state.replace(step=state.step + 1, optimizer_state=optimizer_state,
                              trainable=optax.apply_updates(state.trainable, updates))
        return state, metrics

    return train_step
