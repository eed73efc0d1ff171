"""The training loop: the only one, for every model, benchmark and number of devices and hosts."""
import collections
import contextlib
import itertools
import json
import os
import pathlib
import signal
import sys
import threading
import time

from absl import logging
from flax import traverse_util
import jax
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
import tqdm

from sgmg_jax import checkpoints, compilation, files, hosts, sharding, systems
from sgmg_jax import config as configs
from sgmg_jax.convert import weights
from sgmg_jax.data import augment, pipeline, records, text
from sgmg_jax.inference import evaluate, predict
from sgmg_jax.training import optimizer as optimizers
from sgmg_jax.training import step as steps
from sgmg_jax.training.logging import MetricWriter

# What may change when a run is resumed; everything else would make it another run.
RESUMABLE = ('steps', 'epochs', 'log_every', 'eval_every', 'checkpoint_every', 'stop_after_skipped', 'fsdp',
             'data.records', 'data.workers', 'data.on_bad_clip', 'model.remat', 'evaluation')
SHOWN = 'loss', 'loss_dice', 'query_accuracy', 'steps_per_second'  # on the console; the rest is in the files


def train(config, workdir):
    """Trains until config.steps, resuming from the latest checkpoint in `workdir` if there is one.

    Leaves in `workdir`, which all processes must see: config.json, tokenizer.json, checkpoints/, metrics.jsonl,
    tensorboard/, .lock.

    Returns:
        None when it came to the end; the signal that stopped it, SIGTERM or SIGINT, when it has saved.

    Raises:
        ValueError: for a config that does not fit itself, its data, or the run in `workdir`; for a damaged workdir.
        FileNotFoundError: for records or a tokenizer that are not there.
        BlockingIOError: if another run is writing to `workdir`.
        FloatingPointError: when config.stop_after_skipped steps in a row had no finite gradient; names their clips.
        OSError: when the disk is full; the last whole checkpoint stays.
        ChildProcessError: when a process that loads clips has died.
    """
    workdir = pathlib.Path(workdir)
    compilation.keep_programs()
    configs.check(config)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(noting_signals())
        source = records.open_records(configs.paths(config.data.records), config.data.train_split)
        epoch = len(records.training_index(source.videos, config.data.num_frames, config.data.sentences,
                                           config.data.consecutive))
        config = with_steps(config, epoch)
        with contextlib.closing(checkpoints.Checkpoints(workdir, read_only=True)) as saved:
            step = saved.latest_step()
            if step is not None:
                check_config(config, saved.restore_config(step), workdir)
        validation = open_validation(config)
        model, system = systems.build_model(config.model), systems.choose(config)
        tokenizer = prepare_tokenizer(config, model, source, workdir, resumed=step is not None)
        mesh = sharding.make_mesh(config.fsdp)
        parts = mesh.size * config.accumulate
        if config.data.batch_size % parts:
            raise ValueError(f'config.data.batch_size = {config.data.batch_size}: must be a multiple of {parts}, the '
                             f'{mesh.size} devices times config.accumulate = {config.accumulate}. Set '
                             f'--config.data.batch_size={-(-config.data.batch_size // parts) * parts}.')
        stack.enter_context(hosts.locked(workdir / '.lock', 'training'))
        # It tidies up after a killed run in the background, which a process that ends at once would cut short.
        saved = stack.enter_context(contextlib.closing(checkpoints.Checkpoints(workdir)))
        if step is not None:
            saved.check_tokenizer(step, tokenizer)
        state, train_step, schedule = prepare_state(config, model, system, mesh, saved)
        # Only now, when all has proved to fit, is the workdir this run's.
        if hosts.is_first():
            with files.replacing(workdir / 'config.json') as partial:
                partial.write_text(json.dumps(configs.to_json(config), indent=1))
            text.save_tokenizer(tokenizer, workdir)
        hosts.wait('config and tokenizer are written')
        tokenizer = text.load_tokenizer(workdir / 'tokenizer.json')
        logging.info('%d clips an epoch, %.1f epochs in %d steps; from step %d on %d %s device(s) of %d process(es)',
                     epoch, config.steps * config.data.batch_size / epoch, config.steps, int(state.step),
                     jax.device_count(), jax.default_backend(), jax.process_count())

        batches = stack.enter_context(contextlib.closing(open_batches(config, source, tokenizer, int(state.step))))
        writer = stack.enter_context(contextlib.closing(MetricWriter(workdir, int(state.step), hosts.is_first())))
        predictor = predict.Predictor.from_config(config, model, None, tokenizer)

        def validate(state):
            parameters = sharding.local_copy(mesh, state.parameters())
            predictor.parameters = traverse_util.unflatten_dict(parameters, sep='/')
            try:
                return evaluate.score_videos(predictor, validation, config.evaluation.protocol,
                                             config.evaluation.videos, stopped=stop)
            finally:
                predictor.parameters = None  # no second copy beside those that are trained

        def save(state, score=None):
            saved.save(state, configs.to_json(config), tokenizer, score)

        finished = run_steps(config, state, train_step, schedule, source, batches, writer, saved, save, validate, stop)
        return None if finished else stop.signal


