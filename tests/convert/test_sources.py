"""Files of strangers: what is recognised in them, which of several models is used, and what is refused."""

import functools
import json
import os
import re
import resource
import struct
import tracemalloc

from flax import traverse_util
from golden_cases import TINY, TINY_SOC
from hypothesis import given
from hypothesis import strategies as st
import ml_dtypes
import numpy as np
from official import kinetics, masked_lm, roberta, sgmg, shapes_of, soc, written
import pytest
from torch_files import Storage, save, save_legacy, tensor, view

from sgmg_jax.convert import names, sources, weights

POOLER = {'text_backbone/pooler/kernel', 'text_backbone/pooler/bias'}


NO_POOLER = r'is not in the checkpoint +1 x text_backbone/pooler/bias\n.* +1 x text_backbone/pooler/kernel'


def as_torch(tensors):
    return {name: tensor(x) for name, x in tensors.items()}


def of(part):
    return {name for name in traverse_util.flatten_dict(shapes_of(TINY), sep='/') if name.startswith(f'{part}/')}


@functools.cache
def whole():
    """Parameters of ours. Not to be changed."""
    return traverse_util.flatten_dict(names.from_official(sources.recognise(sgmg()).tensors, shapes_of(TINY)), sep='/')


def same(found, expected):
    assert set(found) == set(expected)
    for path, x in found.items():
        np.testing.assert_array_equal(x, expected[path], err_msg=path)


@pytest.mark.parametrize('positions', [False, True])
def test_roberta_base_of_hugging_face(positions, tmp_path):
    """The masked-language model's, without a pooler; older versions of transformers wrote position ids too."""
    tensors = masked_lm() | ({'roberta.embeddings.position_ids': np.arange(40)[None]} if positions else {})
    path = written(tensors, tmp_path / 'roberta-base' / 'model.safetensors')
    found, report = weights.load(path, shapes_of(TINY))
    same(found, {name: x for name, x in whole().items() if name in of('text_backbone') - POOLER})
    assert len(report) == 2 and '(RoBERTa)' in report[0]
    assert report[1].startswith('the pooler of the text encoder is in none of them: it is initialised randomly')
    # In what was converted it is missing as well.
    for out in ('start.safetensors', 'start'):
        weights.save(found, tmp_path / out)
        again, report = weights.load(tmp_path / out, shapes_of(TINY))
        same(again, found)
        assert 'the pooler' in report[1]


@pytest.mark.parametrize('old', [False, True])
def test_roberta_base_in_the_format_before_pytorch_16(old, tmp_path):
    """With a pooler; and with the names that norms had in TensorFlow."""
    tensors = masked_lm() | {f'roberta.{name}': x for name, x in roberta().items()}
    if old:
        tensors = {
            name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta'): x
            for name, x in tensors.items()
        }
    path = save_legacy(tmp_path / 'roberta-base' / 'pytorch_model.bin', as_torch(tensors))
    found, report = weights.load(str(path), shapes_of(TINY))
    same(found, {name: x for name, x in whole().items() if name in of('text_backbone')})
    assert len(report) == 1
    tensors['roberta.embeddings.LayerNorm.gamma'] = tensors['roberta.embeddings.LayerNorm.weight'] = np.ones(
        48, np.float32
    )
    tensors['roberta.embeddings.LayerNorm.gamma'] = np.zeros(48, np.float32)
    with pytest.raises(ValueError, match='roberta.embeddings.LayerNorm.(gamma|weight) differs from'):
        weights.load(written(tensors, tmp_path / 'both.safetensors'), shapes_of(TINY))


def test_a_missing_pooler_is_reported(tmp_path):
    tensors = roberta()
    tensors.pop('pooler.dense.bias')
    with pytest.raises(ValueError, match=r'is not in the checkpoint +1 x text_backbone/pooler/bias'):
        weights.load(written(tensors, tmp_path / 'half.safetensors'), shapes_of(TINY))
    tensors = {name: x for name, x in sgmg().items() if '.pooler.' not in name}
    with pytest.raises(ValueError, match=NO_POOLER):
        weights.load(written(tensors, tmp_path / 'whole.safetensors'), shapes_of(TINY))
    ours = {name: x for name, x in whole().items() if name not in POOLER}
    with pytest.raises(ValueError, match=NO_POOLER):
        written(ours, tmp_path / 'ours.safetensors')
        weights.load(tmp_path / 'ours.safetensors', shapes_of(TINY))
    tensors = {name: x for name, x in roberta(pooler=False).items() if name != 'embeddings.LayerNorm.bias'}
    with pytest.raises(ValueError, match=r'is not in the checkpoint +1 x text_backbone/embedding_norm/bias'):
        weights.load(written(tensors, tmp_path / 'hole.safetensors'), shapes_of(TINY))


