"""What the loop does about accidents."""

import copy
import json
import os
import pathlib
import signal

from jax.experimental import multihost_utils
import numpy as np
import pytest
import small

from sgmg_jax import checkpoints, files
from sgmg_jax.benchmarks import accidents
from sgmg_jax.data import pipeline, records
from sgmg_jax.inference import evaluate
from sgmg_jax.training import loop

ROOT = pathlib.Path(__file__).parents[2]


def lines(workdir):
    return [line for line in accidents.lines_of(workdir) if 'loss' in line]


def poison(monkeypatch, numbers):
    """Clips of these videos have boxes of NaN."""
    load = pipeline.LoadClip.random_map

    def random_map(self, row, rng):
        example = load(self, row, rng)
        if example.origin[0, 0] in numbers:
            example.targets.boxes[...] = np.nan
        return example

    monkeypatch.setattr(pipeline.LoadClip, 'random_map', random_map)


def test_sigterm_saves_and_the_run_resumes(tiny_config, tmp_path, monkeypatch):
    """After a step; in the first of the two videos of the last validation."""
    config = copy.deepcopy(tiny_config)
    config.update(steps=3, eval_every=2, checkpoint_every=100, log_every=1)
    config.evaluation.videos = 2
    whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
    # The sync point of several processes is counted by the loop; Orbax must not ask with numbers of its own.
    monkeypatch.setattr(multihost_utils, 'reached_preemption_sync_point', None)
    assert loop.train(config, whole) is None
    before, calls = signal.getsignal(signal.SIGTERM), []

    def stopping(function, call):
        def call_and_stop(*args, **kwargs):
            calls.append(args)
            result = function(*args, **kwargs)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGTERM)
            return result

        return call_and_stop

    for step, place, name, call in ((1, loop.MetricWriter, 'write', 1), (3, evaluate, '_score_expressions', 3)):
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(place, name, stopping(getattr(place, name), call))
            assert loop.train(config, stopped) == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) == before and len(calls) == call
        saved = checkpoints.Checkpoints(stopped, read_only=True)
        assert saved.latest_step() == step and saved.score(step) is None

    # What a killed run may have left: numbers of a step that is not in any checkpoint, half a line.
    with (stopped / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 4, "loss": 0.0}\n{"step": 5, "lo')
    assert loop.train(config, stopped) is None
    assert accidents.differences(whole, stopped) == []
    assert [line['step'] for line in lines(stopped)] == [1, 2, 3]
    ours, theirs = (checkpoints.Checkpoints(folder, read_only=True) for folder in (stopped, whole))
    assert ours.all_steps() == theirs.all_steps() == [2, 3] and ours.best_step() == theirs.best_step()
    assert [ours.score(step) for step in (2, 3)] == [theirs.score(step) for step in (2, 3)] != [None, None]


def test_clips_without_a_finite_gradient_are_skipped_and_named(tiny_config, tmp_path, monkeypatch, caplog):
    config = copy.deepcopy(tiny_config)
    config.update(steps=6, log_every=2, eval_every=100, checkpoint_every=100)
    poison(monkeypatch, {0})
    source = records.open_records(config.data.records, config.data.train_split)
    assert loop.train(config, tmp_path) is None
    named = [record.getMessage() for record in caplog.records if 'skipped step' in record.getMessage()]
    last = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()][-2]
    assert 0 < len(named) == last['skipped'] < 6
    assert all(f'{source.videos[0].name} around frame 0' in message for message in named)
    every = checkpoints.Checkpoints(tmp_path, read_only=True).read(6)
    assert all(np.isfinite(x).all() for x in every.values())


def test_too_many_skipped_steps_stop_the_run(tiny_config, tmp_path, monkeypatch):
    config = copy.deepcopy(tiny_config)
    config.update(steps=6, log_every=2, eval_every=100, checkpoint_every=100, stop_after_skipped=3)
    poison(monkeypatch, {0, 1, 2})
    name = records.open_records(config.data.records, config.data.train_split).videos[0].name
    with pytest.raises(FloatingPointError, match=rf'the last 4 steps, up to step 4, had no .*{name} around frame \d+'):
        loop.train(config, tmp_path)
    assert checkpoints.Checkpoints(tmp_path, read_only=True).latest_step() == 4


def test_a_second_run_in_a_workdir_is_refused(tiny_config, tmp_path):
    with files.locked(tmp_path / '.lock', 'training'):
        with pytest.raises(BlockingIOError, match=rf'process {os.getpid()} of .*, training, is at work here'):
            loop.train(tiny_config, tmp_path)
    assert not (tmp_path / 'config.json').exists()


def test_runs_killed_at_random_times_resume(tiny_config, tmp_path, monkeypatch, capsys):
    """By the command, in a small form."""
    config = copy.deepcopy(tiny_config)
    config.update(steps=8, log_every=1, eval_every=4, checkpoint_every=2, ema_decay=0.5)
    monkeypatch.chdir(ROOT)
    assert accidents.main(['--kills=1', f'--out={tmp_path}', '--', *small.flags(config)]) == 0
    said = capsys.readouterr().out
    assert 'equal bit for bit after' in said and 'after 0' not in said
    assert len(lines(tmp_path / 'killed')) == 8
