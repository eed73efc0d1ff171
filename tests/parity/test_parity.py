"""The parity tool: all golden cases pass, and any error in one is a failing line."""

import json
import pathlib
import shutil
import types
import zipfile

import numpy as np
import pytest

from sgmg_jax import compilation
from sgmg_jax.parity import cases, compare
from sgmg_jax.parity.__main__ import main
from sgmg_jax.types import Clip

GOLDENS = pathlib.Path(__file__).parent.parent / 'goldens'

# The release's shape, first three values, sum, sum of absolute values.
FILL = {
    'backbone.0.body.layers.0.blocks.0.attn.relative_position_bias_table': (
        [2535, 3],
        [0.044918086379766464, 0.545078694820404, -0.0029436128679662943],
        2.826540712472706,
        3043.5293650234835,
    ),
    'transformer.encoder.layers.0.self_attn.sampling_offsets.bias': (
        [256],
        [0.78965163230896, 0.7224376201629639, -0.09046377241611481],
        0.5578228300437331,
        193.87566414754838,
    ),
    'transformer.decoder.layers.1.cross_attn.sampling_offsets.weight': (
        [256, 64],
        [0.00032723124604672194, 0.07422921806573868, -0.06278926879167557],
        -7.811137827032368,
        827.5253123916127,
    ),
    'text_encoder.text_backbone.embeddings.word_embeddings.weight': (
        [120, 48],
        [-0.9062020182609558, -0.3345883786678314, 0.02344595082104206],
        39.62498520502413,
        2287.5927069320023,
    ),
    'text_encoder.text_backbone.embeddings.token_type_embeddings.weight': (
        [1, 48],
        [0.13608607649803162, 0.3563864231109619, -0.07128898799419403],
        -6.962494142353535,
        16.811144582927227,
    ),
    'query_embed.weight': (
        [5, 64],
        [-0.4749830663204193, 1.932453989982605, -0.4168470799922943],
        21.649185611866415,
        256.5071640489623,
    ),
    'transformer.level_embed': (
        [4, 64],
        [-0.08890600502490997, -0.9757704138755798, -0.28280526399612427],
        0.7331274752505124,
        215.39344275696203,
    ),
    'controller.layers.2.weight': (
        [1344, 64],
        [0.009902989491820335, 0.00073012406937778, 0.0042214966379106045],
        -0.6014470246791674,
        427.70866283143414,
    ),
    'controller.layers.2.bias': (
        [1344],
        [-0.0359402559697628, 0.05427372455596924, -0.011363813653588295],
        0.567270453684614,
        55.26135501265526,
    ),
    'controller.layers.1.weight': (
        [64, 64],
        [0.035014934837818146, -0.03693011775612831, 0.2220325917005539],
        19.36064031180831,
        405.5877442596884,
    ),
    'backbone.0.body.patch_embed.proj.weight': (
        [24, 3, 1, 4, 4],
        [0.11708700656890869, -0.017557069659233093, -0.03122725896537304],
        -0.9293683000578312,
        133.30577412348066,
    ),
    'input_proj.0.1.weight': (
        [64],
        [0.955353856086731, 0.8821543455123901, 0.9923425316810608],
        63.437401473522186,
        63.437401473522186,
    ),
    'fusion_module.multihead_attn.in_proj_bias': (
        [192],
        [-0.03627846762537956, -0.16045694053173065, -0.06266645342111588],
        -0.7125890341121703,
        14.487949040252715,
    ),
    'transformer.decoder.bbox_embed.1.layers.0.weight': (  # stored as bbox_embed.1... as well
        [64, 64],
        [-0.007225222885608673, 0.13597097992897034, 0.09999919682741165],
        4.5154665106820175,
        403.0816756578424,
    ),
}


def copy(case, folder, change=None, describe=None):
    """A golden case, changed: change(arrays), describe(meaning)."""
    with np.load(GOLDENS / f'{case}.npz') as arrays:
        arrays = dict(arrays)
    meaning = json.loads((GOLDENS / f'{case}.json').read_text())
    if change:
        change(arrays)
    if describe:
        describe(meaning)
    np.savez(folder / f'{case}.npz', **arrays)
    (folder / f'{case}.json').write_text(json.dumps(meaning))