def test_a_pooler_in_another_file_is_used(tmp_path):
    paths = [written(sgmg(), tmp_path / 'whole.safetensors'), written(masked_lm(), tmp_path / 'lm.safetensors')]
    found, report = weights.load(paths, shapes_of(TINY))
    same(found, whole())
    assert not any('the pooler' in line for line in report)
    found, report = weights.load(paths[1:], shapes_of(TINY), skip='text_backbone/pooler/.*')
    assert not any('the pooler' in line for line in report)


def test_one_path_or_several(tmp_path):
    path = written(roberta(), tmp_path / 'roberta.safetensors')
    for paths in (path, str(path), [path], (str(path),)):
        assert set(weights.load(paths, shapes_of(TINY))[0]) == of('text_backbone')
    assert weights.load((), shapes_of(TINY)) == ({}, [])
    for paths in (None, 3, [None], [[str(path)]]):
        with pytest.raises(ValueError, match='must be one path or several'):
            weights.load(paths, shapes_of(TINY))
    with pytest.raises(FileNotFoundError, match='no weights there'):
        weights.load('', shapes_of(TINY))


WRAPPERS = [
    'module.',
    'module.module.',
    'model.',
    '_orig_mod.',
    'module._orig_mod.',
    'state_dict.',
    'ema.',
    'module.model.',
    '_forward_module.',
    '_fsdp_wrapped_module._checkpoint_wrapped_module.',
    'a.b.c.',
    'net.',
]


@pytest.mark.parametrize('prefix', WRAPPERS)
@pytest.mark.parametrize('make', [sgmg, soc, masked_lm, kinetics])
def test_prefixes_of_wrappers_are_ignored(make, prefix):
    weights, plain = (sources.recognise({before + name: x for name, x in make().items()}) for before in (prefix, ''))
    assert weights.kind == plain.kind and weights.parts == plain.parts
    assert set(weights.tensors) == set(plain.tensors)
    assert all(np.array_equal(x, plain.tensors[name]) for name, x in weights.tensors.items())
    assert {f'{prefix}{there}' for there in plain.called.values()} == set(weights.called.values())
    assert len(weights.notes) == (prefix == 'ema.')


def test_insertions_of_wrappers_are_ignored():
    """torch.compile and DataParallel of parts of a model."""
    tensors = {
        name.replace('backbone.0.', 'backbone._orig_mod.0.').replace('transformer.', 'transformer.module.'): x
        for name, x in sgmg().items()
    }
    assert set(tensors) != set(sgmg())
    assert set(sources.recognise(tensors).tensors) == set(sources.recognise(sgmg()).tensors)
    with pytest.raises(ValueError, match='module.query_embed.weight differs from query_embed.weight'):
        sources.recognise(sgmg() | {'module.query_embed.weight': np.zeros((5, 64), np.float32)})
    damaged = np.full((5, 64), np.nan, np.float32)  # The same twice: what is wrong with it is told later.
    twice = {'query_embed.weight': damaged, 'module.query_embed.weight': damaged.copy()}
    assert set(sources.recognise(sgmg() | twice).tensors) == set(sources.recognise(sgmg()).tensors)


def test_errors_use_the_names_in_the_file(tmp_path):
    tensors = {f'module.model.{name}': x for name, x in sgmg().items()}
    tensors['module.model.query_embed.weight'] = np.zeros((4, 64), np.float32)
    tensors['module.model.new\x1b[31m.weight'] = np.zeros(3, np.float32)
    with pytest.raises(ValueError) as caught:
        weights.load(save(tmp_path / 'a.pth', as_torch(tensors)), shapes_of(TINY))
    assert 'module.model.query_embed.weight (4, 64), which should be (5, 64)' in str(caught.value)
    assert r'module.model.new\x1b[31m.weight' in str(caught.value) and '\x1b' not in str(caught.value)
    tensors = {f'roberta.{name}': x[:-1] if name == 'embeddings.LayerNorm.bias' else x for name, x in roberta().items()}
    with pytest.raises(ValueError, match=r' roberta.embeddings.LayerNorm.bias \(47,\), which should be \(48,\)'):
        weights.load(written(tensors, tmp_path / 'a.safetensors'), shapes_of(TINY))


