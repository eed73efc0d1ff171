"""Configs: the allowed values of fields, and reading configs that earlier versions stored."""

import copy
import importlib
import json
import logging as python_logging
import pathlib

import pytest

from configs import common, ytvos
from sgmg_jax import config as configs

STORED = sorted((pathlib.Path(__file__).parent / 'stored_configs').glob('*.json'))


@pytest.mark.parametrize('path', STORED, ids=lambda path: path.stem)
def test_stored_configs_have_every_current_field(path):
    """Fails for a field that is new but not listed in configs.ADDED: earlier runs could not resume."""
    stored = configs.from_json(json.loads(path.read_text()), path)
    today = importlib.import_module(f'configs.{path.stem.split("_", 2)[2]}').get_config()
    assert dict(configs.fields(stored)).keys() == dict(configs.fields(today)).keys()
    if path.stem.startswith(f'format_{configs.FORMAT}_'):
        assert configs.to_json(stored) == json.loads(path.read_text())


def test_the_current_format_has_a_stored_config():
    assert any(path.stem.startswith(f'format_{configs.FORMAT}_') for path in STORED)
    assert max(field.format for field in (*configs.ADDED, *configs.RENAMED)) == configs.FORMAT


def test_earlier_runs_resume_as_they_began(caplog):
    path = pathlib.Path(__file__).parent / 'stored_configs' / 'format_0_ytvos.json'
    content = json.loads(path.read_text())
    assert content['data']['batch_size'] == 4
    config = configs.from_json(content, path)
    # Learning rates did not depend on the batch; sentences were processed one by one.
    assert config.optimizer.batch_size == 4 and config.evaluation.sentences == 1 and config.ema_decay == 0
    assert 'sentences' not in content['data'] and 'parts' not in caplog.text
    with caplog.at_level(python_logging.WARNING):
        configs.from_json(content | {'accumulate': 2}, path)
    assert 'accumulate = 2' in caplog.text and 'whole batch' in caplog.text


def test_a_renamed_field_keeps_its_value():
    path = pathlib.Path(__file__).parent / 'stored_configs' / 'format_1_ytvos.json'
    content = json.loads(path.read_text()) | {'fsdp': 8}
    config = configs.from_json(content, path)
    assert config.storage_shards == 8 and 'fsdp' not in config
    assert content['fsdp'] == 8  # The argument is not changed.
    with pytest.raises(ValueError, match='path: config.fsdp: is now called path: config.storage_shards'):
        configs.from_json(content | {'format': 2}, 'path')


@pytest.mark.parametrize(('before', 'now'), [(False, 'hidden'), (True, 'blocks')])
def test_a_switch_that_has_more_values_now(before, now):
    path = pathlib.Path(__file__).parent / 'stored_configs' / 'format_4_ytvos.json'
    content = json.loads(path.read_text())
    assert configs.from_json(content | {'model': content['model'] | {'remat': before}}, path).model.remat == now
    without = {name: value for name, value in content['model'].items() if name != 'remat'}
    assert 'remat' not in configs.from_json(content | {'model': without}, path).model
    with pytest.raises(ValueError, match="config.model.remat.*'nothing', 'hidden', 'blocks'"):
        configs.from_json(content | {'model': content['model'] | {'remat': 1}}, path)
    with pytest.raises(ValueError, match="config.model.remat.*'nothing', 'hidden', 'blocks'"):
        configs.from_json(content | {'format': 5}, path)


def test_a_later_format_fills_in_its_new_fields(monkeypatch):
    content = configs.to_json(ytvos.get_config())
    later = configs.FORMAT + 1
    monkeypatch.setattr(configs, 'FORMAT', later)
    monkeypatch.setattr(
        configs,
        'ADDED',
        (*configs.ADDED, configs.Added(later, 'data.colour', 'red'), configs.Added(later, 'model.wheels', 3, 'soc')),
    )
    monkeypatch.setattr(configs, 'RULES', configs.RULES | {'data.colour': configs.Text()})
    config = configs.from_json(content, 'config.json')
    assert config.data.colour == 'red' and 'wheels' not in config.model
    content['data']['colour'], content['format'] = 'blue', later
    assert configs.from_json(content, 'config.json').data.colour == 'blue'


@pytest.mark.parametrize(
    'content, reason',
    [
        ([], 'holds a list, not the config of a run'),
        (None, 'holds a NoneType'),
        ('a', 'holds a str'),
        ({}, r'config\.seed: is missing'),
        ({'format': 99}, 'format = 99; this version of sgmg_jax reads formats up to'),
        ({'format': '1'}, "format = '1'"),
        ({'format': True}, 'format = True'),
        ({'data': 5}, 'config'),
    ],
)
def test_a_file_that_is_not_a_config_is_named(content, reason):
    with pytest.raises(ValueError, match=f'^run/config.json: .*{reason}'):
        configs.from_json(content, 'run/config.json')