def failing(capsys):
    """The failing lines, as listed at the end."""
    lines = capsys.readouterr().out.splitlines()
    count = int(lines[-1].split(', ')[-1].split()[0])
    listed = lines[len(lines) - 1 - count : -1]
    assert all('FAILED' in line for line in listed)
    assert count == sum('FAILED' in line for line in lines) / 2
    return listed


@pytest.mark.parametrize(
    'case', sorted(str(path.relative_to(GOLDENS).with_suffix('')) for path in GOLDENS.rglob('comp_*.npz'))
)
def test_components_equal_the_release(case, capsys):
    assert compare.run([GOLDENS / f'{case}.npz'])
    with np.load(GOLDENS / f'{case}.npz') as arrays:
        expected = [name for name in arrays if not name.startswith('in/')]
    out = capsys.readouterr().out
    assert f'1 cases, {len(expected)} arrays, 0 failed' in out
    assert all(f'{pathlib.Path(case).name}  {name} ' in out for name in expected)


@pytest.mark.parametrize('platform', ['gpu', 'tpu'])
def test_the_forms_for_other_platforms_equal_the_release(platform, capsys):
    """Attention, sampling and chunks as a GPU or TPU computes them, on this CPU."""
    cases = [GOLDENS / f'comp_{name}.npz' for name in ('msda_ref2', 'msda_ref4', 'transformer', 'swin_T10_72x104')]
    with compilation.tracing_for(platform):
        assert compare.run(cases)
    assert '4 cases' in capsys.readouterr().out


@pytest.mark.parametrize(
    'case, count',
    [
        ('full_tiny_eval_a2d', 5),
        ('full_tiny_train', 404),
        ('full_tiny_train_a2d', 404),
        ('soc/full_tiny_train_a2d_multi', 439),
        ('soc/full_tiny_eval_b2_mixing', 12),
    ],
)
def test_whole_models_equal_the_release(case, count, capsys):
    """Annotated clips; training: losses, matches, every gradient's norm. Others: test_default_optimisation.py."""
    assert compare.run([GOLDENS / f'{case}.npz'])
    assert f'1 cases, {count} arrays, 0 failed' in capsys.readouterr().out


def test_whole_model_and_its_stages_equal_the_release(tmp_path, capsys):
    case = 'full_tiny_eval_ytvos'
    copy(case, tmp_path)
    padding = np.ones((5, 36, 44), bool)
    padding[:, :34, :42] = False  # 136x168 pixels of 144x176
    np.savez(
        tmp_path / f'{case}_stages_masks.npz',
        **{
            'out/text_mask': np.zeros((1, 8), bool),
            'out/backbone_mask0': padding,
            'out/srcmask0': padding[:, ::2, ::2],
        },
    )
    (tmp_path / f'{case}_stages_masks.json').write_text('{}')
    assert compare.run([tmp_path])
    assert '2 cases, 9 arrays, 0 failed' in capsys.readouterr().out


@pytest.mark.parametrize('of_case, annotated', [(2, True), (6, False)])
def test_backbone_stages_of_annotated_or_all_frames(of_case, annotated):
    """Two clips of three frames; the case has features of one frame per clip, or of all."""
    features = np.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2, 1)
    valid = np.ones((2, 3, 4, 4), bool)
    valid[1, 2, 2:] = False
    text = types.SimpleNamespace(words=np.zeros(0), valid=np.ones((2, 5), bool), sentence=np.zeros(0))
    calls = {
        'transformer/encode': (((), (), ()), ()),
        'transformer/decode': (None, 3 * [np.zeros((1, 2))]),
        'encode_text': (None, text),
        'transformer/reference_points': (None, np.zeros((1, 2))),
        'video_encoder': (None, [features]),
    }
    clip = Clip(np.zeros((*valid.shape, 3)), valid, np.full((2, 2), 4), np.array([0, 2]))
    found = cases.stages(calls, clip, {'out/backbone0': np.zeros((of_case, 1, 2, 2))})
    frames = [0, 5] if annotated else range(6)
    np.testing.assert_array_equal(found['backbone0'], [4 * i + np.array([[[0, 1], [2, 3]]]) for i in frames])
    padding = np.zeros((6, 2, 2), bool)
    padding[5, 1] = True
    np.testing.assert_array_equal(found['backbone_mask0'], padding[list(frames)])