def averaged(tensors):
    return {name: x + 1 if x.dtype == np.float32 else x for name, x in tensors.items()}


AVERAGES = [
    'ema',
    'model_ema',
    'ema_state_dict',
    'state_dict_ema',
    'ema_model',
    'EMA',
    'modelEma',
    'averaged_model',
    'swa_model',
    'ema.shadow',
]


@pytest.mark.parametrize('average', AVERAGES)
def test_the_model_is_preferred_to_its_moving_average(average, tmp_path):
    beside, outer = averaged(roberta()), average.split('.')[0]
    files = [
        save(
            tmp_path / 'entries.pth',
            {
                outer: {'decay': 0.9, 'shadow': as_torch(beside)} if '.' in average else as_torch(beside),
                'model': as_torch(roberta()),
                'epoch': 3,
            },
        ),
        save_legacy(
            tmp_path / 'flat.pth', as_torch({f'{average}.module.{name}': x for name, x in beside.items()} | roberta())
        ),
        written(
            {f'{average}.{name}': x for name, x in beside.items()}
            | {f'model.{name}': x for name, x in roberta().items()},
            tmp_path / 'flat.safetensors',
        ),
    ]
    for path in files:
        found, report = weights.load(path, shapes_of(TINY))
        same(found, {name: x for name, x in whole().items() if name in of('text_backbone')})
        assert re.search(
            r': the model itself \((model\.)?embeddings.word_embeddings.weight\) is used, .* not its '
            rf'moving average \({average}\.(module\.)?embeddings.word.* save its state dict',
            report[1],
        )


def test_a_moving_average_alone_is_used_and_reported():
    found = sources.recognise({f'module.{name}': x for name, x in roberta().items()} | {'n_averaged': np.array(3)})
    assert len(found.tensors) == len(roberta()) - 1  # position ids
    assert found.notes == (
        'these are a moving average (module.embeddings.word_embeddings.weight); the file has no other weights',
    )
    found = sources.recognise(
        {f'new.module.{name}': x for name, x in averaged(roberta()).items()}
        | {f'old.{name}': x for name, x in roberta().items()}
        | {'new.n_averaged': np.array(3)}
    )
    same(
        {name: found.tensors[name] for name in (sources.ROBERTA + 'pooler.dense.bias',)},
        {sources.ROBERTA + 'pooler.dense.bias': roberta()['pooler.dense.bias']},
    )
    found = sources.recognise({f'ema_model.{name}': x for name, x in roberta().items()})
    assert 'these are a moving average (ema_model.embeddings.word' in found.notes[0]


@pytest.mark.parametrize(
    'first, second', [('student.', 'teacher.'), ('', 'momentum_encoder.'), ('ema.', 'ema_model.'), ('a.', 'b.')]
)
def test_several_models_are_refused(first, second):
    tensors = {before + name: x for before in (first, second) for name, x in roberta().items()}
    with pytest.raises(ValueError, match='several models.*') as caught:
        sources.recognise(tensors)
    assert all(f'{before}embeddings.word_embeddings.weight' in str(caught.value) for before in (first, second))


def test_tensors_outside_the_model_are_left_out_and_reported():
    found = sources.recognise(
        {f'model.{name}': x for name, x in sgmg().items()}
        | {'criterion.empty_weight': np.ones(2), 'loss.scale': np.ones(1)}
    )
    assert set(found.tensors) == set(sources.recognise(sgmg()).tensors)
    assert found.notes == ('2 tensors outside the model are left out, such as criterion.empty_weight',)
    assert sources.recognise(masked_lm()).notes == sources.recognise(kinetics()).notes == ()


def test_incomplete_models_are_refused():
    pieces = {name if name.startswith('transformer.') else f'model.{name}': x for name, x in sgmg().items()}
    with pytest.raises(ValueError, match='transformer.* of SgMg or SOC, .*same place as model.query_embed'):
        sources.recognise(pieces)
    with pytest.raises(ValueError, match='but not in the same place as text_encoder.text_backbone.embeddings'):
        sources.recognise({name: x for name, x in sgmg().items() if name != 'query_embed.weight'})


