"""The start of a run: its steps, state, batches and validation split."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
from typing import Any

from absl import logging
from flax import linen as nn
from flax import traverse_util
import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict
import tokenizers

from sgmg_jax import checkpoints, sharding, systems, types
from sgmg_jax import config as configs
from sgmg_jax.convert import weights
from sgmg_jax.data import augment, clips, pipeline, records
from sgmg_jax.inference import evaluate
from sgmg_jax.inference.predictor import Predictor
from sgmg_jax.training import optimizer as optimizers
from sgmg_jax.training import step as steps


def clips_per_epoch(config: ConfigDict, source: records.Records) -> int:
    """The number of training clips in the videos."""
    data = config.data
    return len(clips.training_index(source.videos, data.num_frames, data.sentences, data.consecutive))


def with_steps(config: ConfigDict, clips: int) -> ConfigDict:
    """The config with epochs, of `clips` clips each, converted to steps.

    Raises:
        ValueError: if it sets both or neither.
    """
    if bool(config.steps) == bool(config.epochs):
        raise ValueError(f'config.steps = {config.steps} and config.epochs = {config.epochs}: set exactly one.')
    config = config.copy_and_resolve_references()
    if config.epochs:
        if config.optimizer.drop_steps:
            raise ValueError(
                f'config.optimizer.drop_steps = {config.optimizer.drop_steps}: set drop_epochs instead, '
                'because the length of the run is set in epochs.'
            )
        per_epoch = clips / config.data.batch_size
        config.steps = max(1, round(config.epochs * per_epoch))
        config.optimizer.drop_steps = tuple(round(epoch * per_epoch) for epoch in config.optimizer.drop_epochs)
    return config


def open_validation(config: ConfigDict) -> records.Records:
    """The split that is scored during training.

    Raises:
        ValueError: if it has no ground truth, or does not fit config.evaluation.protocol.
    """
    split, _ = evaluate.open_split(config, config.data.valid_split)
    hidden = [video.name for video in split.videos if not video.has_masks]
    if hidden:
        raise ValueError(
            f'config.data.valid_split = {config.data.valid_split!r}: video {hidden[0]} has no ground '
            "truth. Hold out a part of the training split, such as 'train[90%:]'."
        )
    return split


def make_mesh(config: ConfigDict) -> Mesh:
    """A mesh of all devices.

    Raises:
        ValueError: if they do not divide the batch.
    """
    mesh = sharding.make_mesh(config.storage_shards)
    parts = mesh.size * config.accumulate
    if config.data.batch_size % parts:
        raise ValueError(
            f'config.data.batch_size = {config.data.batch_size}: must be a multiple of {parts}, '
            f'{mesh.size} devices times config.accumulate = {config.accumulate}. Set '
            f'--config.data.batch_size={-(-config.data.batch_size // parts) * parts}.'
        )
    return mesh


def open_batches(
    config: ConfigDict, source: records.Records, tokenizer: tokenizers.Tokenizer, start_step: int
) -> Iterator[types.Example]:
    """This host's share of the training batches from `start_step` on."""
    data = config.data
    augmentation: dict[str, Any] = {
        name: tuple(value) if isinstance(value, (list, tuple)) else value for name, value in data.augmentation.items()
    }
    return pipeline.train_batches(
        source,
        tokenizer,
        num_frames=data.num_frames,
        frame_size=tuple(data.frame_size),
        text_length=data.text_length,
        batch_size=data.batch_size,
        augmentation=augment.Augmentation(**augmentation),
        seed=config.seed,
        sentences=data.sentences,
        start_step=start_step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_workers=data.workers,
        reverse_probability=data.reverse_probability,
        consecutive=data.consecutive,
        on_bad_clip=data.on_bad_clip,
    )


