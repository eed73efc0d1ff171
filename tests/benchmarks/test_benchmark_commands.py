"""The benchmark commands: options, subprocesses and folders."""

import argparse
import dataclasses
import json
import os
import pathlib
import sys

import jax
import numpy as np
from PIL import Image
import pytest
import small

from sgmg_jax import checkpoints, commands, compilation, files, systems
from sgmg_jax.benchmarks import (
    accidents,
    compiled,
    evaluate,
    loader,
    machine,
    multi_object,
    profile,
    sampling,
    scaling,
    step,
)
from sgmg_jax.models import roberta, sgmg, video_swin
from sgmg_jax.ops import deformable_attention

ROOT = pathlib.Path(__file__).parents[2]


def call(capsys, command, *arguments):
    """Exit status and stderr."""
    try:
        status = command.main([str(word) for word in arguments])
    except SystemExit as end:  # of argparse
        status = end.code
    return status, capsys.readouterr().err


@pytest.mark.parametrize(
    'command, arguments, flag, allowed',
    [
        (step, ['--frames=0'], '--frames', 'from 1 to 1,000'),
        (step, ['--frames=1001'], '--frames', 'from 1 to 1,000'),
        (step, ['--height=-360'], '--height', 'from 16 to 8,192'),
        (step, ['--width=1e3'], '--width', 'a whole number from 16 to 8,192'),
        (step, ['--tokens=513'], '--tokens', 'from 1 to 512'),
        (step, ['--batch', '1', '0'], '--batch', 'from 1 to'),
        (step, ['--runs=0'], '--runs', 'from 1 to'),
        (step, ['--runs', '9' * 5000], '--runs', 'from 1 to'),
        (step, ['--fsdp=0'], '--storage_shards', 'from 1 to'),
        (step, ['--devices=0'], '--devices', 'from 1 to'),
        (step, ['--model=swin'], '--model', "'sgmg', 'fast_sgmg', 'soc'"),
        (step, ['--backbone=huge'], '--backbone', "'tiny', 'small', 'base', 'demo', 'pocket'"),
        (step, ['--dtype=float16'], '--dtype', "'float32', 'bfloat16'"),
        (step, ['--mode=eval'], '--mode', "'forward', 'train'"),
        (step, ['--speed=3'], '--speed', ''),
        (step, ['--height=128', '--width=640'], '--height=128', 'at least 129 pixels'),
        (step, ['--batch', '1', '9000', '--frames=5'], '--frames=5', 'at most 4,294,967,296'),
        (profile, [], '--mode', 'required'),
        (profile, ['--mode=train', '--top=-1'], '--top', 'from 0 to'),
        (profile, ['--mode=train', '--batch', '1', '2'], '--batch 1 2', 'one number'),
        (profile, ['--mode=train', '--width=100'], '--width=100', 'at least 129 pixels'),
        (profile, ['--mode=train', '--devices=4096'], '--devices=4096', 'at most'),
        (profile, ['--mode=train', '--fsdp=4096'], '--storage_shards=4096', 'must divide'),
        (compiled, [], '--for', 'required'),
        (compiled, ['--for=v100'], '--for=v100', 'a100, h100, h200, or a TPU with its topology, like v5e:2x4'),
        (compiled, ['--for=v5e'], '--for=v5e', 'like v5e:2x4'),
        (compiled, ['--for=h100', '--batch', '1', '2'], '--batch 1 2', 'one number'),
        (compiled, ['--for=h100', '--width=100'], '--width=100', 'at least 129 pixels'),
        (sampling, ['--batch=0'], '--batch', 'from 1 to'),
        (sampling, ['--dtype=float16'], '--dtype', "'float32', 'bfloat16'"),
        (scaling, ['--batch', '1', '2'], '--batch 1 2', 'one number'),
        (scaling, ['--mode=forward'], '--mode', ''),
        (multi_object, ['--sentences', '1', '0'], '--sentences', 'from 1 to 1,000'),
        (multi_object, ['--together=0'], '--together', 'from 1 to 1,000'),
        (multi_object, ['--peak-of=0'], '--peak-of', 'from 1 to 1,000'),
        (multi_object, ['--height=100'], '--height=100', 'at least 129 pixels'),
        (loader, ['--clips=0'], '--clips', 'from 1 to'),
        (loader, ['--workers', '1', '-1'], '--workers', 'from 0 to 1,000'),
        (loader, ['--records={tmp}/nowhere'], '{tmp}/nowhere', 'no such folder'),
        (loader, ['--records={tmp}'], '{tmp}', 'holds no built data set'),
        (evaluate, ['{tmp}/new', '--videos=203'], '--videos', 'from 1 to 202'),
        (evaluate, ['{tmp}/new', '--window_ms=0'], '--window_ms', 'from 1 to'),
        (accidents, ['--kills=0', '--', '--config=x'], '--kills', 'from 1 to'),
        (accidents, ['--seed=-1', '--', '--config=x'], '--seed', 'from 0 to'),
        (accidents, ['--kills=1'], 'after --', 'flags of train.py'),
        (accidents, ['--', '--config=configs/synthetic.py', '--workdir=runs/mine'], '--workdir', '--out'),
    ],
)
def test_usage_errors_are_one_line(capsys, tmp_path, command, arguments, flag, allowed):
    status, said = call(capsys, command, *(word.format(tmp=tmp_path) for word in arguments))
    assert status == 2 and said.startswith('error: ') and said.count('\n') == 1
    assert flag.format(tmp=tmp_path) in said and allowed in said and len(said) < 400
    assert not list(tmp_path.iterdir())