def test_soc_is_recognised_by_its_video_queries():
    assert sources.recognise({'a.' + name: x for name, x in soc().items()}).kind == 'SOC'
    assert sources.recognise(sgmg()).kind == 'SgMg'
    with pytest.raises(ValueError, match='is not in the checkpoint .* query_embedding'):
        names.from_official(
            sources.recognise({name: x for name, x in soc().items() if name != 'query_embed.weight'}).tensors,
            shapes_of(TINY_SOC),
        )


def test_skip_matches_whole_names(tmp_path):
    path = written(sgmg(), tmp_path / 'whole.safetensors')
    for skip in ('class_heads_0', 'heads_0/kernel', 'class_heads_', 'ernel', 'class_heads_0/kerne'):
        found, report = weights.load(path, shapes_of(TINY), skip)
        assert set(found) == set(whole())
        assert report[-1] == f'skip = {skip!r} matches no whole name of a parameter, so nothing was left out.'
    found, report = weights.load(path, shapes_of(TINY), 'class_heads_0/kernel|query_embedding')
    assert set(whole()) - set(found) == {'class_heads_0/kernel', 'query_embedding'} and len(report) == 1
    weights.save(whole(), tmp_path / 'ours.safetensors')
    found, _ = weights.load(tmp_path / 'ours.safetensors', shapes_of(TINY), 'class_heads_0|query_embedding')
    assert set(whole()) - set(found) == {'query_embedding'}
    for skip in ('(', 3):
        with pytest.raises(ValueError, match=r'\(--skip, config.init_skip\): is not a regular expression'):
            weights.load(path, shapes_of(TINY), skip)


BAD = {'nan': np.nan, 'inf': np.inf, 'minus_inf': -np.inf, 'flipped': np.float32(3e38), 'negative': np.float32(-2e18)}


@pytest.mark.parametrize('bad', BAD)
@pytest.mark.parametrize('way', ['safetensors', 'zip', 'legacy', 'ours', 'folder', 'bfloat16', 'sum'])
def test_invalid_weights_are_named(way, bad, tmp_path):
    tensors, path = dict(roberta()), tmp_path / 'weights'
    changed = tensors['encoder.layer.1.output.dense.bias'] = tensors['encoder.layer.1.output.dense.bias'].copy()
    changed[7] = BAD[bad]
    ours = names.from_official(sources.recognise(tensors).tensors, {'text_backbone': shapes_of(TINY)['text_backbone']})
    ours, name = traverse_util.flatten_dict(ours, sep='/'), 'text_backbone/layer1_mlp_out/bias'
    match way:
        case 'safetensors':
            written(tensors, path)
        case 'zip':
            save(path, as_torch(tensors))
        case 'legacy':
            save_legacy(path, as_torch(tensors))
        case 'ours':
            written(ours, path)
        case 'folder':
            weights.save(ours, path)
        case 'bfloat16':
            written({name: x.astype(ml_dtypes.bfloat16) for name, x in tensors.items()}, path)
        case 'sum':
            tensors, name = kinetics(), 'video_encoder/patch_embedding/kernel'
            tensors['backbone.patch_embed.proj.weight'][3, 2, 1, 1, 1] = BAD[bad]
            written(tensors, path)
    with pytest.raises(ValueError, match=re.escape(f'{path}: {name} has a weight of ')):
        weights.load(path, shapes_of(TINY))
    if way in ('ours', 'folder'):
        with pytest.raises(ValueError, match=re.escape(f'{path}: {name} has a weight of ')):
            weights.read_ours(path)
        skipped, _ = weights.load(path, shapes_of(TINY), name)
        assert name not in skipped


def test_check_finite():
    weights.check_finite(
        {
            'a': np.ones(3, np.float32),
            'b': np.zeros((0, 2), np.float16),
            'c': np.float32(1e18),
            'd': np.array([-1e18, 1e18]),
            'e': np.ones(2, ml_dtypes.bfloat16),
        },
        'x',
    )
    for x in (np.nan, -1.1e18, 1.1e18):
        with pytest.raises(ValueError, match=f'^run: b has a weight of {re.escape(str(x))}'):
            weights.check_finite({'a': np.ones(2), 'b': np.array([0, x, 1])}, 'run')
    for kind in (np.int32, bool, np.complex64):
        with pytest.raises(ValueError, match=f'^run: b is of type {np.dtype(kind)}; weights are floating'):
            weights.check_finite({'b': np.ones(2, kind)}, 'run')