class Stop:
    """Whether a signal has asked the processes to stop. Calling it gives a bool; all processes must do so equally often
    and get the same answer. `signal`: the one that this process has got, SIGTERM where it was another process."""

    def __init__(self):
        self.signal = None
        self._calls = itertools.count()

    def __call__(self):
        if jax.process_count() > 1:
            # jax.distributed has its own handler of SIGTERM. All agree on a number to come, the next to the highest.
            requested = multihost_utils.reached_preemption_sync_point(next(self._calls))
            self.signal = self.signal or (signal.SIGTERM if requested else None)
            return requested
        return self.signal is not None

    def note(self, number, frame):
        self.signal = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # the next one ends it at once
            tqdm.tqdm.write('Ctrl-C: stops after this step and saves; once more ends it at once', file=sys.stderr)
            if jax.process_count() > 1:
                os.kill(os.getpid(), signal.SIGTERM)  # which jax.distributed tells the other processes


@contextlib.contextmanager
def noting_signals():
    """While it lasts, SIGTERM and the first Ctrl-C end nothing. Yields a Stop."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # others cannot handle signals
        yield stop
        return
    handled = [signal.SIGINT] if jax.process_count() > 1 else [signal.SIGINT, signal.SIGTERM]
    before = {number: signal.signal(number, stop.note) for number in handled}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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


def run_steps(config, state, train_step, schedule, source, batches, writer, saved, save, validate, stop_requested):
    """From state.step to config.steps. Returns whether it came there.

    Args:
        train_step: a TrainStep. schedule: step -> factor on the learning rate.
        writer: MetricWriter. saved: Checkpoints. save: function(state, score=None).
        validate: function(state) -> summary of scores, None where a signal stopped it.
        stop_requested: a Stop.
    """
    shown, recent, begin = {}, Recent(source), int(state.step)

    def due(step):
        return step > 0 and (step % config.eval_every == 0 or step == config.steps)

    def validated(state):
        """Validates, logs and saves with the score; returns False, having done nothing, where SIGTERM stopped it."""
        summary = validate(state)
        if summary is None:
            return False
        step, headline = int(state.step), 'J&F' if 'J&F' in summary else 'mAP'
        saved.discard(step)  # Before the line is written: a run killed in between validates again, and writes it anew.
        shown[headline] = f'{summary[headline]:.1f}'
        writer.write(step, flatten_scores(summary), shown=[
            f'valid/{name}' for name in (headline, 'J', 'F', 'overall_IoU', 'mean_IoU') if name in summary])
        recent.restart_clock()
        save(state, summary[headline])
        return True

    def save_now(state):
        if saved.latest_step() != int(state.step):
            save(state)
        saved.wait()

    def stop(state):
        save_now(state)
        logging.warning('stopped by %s; step %d is saved, the same command goes on from there',
                        'Ctrl-C' if stop_requested.signal == signal.SIGINT else 'SIGTERM', int(state.step))
        return False

    # SIGTERM in the middle of a validation leaves a checkpoint without its score.
    if due(begin) and saved.score(begin) is None and not validated(state):
        return stop(state)
    if begin == config.steps:
        return True
    # Before the bar: its time left is that of steps alone.
    first = next(batches)
    train_step.compile(state, first)
    recent.restart_clock()
    bar = tqdm.tqdm(range(begin, config.steps), initial=begin, total=config.steps,
                    desc='training', unit='step', mininterval=1, dynamic_ncols=True, disable=not hosts.is_first())
    for done in bar:
        if stop_requested():
            return stop(state)
        batch = first if done == begin else recent.timed(batches)
        state, metrics = train_step(state, batch)
        recent.add(done + 1, batch.origin, metrics)
        step = done + 1
        if step % config.log_every == 0 or step == config.steps:
            means = recent.means()
            # Steps that were skipped do not bring the schedule on.
            rate = float(schedule(done - means['skipped'])) * config.optimizer.learning_rate
            means['learning_rate'] = rate
            writer.write(step, means, shown=[name for name in SHOWN if name in means])
            bar.set_postfix(loss=f'{means.get("loss", np.nan):.3f}', **shown)
            if means['skipped_in_a_row'] >= config.stop_after_skipped:
                save_now(state)
                raise FloatingPointError(
                    f'the last {means["skipped_in_a_row"]:.0f} steps, up to step {step}, had no finite gradient, and '
                    f'changed nothing. Their clips in this process: {recent.skipped_clips()}. Look at these in the '
                    'data; or start again in another --workdir with a lower config.optimizer.learning_rate, now '
                    f'{config.optimizer.learning_rate}, or clip_norm.')
            recent.clear()
        if due(step):
            if not validated(state):
                return stop(state)
            bar.unpause()  # Nor does the time left take a validation for a step.
        elif step % config.checkpoint_every == 0:
            save(state)
    saved.wait()
    return True


class Recent:
    """What happened since the last line of the log."""

    def __init__(self, source):
        self._source, self._steps, self._named = source, [], collections.deque(maxlen=100)
        self.restart_clock()

    def restart_clock(self):
        self._since, self._waited, self._timed = time.monotonic(), 0.0, 0

    def timed(self, batches):
        """The next batch. To wait for it counts as waiting only where the step before is done by then."""
        started = time.monotonic()
        batch = next(batches)
        if not self._steps or self._steps[-1][2]['loss'].is_ready():
            self._waited += time.monotonic() - started
        return batch

    def add(self, step, origin, metrics):
        self._steps.append((step, origin, metrics))
        self._timed += 1

    def means(self):
        """Metrics over the steps that were not skipped, which are named in the log; steps a second, and the share of
        the time in which the device had to wait for data, at most."""
        means, applied = {}, []
        for step, origin, metrics in self._steps:
            metrics = {name: float(x) for name, x in metrics.items()}
            means |= {name: metrics[name] for name in ('skipped', 'skipped_in_a_row')}
            if not metrics['skipped_in_a_row']:
                applied.append(metrics)
                self._named.clear()
                continue
            names = clip_names(self._source, origin)
            self._named.append(names)
            logging.warning('skipped step %d, whose gradient is not finite: loss %s, clips %s', step, metrics['loss'],
                            names)
        if applied:
            means = {name: float(np.mean([metrics[name] for metrics in applied])) for name in metrics} | means
        seconds = time.monotonic() - self._since
        return means | {'steps_per_second': self._timed / seconds, 'waited_for_data': self._waited / seconds}

    def skipped_clips(self):
        return '; '.join(self._named)

    def clear(self):
        self._steps.clear()
        self.restart_clock()


def clip_names(source, origin):
    """Of a batch's types.Example.origin, this process's clips."""
    return ', '.join(f'{source.videos[number].name} around frame {source.videos[number].frame_names[centre]}'
                     for number, centre in origin.tolist())


def prepare_state(config, model, system, mesh, saved):
    """The state to start from, the TrainStep, and the learning rate's schedule."""
    with jax.set_mesh(mesh):
        init, optimizer, schedule = steps.init_state(model, config)
        key = jax.random.key(config.seed)
        abstract = jax.eval_shape(init, key)
        shardings = sharding.parameter_shardings(mesh, abstract)
        step = saved.latest_step()
        if step is None:
            state = start_state(config, init, key, abstract, shardings)
            trained, frozen = (sum(x.size for x in part.values()) / 1e6 for part in (state.trainable, state.frozen))
            logging.info('%.1f M parameters are trained, %.1f M are frozen', trained, frozen)
        else:
            state = saved.restore(step, jax.tree.map(
                lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings))
            logging.info('resumed from %s, step %d', saved.folder, step)
    step_function = steps.make_train_step(model, system, optimizer, config.seed, config.accumulate, config.ema_decay)
    return state, TrainStep(step_function, mesh, shardings), schedule


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