COMMANDS = step, profile, scaling, sampling, compiled, multi_object, loader, evaluate, accidents


@pytest.mark.parametrize('command', COMMANDS)
def test_help_and_defaults(capsys, monkeypatch, command):
    with pytest.raises(SystemExit):
        command.main(['--help'])
    assert capsys.readouterr().out.startswith(f'usage: python -m {command.__name__} [-h]')
    parsers = []
    monkeypatch.setattr(commands, 'exit_with', lambda work, parser, arguments: parsers.append(parser) or 0)
    command.main([])
    options = [action for action in parsers[0]._actions if action.type and action.default is not None]
    assert options
    for action in options:
        for value in action.default if isinstance(action.default, list | tuple) else [action.default]:
            assert str(action.type(str(value))) == str(value), action.dest
            assert not action.choices or value in action.choices


def test_sampling_compares_equal_forms(capsys):
    options = ['--frames=1', '--height=70', '--width=90', '--runs=1']
    assert sampling.main(options) == 0
    forward, backward = (line.split() for line in capsys.readouterr().out.splitlines()[-2:])
    assert forward[0] == 'forward' and backward[0] == 'backward' and float(forward[1]) > 0

    sizes, rng = ((5, 7), (1, 3)), np.random.default_rng(0)
    values = rng.standard_normal((2, 38, 2, 3), np.float32)
    locations, weights = rng.uniform(-0.3, 1.3, (2, 4, 2, 2, 2, 2)), rng.standard_normal((2, 4, 2, 2, 2))
    arguments = values, sizes, np.float32(locations), np.float32(weights)
    np.testing.assert_allclose(sampling.plain(*arguments), deformable_attention.sample(*arguments), atol=1e-5)


def test_choices_match_the_models():
    assert step.MODELS == {name: system.module.__name__ for name, system in systems.SYSTEMS.items()}
    assert set(step.BACKBONES) == set(video_swin.SIZES)
    assert step.MOST_TOKENS + roberta.PADDING_ID + 1 == roberta.SIZES['base'].positions
    model = sgmg.SgMg(video_swin.SIZES['demo'], roberta.SIZES['demo'])
    model._check_size((step.SMALLEST, 640))
    with pytest.raises(ValueError, match=f'at least {step.SMALLEST}'):
        model._check_size((640, step.SMALLEST - 1))


def test_subprocess_failures_are_passed_on(capfd):
    lines = machine.output_lines(['-c', 'import sys; print(1, flush=True); sys.exit("error: why")'])
    assert next(lines) == '1\n'
    with pytest.raises(SystemExit) as end:
        next(lines)
    assert end.value.code == 1 and capfd.readouterr().err == 'error: why\n'
    with pytest.raises(ChildProcessError, match='^python -c .*: was ended by SIGKILL. .* memory ran out'):
        list(machine.output_lines(['-c', 'import os; os.kill(os.getpid(), 9)']))
    assert list(machine.output_lines(['-c', 'print(1); print(2)'])) == ['1\n', '2\n']