@pytest.mark.parametrize(
    'kind, fits',
    [
        (np.float16, True),
        (ml_dtypes.bfloat16, True),
        (np.float64, True),
        (np.float32, True),
        (np.int32, False),
        (np.bool_, False),
        (np.complex64, False),
        (np.uint8, False),
    ],
)
def test_other_dtypes_are_converted_or_refused(kind, fits, tmp_path):
    tensors = {name: x.astype(kind) if name == 'embeddings.LayerNorm.bias' else x for name, x in roberta().items()}
    path = save(tmp_path / 'a.pth', as_torch(tensors))
    if not fits:
        with pytest.raises(ValueError, match=f'text_backbone/embedding_norm/bias is of type {np.dtype(kind)}'):
            weights.load(path, shapes_of(TINY))
        return
    found, report = weights.load(path, shapes_of(TINY))
    assert {x.dtype for x in found.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(
        found['text_backbone/embedding_norm/bias'], tensors['embeddings.LayerNorm.bias'].astype(np.float32)
    )
    assert (f'{path}: converted from {np.dtype(kind)} to float32.' in report) == (kind != np.float32)


def test_shapes_are_checked_before_tensors_are_copied(tmp_path):
    """One kilobyte that claims 16 GB, wherever something would be summed, repeated, compared or put in order."""
    one = Storage(np.zeros(1, np.float32))
    huge = lambda *shape: view(one, 0, shape, (0,) * len(shape))
    images = {f'layers.{i}.blocks.0.attn.relative_position_bias_table': huge(169, 2**20) for i in range(3)}
    for tensors in (
        {'patch_embed.proj.weight': huge(24, 3, 4, 4)} | images,
        {'patch_embed.proj.weight': huge(2**13, 3, 2, 2**6, 2**6)},
        {
            'query_embed.weight': huge(2**28),
            'fusion_module.multihead_attn.in_proj_weight': huge(2**14, 2**14),
            'input_proj.0.0.weight': huge(2**14, 2**13, 1, 1),
            'level_embed': huge(),
        },
        {'embeddings.word_embeddings.weight': huge(2**14, 2**14), 'embeddings.position_ids': huge(2**28)},
    ):
        path = save(tmp_path / 'a.pth', tensors)
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match='is of another size'):
                weights.load(path, shapes_of(TINY))
            assert tracemalloc.get_traced_memory()[1] < 2**26
        finally:
            tracemalloc.stop()
    for tensors, reason in (
        ({'a': huge(2**28 + 1)}, 'a has shape .268435457,.*more numbers'),
        (
            {'a': huge(2**28), 'b': huge(2**28), 'c': huge(2**28), 'd': huge(2**28), 'e': huge(1)},
            '5 tensors have 1,073,741,825 numbers',
        ),
    ):
        with pytest.raises(ValueError, match=reason):
            sources.read(save(tmp_path / 'a.pth', tensors))


@pytest.mark.parametrize(
    'name, shape',
    [
        ('fusion_module.multihead_attn.in_proj_weight', (191, 64)),
        ('fusion_module.multihead_attn.in_proj_weight', ()),
        ('mask_refine.conv1_1div4.weight', (3,)),
        ('level_embed', ()),
        ('query_embed.weight', (0,)),
        ('input_proj.0.0.weight', (1, 1, 1, 1, 1)),
        ('class_embed.0.bias', ()),
    ],
)
def test_misshapen_tensors_are_named(name, shape):
    with pytest.raises(ValueError, match=rf'1 x .*{re.escape(f"{name} {shape}")}, which should be'):
        name = name if name != 'level_embed' else 'transformer.level_embed'
        names.from_official(sources.recognise(sgmg() | {name: np.zeros(shape, np.float32)}).tensors, shapes_of(TINY))


def safetensors(path, header, data=b'', size=None, sparse=0):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(header) if size is None else size) + header + data)
    os.truncate(path, path.stat().st_size + sparse)
    return path


def entry(shape, begin, end, dtype='F32'):
    return {'dtype': dtype, 'shape': shape, 'data_offsets': [begin, end]}


