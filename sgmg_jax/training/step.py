"""One training step, a pure function of state, batch and seed; and how it is compiled for the devices of a mesh."""
import time
from typing import Any

from absl import logging
from flax import struct
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import optax

from sgmg_jax import compilation, hosts, sharding, systems
from sgmg_jax.training import optimizer as optimizers


@struct.dataclass
class TrainState:
    """step: how many are done. trainable, frozen: parameters, flat dicts path -> array. average: the trainable ones'
    moving average, {} where config.ema_decay is 0. optimizer_state: of optax, with the count of skipped steps."""
    step: jax.Array
    trainable: dict[str, jax.Array]
    frozen: dict[str, jax.Array]
    average: dict[str, jax.Array]
    optimizer_state: Any

    def parameters(self):
        """All parameters to evaluate with, the averages where there are any: path -> array."""
        return self.trainable | self.average | self.frozen


def init_state(model, config):
    """The state before the first step.

    Returns:
        function(key) -> TrainState, to be jitted with the shardings wanted; and the optimizer with its schedule.
    """
    def parameters(key):
        return optimizers.partition(systems.init_parameters(model, key), config.optimizer.freeze)

    shapes, _ = jax.eval_shape(parameters, jax.random.key(0))
    optimizer, schedule = optimizers.make_optimizer(config.optimizer, shapes, config.data.batch_size)

    def init(key):
        trainable, frozen = parameters(key)
        average = dict(trainable) if config.ema_decay else {}
        return TrainState(jnp.zeros((), jnp.int32), trainable, frozen, average, optimizer.init(trainable))

    return init, optimizer, schedule


def make_train_step(model, system, optimizer, seed, accumulate=1, ema_decay=0.0):
    """function(state, batch) -> state, metrics; batch is a types.Example.

    Frozen parameters take no part in the gradient, nor in the norm it is clipped by. Dropout
    follows from the seed and the step. A step whose gradient is not finite changes nothing but its own number.

    Args:
        accumulate: parts of the batch that go through one after the other. Loss, terms and gradient are those of the
            whole batch, however many sentences or frames a part has; but each part draws its own dropout. Every
            device has its share of each part, so this many times its number must divide the batch.
        ema_decay: of the parameters' moving average; 0 for none.

    Metrics are scalars: the loss, its terms for every decoder layer, the gradient's norm, the share of sentences
    whose best-scored query is the matched one; `skipped`, steps skipped so far, and `skipped_in_a_row`.
    """
    def objective(trainable, frozen, key, batch, totals):
        """Of a part of a batch, whose sum over the parts is that of the batch; totals are the whole batch's."""
        outputs = model.apply(
            {'params': optimizers.merge(trainable, frozen)}, batch.clip, batch.text,
            lambda proposals: system.match(proposals, batch.targets, totals), train=True, rngs={'dropout': key})
        total, named = system.loss(outputs, batch.targets, totals=totals)
        proposals, query, _ = outputs
        best = jax.nn.sigmoid(proposals.scores[-1]).mean(axis=1).argmax(axis=-1)
        accuracy = (best == query[-1]).sum(where=batch.targets.asked) / totals.sentences
        return total, {'loss': total, **named, 'query_accuracy': accuracy}

    gradient_of = jax.grad(objective, has_aux=True)

    def train_step(state, batch):
        trainable, frozen = sharding.gathered((state.trainable, state.frozen))
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        totals = system.totals(batch.targets)
        if accumulate == 1:
            gradients, metrics = gradient_of(trainable, frozen, key, batch, totals)
        else:
            def add_part(total, part):
                of_part = gradient_of(trainable, frozen, jax.random.fold_in(key, part[0]), part[1], totals)
                return jax.tree.map(jnp.add, total, of_part), None

            parts = jnp.arange(accumulate), split_batch(batch, accumulate)
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(
                gradient_of, trainable, frozen, key, jax.tree.map(lambda x: x[0], parts[1]), totals))
            (gradients, metrics), _ = jax.lax.scan(add_part, zeros, parts)
        gradients = sharding.gathered(gradients)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        average = {path: jnp.where(optimizer_state.last_finite, optax.incremental_update(trainable[path], x,
                                                                                        1 - ema_decay), x)
                   for path, x in state.average.items()}
        metrics |= {'gradient_norm': optax.tree.norm(gradients), 'skipped': optimizer_state.total_notfinite,
                    'skipped_in_a_row': optimizer_state.notfinite_count}
        return TrainState(state.step + 1, trainable, state.frozen, average, optimizer_state), metrics

    return train_step


def split_batch(batch, parts):
    """A batch, axis B (N) first, as `parts` batches with a new axis in front. Part i has every clip whose number is i
    modulo `parts`, so that clips that lie on a device stay there."""
    clips = len(batch.clip.size)

    def split(x):
        each = len(x) // clips  # sentences of a clip stay together
        x = x.reshape(clips // parts, parts, each, *x.shape[1:]).swapaxes(0, 1)
        return x.reshape(parts, -1, *x.shape[3:])

    return jax.tree.map(split, batch)


class TrainStep:
    """The compiled training step, function(state, this process's batch) -> state, metrics, on the devices of a mesh."""

    def __init__(self, function, mesh, shardings):
        """shardings: of the state."""
        whole = NamedSharding(mesh, PartitionSpec())
        self._jitted = compilation.jit(function, donate_argnums=0, out_shardings=(shardings, whole))
        self._mesh, self._compiled = mesh, None

    def compile(self, state, batch):
        """For arrays of these shapes; says how long it takes."""
        usual = 'on a CPU usually one minute or two' if jax.default_backend() == 'cpu' else 'usually a few minutes'
        logging.info('compiling the training step: %s, or seconds if it was compiled here before', usual)
        begun = time.monotonic()
        with jax.set_mesh(self._mesh):
            self._compiled = self._jitted.lower(state, sharding.global_batch(self._mesh, batch)).compile()
        logging.info('compiled in %.0f s', time.monotonic() - begun)
        # On CPUs a step that has begun waits half a minute for the other processes, and the first of them may have had
        # it from a cache that the others' programs are not in.
        hosts.wait('the step is compiled')

    def __call__(self, state, batch):
        with jax.set_mesh(self._mesh):
            return self._compiled(state, sharding.global_batch(self._mesh, batch))
