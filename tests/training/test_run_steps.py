"""The bookkeeping of the training loop, with steps that compute nothing: what it logs, saves and scores, and when."""

import contextlib
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import synthetic
from sgmg_jax import checkpoints, types
from sgmg_jax.data import metadata, records
from sgmg_jax.training import loop
from sgmg_jax.training import optimizer as optimizers
from sgmg_jax.training import step as steps
from sgmg_jax.training.logging import MetricWriter
from sgmg_jax.training.progress import Progress

BATCH = types.Example(
    types.Clip(np.zeros((1, 1, 1, 1, 3), np.float32), np.ones((1, 1, 1, 1), bool), np.ones((1, 2), int)),
    types.Text(np.zeros((1, 1), int), np.ones((1, 1), bool)),
    types.Targets(
        np.ones((1, 1, 1, 1), bool),
        np.zeros((1, 1, 4), np.float32),
        np.ones((1, 1), bool),
        np.ones((1, 2), int),
        np.ones(1, bool),
    ),
    np.array([[0, 1]]),
)


class FakeStep(steps.TrainStep):
    """Counts its calls. Steps in `bad` have no finite gradient; after step `stop_at` a signal arrives."""

    def __init__(self, bad, stop, stop_at):
        self.bad, self.compiled, self.skipped, self.row = set(bad), 0, 0, 0
        self.stop, self.stop_at = stop, stop_at

    def compile(self, state, batch):
        self.compiled += 1

    def __call__(self, state, batch):
        assert self.compiled == 1
        step = state.step + 1
        failed = step in self.bad
        self.skipped, self.row = self.skipped + failed, self.row + 1 if failed else 0
        self.stop.signal = signal.SIGTERM if step == self.stop_at else None
        return state.replace(step=step), {
            name: jnp.float32(x)
            for name, x in (
                ('loss', np.nan if failed else 10.0 * step),
                ('skipped', self.skipped),
                ('skipped_in_a_row', self.row),
            )
        }


class Writer(MetricWriter):
    def __init__(self, lines):
        self.lines, self.shown = lines, None

    def write(self, step, scalars, shown=()):
        self.lines.append({'step': step} | scalars)
        self.shown = shown


class Saved(checkpoints.Checkpoints):
    def __init__(self, scores):
        self.scores = scores

    def score(self, step):
        return self.scores.get(step)

    def discard(self, step):
        self.scores.pop(step, None)

    def latest_step(self):
        return max(self.scores, default=None)

    def wait(self):
        pass


class Run:
    """Calls run_steps, and records what it did."""

    def __init__(self, begin=0, bad=(), scores=None, stop_at=None, **fields):
        self.config = synthetic.get_config()
        self.config.update(
            dict(steps=8, log_every=2, eval_every=100, checkpoint_every=100, stop_after_skipped=3) | fields
        )
        self.config.optimizer.update(learning_rate=0.5, warmup_steps=0, drop_steps=(5,))
        self.lines, self.saved, self.scores, self.begin = [], {}, scores or {}, begin
        self.validated, self.bad, self.stop_at, self.step = [], bad, stop_at, begin

    def go(self):
        video = metadata.Video('video', ('00000', '00005'), 8, 8, (), True)
        source = records.Records('records', 'train', (video,), ())
        schedule = optimizers.make_schedule(self.config.optimizer.warmup_steps, tuple(self.config.optimizer.drop_steps))
        stop = loop.Stop()

        def validate(state):
            self.validated.append(state.step)
            return self.scores.get(state.step, {'J&F': 50.0 + state.step, 'J': 1.0, 'F': 2.0})

        def save(state, score=None):
            self.saved[state.step] = score

        writer = Writer(self.lines)
        finished = loop.run_steps(
            self.config,
            steps.TrainState(self.begin, {}, {}, {}, None),
            FakeStep(self.bad, stop, self.stop_at),
            iter([BATCH] * 100),
            Progress(self.config, source, schedule, writer),
            loop.Run(Saved(self.saved), save, validate, stop),
        )
        self.shown = writer.shown
        return finished


def test_the_logged_learning_rate_is_that_of_the_step(capsys):
    """With a drop after step 5, steps 1 to 5 use the full rate and the sixth a tenth of it."""
    run = Run(log_every=1)
    assert run.go()
    assert [line['learning_rate'] for line in run.lines if 'loss' in line] == pytest.approx([0.5] * 5 + [0.05] * 3)


def test_skipped_steps_do_not_advance_the_schedule():
    run = Run(log_every=1, bad={2, 3})
    assert run.go()
    rates = [line['learning_rate'] for line in run.lines if 'learning_rate' in line]
    assert rates == pytest.approx([0.5] * 7 + [0.05], nan_ok=False)