@pytest.mark.parametrize(
    'header, data, size, reason',
    [
        (b'', b'', None, 'not a whole safetensors file'),
        (b'{}', b'', 2**22 + 1, 'header claims 4,194,305 bytes'),
        (b'{}', b'', 50, 'not a whole'),
        ({'a': entry([2], 0, 8)}, bytes(7), None, 'not a whole'),
        ({'a': entry([2], 0, 8)}, bytes(9), None, 'not a whole'),
        ({'a': entry([3], 0, 8)}, bytes(8), None, 'not a whole'),
        ({'a': entry([2], 0, 8), 'b': entry([2], 0, 8)}, bytes(8), None, 'not a whole'),
        ({'a': entry([-2], 0, 8)}, bytes(8), None, 'not a whole'),
        ({'a': entry([2], 0, 8, 'X9')}, bytes(8), None, 'X9'),
        ({'a': entry([2**40, 2**40], 0, 8)}, bytes(8), None, 'not a whole'),
        ({'a\x1b': entry([2], 0, 2, 'F8_E4M3')}, bytes(2), None, r'a\\x1b is of type F8_E4M3; only F64, F32'),
        ({'a': entry([0, 2**62, 2**62], 0, 0)}, b'', None, 'a.safetensors: '),
        ({'a': entry([1] * 100, 0, 4)}, bytes(4), None, 'a.safetensors: '),
        ({}, b'', None, 'of a known model'),
        (b'{"a":' + b'[' * 10**5, b'', None, 'not a whole'),
        (
            b'{"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},'
            b'"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}',
            bytes(8),
            None,
            "the key 'a' is there twice",
        ),
    ],
)
def test_invalid_safetensors_are_refused(header, data, size, reason, tmp_path):
    path = safetensors(tmp_path / 'a.safetensors', header, data, size)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=reason) as caught:
            weights.load(path, shapes_of(TINY))
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(str(path)) and '\x1b' not in str(caught.value)


def test_a_sparse_file_is_not_read(tmp_path):
    path = safetensors(tmp_path / 'a.safetensors', {'query_embed.weight': entry([2**28], 0, 2**30)}, sparse=2**30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match='is of another size'):
        weights.load(path, shapes_of(TINY))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**18  # kilobytes


@pytest.mark.parametrize('kind', ['F64', 'F32', 'F16', 'BF16', 'I64', 'I32', 'I16', 'I8', 'U8', 'BOOL'])
def test_every_dtype_is_read(kind, tmp_path):
    numbers = np.array([[0, 1, 0], [1, 0, 1]]).astype(sources._TYPES[kind])
    path = written({'a': numbers, 'b': numbers[:0], 'c': numbers[0, 1].reshape(())}, tmp_path / 'x.safetensors')
    read = sources.read(path)
    for name, expected in (('a', numbers), ('b', numbers[:0])):
        assert read[name].dtype == numbers.dtype and read[name].shape == expected.shape
        np.testing.assert_array_equal(read[name], expected)
    assert not read['a'].flags.writeable


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth', '.bin', '.ckpt', '.pt', ''])
def test_the_content_determines_the_format(suffix, tmp_path):
    tensors = {'some.weight': np.arange(3, dtype=np.float32)}
    for write in (
        written,
        lambda tensors, path: save(path, as_torch(tensors)),
        lambda tensors, path: save_legacy(path, as_torch(tensors)),
    ):
        write(tensors, tmp_path / f'model{suffix}')
        np.testing.assert_array_equal(sources.read(tmp_path / f'model{suffix}')['some.weight'], np.arange(3))


@pytest.mark.parametrize(
    'content, reason',
    [
        (
            b'version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n',
            'a pointer of git-lfs.* `git lfs pull`',
        ),
        (b'<!DOCTYPE html><html>', 'a web page'),
        (b'\n <html>', 'a web page'),
        (b'{"weight_map": {}}', 'JSON'),
        (b'\x1f\x8b\x08\0', '.*by gzip'),
        (b'\xfd7zXZ\0', '.*by xz'),
        (b'BZh9', '.*by bzip2'),
        (b'\x28\xb5\x2f\xfd', '.*by zstd'),
        (b'\x93NUMPY\1\0', 'NumPy'),
        (b'\x89HDF\r\n', 'HDF5'),
        (b'\x80\x04\x95', 'a bare pickle'),
        (b'7z\xbc\xaf\x27\x1c', '.*7-Zip'),
        (b'something', '(not a whole safetensors file|.* starts with)'),
        (b'', '(not a whole|the file is empty)'),
    ],
)
@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_other_files_are_recognised_and_refused(content, reason, suffix, tmp_path):
    path = tmp_path / f'model{suffix}'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f'^{re.escape(str(path))}: (.*: )?(is )?{reason}'):
        weights.load(path, shapes_of(TINY))