def test_a_damaged_field_is_named():
    content = configs.to_json(ytvos.get_config())
    for path in dict(configs.fields(content)):
        if path == 'format':
            continue
        for wrong in ({'a': 1}, [[[]]], float('nan'), -7, object):
            damaged = copy.deepcopy(content)
            *sections, name = path.split('.')
            section = damaged
            for each in sections:
                section = section[each]
            if wrong is object:
                del section[name]
                if sections == ['model'] and name not in ('name', 'backbone', 'text_encoder', 'dtype'):
                    continue  # systems have defaults of their own
            else:
                section[name] = wrong
            with pytest.raises(ValueError, match=rf'^config.json: (config\.{path}|.*is missing|is not the config)'):
                configs.from_json(damaged, 'config.json')


@pytest.mark.parametrize(
    'field, value',
    [
        ('log_every', 0),
        ('eval_every', -1),
        ('checkpoint_every', 0),
        ('steps', -1),
        ('steps', True),
        ('epochs', -1.0),
        ('epochs', float('nan')),
        ('epochs', float('inf')),
        ('seed', -1),
        ('seed', 2**31),
        ('storage_shards', 0),
        ('accumulate', 0),
        ('ema_decay', 1.0),
        ('ema_decay', -0.1),
        ('model.hidden', 10**9),
        ('model.queries', 0),
        ('model.dtype', 'float64'),
        ('model.dropout', 1.0),
        ('data.batch_size', 0),
        ('data.num_frames', 0),
        ('data.frame_size', (0, 80)),
        ('data.frame_size', (80,)),
        ('data.frame_size', (10**6, 10**6)),
        ('data.text_length', 0),
        ('data.text_length', 10**9),
        ('data.workers', -1),
        ('data.reverse_probability', 1.5),
        ('data.on_bad_clip', 'ignore'),
        ('data.augmentation.scales', ()),
        ('data.augmentation.crop_probability', -1.0),
        ('data.records', ()),
        ('data.records', 5),
        ('data.records', ('',)),
        ('init', 5),
        ('init', (1,)),
        ('evaluation.short_side', 0),
        ('evaluation.max_side', 0),
        ('evaluation.clip_frames', 0),
        ('evaluation.videos', 0),
        ('optimizer.learning_rate', float('nan')),
        ('optimizer.learning_rate', -1.0),
        ('optimizer.clip_norm', 0.0),
        ('optimizer.groups', (('a',),)),
        ('optimizer.groups', (('a', float('nan')),)),
        ('optimizer.drop_steps', (-1,)),
        ('optimizer.drop_steps', (1.5,)),
        ('optimizer.drop_epochs', (-0.5,)),
        ('optimizer.warmup_steps', -1),
        ('optimizer.freeze', (1,)),
        ('optimizer.freeze', 'text_backbone/.*'),
    ],
)
def test_values_out_of_range_are_refused(field, value):
    config = common.get_config()
    section, _, name = field.rpartition('.')
    section = config[section.split('.')[0]] if section else config
    if field.count('.') == 2:
        section = section.augmentation
    section.unlock()
    if name in section:
        del section[name]
    section[name] = value
    with pytest.raises(ValueError, match=rf'^config\.{field} = .*must be'):
        configs.check(config)


def test_fractions_of_an_epoch_are_allowed():
    config = common.get_config()
    config.epochs, config.optimizer.drop_epochs = 0.5, (0.25, 0.4)
    configs.check(config)


def test_too_many_pixels_per_step_are_refused():
    config = common.get_config()
    config.data.update(batch_size=2**20, num_frames=1000)
    with pytest.raises(ValueError, match=r'config.data: batch_size, .* and frame_size make [\d,]+ pixels per step'):
        configs.check(config)


def test_a_misspelled_field_is_named():
    config = common.get_config()
    config.data.batchsize = 3
    with pytest.raises(ValueError, match=r'config.data.batchsize: there is no such field.* mean data.batch_size'):
        configs.check(config)
    del config.data['batchsize'], config.data['batch_size']
    with pytest.raises(ValueError, match='config.data.batch_size: is missing'):
        configs.check(config)


@pytest.mark.parametrize(
    'value, expected',
    [('a.pth', ('a.pth',)), (pathlib.Path('a.pth'), ('a.pth',)), (('a', 'b'), ('a', 'b')), (['a'], ('a',)), ((), ())],
)
def test_fields_that_take_one_path_or_several(value, expected):
    assert configs.paths(value) == expected
    if not isinstance(value, pathlib.Path):
        config = common.get_config()
        config.init = config.evaluation.records = value
        configs.check(config)
        assert configs.to_json(config)['init'] == list(expected) == configs.to_json(config)['evaluation']['records']


def test_missing_and_damaged_config_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='config.json: no such file, so .* is not the workdir'):
        configs.read(tmp_path)
    for data in (b'', b'\xff', b'{"seed": NaN}', b'[' * 100_000, b'{"seed": 0, "seed": 1}', b'null'):
        (tmp_path / 'config.json').write_bytes(data)
        with pytest.raises(ValueError, match='config.json: '):
            configs.read(tmp_path)
    (tmp_path / 'config.json').write_text(json.dumps(configs.to_json(ytvos.get_config())))
    assert configs.to_json(configs.read(tmp_path)) == configs.to_json(ytvos.get_config())