def add(name, much, index=0):
    def change(arrays):
        arrays[name] = arrays[name].copy()
        arrays[name].flat[index] += much * (1 if name == 'out/masks' else np.abs(arrays[name]).max())

    return change


def flip(arrays):
    arrays['out/mask0_5x6'] = arrays['out/mask0_5x6'].copy()
    arrays['out/mask0_5x6'][0, 0] ^= True


def lengthen(arrays):
    arrays['out/pos1d'] = np.concatenate([arrays['out/pos1d'], arrays['out/pos1d']])


@pytest.mark.parametrize(
    'case, change, name',
    [
        ('comp_cpk', add('out/masks', 1e-3), 'out/masks'),
        ('comp_cpk', add('out/masks', np.nan), 'out/masks'),
        ('comp_cpk', add('grad/params', 2e-3, index=7), 'grad/params'),
        ('comp_criterion_T1', add('out/total', 2e-3), 'out/total'),
        ('comp_criterion_T1', add('out/loss/loss_giou_1', 2e-3), 'out/loss/loss_giou_1'),
        ('comp_criterion_T1', add('out/matched_query', 1), 'out/matched_query'),
        ('comp_criterion_T1', add('out/cost', 1e-3), 'out/cost'),
        ('comp_resize', flip, 'out/mask0_5x6'),
        ('comp_posenc', lengthen, 'out/pos1d'),
    ],
)
def test_only_the_wrong_array_fails(case, change, name, tmp_path, capsys):
    copy(case, tmp_path, change)
    assert not compare.run([tmp_path])
    (line,) = failing(capsys)
    assert line.split()[:2] == [case, name]


@pytest.mark.parametrize(
    'change, describe, words',
    [
        (lambda arrays: arrays.update({'out/new': np.zeros(3)}), None, 'out/new nothing to compare'),
        (lambda arrays: arrays.update({'grad/new.weight': np.zeros(3)}), None, 'grad/new.weight nothing to compare'),
        (lambda arrays: arrays.pop('in/mask1d'), None, "comp_posenc.npz: 'in/mask1d' missing"),
        (None, lambda meaning: meaning['arrays'].update({'out/pos3d': [[3], 'float32']}), 'out/pos3d not in the npz'),
        (None, lambda meaning: meaning.update(case='comp_new'), "case = 'comp_new' known kinds comp_cpk"),
        (
            lambda arrays: [arrays.pop(name) for name in list(arrays)],
            lambda meaning: (meaning.update(case='comp_resize'), meaning.pop('arrays')),
            'no array out/',
        ),
    ],
)
def test_arrays_that_cannot_be_compared_fail(change, describe, words, tmp_path, capsys):
    copy('comp_posenc', tmp_path, change, describe)
    assert not compare.run([tmp_path])
    (line,) = failing(capsys)
    assert all(word in line for word in words.split())


def test_gradient_norms_that_cannot_be_compared_fail(tmp_path, capsys):
    copy('comp_posenc', tmp_path)
    (tmp_path / 'comp_posenc_gradnorms.json').write_text(json.dumps({'norms_fp32': {'new.weight': 1.0}}))
    assert not compare.run([tmp_path])
    (line,) = failing(capsys)
    assert 'norm/new.weight' in line
    (tmp_path / 'comp_posenc_gradnorms.json').write_text('{}')
    assert not compare.run([tmp_path])
    (line,) = failing(capsys)
    assert 'comp_posenc_gradnorms.json: norms_fp32 is missing' in line


@pytest.mark.parametrize(
    'scale, noise, expected',
    [
        (2.0, np.nan, 2e-3),
        (1e-4, 1e-8, 1e-7),  # small, but well above the noise
        (1e-4, 5e-5, 1e-4),  # mostly noise: relative to the largest gradient, 100
        (1e-6, np.nan, 1e-4),
    ],
)
def test_tolerance_of_gradients_that_are_only_rounding(scale, noise, expected):
    assert compare._tolerance('norm/some.bias', np.dtype(np.float64), scale, noise, 100) == pytest.approx(expected)


