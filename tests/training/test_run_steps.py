"""The loop's bookkeeping, on steps that compute nothing: what is logged, saved and scored, and when."""
import contextlib
import os
import signal
import types

import jax
import numpy as np
import pytest

from configs import synthetic
from sgmg_jax.training import loop
from sgmg_jax.training import optimizer as optimizers
from sgmg_jax.training.progress import Progress


class Loss(float):
    """A number of the device, which is there at once."""

    def is_ready(self):
        return True


class FakeStep:
    """Counts its calls; steps of `bad` have no finite gradient."""

    def __init__(self, bad=()):
        self.bad, self.compiled, self.skipped, self.row = set(bad), 0, 0, 0

    def compile(self, state, batch):
        self.compiled += 1

    def __call__(self, state, batch):
        assert self.compiled == 1
        failed = state.step + 1 in self.bad
        self.skipped, self.row = self.skipped + failed, self.row + 1 if failed else 0
        loss = Loss(np.nan if failed else 10.0 * (state.step + 1))
        return types.SimpleNamespace(step=state.step + 1), {
            'loss': loss, 'skipped': self.skipped, 'skipped_in_a_row': self.row}


class Run:
    """What run_steps is given, and a record of what it did."""

    def __init__(self, begin=0, bad=(), scores=None, stop_at=None, **fields):
        self.config = synthetic.get_config()
        self.config.update(dict(steps=8, log_every=2, eval_every=100, checkpoint_every=100, stop_after_skipped=3)
                           | fields)
        self.config.optimizer.update(learning_rate=0.5, warmup_steps=0, drop_steps=(5,))
        self.lines, self.saved, self.scores, self.begin = [], {}, scores or {}, begin
        self.validated, self.bad, self.stop_at, self.step = [], bad, stop_at, begin

    def go(self):
        video = types.SimpleNamespace(name='video', frame_names=('00000', '00005'))
        schedule = optimizers.make_schedule(self.config.optimizer.warmup_steps, tuple(self.config.optimizer.drop_steps))
        stop = loop.Stop()
        train_step = FakeStep(self.bad)

        def step_and_stop(state, batch):
            state, metrics = train_step(state, batch)
            stop.signal = signal.SIGTERM if state.step == self.stop_at else None
            return state, metrics

        def validate(state):
            self.validated.append(state.step)
            return self.scores.get(state.step, {'J&F': 50.0 + state.step, 'J': 1.0, 'F': 2.0})

        def save(state, score=None):
            self.saved[state.step] = score

        batches = iter([types.SimpleNamespace(origin=np.array([[0, 1]]))] * 100)

        def write(step, scalars, shown=()):
            self.lines.append({'step': step} | scalars)
            self.shown = shown

        writer = types.SimpleNamespace(write=write)
        saved = types.SimpleNamespace(
            score=lambda step: self.saved.get(step), discard=lambda step: self.saved.pop(step, None),
            latest_step=lambda: max(self.saved, default=None), wait=lambda: None)
        step_and_stop.compile = train_step.compile
        progress = Progress(self.config, types.SimpleNamespace(videos=[video]), schedule, writer)
        return loop.run_steps(self.config, types.SimpleNamespace(step=self.begin), step_and_stop, batches, progress,
                              loop.Run(saved, save, validate, stop))


def test_the_logged_rate_is_that_of_the_step(capsys):
    """A drop after step 5: steps 1 to 5 take the whole rate, the sixth a tenth of it."""
    run = Run(log_every=1)
    assert run.go()
    assert [line['learning_rate'] for line in run.lines if 'loss' in line] == pytest.approx(
        [0.5] * 5 + [0.05] * 3)


def test_skipped_steps_hold_the_schedule_back():
    run = Run(log_every=1, bad={2, 3})
    assert run.go()
    rates = [line['learning_rate'] for line in run.lines if 'learning_rate' in line]
    assert rates == pytest.approx([0.5] * 7 + [0.05], nan_ok=False)


def test_means_are_of_the_steps_since_the_last_line_that_were_not_skipped(caplog):
    run = Run(bad={3})
    assert run.go()
    lines = [line for line in run.lines if 'learning_rate' in line]
    assert [line['step'] for line in lines] == [2, 4, 6, 8]
    assert [line['loss'] for line in lines] == [15.0, 40.0, 55.0, 75.0]
    assert [line['skipped'] for line in lines] == [0, 1, 1, 1]
    assert 'skipped step 3' in caplog.text and 'video around frame 00005' in caplog.text


def test_validation_and_checkpoints_come_when_they_are_due():
    run = Run(eval_every=3, checkpoint_every=2)
    assert run.go()
    assert run.validated == [3, 6, 8]
    assert run.saved == {2: None, 3: 53.0, 4: None, 6: 56.0, 8: 58.0}
    assert [(line['step'], line['valid/J&F']) for line in run.lines if 'valid/J&F' in line] == [
        (3, 53.0), (6, 56.0), (8, 58.0)]


def test_a_run_that_has_ended_only_catches_up_on_its_score():
    run = Run(begin=8)
    assert run.go() and run.validated == [8] and run.saved == {8: 58.0}
    again = Run(begin=8)
    again.saved = {8: 58.0}
    assert again.go() and again.validated == [] and again.lines == []


def test_a_benchmark_of_map_is_headed_by_it():
    run = Run(scores={8: {'mAP': 33.0, 'overall_IoU': 20.0, 'mean_IoU': 10.0}})
    assert run.go() and run.saved == {8: 33.0}


@pytest.mark.parametrize('summary, shown', [
    ({'J&F': 5.0, 'J': 4.0, 'F': 6.0}, ['valid/J&F', 'valid/J', 'valid/F']),
    ({'P@0.5': 4.0, 'mean_IoU': 1.0, 'overall_IoU': 2.0, 'mAP': 3.0},
     ['valid/mAP', 'valid/overall_IoU', 'valid/mean_IoU'])])
def test_a_validation_shows_the_scores_of_its_benchmark(summary, shown):
    run = Run(scores={8: summary})
    assert run.go() and run.shown == shown and run.lines[-1] == {'step': 8} | {
        f'valid/{name}': value for name, value in summary.items()}


def test_a_signal_stops_after_its_step_and_saves_it():
    run = Run(stop_at=3)
    assert not run.go() and run.saved == {3: None} and run.step == 0
    # During a validation, which then has no score: it is made up for when the run goes on.
    run = Run(eval_every=2, scores={4: None})
    assert not run.go() and run.saved == {2: 52.0, 4: None} and run.validated == [2, 4]


def test_too_many_skipped_steps_end_the_run_saved():
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
            if number == signal.SIGINT:  # A second Ctrl-C does not wait.
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(number)
        assert {number: signal.getsignal(number) for number in before} == before
    with contextlib.suppress(KeyboardInterrupt):
        with loop.noting_signals():
            raise KeyboardInterrupt
    assert signal.getsignal(signal.SIGINT) == before[signal.SIGINT]


@pytest.mark.parametrize('processes, sent', [(1, []), (2, [(os.getpid(), signal.SIGTERM)])])
def test_ctrl_c_in_one_process_reaches_the_others_as_sigterm(monkeypatch, processes, sent):
    """jax.distributed passes on that signal alone."""
    killed = []
    monkeypatch.setattr(jax, 'process_count', lambda: processes)
    monkeypatch.setattr(os, 'kill', lambda *arguments: killed.append(arguments))
    with loop.noting_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT and killed == sent
