"""AdamW with learning rates by parameter name, a step schedule, clipping; frozen parameters apart."""
import re

from flax import traverse_util
import optax


def make_optimizer(config, parameters, batch_size):
    """The optimizer of the trainable parameters.

    Args:
        config: config.optimizer, with
            batch_size: the number of clips a step that the rates are meant for; with another they grow and fall in
                proportion (Goyal et al., 2017; the release's own rule for the number of GPUs).
            learning_rate: of parameters that no group names.
            groups: ((regex, learning rate), ...); the first that matches a parameter's path holds.
            weight_decay: decoupled, on every parameter (norms and biases too, as in the released code).
            clip_norm: bound of the gradient's global norm over all groups.
            warmup_steps: rates grow linearly from 0 for so many steps.
            drop_steps: steps at which all rates fall tenfold.
        parameters: a flat dict, path -> array, of the trainable ones (see `partition`).
        batch_size: clips a step.

    Returns:
        an optax transformation of such dicts, which leaves out steps whose gradient is not finite and counts them
        (optax.ApplyIfFiniteState); and the schedule: steps done, without those left out -> factor on
        config.learning_rate and the groups' rates.

    Raises:
        ValueError: for a group that names no parameter.
    """
    groups = [(re.compile(pattern), rate) for pattern, rate in config.groups]
    labels = {path: next((f'group{i}' for i, (pattern, _) in enumerate(groups) if pattern.match(path)), 'others')
              for path in parameters}
    for i, (pattern, _) in enumerate(groups):
        if f'group{i}' not in labels.values():
            raise ValueError(f'config.optimizer.groups: {pattern.pattern!r} is the first match of no trainable '
                             f'parameter. Paths look like {next(iter(parameters))!r}.')
    rates = {f'group{i}': rate for i, (_, rate) in enumerate(groups)} | {'others': config.learning_rate}
    drops = make_schedule(config.warmup_steps, config.drop_steps)
    scale = batch_size / config.batch_size

    def schedule(step):
        return scale * drops(step)

    def adamw(rate):
        return optax.adamw(lambda step: rate * schedule(step), weight_decay=config.weight_decay)

    optimizer = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.partition({label: adamw(rate) for label, rate in rates.items()}, labels))
    # When there are too many, the loop stops: training.loop.run_steps.
    return optax.apply_if_finite(optimizer, max_consecutive_errors=2 ** 30), schedule


def make_schedule(warmup_steps, drop_steps):
    """Step -> factor: linear warm-up from 0, then 1, tenfold less after each of `drop_steps`."""
    drops = optax.piecewise_constant_schedule(1.0, {step: 0.1 for step in drop_steps})
    if not warmup_steps:
        return drops
    rise = optax.linear_schedule(0.0, 1.0, warmup_steps)
    return lambda step: rise(step) * drops(step)


def partition(parameters, freeze):
    """Nested parameters -> (trainable, frozen), flat dicts path -> array; frozen match a regex of `freeze`.

    Raises:
        ValueError: for a pattern that matches no parameter.
    """
    flat = traverse_util.flatten_dict(parameters, sep='/')
    patterns = [re.compile(pattern) for pattern in freeze]
    for pattern in patterns:
        if not any(pattern.match(path) for path in flat):
            raise ValueError(f'config.optimizer.freeze: {pattern.pattern!r} matches no parameter. '
                             f'Paths look like {next(iter(flat))!r}.')
    frozen = {path: x for path, x in flat.items() if any(pattern.match(path) for pattern in patterns)}
    return {path: x for path, x in flat.items() if path not in frozen}, frozen


def merge(trainable, frozen):
    """The inverse of `partition`."""
    return traverse_util.unflatten_dict(trainable | frozen, sep='/')