def test_logged_means_leave_out_skipped_steps(caplog):
    run = Run(bad={3})
    assert run.go()
    lines = [line for line in run.lines if 'learning_rate' in line]
    assert [line['step'] for line in lines] == [2, 4, 6, 8]
    assert [line['loss'] for line in lines] == [15.0, 40.0, 55.0, 75.0]
    assert [line['skipped'] for line in lines] == [0, 1, 1, 1]
    assert 'skipped step 3' in caplog.text and 'video around frame 00005' in caplog.text


def test_validation_and_checkpoint_intervals():
    run = Run(eval_every=3, checkpoint_every=2)
    assert run.go()
    assert run.validated == [3, 6, 8]
    assert run.saved == {2: None, 3: 53.0, 4: None, 6: 56.0, 8: 58.0}
    assert [(line['step'], line['valid/J&F']) for line in run.lines if 'valid/J&F' in line] == [
        (3, 53.0),
        (6, 56.0),
        (8, 58.0),
    ]


def test_a_finished_run_only_adds_its_missing_score():
    run = Run(begin=8)
    assert run.go() and run.validated == [8] and run.saved == {8: 58.0}
    again = Run(begin=8)
    again.saved = {8: 58.0}
    assert again.go() and again.validated == [] and again.lines == []


def test_map_is_the_main_score_of_its_benchmarks():
    run = Run(scores={8: {'mAP': 33.0, 'overall_IoU': 20.0, 'mean_IoU': 10.0}})
    assert run.go() and run.saved == {8: 33.0}


@pytest.mark.parametrize(
    'summary, shown',
    [
        ({'J&F': 5.0, 'J': 4.0, 'F': 6.0}, ['valid/J&F', 'valid/J', 'valid/F']),
        (
            {'P@0.5': 4.0, 'mean_IoU': 1.0, 'overall_IoU': 2.0, 'mAP': 3.0},
            ['valid/mAP', 'valid/overall_IoU', 'valid/mean_IoU'],
        ),
    ],
)
def test_validation_shows_the_scores_of_its_benchmark(summary, shown):
    run = Run(scores={8: summary})
    assert (
        run.go()
        and run.shown == shown
        and run.lines[-1] == {'step': 8} | {f'valid/{name}': value for name, value in summary.items()}
    )


def test_a_signal_stops_after_the_step_and_saves():
    run = Run(stop_at=3)
    assert not run.go() and run.saved == {3: None} and run.step == 0
    # During validation, the checkpoint stays without a score until the run is resumed.
    run = Run(eval_every=2, scores={4: None})
    assert not run.go() and run.saved == {2: 52.0, 4: None} and run.validated == [2, 4]


def test_too_many_skipped_steps_save_and_stop():
    run = Run(bad={4, 5, 6, 7})
    with pytest.raises(FloatingPointError, match=r'the last 3 steps, up to step 6, .*around frame 00005.* now 0.5'):
        run.go()
    assert run.saved == {6: None}


def test_signals(monkeypatch):
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        with loop.noting_signals() as stop:
            assert not stop() and stop.signal is None
            signal.raise_signal(number)
            assert stop() and stop.signal == number
            if number == signal.SIGINT:  # A second Ctrl-C exits at once.
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(number)
        assert {number: signal.getsignal(number) for number in before} == before
    with contextlib.suppress(KeyboardInterrupt):
        with loop.noting_signals():
            raise KeyboardInterrupt
    assert signal.getsignal(signal.SIGINT) == before[signal.SIGINT]


@pytest.mark.parametrize('processes, sent', [(1, []), (2, [(os.getpid(), signal.SIGTERM)])])
def test_ctrl_c_in_one_process_reaches_the_others_as_sigterm(monkeypatch, processes, sent):
    """jax.distributed passes on only SIGTERM."""
    killed = []
    monkeypatch.setattr(jax, 'process_count', lambda: processes)
    monkeypatch.setattr(os, 'kill', lambda *arguments: killed.append(arguments))
    with loop.noting_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT and killed == sent


def test_at_most_two_steps_are_dispatched(monkeypatch):
    """A step is dispatched while the one before runs, but not before the second last has ended."""
    events = []
    call = FakeStep.__call__

    def dispatch(self, state, batch):
        events.append(('dispatched', state.step + 1))
        return call(self, state, batch)

    def wait(metrics):
        events.extend([('ended', int(metrics['loss']) // 10)] if metrics else [])

    monkeypatch.setattr(FakeStep, '__call__', dispatch)
    monkeypatch.setattr(jax, 'block_until_ready', wait)
    assert Run(steps=4, log_every=100).go()
    order = [('dispatched', 1), *(x for step in (1, 2, 3) for x in (('dispatched', step + 1), ('ended', step)))]
    assert events == order
