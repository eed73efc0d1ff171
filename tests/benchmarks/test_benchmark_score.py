"""The benchmark of scoring speed: the set that it makes, and its output."""

import json

import pytest
from score_files import run

from sgmg_jax.benchmarks import score as benchmark
from sgmg_jax.doctor import places as places_of_raw


def test_generated_set_has_the_size_of_davis():
    frames, objects = (sum(row[field] for row in benchmark.SEQUENCES) for field in (1, 3))
    assert (len(benchmark.SEQUENCES), frames, objects) == (30, 1999, 61)  # of DAVIS-2017's validation set
    assert {row[0] for row in benchmark.SEQUENCES} == places_of_raw.DAVIS_VALID


def test_generated_set_can_be_scored(tmp_path):
    for annotators in (1, 4):
        root = tmp_path / str(annotators)
        benchmark.write_set(root, [('a', 2, 64, 2)], annotators)
        assert run('davis', root / 'DAVIS', root / 'results', root / 'scores.json') == 0
        summary = json.loads((root / 'scores.json').read_text())
        assert len(summary['annotators']) == annotators and summary['objects'] == 2
        assert 30 < summary['J&F'] < 100
    with pytest.raises(SystemExit):
        benchmark.main(['--annotators=2'])


def test_benchmark_times_the_command(monkeypatch, capsys):
    original = benchmark.write_set
    monkeypatch.setattr(benchmark, 'write_set', lambda root, annotators: original(root, [('a', 2, 64, 2)], annotators))
    assert benchmark.main(['--runs=1', '--processes=1']) == 0
    machine, data, seconds = capsys.readouterr().out.splitlines()
    assert 'using 1 processes' in machine and '2 objects, 1 annotator(s); J&F ' in data
    assert len(seconds.split('(')[0].split()) == 2  # the word, and one run
    for wrong in ('--runs=0', '--processes=0'):
        assert benchmark.main([wrong]) == 2
