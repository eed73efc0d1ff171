"""From a config's model section to a module, its parameters, its matching and its loss."""

from collections.abc import Callable, Mapping
import functools
import inspect
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sgmg_jax import types
from sgmg_jax.losses import matching
from sgmg_jax.losses import sgmg as sgmg_loss
from sgmg_jax.losses import soc as soc_loss
from sgmg_jax.models import multi_instance, roberta, sgmg, soc, video_swin
from sgmg_jax.ops import queries


class System(NamedTuple):
    """module: called with (clip, text, select, train).
    totals: targets of a whole batch -> losses.terms.Totals.
    match: (proposals, targets, totals) -> query.
    loss: (the module's outputs, targets, totals=..., **config.loss) -> total, named terms.

    The targets of `match` and `loss` may be a part of the batch that `totals` describes.
    """

    module: type[nn.Module]
    totals: Callable
    match: Callable
    loss: Callable


SYSTEMS = {
    'sgmg': System(sgmg.SgMg, matching.totals_of, matching.match, sgmg_loss.loss),
    'fast_sgmg': System(multi_instance.FastSgMg, matching.totals_of, matching.match, sgmg_loss.loss),
    'soc': System(soc.SOC, soc_loss.totals_of, soc_loss.match, soc_loss.loss),
}


def choose(config: ConfigDict) -> System:
    """The system config.model.name, with config.loss passed to its loss.

    Raises:
        ValueError: for an unknown name, and for a field of config.loss that this system's loss does not have.
    """
    system = _choose(SYSTEMS, 'name', config.model.name)
    names = [name for name in list(inspect.signature(system.loss).parameters)[2:] if name != 'totals']
    unknown = sorted(set(config.loss) - set(names))
    if unknown:
        raise ValueError(
            f'config.loss.{unknown[0]}: the loss of {config.model.name!r} has no such field; it has {", ".join(names)}.'
        )
    return system._replace(loss=functools.partial(system.loss, **config.loss))


def build_model(config: ConfigDict) -> nn.Module:
    """The module described by config.model, whose fields, except `name`, are the module's.

    Raises:
        ValueError: for an unknown name, size or field; lists the known ones.
    """
    fields = dict(config)
    system = _choose(SYSTEMS, 'name', fields.pop('name'))
    fields['backbone'] = _choose(video_swin.SIZES, 'backbone', fields['backbone'])
    fields['text_encoder'] = _choose(roberta.SIZES, 'text_encoder', fields['text_encoder'])
    fields['dtype'] = jnp.dtype(fields['dtype'])
    known = set(system.module.__dataclass_fields__) - {'parent', 'name'}
    for divisor, reason in ((32, 'as its norms have 32 groups'), (fields.get('heads', 1), 'config.model.heads')):
        if fields.get('hidden', 0) % divisor:
            raise ValueError(f'config.model.hidden = {fields["hidden"]}: must be a multiple of {divisor}, {reason}.')
    unknown = sorted(set(fields) - known)
    if unknown:
        raise ValueError(
            f'config.model.{unknown[0]}: {system.module.__name__} has no such field; it has {", ".join(sorted(known))}.'
        )
    return system.module(**fields)


@functools.partial(jax.jit, static_argnums=0)
def init_parameters(model: nn.Module, key: jax.Array) -> Mapping[str, Any]:
    """New parameters, nested. Their shapes do not depend on the sizes of clips and sentences, so small ones suffice.

    Jitted, so that JAX traces equal models once: every start of a run asks for the shapes first.
    """
    side = 160  # large enough for any number of levels
    clip = types.Clip(jnp.zeros((1, 1, side, side, 3)), jnp.ones((1, 1, side, side), bool), jnp.full((1, 2), side))
    words = types.Text(jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4), bool))
    return model.init(key, clip, words, queries.best_query)['params']


def parameter_shapes(model: nn.Module) -> Mapping[str, Any]:
    """The tree of `init_parameters` as ShapeDtypeStructs. Computes nothing."""
    return jax.eval_shape(lambda key: init_parameters(model, key), jax.random.key(0))


def _choose(table, field, name):
    if name not in table:
        raise ValueError(f'config.model.{field} = {name!r}: must be one of {", ".join(map(repr, table))}.')
    return table[name]
