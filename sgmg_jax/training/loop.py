"""The training loop, for every model, benchmark and number of devices and hosts."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import itertools
import os
import pathlib
import signal
import sys
import threading

from absl import logging
import jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict
import numpy as np
import tqdm

from sgmg_jax import checkpoints, compilation, hosts, systems, types
from sgmg_jax import config as configs
from sgmg_jax.data import records
from sgmg_jax.training import start
from sgmg_jax.training import step as steps
from sgmg_jax.training import workdir as workdirs
from sgmg_jax.training.logging import MetricWriter
from sgmg_jax.training.progress import Progress


def train(config: ConfigDict, workdir: str | os.PathLike) -> int | None:
    """Trains until config.steps; resumes from the latest checkpoint in `workdir` if there is one.

    Writes to `workdir`, which all processes must see: config.json, tokenizer.json, checkpoints/, metrics.jsonl,
    tensorboard/, .lock.

    Returns:
        None after the last step; or the signal that stopped training, SIGTERM or SIGINT, after saving a checkpoint.

    Raises:
        ValueError: for a config that contradicts itself, its data, or the run in `workdir`; for a damaged workdir.
        FileNotFoundError: for missing records or a missing tokenizer.
        BlockingIOError: if another run is writing to `workdir`.
        FloatingPointError: after config.stop_after_skipped consecutive steps without a finite gradient; names their
            clips.
        OSError: the disk is full; the last whole checkpoint is kept.
        ChildProcessError: a process that loads clips has died.
    """
    workdir = pathlib.Path(workdir)
    compilation.keep_programs()
    configs.check(config)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(noting_signals())
        source = records.open_records(configs.paths(config.data.records), config.data.train_split)
        epoch = start.clips_per_epoch(config, source)
        config = start.with_steps(config, epoch)
        resumed = workdirs.resumed_step(config, workdir)
        validation = start.open_validation(config)
        model, system = systems.build_model(config.model), systems.choose(config)
        tokenizer = workdirs.prepare_tokenizer(config, model, source, workdir, resumed is not None)
        mesh = start.make_mesh(config)
        stack.enter_context(hosts.locked(workdir / '.lock', 'training'))
        # Closed on errors too: Orbax cleans up after a killed run in the background, and an exit would interrupt that.
        saved = stack.enter_context(contextlib.closing(checkpoints.Checkpoints(workdir)))
        if resumed is not None:
            saved.check_tokenizer(resumed, tokenizer)
        state, train_step, schedule = start.prepare_state(config, model, system, mesh, saved)
        # The first write to the workdir, after all checks.
        tokenizer = workdirs.write(config, tokenizer, workdir)
        logging.info(
            '%d clips per epoch, %.1f epochs in %d steps; from step %d on %d %s device(s) of %d process(es)',
            epoch,
            config.steps * config.data.batch_size / epoch,
            config.steps,
            int(state.step),
            jax.device_count(),
            jax.default_backend(),
            jax.process_count(),
        )

        batches = start.open_batches(config, source, tokenizer, int(state.step))
        stack.enter_context(contextlib.closing(batches))  # type: ignore[type-var]  # The loader's iterators have close().
        writer = MetricWriter(workdir, int(state.step), hosts.is_first())
        stack.enter_context(contextlib.closing(writer))
        run = Run(
            saved,
            save=lambda state, score=None: saved.save(state, configs.to_json(config), tokenizer, score),
            validate=start.validator(config, model, tokenizer, mesh, validation, stop),
            stop_requested=stop,
        )
        progress = Progress(config, source, schedule, writer)
        finished = run_steps(config, state, train_step, batches, progress, run)
        return None if finished else stop.signal


class Stop:
    """Whether a signal has requested a stop. Calling it is a collective: every process must call it the same number of
    times, and all get the same answer.

    signal: the one that this process received; SIGTERM if another process received it.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._calls = itertools.count()

    def __call__(self) -> bool:
        if jax.process_count() > 1:
            # jax.distributed handles SIGTERM itself. The processes agree on a sync point ahead of all of them.
            requested = multihost_utils.reached_preemption_sync_point(next(self._calls))
            self.signal = self.signal or (signal.SIGTERM if requested else None)
            return requested
        return self.signal is not None

    def note(self, number: int, frame: object) -> None:
        """The signal handler."""
        self.signal = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # A second Ctrl-C exits at once.
            tqdm.tqdm.write(
                'Ctrl-C: stopping after this step, then saving; press again to exit at once', file=sys.stderr
            )
            if jax.process_count() > 1:
                os.kill(os.getpid(), signal.SIGTERM)  # jax.distributed passes it on to the other processes.


