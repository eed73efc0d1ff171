"""Applies equal layers one after the other; on a TPU they are compiled once."""

from collections.abc import Callable, Sequence
import functools
import operator
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from sgmg_jax import compilation

# (layer or layers, carry, value) -> (carry, output)
Step = Callable[[Any, Any, Any], tuple[Any, Any]]


def in_turn(
    parent: nn.Module, step: Step, layers: Sequence[Sequence[nn.Module]], carry: Any, values: Any = None
) -> tuple[Any, Any]:
    """The last carry, and the outputs along a new first axis, of step(layers[i], carry, values[i]) for each i.

    On a TPU the step is compiled once and repeated (`jax.lax.scan`), with the layers' parameters stacked: there,
    compilation takes minutes, and time in proportion to the size of the program. On a GPU it would gain little, because
    XLA compiles equal kernels once anyway; on a CPU, copies of the parameters cost more than compilation.

    Args:
        parent: the module that the layers belong to.
        step: pure but for the layers, each of which it calls once. Shapes and dtypes of the carry stay the same.
        layers: bound modules of `parent`; those of different steps are alike but for their parameters.
        values: a tree of arrays, one entry per step.
    """
    if not layers:
        return carry, None
    if compilation.platform() != 'tpu' or len(layers) == 1 or parent.is_initializing():
        outputs = []
        for i, modules in enumerate(layers):
            carry, output = step(modules, carry, jax.tree.map(operator.itemgetter(i), values))
            outputs.append(output)
        return carry, jax.tree.map(lambda *parts: jnp.stack(parts), *outputs)
    alike = [module.clone(parent=None, name=None) for module in layers[0]]
    parameters = [[module.variables.get('params', {}) for module in modules] for modules in layers]
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *parameters)
    keys = jax.random.split(parent.make_rng('dropout'), len(layers)) if parent.has_rng('dropout') else None

    def repeat(carry, part):
        parameters, value, key = part

        def bind(i, module):
            rngs = None if key is None else {'dropout': jax.random.fold_in(key, i)}
            return functools.partial(module.apply, {'params': parameters[i]}, rngs=rngs)

        return step([bind(i, module) for i, module in enumerate(alike)], carry, value)

    return jax.lax.scan(repeat, carry, (stacked, values, keys))
