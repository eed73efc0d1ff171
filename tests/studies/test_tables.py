"""The papers' tables: which runs there are, what is printed of them, resuming; and one run through the real entry."""

import json
import signal

import jax
from ml_collections import ConfigDict
import numpy as np
from PIL import Image
import pytest

from configs import studies, ytvos, ytvos_soc
from sgmg_jax import config as configs
from sgmg_jax import systems
from sgmg_jax.studies import rows, speed, tables

PARAMETERS = 2_340_000


def write(folder, value, steps=500, **more):
    """A made-up result of a run."""
    folder.mkdir(parents=True)
    scores = {'J&F': value, 'J': value - 5, 'F': value + 5} | more
    result = {'steps': steps, 'epochs': 0.0, 'parameters': PARAMETERS, 'seconds': 90.0, 'scores': scores}
    (folder / tables.RESULT).write_text(json.dumps(result))


@pytest.mark.parametrize('name', rows.TABLES)
def test_rows_are_models(name):
    """Valid configs of different models, by default and on the paper's data set."""
    table = rows.TABLES[name]
    paper = (ytvos_soc if table.system == 'soc' else ytvos).get_config()
    for base in (studies.get_config('soc' if table.system == 'soc' else 'full'), paper):
        found = {}
        for row in table.rows:
            config, folder = rows.configure(base, row, 2)
            configs.check(config)
            systems.build_model(config.model)
            assert config.seed == 2 and folder.startswith(table.system)
            found[folder] = row.name
        assert len(found) == len(table.rows)
        if name != 'soc6' or base is paper:  # A model that learns in minutes has a single query.
            assert table.system in found  # the row of the released model
    assert len({row.name for row in table.rows}) == len(table.rows)


def test_tables_share_the_runs_of_equal_models():
    sgmg, soc = studies.get_config(), studies.get_config('soc')

    def folder(base, table, name):
        return rows.configure(base, next(row for row in rows.TABLES[table].rows if row.name == name), 0)[1]

    assert {folder(sgmg, 'sgmg5', 'SCF+CPK+MSO'), folder(sgmg, 'sgmg6', 'segment-and-optimize')} == {'sgmg'}
    assert folder(sgmg, 'sgmg5', 'SCF+CPK') == folder(sgmg, 'sgmg6', 'segment') == 'sgmg-optimizer=False'
    assert folder(soc, 'soc3', 'without') == 'soc-contrast=False'
    both = 'soc-cluster_decoder_layers=0-cluster_encoder_layers=0'
    assert folder(soc, 'soc5', 'average') == folder(soc, 'soc8', 'neither') == both
    with pytest.raises(ValueError, match="config.loss.contrast: this config has no such field, but the row 'without'"):
        folder(sgmg, 'soc3', 'without')


def test_mean_and_spread():
    row = rows.Row('SCF', {'model.labels': 1}, paper=57.5)
    values = 50.0, 53.0, 59.0
    results = {
        seed: {'scores': {'J&F': value, 'relation': 2 * value}, 'parameters': PARAMETERS}
        for seed, value in enumerate(values)
    }
    found = tables.summarise(row, results)
    assert found['mean'] == pytest.approx({'J&F': np.mean(values), 'relation': 2 * np.mean(values)})
    assert found['spread']['J&F'] == pytest.approx(np.std(values, ddof=1))
    one = tables.summarise(rows.Row('one', {}), {4: results[0]})
    none = tables.summarise(rows.Row('none', {}), {})
    assert one['spread'] == {'J&F': None, 'relation': None} and none['mean'] == {} and none['parameters'] is None
    lines = tables.format_table([found, one, none], 3).splitlines()
    assert lines[0].split() == ['seeds', 'J&F', 'relation', 'parameters', 'paper']
    assert lines[2].split() == 'SCF 3 of 3 54.0 ± 4.6 108.0 ± 9.2 2.34 M 57.5'.split()
    assert lines[3].split() == 'one 1 of 3 50.0 100.0 2.34 M -'.split()
    assert lines[4].split() == 'none 0 of 3 - - - -'.split()