@contextlib.contextmanager
def noting_signals() -> Iterator[Stop]:
    """Defers SIGTERM and the first Ctrl-C. Yields a Stop."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # Only the main thread can handle signals.
        yield stop
        return
    handled = [signal.SIGINT] if jax.process_count() > 1 else [signal.SIGINT, signal.SIGTERM]
    before = {number: signal.signal(number, stop.note) for number in handled}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclasses.dataclass(frozen=True)
class Run:
    """What `run_steps` needs to save, validate and stop.

    save: function(state, score=None): starts to save a checkpoint.
    validate: function(state) -> summary of scores, or None if a signal stopped it.
    """

    saved: checkpoints.Checkpoints
    save: Callable[..., None]
    validate: Callable[[steps.TrainState], dict | None]
    stop_requested: Stop


def run_steps(
    config: ConfigDict,
    state: steps.TrainState,
    train_step: steps.TrainStep,
    batches: Iterator[types.Example],
    progress: Progress,
    run: Run,
) -> bool:
    """Runs the steps from state.step to config.steps. Returns False if a signal stopped it before the end.

    Raises:
        FloatingPointError: see `train`.
    """
    begin, saved = int(state.step), run.saved

    def due(step: int) -> bool:
        return step > 0 and (step % config.eval_every == 0 or step == config.steps)

    def validated(state: steps.TrainState) -> bool:
        """Validates, logs and saves with the score; or does nothing and returns False if a signal stopped it."""
        summary = run.validate(state)
        if summary is None:
            return False
        # Before the line is logged: a run that is killed in between validates again and logs it then.
        saved.discard(int(state.step))
        run.save(state, progress.log_scores(int(state.step), summary))
        return True

    def save_now(state: steps.TrainState) -> None:
        if saved.latest_step() != int(state.step):
            run.save(state)
        saved.wait()

    def stop(state: steps.TrainState) -> bool:
        save_now(state)
        logging.warning(
            'stopped by %s; step %d is saved. Run the same command again to resume',
            'Ctrl-C' if run.stop_requested.signal == signal.SIGINT else 'SIGTERM',
            int(state.step),
        )
        return False

    # A signal during validation leaves a checkpoint without a score.
    if due(begin) and saved.score(begin) is None and not validated(state):
        return stop(state)
    if begin == config.steps:
        return True
    # Compile before the progress bar starts: its remaining time is for steps only.
    first = next(batches)
    train_step.compile(state, first)
    progress.restart_clock()
    bar = tqdm.tqdm(
        range(begin, config.steps),
        initial=begin,
        total=config.steps,
        desc='training',
        unit='step',
        mininterval=1,
        dynamic_ncols=True,
        disable=not hosts.is_first(),
    )
    running: Mapping[str, jax.Array] = {}
    for done in bar:
        if run.stop_requested():
            return stop(state)
        batch = first if done == begin else progress.next_batch(batches)
        state, metrics = train_step(state, batch)
        # While a step runs, the next batch is loaded and goes to the device. Any further batch would take memory there.
        jax.block_until_ready(running)
        running = metrics
        step = done + 1
        assert batch.origin is not None  # The loader sets it.
        progress.add(step, batch.origin, metrics)
        if step % config.log_every == 0 or step == config.steps:
            means = progress.log_steps(step)
            bar.set_postfix(loss=f'{means.get("loss", np.nan):.3f}', **progress.headline)
            if means['skipped_in_a_row'] >= config.stop_after_skipped:
                save_now(state)
                raise FloatingPointError(
                    f'the last {means["skipped_in_a_row"]:.0f} steps, up to step {step}, had no finite gradient and '
                    f'were skipped. Their clips in this process: {progress.skipped_clips()}. Check these in the data; '
                    'or start again in another --workdir with a lower config.optimizer.learning_rate, now '
                    f'{config.optimizer.learning_rate}, or clip_norm.'
                )
        if due(step):
            if not validated(state):
                return stop(state)
            bar.unpause()  # Excludes the validation from the bar's remaining time.
        elif step % config.checkpoint_every == 0:
            run.save(state)
    saved.wait()
    return True
