"""The training loop: the only one, for every model, benchmark and number of devices."""
import collections
import contextlib
import json
import pathlib
import time

from absl import logging
from clu import parameter_overview
import jax
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
import tqdm

from sgmg_jax import checkpoints, compilation, files, sharding, systems
from sgmg_jax.convert import weights
from sgmg_jax.data import augment, pipeline, records, text
from sgmg_jax.inference import evaluate, predict
from sgmg_jax.training import step as steps
from sgmg_jax.training.logging import MetricWriter

# What may change when a run is resumed; everything else would make it another run.
RESUMABLE = ('steps', 'epochs', 'log_every', 'eval_every', 'checkpoint_every', 'fsdp', 'data.records', 'data.workers',
             'data.on_bad_clip', 'model.remat', 'evaluation')


def train(config, workdir):
    """Trains until config.steps, resuming from the latest checkpoint in `workdir` if there is one.

    Leaves in `workdir`: config.json, tokenizer.json, checkpoints/, metrics.jsonl, tensorboard/.

    Raises:
        ValueError: for a config that does not fit itself, its data, or the run in `workdir`.
        FileNotFoundError: for records or a tokenizer that are not there.
        OSError: when the disk is full; the last whole checkpoint stays.
    """
    workdir = pathlib.Path(workdir)
    with contextlib.ExitStack() as stack:
        with contextlib.closing(checkpoints.Checkpoints(workdir, read_only=True)) as saved:
            step = saved.latest_step()
        source = records.open_records(config.data.records, config.data.train_split)
        epoch = len(records.training_index(source.videos, config.data.num_frames, config.data.sentences))
        config = with_steps(config, epoch)
        if step is not None:
            check_config(config, workdir)
        validation = open_validation(config)
        model, system = systems.build_model(config.model), systems.SYSTEMS[config.model.name]
        tokenizer = prepare_tokenizer(config, model, source, workdir, resumed=step is not None)

        mesh = sharding.make_mesh(config.fsdp)
        if config.data.batch_size % mesh.size:
            raise ValueError(f'config.data.batch_size = {config.data.batch_size}: must be a multiple of the '
                             f'{mesh.size} devices.')
        stack.enter_context(jax.set_mesh(mesh))
        # It tidies up after a killed run in the background, which a process that ends at once would cut short.
        saved = stack.enter_context(contextlib.closing(checkpoints.Checkpoints(workdir)))
        state, train_step, schedule = prepare_state(config, model, system, mesh, saved)
        # Only now, when all has proved to fit, is the workdir this run's.
        with files.replacing(workdir / 'config.json') as partial:
            partial.write_text(config.to_json(indent=1))
        text.save_tokenizer(tokenizer, workdir)
        logging.info('%d clips an epoch, %.1f epochs in %d steps; from step %d on %d %s device(s)', epoch,
                     config.steps * config.data.batch_size / epoch, config.steps, state.step, jax.device_count(),
                     jax.default_backend())

        batches = stack.enter_context(contextlib.closing(open_batches(config, source, tokenizer, int(state.step))))
        writer = stack.enter_context(contextlib.closing(MetricWriter(workdir, int(state.step))))
        predictor = predict.Predictor.from_config(config, model, None, tokenizer)

        def validate(parameters):
            predictor.parameters = parameters
            return evaluate.score_videos(predictor, validation, config.evaluation.protocol, config.evaluation.videos)

        run_steps(config, state, train_step, schedule, mesh, batches, writer, saved, validate)


def with_steps(config, clips):
    """The config with steps in place of epochs, where it counts in epochs of so many clips.

    Raises:
        ValueError: if it gives both or neither.
    """
    if bool(config.steps) == bool(config.epochs):
        raise ValueError(f'config.steps = {config.steps} and config.epochs = {config.epochs}: give one of them.')
    config = config.copy_and_resolve_references()
    if config.epochs:
        if config.optimizer.drop_steps:
            raise ValueError(f'config.optimizer.drop_steps = {config.optimizer.drop_steps}: give drop_epochs, as the '
                             'run is counted in epochs.')
        per_epoch = clips / config.data.batch_size
        config.steps = max(1, round(config.epochs * per_epoch))
        config.optimizer.drop_steps = tuple(round(epoch * per_epoch) for epoch in config.optimizer.drop_epochs)
    return config