def start_state(config, init, key, abstract, shardings):
    """The state before the first step, with config.init's weights where it has them; logs what came from where.

    Args:
        init: key -> TrainState of new parameters.
        abstract, shardings: TrainStates of the shapes and of the shardings that `init` gives.
    """
    found, report = weights.load(configs.paths(config.init), optimizers.merge(abstract.trainable, abstract.frozen),
                                 config.init_skip)
    for line in report:
        logging.info('weights: %s', line)

    def without_found(state):
        return state.replace(**{name: {path: x for path, x in getattr(state, name).items() if path not in found}
                                for name in ('trainable', 'average', 'frozen')})

    # What was found is no output, so XLA does not compute it either: compiling the rest takes half a minute.
    state = jax.jit(lambda key: without_found(init(key)), out_shardings=without_found(shardings))(key)
    random = state.frozen.keys() - found.keys()
    if random:
        logging.warning('config.optimizer.freeze keeps %s as it is now, random: no file of config.init = %s has it',
                        _modules(random, abstract.frozen), configs.paths(config.init))
    if found:
        new = {*state.trainable, *state.frozen} - found.keys()
        logging.info('weights: %s', f'new are {_modules(new, {**abstract.trainable, **abstract.frozen})}' if new else
                     'none is new')

    def place(name):
        wanted, where, new = (getattr(x, name) for x in (abstract, shardings, state))
        return {path: new[path] if path in new else jax.device_put(found[path].astype(x.dtype), where[path])
                for path, x in wanted.items()}

    return state.replace(**{name: place(name) for name in ('trainable', 'average', 'frozen')})