@pytest.mark.parametrize(
    'make, kind', [(os.mkfifo, 'a pipe'), (lambda path: os.symlink('/dev/zero', path), 'a device')]
)
def test_pipes_and_devices_are_refused(make, kind, tmp_path):
    make(tmp_path / 'model.safetensors')
    for read in (lambda path: weights.load(path, {}), weights.read_ours):
        with pytest.raises(ValueError, match=f'model.safetensors: is {kind}, not a file'):
            read(tmp_path / 'model.safetensors')


def test_links_are_followed_and_folders_are_listed(tmp_path):
    path = written(roberta(), tmp_path / 'blob')  # as in Hugging Face's cache
    (tmp_path / 'roberta-base').mkdir()
    (tmp_path / 'roberta-base' / 'model.safetensors').symlink_to(path)
    assert len(sources.read(tmp_path / 'roberta-base' / 'model.safetensors')) == len(roberta())
    shapes = {'text_backbone': shapes_of(TINY)['text_backbone']}
    found, _ = weights.load(tmp_path / 'roberta-base', shapes)
    assert found.keys() == traverse_util.flatten_dict(shapes, sep='/').keys()
    (tmp_path / 'roberta-base' / 'model.safetensors').rename(tmp_path / 'roberta-base' / 'weights.safetensors')
    with pytest.raises(FileNotFoundError, match='base: no weights there. It contains weights.safetensors: give that'):
        weights.load(tmp_path / 'roberta-base', {})
    (tmp_path / 'empty').mkdir()
    for read in (lambda path: weights.load(path, {}), weights.read_ours):
        with pytest.raises(FileNotFoundError, match='empty: no weights there. Give a .safetensors'):
            read(tmp_path / 'empty')
    with pytest.raises(FileNotFoundError, match='nowhere: no weights there'):
        weights.read_ours(tmp_path / 'nowhere')


SMALL = {
    'text_backbone/a/kernel': np.arange(6, dtype=np.float32).reshape(2, 3),
    'text_backbone/a/bias': np.ones(3, np.float32),
    'query_embedding': np.ones((2, 2), np.float32),
}


def flip(path, old):
    content = bytearray(path.read_bytes())
    assert content.count(old) == 1
    content[content.index(old) + 9] ^= 1  # harmless to anything but a checksum
    path.write_bytes(content)


def test_flipped_bits_in_a_safetensors_are_detected(tmp_path):
    path, old = tmp_path / 'ours.safetensors', SMALL['text_backbone/a/kernel'].tobytes()
    weights.save(SMALL, path)
    same(weights.read_ours(path), SMALL)
    flip(path, old)
    with pytest.raises(ValueError, match=re.escape(f'{path}: text_backbone/a/kernel is damaged: its checksum')):
        weights.read_ours(path)
    written(SMALL, path)  # as an older version did, without checksums
    flip(path, old)
    assert weights.read_ours(path)['text_backbone/a/kernel'][0, 2] != 2