def test_subprocess_errors_end_the_command(capfd, monkeypatch):
    """With the message of the subprocess, printed once, and its status."""
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as end:
        step.main(['--devices=4096'])
    said = capfd.readouterr().err
    assert end.value.code == 2 and said.startswith('error: ') and said.count('\n') == 1


@pytest.mark.parametrize(
    'error, found',
    [
        (MemoryError('Unable to allocate'), machine.OutOfMemory),
        (jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory'), machine.OutOfMemory),
        (jax.errors.JaxRuntimeError('INTERNAL: broken'), jax.errors.JaxRuntimeError),
    ],
)
def test_out_of_memory(monkeypatch, error, found):
    with pytest.raises(found), machine.catch_out_of_memory():
        raise error

    def prepare(options, batch):
        raise error

    monkeypatch.setattr(step, 'prepare', prepare)
    if found is machine.OutOfMemory:
        assert step.measure(argparse.Namespace(), 1, 1e12) is None
    else:
        with pytest.raises(found):
            step.measure(argparse.Namespace(), 1, 1e12)


def test_device_count_is_checked():
    assert machine.devices() == jax.devices() and machine.devices(1) == jax.devices()[:1]
    with pytest.raises(ValueError, match=f'--devices={jax.device_count() + 1}: must be at most {jax.device_count()},'):
        machine.devices(jax.device_count() + 1)


@pytest.fixture
def cache_as_it_was():
    before = jax.config.jax_enable_compilation_cache
    yield
    jax.config.update('jax_enable_compilation_cache', before)


def test_step_measures_uncached_in_increasing_order_until_out_of_memory(monkeypatch, capsys, cache_as_it_was):
    measured = []

    def measure(options, batch, rate):
        measured.append((batch, rate, jax.config.jax_enable_compilation_cache))
        return {'batch': batch} if batch < 4 else None

    monkeypatch.setattr(machine, 'matmul_rate', lambda dtype, size: 1e9)
    monkeypatch.setattr(step, 'measure', measure)
    assert step.main(['--batch', '4', '1', '8', '2', '--mode=train']) == 0
    assert measured == [(1, 1e9, False), (2, 1e9, False), (4, 1e9, False)]
    assert list(map(json.loads, capsys.readouterr().out.splitlines())) == [{'batch': 1}, {'batch': 2}, None]


@pytest.mark.parametrize(
    'arguments, available, expected',
    [
        (['--batch=3'], 9, [1, 2, 4, 8]),
        (['--batch=3', '--storage_shards=2'], 6, [2, 4]),
        (['--batch=3', '--devices=5'], 5, [1, 2, 4]),
    ],
)
def test_scaling_measures_the_available_devices(monkeypatch, capsys, arguments, available, expected):
    def output_lines(command):
        (count,) = [word for word in arguments if '--devices' in word] or ['=None']
        assert f'devices({count.partition("=")[2]})' in command[1]
        return iter([f'{available}\n'])

    def measure_in_subprocess(mode, words):
        assert mode == 'train' and words[:-1] == arguments
        count = int(words[-1].removeprefix('--devices='))
        yield {'machine': 'here', 'median': 2.0, 'clips': 3 * count / (1 + count), 'frames': 5.0, 'peak': 2**30}

    monkeypatch.setattr(machine, 'output_lines', output_lines)
    monkeypatch.setattr(step, 'measure_in_subprocess', measure_in_subprocess)
    assert scaling.main(arguments) == 0
    first, where, head, *rows = capsys.readouterr().out.splitlines()
    assert '3 clip(s) per device' in first and where == 'here'
    assert [int(row.split()[0]) for row in rows] == expected
    ideal = [f'{(1 + expected[0]) / (1 + count):.1%}' for count in expected]
    assert [row.split()[5] for row in rows] == ideal


def test_scaling_refuses_storage_shards_that_divide_nothing(monkeypatch, capsys):
    monkeypatch.setattr(machine, 'output_lines', lambda command: iter(['8\n']))
    status, said = call(capsys, scaling, '--storage_shards=3')
    assert status == 2 and '--storage_shards=3: must divide 1, 2, 4 or 8 devices' in said


def test_loader_uses_one_core_and_restores_the_affinity(world_records, capsys):
    before = os.sched_getaffinity(0)
    assert loader.main([f'--records={world_records}', '--clips=2', '--runs=1']) == 0
    assert os.sched_getaffinity(0) == before
    head, data, _, *rows = capsys.readouterr().out.splitlines()
    assert 'using one core' in head and '3 videos of 80x80' in data and ' 5 frames per video' in data
    assert [row[:22].strip() for row in rows] == [
        'read a video',
        'decode',
        'read, decode, augment',
        'loader, batches of 1',
    ]
    status, said = call(capsys, loader, f'--records={world_records}', '--split=test')
    assert status == 2 and "no split 'test' there; it has train (3 videos)" in said
    assert os.sched_getaffinity(0) == before


def test_loader_needs_training_clips():
    video = small.video_of('a', 4, ((0, 2),), tags=('crowd',))
    with pytest.raises(ValueError, match="memory: split 'train' has no training clips"):
        loader.measure(small.made_up([dataclasses.replace(video, expressions=video.expressions[1:])]), 1, 1, 'one core')


def test_loader_passes_on_the_message_of_the_builder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match='root of the repository'):
        loader.make_records(tmp_path / 'made', 1, 2)
    (tmp_path / 'datasets').mkdir()
    (tmp_path / 'datasets/__init__.py').touch()
    (tmp_path / 'datasets/build.py').write_text('import sys; print("reading"); sys.exit("a\\nerror: the disk is full")')
    with pytest.raises(ChildProcessError, match='^datasets.build: error: the disk is full$'):
        loader.make_records(tmp_path / 'made', 1, 2)