def test_missing_files_fail_and_other_cases_are_compared(tmp_path, capsys):
    for case, lost in (('comp_cpk', '.json'), ('comp_resize', '.npz'), ('comp_posenc', None)):
        copy(case, tmp_path)
        if lost:
            (tmp_path / f'{case}{lost}').unlink()
    (tmp_path / 'full_tiny_train_gradnorms.json').write_text('{}')
    (tmp_path / 'other.npz').write_bytes((GOLDENS / 'comp_posenc.npz').read_bytes())
    (tmp_path / 'other.json').write_text('{}')
    np.savez(tmp_path / 'full_tiny_eval_a2d_stages_rest.npz', x=0)
    (tmp_path / 'full_tiny_eval_a2d_stages_rest.json').write_text('{}')
    assert not compare.run([tmp_path])
    lines = failing(capsys)
    told = (
        'comp_cpk.json is missing',
        'comp_resize.npz is missing',
        'full_tiny_eval_a2d.npz is missing',
        'full_tiny_train.npz is missing',
        "other.npz: ValueError: case = 'other'",
    )
    assert len(lines) == len(told) and all(words in line for line, words in zip(lines, told))
    assert compare.run([tmp_path / 'comp_posenc.json'])


@pytest.mark.parametrize(
    'changes, words',
    [
        ({'two_stage': True}, 'config_overrides.two_stage = True: unknown'),
        (
            {
                'swin_cfg': {
                    'embed_dim': 24,
                    'depths': [2, 2, 2, 2],
                    'num_heads': [3, 6, 12, 24],
                    'window_size': [4, 7, 7],
                }
            },
            'config_overrides.swin_cfg.window_size = [4, 7, 7]: our model has only [8, 7, 7]',
        ),
        ({'roberta_cfg': {'pad_token_id': 0}}, 'config_overrides.roberta_cfg.pad_token_id = 0'),
        ({'mask_dim': 32}, 'config_overrides.mask_dim = 32'),
        ({'swin_cfg': None}, "backbone = 'video_swin_t_p2w7'"),
    ],
)
def test_unsupported_model_settings_are_named(changes, words, tmp_path, capsys):
    copy(
        'full_tiny_eval_ytvos',
        tmp_path,
        describe=lambda meaning: (
            meaning['config_overrides'].update(changes),
            meaning.update(backbone='video_swin_t_p2w7'),
        ),
    )
    assert not compare.run([tmp_path])
    (line,) = failing(capsys)
    assert line.startswith('full_tiny_eval_ytvos') and words in line


@pytest.mark.parametrize(
    'describe, words',
    [
        (lambda meaning: meaning['weights'].pop('fill_seed'), 'fill_seed: missing'),
        (
            lambda meaning: meaning['weights']['names'].update({'fusion_module.multihead_attn.out_proj.bias': [32]}),
            "only in our model [('fusion_module.multihead_attn.out_proj.bias', 64)]",
        ),
        (lambda meaning: meaning['weights']['names'].update({'fusion_module.new': [64]}), "('fusion_module.new', 64)"),
    ],
)
def test_unknown_weights_fail(describe, words, tmp_path, capsys):
    copy('comp_fusion', tmp_path, describe=describe)
    assert not compare.run([tmp_path])
    (line,) = failing(capsys)
    assert words in line


def test_row_prints_numbers_and_dashes_for_missing_ones():
    row = compare.Row('case', 'out/x', True, (2, 3), error=1.25e-3, tolerance=2e-3, floors=1.5)
    assert str(row).split() == ['case', 'out/x', '(2,', '3)', '1.25e-03', '-', '2.00e-03', '1.5', 'ok']
    failed = compare.Row('case', 'out/x', False, remark='why')
    assert str(failed).split() == ['case', 'out/x', '()', '-', '-', '-', '-', 'FAILED', 'why']


def test_no_cases_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match='no case'):
        compare.run([tmp_path])
    with pytest.raises(FileNotFoundError, match='no such file'):
        compare.run([GOLDENS / 'comp_posenc.npz', tmp_path / 'nowhere'])