def test_show_prints_what_is_finished(tmp_path, capsys):
    for seed, value in ((0, 40.0), (2, 44.0)):
        write(tmp_path / 'runs' / 'sgmg' / f'seed{seed}', value, relation=10.0)
    write(tmp_path / 'runs' / 'sgmg-optimizer=False' / 'seed0', 30.0, steps=20)  # of a shorter training
    assert tables.main(['sgmg6', f'--workdir={tmp_path}', '--show']) == 0
    out = capsys.readouterr().out
    assert 'segment-and-optimize  2 of 3  42.0 ± 2.8' in out and 'segment               0 of 3' in out
    content = json.loads((tmp_path / 'sgmg6.json').read_text())
    assert content['rows'][2]['seeds'] == {
        '0': {'J&F': 40.0, 'J': 35.0, 'F': 45.0, 'relation': 10.0},
        '2': {'J&F': 44.0, 'J': 39.0, 'F': 49.0, 'relation': 10.0},
    }
    assert content['base']['steps'] == 500
    with Image.open(tmp_path / 'sgmg6.png') as picture:
        assert min(picture.size) > 100
    (tmp_path / 'runs' / 'sgmg' / 'seed0' / tables.RESULT).write_text('[]')
    assert tables.main(['sgmg6', f'--workdir={tmp_path}', '--show']) == 2
    assert 'is not the result of a run. Delete it' in capsys.readouterr().err


def test_a_stopped_table_continues(tmp_path, capsys, monkeypatch):
    """Finished runs are not run again; a signal ends the command with its status."""
    calls, stop_at = [], [3]
    monkeypatch.setattr(tables, 'write_world', lambda workdir: workdir / 'records')

    def run(folder, config):
        calls.append((folder.parent.name, config.seed))
        assert config.data.records == (str(tmp_path / 'records'),) and config.loss.contrast == ('=' not in str(folder))
        if len(calls) in stop_at:
            return signal.SIGTERM
        write(folder, 50.0 + config.seed)
        return None

    monkeypatch.setattr(tables, 'run', run)
    command = ['soc3', f'--workdir={tmp_path}', '--seeds=2']
    assert tables.main(command) == 128 + signal.SIGTERM
    assert 'with     1 of 2  50.0' in capsys.readouterr().out
    assert tables.main(command) == 0
    assert '50.5 ± 0.7' in capsys.readouterr().out
    order = [('soc-contrast=False', 0), ('soc', 0), ('soc-contrast=False', 1), ('soc', 1)]
    assert calls == [*order[:3], *order[2:]]
    assert tables.main([*command, '--row=with']) == 0 and len(calls) == 5
    assert tables.main([*command, '--row=with', '--seed=1']) == 0 and len(calls) == 5
    assert tables.main(['soc3', f'--workdir={tmp_path}', '--seeds=3', '--row=with', '--seed=2']) == 0
    assert calls[5:] == [('soc', 2)]


def test_wrong_options_are_named(tmp_path, capsys):
    for more, message in (
        (['--row=MSO'], '--row=MSO: must be one of baseline, SCF,'),
        (['--seed=3'], '--seed=3: must be less than --seeds=3'),
        (['--config=configs/ytvos_soc.py', '--show'], "config.model.name = 'soc', but this table is about 'sgmg'"),
    ):
        assert tables.main(['sgmg5', f'--workdir={tmp_path}', *more]) == 2
        assert message in capsys.readouterr().err


@pytest.fixture
def tiny(tmp_path, world_records):
    """The path of a config whose model is compiled in seconds."""
    path = tmp_path / 'tiny.py'
    path.write_text(
        'import small\n\n\ndef get_config():\n'
        f'    config = small.small_config({str(world_records)!r})\n'
        '    config.model.update(queries=1, decoder_layers=1)\n'
        "    config.optimizer.freeze = (r'(?!class_heads)',)\n"
        '    return config\n'
    )
    return path