def test_loader_generates_videos_of_a_moving_disc(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'datasets').mkdir()
    (tmp_path / 'datasets/__init__.py').touch()
    (tmp_path / 'datasets/build.py').touch()
    assert loader.make_records(tmp_path / 'made', 2, 3) == tmp_path / 'made/tfds'
    videos = json.loads((tmp_path / 'made/raw/meta_expressions/train/meta_expressions.json').read_text())['videos']
    assert len(videos) == 2
    for video, content in videos.items():
        folders = [tmp_path / 'made/raw/train' / kind / video for kind in ('JPEGImages', 'Annotations')]
        frames, masks = (
            [np.asarray(Image.open(folder / f'{name}.{ending}')) for name in content['frames']]
            for folder, ending in zip(folders, ('jpg', 'png'))
        )
        assert np.shape(frames) == (3, 360, 640, 3) and np.shape(masks) == (3, 360, 640)
        left = [np.nonzero(mask)[1].min() for mask in masks]
        assert left[0] < left[1] < left[2] and np.max(masks) == 1
        # The texture moves too, by 2 pixels up and 4 to the left.
        np.testing.assert_allclose(frames[0][2:100, 4:], frames[1][:98, :-4], atol=40)
        assert np.abs(frames[0][2:100, 4:] - np.float32(frames[1][:98, :-4])).mean() < 5


def test_evaluate_makes_up_videos_of_the_true_size(tmp_path, monkeypatch):
    lengths = np.array(evaluate.lengths())
    assert lengths.shape == (202, 2) and lengths[:, 1].sum() == 834 and lengths.prod(1).sum() == 22046
    assert 36 == lengths[:, 0].max() > lengths[:, 0].min() > 15
    monkeypatch.setattr(evaluate, 'PARTS', ((2, 3, 12),))
    monkeypatch.setattr(evaluate, 'SPREAD', 1)

    def build(raw, out):
        videos = json.loads((raw / 'meta_expressions/valid/meta_expressions.json').read_text())['videos']
        assert sorted(len(video['frames']) for video in videos.values()) == [6, 6]
        for name, video in videos.items():
            assert len(video['expressions']) == 3
            frames = [np.asarray(Image.open(raw / f'valid/JPEGImages/{name}/{t}.jpg')) for t in video['frames']]
            assert np.shape(frames) == (6, 720, 1280, 3) and np.std(frames[0]) > 5
        out.mkdir()

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(loader, 'build', build)
    evaluate.make_records(tmp_path / 'new' / 'folder')
    assert [path.name for path in (tmp_path / 'new' / 'folder').iterdir()] == ['records']