def validator(
    config: ConfigDict,
    model: nn.Module,
    tokenizer: tokenizers.Tokenizer,
    mesh: Mesh,
    split: records.Records,
    stopped: Callable[[], bool],
) -> Callable[[steps.TrainState], dict | None]:
    """function(state) -> summary of its scores on `split`, or None if `stopped` (a collective) returned True."""
    predictor = Predictor.from_config(config, model, None, tokenizer)

    def validate(state: steps.TrainState) -> dict | None:
        parameters = sharding.local_copy(mesh, state.parameters())
        predictor.parameters = traverse_util.unflatten_dict(parameters, sep='/')
        try:
            return evaluate.score_videos(
                predictor, split, config.evaluation.protocol, config.evaluation.videos, stopped=stopped
            )
        finally:
            predictor.parameters = None  # Frees the copy.

    return validate


def prepare_state(
    config: ConfigDict, model: nn.Module, system: systems.System, mesh: Mesh, saved: checkpoints.Checkpoints
) -> tuple[steps.TrainState, steps.TrainStep, Callable]:
    """The state to start from, the TrainStep, and the schedule of the learning rates."""
    with jax.set_mesh(mesh):
        init, optimizer, schedule = steps.init_state(model, config)
        key = jax.random.key(config.seed)
        abstract = jax.eval_shape(init, key)
        shardings = sharding.parameter_shardings(mesh, abstract)
        step = saved.latest_step()
        if step is None:
            state = start_state(config, init, key, abstract, shardings)
            trained, frozen = (sum(x.size for x in part.values()) / 1e6 for part in (state.trainable, state.frozen))
            logging.info('%.1f M trainable parameters, %.1f M frozen ones', trained, frozen)
        else:
            state = saved.restore(
                step, jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)
            )
            logging.info('resumed from %s, step %d', saved.folder, step)
    step_function = steps.make_train_step(model, system, optimizer, config.accumulate, config.ema_decay)
    return state, steps.TrainStep(step_function, mesh, shardings, config.seed), schedule


def start_state(
    config: ConfigDict,
    init: Callable[[jax.Array], steps.TrainState],
    key: jax.Array,
    abstract: steps.TrainState,
    shardings: steps.TrainState,
) -> steps.TrainState:
    """The state before the first step, with the weights of config.init; logs where they are from.

    Args:
        init: key -> TrainState of new parameters.
        abstract, shardings: TrainStates with the shapes and the shardings of what `init` returns.
    """
    found, report = weights.load(
        configs.paths(config.init), optimizers.merge(abstract.trainable, abstract.frozen), config.init_skip
    )
    for line in report:
        logging.info('weights: %s', line)

    def without_found(state: steps.TrainState) -> steps.TrainState:
        return dataclasses.replace(
            state,
            **{
                name: {path: x for path, x in getattr(state, name).items() if path not in found}
                for name in ('trainable', 'average', 'frozen')
            },
        )

    # Parameters found in files are not outputs, so XLA does not compute them: compiling all takes half a minute.
    state = jax.jit(lambda key: without_found(init(key)), out_shardings=without_found(shardings))(key)
    random = state.frozen.keys() - found.keys()
    if random:
        logging.warning(
            'config.optimizer.freeze: %s stays random: no file of config.init = %s has it',
            _modules(random, abstract.frozen),
            configs.paths(config.init),
        )
    if found:
        new = {*state.trainable, *state.frozen} - found.keys()
        logging.info(
            'weights: %s', f'new: {_modules(new, {**abstract.trainable, **abstract.frozen})}' if new else 'no new ones'
        )

    def place(name: str) -> dict[str, jax.Array]:
        wanted, where, new = (getattr(x, name) for x in (abstract, shardings, state))
        return {
            path: new[path] if path in new else jax.device_put(found[path].astype(x.dtype), where[path])
            for path, x in wanted.items()
        }

    return dataclasses.replace(state, **{name: place(name) for name in ('trainable', 'average', 'frozen')})


def _modules(paths: set[str], every: Mapping[str, object]) -> str:
    """The top-level modules of these parameters; names the submodules if only a part of a module is among them."""
    names = set()
    for path in paths:
        module, part, *_ = [*path.split('/'), '']
        whole = all(other in paths for other in every if other.split('/')[0] == module)
        names.add(module if whole or not part else f'{module}/{part}')
    return ', '.join(sorted(names))