def open_validation(config):
    """The split that is scored during training.

    Raises:
        ValueError: if it has no ground truth, or does not fit config.evaluation.protocol.
    """
    split, _ = evaluate.open_split(config, config.data.valid_split)
    hidden = [video.name for video in split.videos if not video.has_masks]
    if hidden:
        raise ValueError(f'config.data.valid_split = {config.data.valid_split!r}: video {hidden[0]} has no ground '
                         "truth to score. Hold out a part of the training split, such as 'train[90%:]'.")
    return split


def run_steps(config, state, train_step, schedule, mesh, batches, writer, saved, validate):
    """From state.step to config.steps."""
    recent, since, shown = collections.deque(), time.monotonic(), {}
    bar = tqdm.tqdm(range(int(state.step), config.steps), initial=int(state.step), total=config.steps,
                    desc='training', unit='step', mininterval=1, dynamic_ncols=True)
    for done in bar:
        state, metrics = train_step(state, sharding.global_batch(mesh, next(batches)))
        recent.append(metrics)
        step = done + 1
        last = step == config.steps
        if step % config.log_every == 0 or last:
            means = {name: float(np.mean([m[name] for m in recent])) for name in metrics}
            means['learning_rate'] = float(schedule(done)) * config.optimizer.learning_rate
            means['steps_per_second'] = len(recent) / (time.monotonic() - since)
            writer.write(step, means, shown=('loss', 'loss_dice', 'query_accuracy', 'steps_per_second'))
            bar.set_postfix(loss=f'{means["loss"]:.3f}', **shown)
            recent.clear()
            since = time.monotonic()
        evaluated = step % config.eval_every == 0 or last
        if evaluated:
            summary = validate(state.parameters())
            headline = 'J&F' if 'J&F' in summary else 'mAP'
            shown = {headline: f'{summary[headline]:.1f}'}
            writer.write(step, flatten_scores(summary), shown=[
                f'valid/{name}' for name in (headline, 'J', 'F', 'overall_IoU', 'mean_IoU') if name in summary])
            since = time.monotonic()
        if evaluated or step % config.checkpoint_every == 0:
            if not np.isfinite(metrics['loss']):
                raise FloatingPointError(
                    f'the loss is {metrics["loss"]} at step {step}. Start again in another --workdir with a lower '
                    f'config.optimizer.learning_rate, now {config.optimizer.learning_rate}, or clip_norm.')
            saved.save(state, summary[headline] if evaluated else None)
    saved.wait()


def prepare_state(config, model, system, mesh, saved):
    """The state to start from, the compiled step, and the learning rate's schedule."""
    init, optimizer, schedule = steps.init_state(model, config)
    key = jax.random.key(config.seed)
    abstract = jax.eval_shape(init, key)
    shardings = sharding.parameter_shardings(mesh, abstract)
    step = saved.latest_step()
    if step is None:
        state = start_state(config, init, key, abstract, shardings)
        logging.info('parameters:\n%s', parameter_overview.get_parameter_overview(
            state.parameters(), include_stats=False, max_lines=400))
    else:
        state = saved.restore(step, jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings))
        logging.info('resumed from %s, step %d', saved.folder, step)
    train_step = compilation.jit(steps.make_train_step(model, system, optimizer, config.seed), donate_argnums=0,
                                 out_shardings=(shardings, NamedSharding(mesh, PartitionSpec())))
    return state, train_step, schedule


