"""AdamW with learning rates by parameter name, a step schedule and clipping; separates frozen parameters."""

from collections.abc import Callable, Mapping, Sequence
import re
from typing import Any

from flax import traverse_util
from ml_collections import ConfigDict
import optax

Schedule = Callable[[Any], Any]  # steps, a number or an array -> factor on the learning rates


def make_optimizer(
    config: ConfigDict, parameters: Mapping[str, Any], batch_size: int
) -> tuple[optax.GradientTransformation, Schedule]:
    """The optimizer of the trainable parameters.

    Args:
        config: config.optimizer, with
            batch_size: the clips per step that the learning rates are for; they scale linearly with the actual number
                (Goyal et al., 2017; the release has the same rule for the number of GPUs).
            learning_rate: of parameters outside all groups.
            groups: ((regex, learning rate), ...); the first that matches a parameter's path applies.
            weight_decay: decoupled, on every parameter (including norms and biases, as in the released code).
            clip_norm: bound of the gradient's global norm over all groups.
            warmup_steps: the rates grow linearly from 0 over this many steps.
            drop_steps: all rates fall tenfold at these steps.
        parameters: the trainable ones, path -> array (see `partition`).
        batch_size: clips per step.

    Returns:
        an optax transformation of such dicts, which skips and counts steps whose gradient is not finite
        (optax.ApplyIfFiniteState); and the schedule: the number of steps done, without skipped ones -> factor on
        config.learning_rate and the groups' rates.

    Raises:
        ValueError: for a group that matches no parameter.
    """
    groups = [(re.compile(pattern), rate) for pattern, rate in config.groups]
    labels = {
        path: next((f'group{i}' for i, (pattern, _) in enumerate(groups) if pattern.match(path)), 'others')
        for path in parameters
    }
    for i, (pattern, _) in enumerate(groups):
        if f'group{i}' not in labels.values():
            raise ValueError(
                f'config.optimizer.groups: {pattern.pattern!r} is not the first match of any trainable '
                f'parameter. Remove it, or change the pattern. Paths look like '
                f'{next(iter(parameters))!r}.'
            )
    rates = {f'group{i}': rate for i, (_, rate) in enumerate(groups)} | {'others': config.learning_rate}
    drops = make_schedule(config.warmup_steps, config.drop_steps)
    scale = batch_size / config.batch_size

    def schedule(step: Any) -> Any:
        return scale * drops(step)

    def adamw(rate: float) -> optax.GradientTransformation:
        return optax.adamw(lambda step: rate * schedule(step), weight_decay=config.weight_decay)

    optimizer = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.partition({label: adamw(rate) for label, rate in rates.items()}, labels),
    )
    # training.loop.run_steps stops after too many.
    return optax.apply_if_finite(optimizer, max_consecutive_errors=2**30), schedule


def make_schedule(warmup_steps: int, drop_steps: Sequence[int]) -> Schedule:
    """Step -> factor: linear warm-up from 0 to 1, then a tenfold drop at each of `drop_steps`."""
    drops = optax.piecewise_constant_schedule(1.0, {step: 0.1 for step in drop_steps})
    if not warmup_steps:
        return drops
    rise = optax.linear_schedule(0.0, 1.0, warmup_steps)
    return lambda step: rise(step) * drops(step)


def partition(parameters: Mapping, freeze: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Nested parameters -> (trainable, frozen), flat dicts path -> array; frozen ones match a regex in `freeze`.

    Raises:
        ValueError: for a pattern that matches no parameter.
    """
    flat = traverse_util.flatten_dict(parameters, sep='/')
    patterns = [re.compile(pattern) for pattern in freeze]
    for pattern in patterns:
        if not any(pattern.match(path) for path in flat):
            raise ValueError(
                f'config.optimizer.freeze: {pattern.pattern!r} matches no parameter. Change the pattern. '
                f'Paths look like {next(iter(flat))!r}.'
            )
    frozen = {path: x for path, x in flat.items() if any(pattern.match(path) for pattern in patterns)}
    return {path: x for path, x in flat.items() if path not in frozen}, frozen


def merge(trainable: Mapping[str, Any], frozen: Mapping[str, Any]) -> dict:
    """The inverse of `partition`."""
    return traverse_util.unflatten_dict({**trainable, **frozen}, sep='/')