def test_a_row_is_trained_and_scored(tiny, tmp_path, capsys):
    """Through train.py's and evaluate.py's functions; an interrupted scoring continues without training again."""
    command = ['sgmgH', f'--workdir={tmp_path}', f'--config={tiny}', '--row=attention', '--seeds=1']
    assert tables.main(command) == 0
    folder = tmp_path / 'runs' / 'sgmg-fusion=attention' / 'seed0'
    result = json.loads((folder / tables.RESULT).read_text())
    scores = json.loads((folder / 'evaluation' / 'ref_youtube_vos_valid' / 'scores.json').read_text())
    assert (
        result['scores']['J&F'] == scores['J&F'] and result['scores']['attribute'] == scores['tags']['attribute']['J&F']
    )
    assert result['steps'] == 2 and configs.read(folder).model.fusion == 'attention'
    assert 'attention    1 of 1' in capsys.readouterr().out
    steps = (folder / 'metrics.jsonl').read_text()
    (folder / tables.RESULT).unlink()
    assert tables.main(command) == 0
    assert (folder / 'metrics.jsonl').read_text() == steps
    assert json.loads((folder / tables.RESULT).read_text())['scores'] == result['scores']


def test_speed_is_the_median_of_turns(monkeypatch):
    clock, order = [0.0], []
    monkeypatch.setattr(speed.time, 'perf_counter', lambda: clock[0])

    def passing(name, times):
        times = iter(times)

        def run():
            order.append(name)
            clock[0] += next(times)

        return run

    rates = speed.measure({'a': passing('a', [9, 1, 2, 8]), 'b': passing('b', [9, 4, 4, 4])}, 3)
    assert rates == {'a': 0.5, 'b': 0.25} and order == ['a', 'b'] * 4


def test_speed_of_whole_forward_passes(tmp_path, capsys, monkeypatch):
    function, arguments = speed.program(studies.get_config())
    scores, masks = jax.eval_shape(function, *arguments)
    assert scores.shape == (1, 1) and masks.shape == (1, 1, 96, 96)
    monkeypatch.setattr(speed, 'prepare', lambda config: lambda: None)
    assert tables.main(['sgmg6', f'--workdir={tmp_path}', '--speed', '--runs=2']) == 0
    assert capsys.readouterr().out.count('clips/s') == 3
    rates = json.loads((tmp_path / 'sgmg6_speed.json').read_text())['clips per second']
    assert list(rates) == ['decode-and-segment', 'segment', 'segment-and-optimize']


def test_the_world_is_written_once(tmp_path):
    sizes = dict(num_train=1, num_valid=1, num_frames=5, size=(64, 64))
    records = tables.write_world(tmp_path, **sizes)
    assert (tmp_path / 'world' / 'raw' / 'train').is_dir() and records.parent.name == 'ref_youtube_vos'
    modified = records.stat().st_mtime_ns
    assert tables.write_world(tmp_path, **sizes) == records and records.stat().st_mtime_ns == modified


def test_the_result_of_another_length_is_not_taken(tmp_path):
    config = ConfigDict(dict(steps=500, epochs=0.0))
    assert tables.read_result(tmp_path / 'none', config) is None
    write(tmp_path / 'run', 50.0)
    assert tables.read_result(tmp_path / 'run', config)['scores']['J'] == 45.0
    config.steps = 700
    assert tables.read_result(tmp_path / 'run', config) is None


def test_a_smoke_run_has_a_world_of_its_own(tmp_path):
    assert tables.main(['sgmg6', f'--workdir={tmp_path}', '--smoke', '--show']) == 0
    assert (tmp_path / 'smoke' / 'sgmg6.json').exists() and list(tmp_path.iterdir()) == [tmp_path / 'smoke']