@pytest.mark.parametrize('name', FILL)
def test_weights_equal_the_release(name):
    shape, values, *sums = FILL[name]
    x = cases.fill(name, shape)
    assert x.dtype == np.float32 and list(x.shape) == shape
    np.testing.assert_array_equal(x.ravel()[:3], np.float32(values))
    np.testing.assert_allclose([x.sum(dtype=np.float64), np.abs(x).sum(dtype=np.float64)], sums, rtol=1e-9)
    assert not np.array_equal(x, cases.fill(name, shape, seed=1))


def test_fill_checks(tmp_path, capsys):
    manifest = {name: [shape, 'float32'] for name, (shape, *_) in FILL.items()}
    (tmp_path / 'manifest_sgmg_some.json').write_text(json.dumps(manifest))
    check = {'what': 'values and sums, fill seed 0', 'tensors': {name: rest for name, (_, *rest) in FILL.items()}}
    path = tmp_path / 'fill_check_some.json'
    path.write_text(json.dumps(check))
    assert compare.run([tmp_path])
    assert f'1 cases, {len(FILL)} arrays, 0 failed' in capsys.readouterr().out

    for field in range(3):
        wrong = json.loads(json.dumps(check))
        values = wrong['tensors']['query_embed.weight']
        values[field] = [x + 1e-6 for x in values[field]] if field == 0 else values[field] + 1e-3
        path.write_text(json.dumps(wrong))
        assert not compare.run([path])
        (line,) = failing(capsys)
        assert 'query_embed.weight' in line

    shutil.move(tmp_path / 'manifest_sgmg_some.json', tmp_path / 'manifest_sgmg_other.json')
    assert not compare.run([path])
    (line,) = failing(capsys)
    assert 'manifest_*_some.json' in line


def bomb(path):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('out/masks.npy', bytes(2**20))
    whole = bytearray(path.read_bytes())
    at = whole.index(b'PK\1\2') + 24
    whole[at : at + 4] = (2**30 + 1).to_bytes(4, 'little')
    path.write_bytes(whole)


def claims(path):
    np.savez(path, **{'out/masks': np.zeros(7)})
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"'shape': (7,), }" + b' ' * 20, b"'shape': (7" + b'0' * 20 + b',), }'))


@pytest.mark.parametrize(
    'damage, reason',
    [
        (lambda npz, text: npz.write_bytes(npz.read_bytes()[:1000]), "comp_cpk.npz: is not a case's npz, or damaged"),
        (lambda npz, text: npz.write_bytes(b''), 'comp_cpk.npz: is not a case'),
        (lambda npz, text: bomb(npz), 'unpacks to 1,073'),
        (lambda npz, text: claims(npz), 'is not a case'),
        (lambda npz, text: npz.write_bytes(b'\x93NUMPY'), 'is not a case'),
        (lambda npz, text: np.savez(npz, **{'out/masks': np.array([{}])}), 'is not a case'),
        (lambda npz, text: text.write_text('{'), 'comp_cpk.json: is not JSON'),
        (lambda npz, text: text.write_text('[1]'), 'comp_cpk.json: holds a list, not an object'),
        (lambda npz, text: text.write_text('{"a": NaN}'), 'NaN is no number'),
        (lambda npz, text: text.write_text('{"case": "\\u001b[31m"}'), r'[31m'),
        (lambda npz, text: (text.unlink(), text.mkdir()), 'comp_cpk.json: is a folder'),
    ],
)
def test_damaged_cases_are_named(damage, reason, tmp_path, capsys):
    copy('comp_cpk', tmp_path)
    damage(tmp_path / 'comp_cpk.npz', tmp_path / 'comp_cpk.json')
    assert main([str(tmp_path / 'comp_cpk.npz')]) == 1
    (line,) = failing(capsys)
    assert reason in line and '\x1b' not in line


def test_exit_status_and_error_message(tmp_path, capsys):
    assert main([str(GOLDENS / 'comp_posenc.npz')]) == 0
    capsys.readouterr()
    assert main([str(tmp_path / 'nowhere')]) == 2
    assert capsys.readouterr().err == f'error: {tmp_path / "nowhere"}: there is no such file or folder\n'
