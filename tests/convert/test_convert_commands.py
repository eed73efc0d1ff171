"""The commands of sgmg_jax.convert: what they write, and how they end when something is wrong."""

import errno
import json
import os
import pathlib
import re
import shutil
import stat
import types

from flax import traverse_util
import numpy as np
from official import shapes_of, written
import orbax.checkpoint as ocp
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file

from configs import ytvos
from sgmg_jax import commands, systems
from sgmg_jax.convert import weights
from sgmg_jax.convert.__main__ import main

# A small model; with a mode, one of other classes.
CONFIG = """
from configs import common


def get_config(mode='usual'):
    config = common.get_config()
    config.model.update(backbone='demo', text_encoder='demo', hidden=32, heads=2, mlp=32, encoder_layers=1,
                        decoder_layers=1, queries={'usual': 5, 'few': 2}[mode])
    return config
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG)
    return path


def parameters(config, mode=''):
    shapes = shapes_of(systems.build_model(commands.load_config(f'{config}{mode}').model))
    rng = np.random.default_rng(0)
    return {
        path: rng.standard_normal(x.shape, dtype=np.float32)
        for path, x in traverse_util.flatten_dict(shapes, sep='/').items()
    }


@pytest.fixture
def official(config, tmp_path):
    return written(weights.released(parameters(config, ':few')), tmp_path / 'official.safetensors')


def test_round_trip_by_the_commands(config, official, tmp_path, capsys):
    convert = lambda *options: main(['from-official', str(official), f'--config={config}:few', *options])
    assert convert(f'--out={tmp_path / "ours"}') == 0
    assert re.search(r'official.safetensors \(SgMg\): .*\nwritten: .*ours\n$', capsys.readouterr().out)
    assert main(['to-official', str(tmp_path / 'ours'), f'--out={tmp_path / "back.safetensors"}']) == 0
    there, back = load_file(official), load_file(tmp_path / 'back.safetensors')
    assert set(there) == set(back)
    for name in there:
        np.testing.assert_array_equal(there[name], back[name])
    assert convert(f'--out={tmp_path / "part.safetensors"}', '--skip=class_heads_.*') == 0
    assert re.search(r'missing: \d+ parameters of class_heads_0', capsys.readouterr().out)
    assert not any(name.startswith('class_heads') for name in load_file(tmp_path / 'part.safetensors'))
    # Without the mode it is another model.
    assert main(['from-official', str(official), f'--config={config}', f'--out={tmp_path / "x"}']) == 2
    assert 'a checkpoint with 2 queries, the config says 5 queries' in capsys.readouterr().err
    # An encoder alone is no model that the release could load.
    assert main(['to-official', str(tmp_path / 'part.safetensors'), f'--out={tmp_path / "x.safetensors"}']) == 0
    text = {name: x for name, x in parameters(config).items() if name.startswith('text')}
    written(text, tmp_path / 'text.safetensors')
    assert main(['to-official', str(tmp_path / 'text.safetensors'), f'--out={tmp_path / "y.safetensors"}']) == 2
    assert 'text.safetensors: query_embedding is missing' in capsys.readouterr().err


@pytest.mark.parametrize(
    'change, reason',
    [
        (lambda path: path.unlink(), 'official.safetensors: no such file'),
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), 'official.safetensors: not a whole safetensors file'),
        (lambda path: path.write_bytes(path.read_bytes()[:-4] + np.float32(np.nan).tobytes()), 'has a weight of nan'),
    ],
)
def test_errors_in_weights_are_one_line(change, reason, config, official, tmp_path, capsys):
    change(official)
    assert main(['from-official', str(official), f'--config={config}:few', f'--out={tmp_path / "x"}']) == 2
    output = capsys.readouterr()
    assert reason in output.err and len(output.err.splitlines()) == 1 and not output.out
    assert not (tmp_path / 'x').exists()


@pytest.mark.parametrize(
    'out, reason',
    [
        ('official.safetensors', 'official.safetensors: exists already. Remove it or give another --out'),
        ('.', 'exists already'),
        ('pipe', 'pipe: exists already'),
        ('dangling', 'dangling: exists already'),
        ('official.safetensors/x.safetensors', 'official.safetensors: is no folder'),
        ('x.pth', 'must end in no suffix or .safetensors'),
        ('/proc/x.safetensors', '/proc: nothing can be written there'),
    ],
)
def test_the_output_path_is_checked_first(out, reason, tmp_path, capsys):
    (tmp_path / 'official.safetensors').write_text('')
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'dangling').symlink_to('nowhere')
    before = sorted(tmp_path.iterdir())
    for command in (['from-official', '--config=nowhere.py'], ['to-official']):
        assert main([*command, 'nowhere.pth', f'--out={tmp_path / out}']) == 2
        assert reason in capsys.readouterr().err.replace('must end in .safe', 'must end in no suffix or .safe')
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    'text, reason',
    [
        (None, 'config.py: no such file'),
        ('x = (', 'cannot be read as a config: SyntaxError'),
        ('x = 1', 'it has no get_config()'),
        ('import sys\nsys.exit(3)', 'cannot be read as a config, line 2: SystemExit: 3'),
        ('def get_config(mode):\n    return 1', 'its get_config returns a int, not a ConfigDict'),
        ('def get_config():\n    return 1', 'a config: TypeError: get_config() takes 0 positional arguments but 1'),
        ('def get_config(mode):\n    return {}[mode]', "cannot be read as a config, line 2: KeyError: 'few'"),
        ('import ml_collections\ndef get_config(mode):\n    return ml_collections.ConfigDict()', 'is missing'),
        ('import nothing_of_this_name', 'line 1: ModuleNotFoundError'),
    ],
)
def test_errors_in_configs_are_one_line(text, reason, official, config, capsys):
    config.unlink() if text is None else config.write_text(text)
    assert main(['from-official', str(official), f'--config={config}:few', '--out=x']) == 2
    error = capsys.readouterr().err
    assert reason in error and str(config) in error and len(error.splitlines()) == 1


def test_configs_and_modes_are_read_as_by_train():
    config = commands.load_config('configs/ytvos.py:base,smoke')
    assert config.to_json() == ytvos.get_config('base,smoke').to_json()
    assert commands.load_config('configs/ytvos.py').to_json() == ytvos.get_config().to_json()
    for spec in ('configs/ytvos.py:', 'configs/ytvos.py:larger'):
        with pytest.raises(ValueError, match=rf'{spec}: cannot be read as a config, line \d+: .*no mode .*full, base'):
            commands.load_config(spec)


SMALL = {'text_backbone/a/kernel': np.ones((2, 3), np.float32), 'query_embedding': np.zeros(2, np.float32)}


@pytest.mark.parametrize('out', ['ours', 'ours.safetensors'])
def test_permissions_of_written_files_follow_the_umask(out, tmp_path):
    before = os.umask(0o022)
    try:
        weights.save(SMALL, tmp_path / 'new' / out)
    finally:
        os.umask(before)
    assert [path.name for path in (tmp_path / 'new').iterdir()] == [out]
    for path in (tmp_path / 'new').rglob('*'):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644)


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_space_in_rust(tensors, path, metadata):
    path.write_bytes(b'half')
    raise SafetensorError('Error while serializing: I/O error: No space left on device (os error 28)')


def no_space_in_tensorstore(self, path, tree):
    (path.parent / 'weights.orbax-checkpoint-tmp').mkdir()
    raise ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device [os_error_code='28' ]")


def no_permission(*arguments, **options):
    raise PermissionError(errno.EACCES, 'Permission denied')


@pytest.mark.parametrize(
    'out, target, name, fail, number',
    [
        ('ours.safetensors', weights, 'save_file', no_space_in_rust, errno.ENOSPC),
        ('ours.safetensors', weights, 'save_file', no_space, errno.ENOSPC),
        ('ours', ocp.StandardCheckpointer, 'save', no_space_in_tensorstore, errno.ENOSPC),
        ('ours', ocp.StandardCheckpointer, 'save', no_space, errno.ENOSPC),
        ('ours', shutil, 'disk_usage', lambda path: types.SimpleNamespace(free=31), errno.ENOSPC),
        ('ours', json, 'dumps', lambda x: {}[0], errno.EIO),
        ('ours', pathlib.Path, 'mkdir', no_permission, errno.EACCES),
    ],
)
def test_a_full_disk_leaves_nothing_behind(out, target, name, fail, number, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(target, name, fail)
        with pytest.raises(OSError, match='cannot write') as caught:
            weights.save(SMALL, tmp_path / out)
    assert caught.value.errno == number and caught.value.filename == str(tmp_path / out)
    assert list(tmp_path.iterdir()) == []
    with monkeypatch.context() as patched:  # 32 bytes are enough
        patched.setattr(shutil, 'disk_usage', lambda path: types.SimpleNamespace(free=32))
        weights.save(SMALL, tmp_path / out)


@pytest.mark.parametrize('arguments', [['--debug', 'to-official', 'x'], ['to-official', 'x', '--debug']])
def test_debug_shows_the_traceback(arguments, tmp_path, capsys):
    assert main([*arguments, f'--out={tmp_path / "x.y"}']) == 2
    assert 'Traceback' in capsys.readouterr().err
    assert main([*filter(lambda x: x != '--debug', arguments), f'--out={tmp_path / "x.y"}']) == 2
    assert 'Traceback' not in capsys.readouterr().err