def test_evaluate_shows_what_the_model_waits_for(tmp_path, world_records, capsys):
    (tmp_path / 'records').symlink_to(world_records)
    assert evaluate.main([str(tmp_path), '--videos=2', '--window_ms=3']) == 0
    _, data, _, alone, one, six = capsys.readouterr().out.splitlines()
    sentences = int(data.split(' sentences')[0].split()[-1])
    assert f'{5 * sentences} masks' in data and alone.startswith('without the model, one core')
    for line, videos in ((one, 1), (six, 6)):
        assert line.startswith(f'3 ms a window, {videos} video(s) at a time') and line.split()[-3].endswith('%')
    assert [path.name for path in tmp_path.iterdir()] == ['records']  # What was written is gone.


def test_multi_object_writes_json_and_a_plot(tmp_path, monkeypatch, capsys):
    rates = {way: {1: 2.0 * i, 4: 3.0 * i} for i, way in enumerate('abc', 1)}
    monkeypatch.setattr(multi_object, 'measure', lambda options: (rates, 0.001))
    monkeypatch.setattr(compilation, 'keep_programs', lambda: None)
    assert multi_object.main(['--sentences', '1', '4', f'--out={tmp_path / "out"}']) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line[:4].strip().isdigit()]
    assert rows == [['1', '2.000', '4.000', '6.000', '2.00', '3.00'], ['4', '3.000', '6.000', '9.000', '2.00', '3.00']]
    written = json.loads((tmp_path / 'out/multi_object.json').read_text())
    assert written['rates'] == {way: {'1': of[1], '4': of[4]} for way, of in rates.items()}
    assert written['difference'] == 0.001 and written['together'] == 1
    with Image.open(tmp_path / 'out/multi_object.png') as picture:
        assert picture.format == 'PNG' and picture.size == (900, 600)  # 6 by 4 inches


def run_of(folder, *names):
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text('')
    return folder


def test_accidents_removes_only_its_own_runs(tmp_path):
    whole = run_of(tmp_path / 'undisturbed', 'config.json', 'metrics.jsonl', '.lock')
    starting = run_of(tmp_path / 'killed', '.lock')  # killed before it wrote its config
    (starting / 'checkpoints').mkdir()
    accidents.remove_runs((whole, starting, tmp_path / 'nowhere'))
    assert not list(tmp_path.iterdir())

    for names in (['photo.jpg'], ['.lock', 'photo.jpg']):
        mine = run_of(tmp_path / 'mine', *names)
        whole = run_of(tmp_path / 'undisturbed', 'config.json')
        with pytest.raises(ValueError, match='mine: is not a training run'):
            accidents.remove_runs((whole, mine))
        assert sorted(os.listdir(mine)) == sorted(names) and os.listdir(whole) == ['config.json']
        for folder in (mine, whole):
            for name in os.listdir(folder):
                (folder / name).unlink()
            folder.rmdir()


def test_accidents_does_not_remove_runs_in_use(tmp_path):
    whole, alive = (run_of(tmp_path / name, 'config.json') for name in ('undisturbed', 'killed'))
    with files.locked(alive / '.lock', 'training'):
        with pytest.raises(BlockingIOError, match=f'process {os.getpid()} .* training'):
            accidents.remove_runs((whole, alive))
    assert (whole / 'config.json').exists() and (alive / 'config.json').exists()
    link = tmp_path / 'link'
    link.symlink_to(whole)
    with pytest.raises(ValueError, match='link: is not a training run'):
        accidents.remove_runs((link,))
    assert (whole / 'config.json').exists()


def test_accidents_locks_its_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    with files.locked(tmp_path / '.lock', 'benchmarks.accidents'):
        status, said = call(capsys, accidents, f'--out={tmp_path}', '--', '--config=configs/synthetic.py')
    assert status == 2 and 'is at work here' in said and os.listdir(tmp_path) == ['.lock']