def start_state(config, init, key, abstract, shardings):
    """The state before the first step, with config.init's weights where it has them; logs what came from where.

    Args:
        init: key -> TrainState of new parameters.
        abstract, shardings: TrainStates of the shapes and of the shardings that `init` gives.
    """
    found, report = weights.load(config.init, abstract.parameters(), config.init_skip)
    for line in report:
        logging.info('weights: %s', line)

    def without_found(state):
        return state.replace(**{name: {path: x for path, x in getattr(state, name).items() if path not in found}
                                for name in ('trainable', 'frozen')})

    # What was found is no output, so XLA does not compute it either: compiling the rest takes half a minute.
    state = jax.jit(lambda key: without_found(init(key)), out_shardings=without_found(shardings))(key)
    random = sorted({path.split('/')[0] for path in state.frozen})
    if random:
        logging.warning('config.optimizer.freeze keeps %s as it is now, random: no file of config.init = %s has it',
                        ', '.join(random), tuple(config.init))
    if found:
        new = sorted({path.split('/')[0] for path in {*state.trainable, *state.frozen}})
        logging.info('weights: %s', f'new are {", ".join(new)}' if new else 'none is new')

    def place(name):
        wanted, where, new = (getattr(x, name) for x in (abstract, shardings, state))
        return {path: new[path] if path in new else jax.device_put(found[path].astype(x.dtype), where[path])
                for path, x in wanted.items()}

    return state.replace(trainable=place('trainable'), frozen=place('frozen'))


def open_batches(config, source, tokenizer, start_step):
    """This host's share of the training batches from `start_step` on."""
    data = config.data
    return pipeline.train_batches(
        source, tokenizer, num_frames=data.num_frames, frame_size=tuple(data.frame_size),
        text_length=data.text_length, batch_size=data.batch_size,
        augmentation=augment.Augmentation(**{
            name: tuple(value) if isinstance(value, (list, tuple)) else value
            for name, value in data.augmentation.items()}),
        seed=config.seed, sentences=data.sentences, start_step=start_step, process_index=jax.process_index(),
        process_count=jax.process_count(), num_workers=data.workers,
        reverse_probability=data.reverse_probability, on_bad_clip=data.on_bad_clip)


def flatten_scores(summary):
    """The numbers of a scoring summary as scalars to log; of its tags J, F and J&F."""
    scalars = {f'valid/{name}': value for name, value in summary.items() if isinstance(value, float)}
    for tag, scores in summary.get('tags', {}).items():
        scalars |= {f'valid/{tag}/{name}': scores[name] for name in ('J', 'F', 'J&F')}
    return scalars


def prepare_tokenizer(config, model, source, workdir, resumed):
    """The tokenizer that config.data.tokenizer names, or, where that is None, byte pairs learned from
    the training sentences; a resumed run's is the one in its workdir.

    Raises:
        ValueError: if it has more tokens than the text encoder.
    """
    if resumed:
        return text.load_tokenizer(workdir / 'tokenizer.json')
    size = model.text_encoder.vocabulary
    if config.data.tokenizer is None:
        return text.train_tokenizer([e.text for video in source.videos for e in video.expressions], size)
    tokenizer = text.load_tokenizer(config.data.tokenizer)
    if tokenizer.get_vocab_size() > size:
        raise ValueError(f'{config.data.tokenizer}: has {tokenizer.get_vocab_size()} tokens, '
                         f'config.model.text_encoder = {config.model.text_encoder!r} takes {size}. '
                         'Choose the text encoder that belongs to it.')
    return tokenizer


def check_config(config, workdir):
    """Raises ValueError if the run in `workdir` was started with another config; names the fields."""
    old = json.loads((workdir / 'config.json').read_text())
    differences = list(_differences(old, json.loads(config.to_json())))
    if differences:
        raise ValueError(
            f'{workdir}: holds a run of another config: ' + '; '.join(
                f'{field} was {was!r}, is now {now!r}' for field, was, now in differences[:5])
            + '. Use another --workdir, or the config it was started with.')


def _differences(old, new, prefix=''):
    for field in sorted(set(old) | set(new)):
        path = prefix + field
        was, now = old.get(field), new.get(field)
        if path in RESUMABLE or was == now:
            continue
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _differences(was, now, path + '.')
        else:
            yield path, was, now