def _modules(paths, every):
    """The top-level modules that these paths of parameters are of; where some of a module are, which."""
    names = set()
    for path in paths:
        module, part, *_ = [*path.split('/'), '']
        whole = all(other in paths for other in every if other.split('/')[0] == module)
        names.add(module if whole or not part else f'{module}/{part}')
    return ', '.join(sorted(names))


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
        reverse_probability=data.reverse_probability, consecutive=data.consecutive, on_bad_clip=data.on_bad_clip)


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
    if config.data.tokenizer is None:
        return text.train_tokenizer([e.text for video in source.videos for e in video.expressions],
                                    model.text_encoder.vocabulary)
    tokenizer = text.load_tokenizer(config.data.tokenizer)
    try:
        predict.check_vocabulary(tokenizer, model.text_encoder)
    except ValueError as error:
        raise ValueError(f'config.data.tokenizer = {config.data.tokenizer!r}: {error}') from error
    return tokenizer


def check_config(config, old, workdir):
    """Raises ValueError if the run in `workdir` was started with another config, `old`, the JSON of its checkpoint;
    names the fields."""
    old = configs.from_json(old, f'{workdir}: the config of its checkpoint')
    differences = list(_differences(configs.to_json(old), configs.to_json(config)))
    if differences:
        raise ValueError(
            f'{workdir}: holds a run of another config: ' + '; '.join(
                f'{field} was {was!r}, is now {now!r}' for field, was, now in differences)
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