def test_flipped_bits_in_a_folder_are_detected(tmp_path):
    path = tmp_path / 'ours'
    weights.save(SMALL, path)
    same(weights.read_ours(path), SMALL)
    sums = json.loads((path / weights.CHECKSUMS).read_text())
    for wrong in (sums | {'query_embedding': sums['query_embedding'] ^ 1}, {'query_embedding': 1}, [], 3):
        (path / weights.CHECKSUMS).write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match=f'{re.escape(str(path))}: .* is damaged: its checksum is not the one'):
            weights.read_ours(path)
    (path / weights.CHECKSUMS).write_text('{')
    with pytest.raises(ValueError, match='crc32.json: is not JSON'):
        weights.read_ours(path)
    (path / weights.CHECKSUMS).unlink()  # an older version wrote none
    same(weights.read_ours(path), SMALL)
    for file in sorted(path.rglob('*')):
        if file.is_file() and file.name not in ('commit_success.txt', '_CHECKPOINT_METADATA', '_sharding'):
            content = file.read_bytes()
            file.write_bytes(content[: len(content) // 2])
            try:
                same(weights.read_ours(path), SMALL)
            except (ValueError, FileNotFoundError) as error:
                assert str(path) in str(error)
            file.write_bytes(content)
    same(weights.read_ours(path), SMALL)
    os.mkfifo(path / 'd' / 'pipe')
    with pytest.raises(ValueError, match='pipe: is a pipe'):
        weights.read_ours(path)


def test_folders_with_absurd_sizes_are_refused(tmp_path, monkeypatch):
    weights.save(SMALL, tmp_path / 'ours')
    monkeypatch.setattr(sources, 'LARGEST', 5)
    with pytest.raises(ValueError, match=r'text_backbone/a/kernel has shape \(2, 3\).*more numbers than in any'):
        weights.read_ours(tmp_path / 'ours')
    monkeypatch.setattr(sources, 'LARGEST', 6)
    monkeypatch.setattr(sources, 'LARGEST_FILE', 12)
    with pytest.raises(ValueError, match='ours: has more numbers than any'):
        weights.read_ours(tmp_path / 'ours')
    monkeypatch.setattr(sources, 'LARGEST_FILE', 13)
    same(weights.read_ours(tmp_path / 'ours'), SMALL)


def test_files_with_other_names_are_refused(tmp_path):
    path = written(roberta(), tmp_path / 'a.safetensors')
    with pytest.raises(ValueError, match='has no parameters with names of sgmg_jax.*from-official'):
        weights.read_ours(path)


@pytest.mark.parametrize(
    'drop, change, reason',
    [
        ('query_embedding', {}, 'query_embedding is missing: these are not the parameters of a whole model'),
        ('text_backbone/positions/embedding', {}, 'text_backbone/positions/embedding is missing'),
        (
            'word_attention/attention/key/bias',
            {},
            r'A part of fusion_module.multihead_attn.in_proj_bias is missing: '
            'word_attention/attention/query/bias needs 2 more',
        ),
        (None, {'word_attention/attention/key/kernel': (3,)}, r'key/kernel \(3,\).*in_proj_weight cannot have'),
        (None, {'new\x1b/kernel': (1,)}, r'new\\x1b/kernel'),
    ],
)
def test_incomplete_parameters_are_not_exported(drop, change, reason):
    parameters = {name: x for name, x in whole().items() if name != drop}
    parameters |= {name: np.zeros(shape, np.float32) for name, shape in change.items()}
    with pytest.raises(ValueError, match=reason):
        weights.released(parameters)


def damaged(good, rng):
    bad = bytearray(good)
    if rng.integers(2):
        for place in rng.integers(min(len(bad), 600), size=rng.integers(1, 4)):
            bad[place] = rng.choice([rng.integers(256), bad[rng.integers(len(bad))]])
    else:
        at = rng.integers(len(bad))
        bad[at : at + rng.integers(30)] = bad[: rng.integers(30)]
    return bytes(bad[: rng.integers(len(bad))] if rng.integers(8) == 0 else bad)


@pytest.mark.parametrize('checksums', [True, False])
def test_damaged_files_raise_clear_errors(checksums, tmp_path):
    path, rng, refusals = tmp_path / 'a.safetensors', np.random.default_rng(0), 0
    (weights.save if checksums else written)(SMALL, path)
    good = path.read_bytes()
    for _ in range(700):
        path.write_bytes(damaged(good, rng))
        try:
            sources.recognise(sources.read(path))
        except ValueError as error:
            refusals += str(path) in str(error)
    assert refusals > 300


TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2**70)
    | st.text(max_size=5)
    | st.sampled_from(['F32', 'BF16', 'dtype', 'shape', 'data_offsets', '__metadata__']),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=3) | st.sampled_from(['dtype', 'shape', 'data_offsets', '__metadata__']), inner
        )
    ),
)


@given(TREES, st.integers(0, 20))
def test_random_headers_are_read_or_refused(tmp_path_factory, header, size):
    path = safetensors(tmp_path_factory.getbasetemp() / 'a.safetensors', header, bytes(size))
    try:
        sources.read(path)
    except ValueError as error:
        assert str(path) in str(error)


@given(
    st.dictionaries(
        st.text('abc._/', min_size=1, max_size=12)
        | st.sampled_from(
            [
                'query_embed.weight',
                'module.query_embed.weight',
                'ema.query_embed.weight',
                'patch_embed.proj.weight',
                'embeddings.word_embeddings.weight',
                'a.patch_embed.proj.weight',
                'voc.query_embed.weight',
                'query_embedding',
            ]
        ),
        st.lists(st.integers(0, 3), max_size=5).map(lambda shape: np.zeros(shape, np.float32)),
        max_size=6,
    )
)
def test_random_names_and_shapes_are_refused(tmp_path_factory, tensors):
    path = written(tensors, tmp_path_factory.getbasetemp() / 'named.safetensors')
    with pytest.raises(ValueError) as caught:
        weights.load(path, shapes_of(TINY))
    assert str(caught.value).startswith(str(path))