@pytest.mark.parametrize(
    'flags, message',
    [
        (['--config=nowhere.py'], '--config=nowhere.py: there is no such file'),
        (['--config=configs/synthetic.py:huge'], "there is no mode 'huge'"),
        (['--config=configs/synthetic.py:smoke', '--config.log_every=0'], 'config.log_every = 0: must be'),
    ],
)
def test_accidents_passes_on_the_errors_of_train(tmp_path, capsys, monkeypatch, flags, message):
    monkeypatch.chdir(ROOT)
    status, said = call(capsys, accidents, f'--out={tmp_path}', '--', *flags)
    assert status == 2 and said.startswith('error: train.py: ') and message in said and said.count('\n') == 1


def test_accidents_tells_the_end_of_a_run_from_a_kill(tmp_path):
    """What a stand-in for train.py does, and what `run` returns."""

    def train(program):
        return [sys.executable, '-c', program]

    workdir = tmp_path / 'run'
    workdir.mkdir()
    assert accidents.run(train('print("a"); print("done")'), workdir) == ('done', False)
    assert accidents.run(train('print("done")'), workdir, lambda lines: False) == ('done', False)
    sleep = 'import time; print("begun", flush=True); time.sleep(600)'
    assert accidents.run(train(sleep), workdir, lambda lines: 'begun' in (tmp_path / 'run.log').read_text()) == (
        'begun',
        True,
    )
    with pytest.raises(ValueError, match='^train.py: config.seed: is wrong$'):
        accidents.run(train('import sys; print("error: config.seed: is wrong"); sys.exit(2)'), workdir)
    with pytest.raises(ChildProcessError, match='run.log: .* with status 1. Last line: KeyError'):
        accidents.run(train('raise KeyError'), workdir)
    with pytest.raises(ChildProcessError, match='with SIGKILL'):  # killed by somebody else
        accidents.run(train('import os; os.kill(os.getpid(), 9)'), workdir, lambda lines: False)
    with pytest.raises(ChildProcessError, match='with status 143'):
        accidents.run(train('import sys; sys.exit(143)'), workdir, lambda lines: False)


def test_accidents_reports_every_difference(tmp_path, monkeypatch):
    stored = {
        'a': (3, {'w': np.ones(2), 'only a': np.ones(1)}),
        'b': (3, {'w': np.zeros(2), 'only b': np.ones(1)}),
        'c': (4, {}),
    }

    class Stored:
        def __init__(self, workdir, read_only):
            self.step, self.arrays = stored[workdir.name]

        def latest_step(self):
            return self.step

        def read(self, step):
            return self.arrays

    monkeypatch.setattr(checkpoints, 'Checkpoints', Stored)
    for name, loss in (('a', 1), ('b', 2), ('c', 1)):
        run_of(tmp_path / name)
        (tmp_path / name / 'metrics.jsonl').write_text(
            f'{{"step": 1, "steps_per_second": {loss}}}\n{{"loss": {loss}}}\n{{"step": 3, "loss": {loss}}}\n'
        )
    a, b, c = (tmp_path / name for name in 'abc')
    assert accidents.differences(a, a) == []
    assert accidents.differences(a, b) == [
        'only one of the checkpoints has only a',
        'only one of the checkpoints has only b',
        'w differs',
        'metrics.jsonl differs from line 2 on',
    ]
    assert accidents.differences(a, c) == ['last checkpoints are of steps 3 and 4']


@pytest.mark.parametrize('starts', [True, False])
def test_accidents_kills_during_start_up_or_after_steps(monkeypatch, starts):
    class Rng(np.random.Generator):
        def random(self):
            return 0.1 if starts else 0.9

        def integers(self, low, high):
            return high - 1

        def uniform(self, low, high):
            return high

    clock = [100.0]
    monkeypatch.setattr(accidents.time, 'monotonic', lambda: clock[0])
    # At most 20 s, or 3 steps and 2 * 2 s.
    kill = accidents.random_instant(Rng(np.random.PCG64()), steps=3, seconds=2.0)

    def killed(lines, now):
        clock[0] = now
        return kill(lines)

    if starts:
        assert [killed(lines, now) for lines, now in ((None, 119), (50, 120), (50, 121))] == [False, False, True]
    else:
        seen = (None, 199), (10, 200), (12, 210), (13, 220), (13, 224), (13, 225)
        assert [killed(lines, now) for lines, now in seen] == [False] * 5 + [True]
