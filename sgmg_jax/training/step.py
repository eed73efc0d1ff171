"""One training step, a pure function of state, batch and seed, and its compilation for the devices of a mesh."""

from collections.abc import Callable
import time
from typing import Any

from absl import logging
from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict
import numpy as np
import optax

from sgmg_jax import compilation, hosts, sharding, systems, types
from sgmg_jax.training import optimizer as optimizers


@struct.dataclass
class TrainState:
    """The state of training. Leaves are arrays, or their ShapeDtypeStructs or shardings.

    step: the number of finished steps. trainable, frozen: parameters, flat dicts path -> array. average: the moving
    average of the trainable ones, {} if config.ema_decay is 0. optimizer_state: of optax, with the count of skipped
    steps.
    """

    step: Any
    trainable: dict[str, Any]
    frozen: dict[str, Any]
    average: dict[str, Any]
    optimizer_state: Any

    def parameters(self) -> dict[str, Any]:
        """All parameters for evaluation, path -> array; the average replaces the trainable ones if there is one."""
        return self.trainable | self.average | self.frozen


# (state, batch, seed) -> state, metrics
StepFunction = Callable[[TrainState, types.Example, Any], tuple[TrainState, dict[str, jax.Array]]]


def init_state(
    model: nn.Module, config: ConfigDict
) -> tuple[Callable[[jax.Array], TrainState], optax.GradientTransformation, Callable[[Any], Any]]:
    """The state before the first step.

    Returns:
        function(key) -> TrainState, to be jitted with its shardings; the optimizer; and its schedule.
    """

    def parameters(key: jax.Array) -> tuple[dict, dict]:
        return optimizers.partition(systems.init_parameters(model, key), config.optimizer.freeze)

    shapes, _ = jax.eval_shape(parameters, jax.random.key(0))
    optimizer, schedule = optimizers.make_optimizer(config.optimizer, shapes, config.data.batch_size)

    def init(key: jax.Array) -> TrainState:
        trainable, frozen = parameters(key)
        average = dict(trainable) if config.ema_decay else {}
        return TrainState(jnp.zeros((), jnp.int32), trainable, frozen, average, optimizer.init(trainable))

    return init, optimizer, schedule


def make_train_step(
    model: nn.Module,
    system: systems.System,
    optimizer: optax.GradientTransformation,
    accumulate: int = 1,
    ema_decay: float = 0.0,
) -> StepFunction:
    """function(state, batch, seed) -> state, metrics.

    Frozen parameters are not part of the gradient or of its norm for clipping. Dropout depends only on the seed and the
    step. A step whose gradient is not finite changes nothing but the step number.

    Args:
        accumulate: process the batch in this many parts, one after the other. Loss, terms and gradient are those of the
            whole batch, however its sentences and frames are distributed; but each part draws its own dropout. Each
            device gets its share of each part, so accumulate times the number of devices must divide the batch size.
        ema_decay: decay of the parameters' moving average; 0 for no average.

    Metrics are scalars: the loss, its terms for every decoder layer, the gradient norm, the fraction of sentences whose
    best-scored query is the matched one; `skipped`, the number of steps skipped so far, and `skipped_in_a_row`.
    """

    def objective(trainable, frozen, key, batch, totals):
        """The loss of a part of a batch, normalised by the `totals` of the whole batch: the parts' losses add up."""
        outputs = model.apply(
            {'params': optimizers.merge(trainable, frozen)},
            batch.clip,
            batch.text,
            lambda proposals: system.match(proposals, batch.targets, totals),
            train=True,
            rngs={'dropout': key},
        )
        total, named = system.loss(outputs, batch.targets, totals=totals)
        proposals, query, _ = outputs
        best = jax.nn.sigmoid(proposals.scores[-1]).mean(axis=1).argmax(axis=-1)
        accuracy = (best == query[-1]).sum(where=batch.targets.asked) / totals.sentences
        return total, {'loss': total, **named, 'query_accuracy': accuracy}

    gradient_of = jax.grad(objective, has_aux=True)

    def train_step(state: TrainState, batch: types.Example, seed: Any) -> tuple[TrainState, dict[str, jax.Array]]:
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
            zeros = jax.tree.map(
                lambda x: jnp.zeros(x.shape, x.dtype),
                jax.eval_shape(gradient_of, trainable, frozen, key, jax.tree.map(lambda x: x[0], parts[1]), totals),
            )
            (gradients, metrics), _ = jax.lax.scan(add_part, zeros, parts)
        gradients = sharding.gathered(gradients)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        average = {
            path: jnp.where(optimizer_state.last_finite, optax.incremental_update(trainable[path], x, 1 - ema_decay), x)
            for path, x in state.average.items()
        }
        metrics |= {
            'gradient_norm': optax.tree.norm(gradients),
            'skipped': optimizer_state.total_notfinite,
            'skipped_in_a_row': optimizer_state.notfinite_count,
        }
        return TrainState(state.step + 1, trainable, state.frozen, average, optimizer_state), metrics

    return train_step


def split_batch(batch: types.Example, parts: int) -> types.Example:
    """Splits a batch, whose first axis is B or N, into `parts` along a new leading axis. Part i has the clips whose
    index is i modulo `parts`, so that clips stay on their device."""
    clips = len(batch.clip.size)

    def split(x):
        each = len(x) // clips  # Sentences of a clip stay together.
        x = x.reshape(clips // parts, parts, each, *x.shape[1:]).swapaxes(0, 1)
        return x.reshape(parts, -1, *x.shape[3:])

    return jax.tree.map(split, batch)


class TrainStep:
    """A training step compiled for a mesh: function(state, this process's part of the batch) -> state, metrics."""

    def __init__(self, function: StepFunction, mesh: Mesh, shardings: TrainState, seed: int) -> None:
        """shardings: of the state. seed: an argument of the compiled step, so that runs with other seeds find it in the
        compilation cache."""
        whole = NamedSharding(mesh, PartitionSpec())
        self._jitted = compilation.jit(function, donate_argnums=0, out_shardings=(shardings, whole))
        self._mesh = mesh
        self._seed = np.int32(seed)
        self._compiled: Callable | None = None

    def compile(self, state: TrainState, batch: types.Example) -> None:
        """Compiles the step for arrays of these shapes, and logs the time."""
        usual = 'on a CPU usually one or two minutes' if jax.default_backend() == 'cpu' else 'usually a few minutes'
        logging.info('compiling the training step: %s, or seconds if it is in the compilation cache', usual)
        begun = time.monotonic()
        with jax.set_mesh(self._mesh):
            self._compiled = self._jitted.lower(state, sharding.global_batch(self._mesh, batch), self._seed).compile()
        logging.info('compiled in %.0f s', time.monotonic() - begun)
        # On CPUs a running step waits only half a minute for the other processes, and one process may have found the
        # program in the compilation cache while the others still compile.
        hosts.wait('the step is compiled')

    def __call__(self, state: TrainState, batch: types.Example) -> tuple[TrainState, dict[str, jax.Array]]:
        assert self._compiled, 'call compile() first'
        with jax.set_mesh(self._mesh):
            return self._compiled(state, sharding.global_batch(self._mesh, batch), self._seed)
