"""Files of torch.save, good and hostile."""

import argparse
from collections import Counter, OrderedDict
import io
import os
import pickle
import re
import struct
import tarfile
import tracemalloc
import types
import zipfile

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest
from torch_files import (
    DTYPES,
    Call,
    Global,
    Part,
    Storage,
    pack,
    parameter,
    pickled,
    save,
    save_legacy,
    save_program,
    tensor,
    view,
)

from sgmg_jax.convert import pth, torch_pickle

BOTH = pytest.mark.parametrize('save', [save, save_legacy], ids=['zip', 'legacy'])


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'model.pth'


@pytest.fixture
def refused(path, tmp_path, monkeypatch):
    """Asserts that the file at `path` is refused with its name, the reason and a way out, and that nothing ran."""
    monkeypatch.chdir(tmp_path)

    def check(reason):
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=reason) as caught:
                pth.read(path)
            assert tracemalloc.get_traced_memory()[1] < 4e6
        finally:
            tracemalloc.stop()
        assert str(path) in str(caught.value)
        assert re.search('torch.save|download it again|pack it again', str(caught.value))
        assert [file.name for file in tmp_path.iterdir()] == [path.name]

    return check


def same(ours, expected):
    assert ours.dtype == expected.dtype and ours.shape == expected.shape
    np.testing.assert_array_equal(ours, expected)


@BOTH
@pytest.mark.parametrize('kind', DTYPES)
def test_every_dtype_is_read(kind, save, path):
    numbers = np.array([[0, 1, 2], [3, 100, 5]]).astype(DTYPES[kind])
    tensors = {'matrix': numbers, 'scalar': numbers[1, 1], 'empty': numbers[:0], 'vector': numbers[1]}
    read = pth.read(save(path, {name: tensor(x) for name, x in tensors.items()}))
    assert list(read) == list(tensors)
    for name in tensors:
        same(read[name], np.asarray(tensors[name]))


@BOTH
def test_views_of_one_storage(save, path):
    numbers = np.arange(24, dtype=np.float32)
    storage = Storage(numbers)
    read = pth.read(
        save(
            path,
            [
                view(storage, 0, (4, 6), (6, 1)),
                view(storage, 0, (6, 4), (1, 6)),
                view(storage, 1, (3, 2), (8, 3)),
                view(storage, 23, (2**20, 2**20), (0, 0)),
                view(storage, 23, (), ()),
                view(storage, 24, (0, 3), (3, 1)),
                view(storage, 5, (1, 2), (10**6, 1)),
            ],
        )
    )
    square = numbers.reshape(4, 6)
    for ours, expected in zip(read, (square, square.T, numbers[1:].reshape(-1)[[[0, 3], [8, 11], [16, 19]]])):
        same(ours, expected)
    assert read[3].shape == (2**20, 2**20) and read[3].strides == (0, 0) and (read[3][:2, -2:] == 23).all()
    same(read[4], np.asarray(numbers[23]))
    assert read[5].shape == (0, 3)
    same(read[6], numbers[None, 5:7])
    assert np.shares_memory(read[0], read[1]) and not read[0].flags.writeable


@BOTH
def test_other_content_of_a_checkpoint(save, path):
    things = {
        'numbers': [0, 255, 65536, -1, 2**40, -(2**70), 0.5, True, False, None],
        7: ((), (1,), (1, 2), (1, 2, 3, 4)),
        'set': {1, 'a'},
        'bytes': b'\x00\xff',
        'text': 'ünï\n',
        'ordered': OrderedDict(b=1, a=2),
        'again': [[], {}],
        'milestones': Counter([6, 8, 8]),
    }
    read = pth.read(
        save(
            path,
            things
            | {
                'size': Call(Global('torch', 'Size'), (2, 3)),
                'device': Call(Global('torch', 'device'), 'cuda', 1),
                'args': argparse.Namespace(lr=1e-4, backbone='swin', lr_drop=[6, 8]),
            },
        )
    )
    assert read.pop('size') == (2, 3) and read.pop('device') == 'cuda:1'
    assert vars(read.pop('args')) == {'lr': 1e-4, 'backbone': 'swin', 'lr_drop': [6, 8]}
    assert read == things and type(read['ordered']) is OrderedDict and type(read['milestones']) is dict


def a_state_dict():
    rng = np.random.default_rng(0)
    numbers = {
        'head.weight': rng.standard_normal((3, 4)).astype(np.float32),
        'head.bias': np.ones(3, np.float32),
        'norm.num_batches_tracked': np.array(7),
    }
    written = OrderedDict((name, tensor(x)) for name, x in numbers.items())
    written['head.weight'] = parameter(numbers['head.weight'])
    written._metadata = OrderedDict({'': {'version': 1}})
    return numbers, written


@BOTH
@pytest.mark.parametrize('entry', [None, 'model', 'state_dict', 'net'])
def test_state_dict(entry, save, path):
    numbers, written = a_state_dict()
    state = {
        'state': {0: {'step': 3, 'exp_avg': tensor(np.zeros((3, 4), np.float32))}},
        'param_groups': [{'lr': 1e-4, 'betas': (0.9, 0.999), 'params': [0, 1]}],
    }
    whole = (
        written
        if entry is None
        else {
            entry: written,
            'optimizer': state,
            'lr_scheduler': {'milestones': Counter([6, 8]), '_last_lr': [1e-4]},
            'epoch': 5,
            'args': argparse.Namespace(lr=1e-4),
        }
    )
    read = pth.state_dict(save(path, whole))
    assert type(read) is dict and list(read) == list(numbers)
    for name in numbers:
        same(read[name], numbers[name])
    if entry:
        assert pth.read(path)['optimizer']['param_groups'] == state['param_groups']


@pytest.mark.parametrize(
    'whole, found',
    [
        ({'net': {}, 'epoch': 3}, r"a dict with the keys \['net', 'epoch'\]"),
        ({}, r'a dict with the keys \[\]'),
        ({'model': {'w': 1}, **{str(i): i for i in range(20)}}, r"'8', \.\.\.\]"),
        ([1], 'a list'),
    ],
)
def test_no_state_dict(whole, found, path):
    with pytest.raises(ValueError, match=found) as caught:
        pth.state_dict(save(path, whole))
    assert str(path) in str(caught.value) and 'model.state_dict()' in str(caught.value)


def test_missing_files_are_named(path):
    with pytest.raises(FileNotFoundError, match='Check the path') as caught:
        pth.state_dict(path)
    assert str(path) in str(caught.value)


@BOTH
def test_arrays_are_memory_mapped(save, path):
    save(path, {'w': tensor(np.arange(2**23, dtype=np.float32))})
    tracemalloc.start()
    read = pth.state_dict(path)
    left, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert left < 2**20 and peak < 2**24 + 2**20  # of 2 ** 25 bytes
    assert read['w'][-1] == 2**23 - 1


# Names that a pickle must not reach, and what they would be called with.
NAMES = [
    ('os', 'system', 'touch ran'),
    ('posix', 'system', 'touch ran'),
    ('os', 'path.os.system', 'touch ran'),
    ('builtins', 'getattr', Global('os', 'path'), 'os'),
    ('builtins', 'getattr', Global('argparse', 'Namespace'), '__init__'),
    ('__builtin__', 'eval', 'open("ran", "w")'),
    ('builtins', 'exec', 'open("ran", "w")'),
    ('argparse', '_os.system', 'touch ran'),
    ('collections', 'OrderedDict.fromkeys', 'ab'),
    ('torch._utils', 'os.system', 'touch ran'),
    ('torch', 'load', 'x'),
    ('torch.storage', '_load_from_bytes', b'x'),
    ('codecs', 'encode', 'x', 'latin1'),
    ('subprocess', 'Popen', ['touch', 'ran']),
    ('operator', 'attrgetter', 'x'),
    ('sgmg_jax.convert.pth', '_tensor'),
    ('numpy', 'load', 'x'),
    ('types', 'FunctionType'),
    ('', ''),
    ('os system', 'x'),
    ('argparse Namespace', '__init__'),
]


@BOTH
@pytest.mark.parametrize('module, name, values', [(module, name, values) for module, name, *values in NAMES])
def test_other_names_are_refused(module, name, values, save, path, refused):
    save(path, {'model': Call(Global(module, name), *values)})
    refused('asks for ' + re.escape(f'{module}.{name}'.replace(' ', '.')))


def test_the_attack_works_in_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickled(Call(Global('os', 'system'), 'touch ran'))[0])
    assert (tmp_path / 'ran').exists()


NAMESPACE, ORDERED = b'cargparse\nNamespace\n', b'ccollections\nOrderedDict\n'
TENSOR = pickled(tensor(np.zeros(4, np.float32)))[0].removeprefix(b'\x80\x02').removesuffix(b'.')
STATE = b'}X\x09\x00\x00\x00__class__K\x01s'


@pytest.mark.parametrize(
    'program, reason',
    [
        # Other ways to a name, and other protocols.
        (b"(S'touch ran'\nios\nsystem\n.", 'instruction STRING'),
        (b'(ios\nsystem\n.', "instruction INST 'os system'"),
        (b'(cargparse\nNamespace\no.', 'instruction OBJ'),
        (b'\x82\x01.', 'instruction EXT1'),
        (pickle.dumps({'a': 1}, protocol=4), 'instruction PROTO 4'),
        (b'\x8c\x02os\x8c\x06system\x93.', 'SHORT_BINUNICODE'),
        (b'X\x08\x00\x00\x00argparseX\x0a\x00\x00\x00_os.system\x93.', 'instruction STACK_GLOBAL'),
        (NAMESPACE + b')}\x92.', 'instruction NEWOBJ_EX'),
        (b'Ppid\n.', 'instruction PERSID'),
        # State where there should be none.
        (NAMESPACE + STATE + b'b.', 'dict where|function where'),
        (TENSOR + STATE + b'b.', 'ndarray where'),
        (b'}' + STATE + b'b.', 'dict where OrderedDict'),
        (NAMESPACE + b')\x81N}\x86b.', 'tuple where dict'),
        (NAMESPACE + b')\x81}K\x01K\x01sb.', 'int where str'),
        (b'ctorch\nFloatStorage\n' + STATE + b'b.', 'where Ordered'),
        # Calls of what is no name, and with what does not belong.
        (b'X\x02\x00\x00\x00os)R.', 'str where function'),
        (NAMESPACE + b')\x81)R.', 'SimpleNamespace where function'),
        (ORDERED + b']K\x01a\x85R.', 'int where list'),
        (ORDERED + b']]K\x01aa\x85R.', 'ValueError'),
        (ORDERED + b']](K\x01K\x01ea\x85R.', 'int where str'),
        (NAMESPACE + b'K\x01\x85\x81.', 'TypeError'),
        (b'ctorch\nFloatStorage\n)R.', 'where function'),
        (b'cbuiltins\nset\n](K\x01K\x01\x86e\x85R.', 'tuple where str'),
        (pickled(Call(Global('_codecs', 'encode'), 'x', 'rot13'))[0], "codec 'rot13'"),
        (b'}K\x01K\x01\x86K\x01s.', 'tuple where str'),
        (b']K\x01K\x01s.', 'list where dict'),
        (b'}K\x01a.', 'dict where list'),
        (b'}(K\x01u.', 'ValueError'),
        # Storages that are none.
        (b'K\x01Q.', 'int where tuple'),
        (b')Q.', 'TypeError'),
        (b'(K\x01K\x01K\x01K\x01K\x01tQ.', 'not a storage'),
        # Damage.
        (b'', 'before seeing STOP'),
        (b'\x80\x02}', 'before seeing STOP'),
        (b'.', 'IndexError'),
        (b't.', 'IndexError'),
        (b'h\x05.', 'KeyError'),
        (b'\xff.', 'unknown'),
        (b'X\xff\xff\xff\x7fa.', 'expected 2147483647 bytes'),
        (b'X\x01\x00\x00\x00\xff.', 'UnicodeDecodeError'),
        (b'\x8a\xff\x01.', 'ValueError'),
    ],
)
def test_other_instructions_are_refused(program, reason, path, refused):
    save_program(path, program)
    refused(reason)


def test_state_stays_in_the_namespace_and_leaves_dicts_alone(path):
    harmful = {'__class__': 1, '__setstate__': 2, '__dict__': {'x': 3}}
    read = pth.read(
        save(
            path,
            [
                Call(Global('argparse', 'Namespace'), state=dict(harmful)),
                Call(Global('collections', 'OrderedDict'), state=harmful),
            ],
        )
    )
    assert vars(read[0]) == harmful and type(read[0]) is types.SimpleNamespace
    assert vars(read[1]) == {} and type(read[1]) is OrderedDict


LONG = b'](' + b'K\x01' * 5000 + b'eq\x01'


@pytest.mark.parametrize(
    'program',
    [
        b'cbuiltins\nset\nq\x00' + LONG + b'h\x00h\x01\x85R' * 1000 + b'.',
        NAMESPACE
        + b'q\x00}('
        + b''.join(b'X\x04\x00\x00\x00%04dK\x01' % i for i in range(5000))
        + b'uq\x01'
        + b'h\x00)\x81h\x01b' * 5000
        + b'.',
        b'c_codecs\nencode\nq\x00X\x00\x00\x01\x00'
        + b'a' * 2**16
        + b'q\x01X\x06\x00\x00\x00latin1q\x02'
        + b'h\x00h\x01h\x02\x86R' * 1000
        + b'.',
    ],
)
def test_small_pickles_cannot_create_large_objects(program, path, refused):
    save_program(path, program)
    refused('creates more than its .* bytes can describe')


def test_shared_parts_and_high_memo_numbers_take_no_memory(path):
    save_program(path, b'K\x01' + b'q\x01h\x01\x86' * 1000 + b'r\xff\xff\xff\x7f.')
    tracemalloc.start()
    assert len(pth.read(path)) == 2 and tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(
    'program',
    [
        b'}K\x01' + 60 * b'q\x01h\x01\x86' + b'K\x01s.',
        b'c_codecs\nencode\nX\x00\x00\x00\x00K\x01' + 60 * b'q\x01h\x01\x86' + b'\x86R.',
        TENSOR[: TENSOR.index(b'K\x00')] + b'K\x00K\x01' + 60 * b'q\x01h\x01\x86' + b'q\x01h\x01\x89Nt' + b'R.',
    ],
)
def test_nested_tuples_are_neither_hashed_nor_printed(program, path, refused):
    save_program(path, program)
    refused('tuple where|dict where')


NUMBERS = Storage(np.zeros(4, np.float32))


@BOTH
@pytest.mark.parametrize(
    'thing, reason',
    [
        (tensor(np.zeros(4)).parts[1][0], None),
        (
            view(Storage(np.zeros(4, np.float32), numel=2**40), 0, (2,), (1,)),
            '(data/0|storage 94160492015664) should hold 1099511627776 numbers of float32, but has (4, of )?16 bytes',
        ),
        (view(Storage(np.zeros(4), numel=3), 0, (2,), (1,)), 'should hold 3 numbers of float64'),
        (view(Storage(np.zeros(4), numel=-1), 0, (2,), (1,)), 'should hold -1'),
        (view(Storage(np.zeros(4), numel=4.0), 0, (2,), (1,)), 'float where int'),
        (
            view(NUMBERS, 0, (5,), (1,)),
            r'size \(5,\) reaches to number 4 of (data/0|storage 94160492015664), which has 4',
        ),
        (view(NUMBERS, 1, (2, 2), (2, 1)), 'reaches to number 4'),
        (view(NUMBERS, 4, (), ()), 'reaches to number 4'),
        (view(NUMBERS, 2**70, (1,), (1,)), 'reaches to number 1180591620717411303424'),
        (view(NUMBERS, 3, (2,), (-1,)), 'no possible'),
        (view(NUMBERS, -1, (2,), (1,)), 'no possible'),
        (view(NUMBERS, 0, (-2,), (1,)), 'no possible'),
        (view(NUMBERS, 0, (2, 2), (1,)), 'no possible'),
        (view(NUMBERS, 0, (1,) * 65, (1,) * 65), 'no possible'),
        (view(NUMBERS, True, (2,), (1,)), 'bool where int'),
        (view(NUMBERS, 0, [2], (1,)), 'list where tuple'),
        (view(NUMBERS, 0, (2.0,), (1,)), 'float where int'),
        (view(NUMBERS, 0, (2**40, 2**40), (0, 0)), 'too big'),
        (view(NUMBERS, 0, (0, 2**62), (1, 1)), 'too big'),
        (view(NUMBERS, 0, (1,), (2**70,)), 'OverflowError|ValueError'),
        (view(tensor(np.zeros(4)), 0, (2,), (1,)), 'ndarray where _Storage'),
        (view(NUMBERS, 0, (2,), (1,), {'conj': True}), 'conjugated'),
        (Call(Global('torch._utils', '_rebuild_parameter'), 'x', True, None), 'str where ndarray'),
    ],
)
def test_impossible_tensors_are_refused(thing, reason, save, path, refused):
    save(path, {'model': thing})
    if reason:
        refused(reason)
    else:  # A bare storage is harmless, and no tensor.
        with pytest.raises(ValueError, match='no state dict'):
            pth.state_dict(path)


@pytest.mark.parametrize('key', ['7', '../data.pkl', 'a\x1b[31m'])
def test_missing_storages_are_named(key, path, refused):
    save(path, {'w': view(Storage(np.zeros(4), key=key), 0, (2,), (1,))})
    refused(re.escape(f'{"data/" + key!r} is missing'))


GOOD = pickled({'w': tensor(np.zeros(4, np.float32))})
GOOD = {'data.pkl': GOOD[0], 'data/0': bytes(16)}


def tar(path):
    with tarfile.open(path, 'w') as archive:
        archive.addfile(tarfile.TarInfo('storages'), io.BytesIO())


def bomb(path):
    pack(path, GOOD | {'data/1': bytes(2**24)}, compression=zipfile.ZIP_DEFLATED)


def stored_bomb(path):
    pack(path, GOOD)
    _patch(path, b'PK\1\2', 20, struct.pack('<II', 2**31, 2**31))


def moved(path):
    pack(path, GOOD)
    _patch(path, b'PK\1\2', 42, struct.pack('<I', 3))


def beyond(path):
    pack(path, GOOD)
    _patch(path, b'PK\3\4', 28, b'\xff\xff')


def encrypted(path):
    pack(path, GOOD)
    _patch(path, b'PK\1\2', 8, b'\1')


def _patch(path, mark, offset, data):
    whole = bytearray(path.read_bytes())
    start = whole.index(mark) + offset
    whole[start : start + len(data)] = data
    path.write_bytes(whole)


def twice(path):
    with pytest.warns(UserWarning, match='Duplicate'), zipfile.ZipFile(path, 'w') as archive:
        for data in (b'K\1.', b'K\2.'):
            archive.writestr('archive/data.pkl', data)


def two_tops(path):
    pack(path, GOOD)
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr('other/data.pkl', b'K\1.')


def cut(path):
    pack(path, GOOD)
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    'make, reason',
    [
        (tar, 'a tar, .* before PyTorch 1.6 .*Load it with PyTorch and save it again'),
        (lambda path: path.write_bytes(b''), 'is empty'),
        (lambda path: path.write_bytes(b'PK'), 'cut off'),
        (lambda path: path.write_bytes(b'<html>404</html>'), "starts with b'<html>40"),
        (cut, 'cut off'),
        (bomb, r'claim 1677\d+ bytes, the whole file has \d+\.'),
        (stored_bomb, r'claim 21474\d+ bytes'),
        (lambda path: pack(path, GOOD, compression=zipfile.ZIP_DEFLATED), 'compressed or encrypted.*zip -0'),
        (encrypted, 'compressed or encrypted'),
        (moved, 'not where the zip says'),
        (beyond, 'beyond the end'),
        (lambda path: pack(path, GOOD | {'../../ran': b''}), "member 'archive/../../ran' is no plain path"),
        (lambda path: pack(path, GOOD, top='/tmp'), "'/tmp/data.pkl' is no plain path"),
        (lambda path: pack(path, GOOD, top='..'), 'no plain path'),
        (lambda path: pack(path, GOOD, top='C:\\x'), 'no plain path'),
        (lambda path: pack(path, GOOD | {'data/': b''}), 'no plain path'),
        (twice, 'is there twice'),
        (two_tops, r"data.pkl in it, this \['archive', 'other'\]"),
        (lambda path: pack(path, {'data/0': b'1234'}), 'not of torch.save'),
        (lambda path: pack(path, {}), 'not of torch'),
        (lambda path: pack(path, GOOD | {'byteorder': b'big'}), "byte order is b'big'"),
        (lambda path: pack(path, {'data.pkl': bytes(2**23 + 1)}), 'data.pkl has 8388609 bytes'),
    ],
    ids=lambda x: getattr(x, '__name__', None),
)
def test_other_files_are_refused(make, reason, path, refused):
    make(path)
    refused(reason)


def test_a_member_with_flipped_bits_is_named(path, refused):
    numbers = np.arange(1000, dtype=np.float32)
    save(path, {'w': tensor(numbers), 'b': tensor(numbers[:10])})
    whole = bytearray(path.read_bytes())
    whole[whole.index(numbers.tobytes()) + 403] ^= 0x40
    path.write_bytes(whole)
    refused("member 'archive/data/0' is damaged")


def test_checksums_that_torch_left_out_are_not_compared(path):
    save(path, {'w': tensor(np.arange(4, dtype=np.float32))})
    with zipfile.ZipFile(path) as archive:
        sums = [struct.pack('<I', info.CRC) for info in archive.infolist()]
    whole = path.read_bytes()
    for value in sums:  # in its two places
        whole = whole.replace(value, bytes(4))
    path.write_bytes(whole)
    same(pth.read(path)['w'], np.arange(4, dtype=np.float32))


W = tensor(np.arange(4, dtype=np.float32))
KEY = b'94160492015664'


def test_legacy_storages_may_be_views(path):
    numbers = np.arange(10, dtype=np.float32)
    read = pth.read(
        save_legacy(path, [view(Part(whole := Storage(numbers), 3, 4), 1, (3,), (1,)), view(whole, 0, (10,), (1,))])
    )
    same(read[0], numbers[4:7])
    same(read[1], numbers)


@pytest.mark.parametrize('offset, size', [(7, 4), (-1, 2), (2, -1), (2**70, 1)])
def test_a_part_must_lie_in_its_storage(offset, size, path, refused):
    save_legacy(path, [view(Part(Storage(np.zeros(10)), offset, size), 0, (1,), (1,))])
    refused('view of its storage 94160492015664 reaches beyond')


def test_a_tensor_must_lie_in_its_part(path, refused):
    save_legacy(path, [view(Part(Storage(np.zeros(10)), 3, 4), 1, (4,), (1,))])
    refused(r'size \(4,\) reaches to number 4 of storage 94160492015664, which has 4')


def test_old_tensors_and_strings_of_python_2(path):
    first = Call(Global('torch._utils', '_rebuild_tensor'), Storage(np.arange(4)), 0, (2, 2), (2, 1))
    same(pth.read(save_legacy(path, [first]))[0], np.arange(4).reshape(2, 2))
    save_program(path, ORDERED + b'](](U\x01aK\x05e](T\x01\x00\x00\x00bK\x06ee\x85R.')
    assert pth.read(path) == OrderedDict(a=5, b=6)


@pytest.mark.parametrize(
    'options, reason',
    [
        ({'version': 1000}, 'version 1000 of its format; only 1001'),
        ({'version': '1001'}, "version '1001'"),
        ({'little': False}, 'another byte order'),
        ({'little': None}, 'another byte order'),
        ({'keys': []}, 'list of storages is not that of its tensors'),
        ({'keys': ['x']}, 'list of storages'),
        ({'keys': [KEY.decode()] * 2}, 'list of storages'),
        ({'keys': [KEY.decode(), 'x']}, 'list of storages'),
        ({'keys': (KEY.decode(),)}, 'tuple where list'),
        ({'keys': [[1]]}, 'list where str'),
    ],
)
def test_invalid_legacy_files_are_refused(options, reason, path, refused):
    save_legacy(path, {'w': W}, **options)
    refused(reason)


@pytest.mark.parametrize(
    'old, new, reason',
    [
        (struct.pack('<qf', 4, 0), struct.pack('<qf', 5, 0), 'should hold 4 numbers of float32, but has 5'),
        (struct.pack('<qf', 4, 0), struct.pack('<qf', -1, 0), 'should hold 4 .* but has 18446744073709551615'),
        (struct.pack('<f', 3), b'', 'should hold 4 numbers of float32, but has 4, of 12 bytes'),
        (b'little_endian', b'little_Endian', 'another byte order'),
    ],
)
def test_damaged_legacy_files(old, new, reason, path, refused):
    whole = save_legacy(path, {'w': W}).read_bytes()
    assert whole.count(old) == 1
    path.write_bytes(whole.replace(old, new))
    refused(reason)


def test_legacy_storages_with_two_types_or_sizes_are_refused(path, refused):
    for other in (Storage(np.zeros(4, np.int32), key='a'), Storage(np.zeros(4, np.float32), numel=3, key='a')):
        save_legacy(path, [view(Storage(np.zeros(4, np.float32), key='a'), 0, (4,), (1,)), view(other, 0, (2,), (1,))])
        refused('storage a is there with several types or sizes')


def test_tensors_under_several_entries_carry_their_names(path):
    numbers, written = a_state_dict()
    read = pth.state_dict(
        save(
            path,
            {
                'model': written,
                'ema': {'decay': 0.9, 'shadow': OrderedDict(written)},
                'again': written,
                'optimizer': {'state': {0: {'step': tensor(np.ones(1))}}},
                'rng': {'cpu': tensor(np.ones(3, np.uint8))},
            },
        )
    )
    assert list(read) == [
        f'{entry}.{name}'
        for entry, inside in (('model', numbers), ('rng', ['cpu']), ('ema.shadow', numbers))
        for name in inside
    ]
    same(read['ema.shadow.head.bias'], numbers['head.bias'])
    ring = {'w': W}
    ring['self'] = ring
    assert list(pth.state_dict(save(path, ring))) == ['w']
    with pytest.raises(ValueError, match="tensor 'a.b' twice"):
        pth.state_dict(save(path, {'a.b': W, 'a': {'b': W}}))
    deep = {'w': W}
    for name in 'abcd':
        deep = {name: deep}
    assert list(pth.state_dict(save(path, deep))) == ['w']
    with pytest.raises(ValueError, match='no state dict'):
        pth.state_dict(save(path, {'e': deep}))


COLLIDING = 2**61 - 1  # numbers that differ by it have one hash
LIMITS = [
    (
        b'}(' + b''.join(b'\x8a\x0a' + (i * COLLIDING).to_bytes(10, 'little') + b'N' for i in range(1, 5000)) + b'u.',
        'more than 4096 large numbers',
    ),
    (
        b'}(' + b''.join(b'G' + struct.pack('>d', 2.0**61 * i) + b'N' for i in range(1, 5000)) + b'u.',
        'more than 4096 large numbers',
    ),
    (b'cbuiltins\nset\n](J' + struct.pack('<i', 2**16) + b'e\x85R.', 'large numbers in a set'),
    (b'cbuiltins\nset\n](J' + struct.pack('<i', -(2**16)) + b'e\x85R.', 'large numbers in a set'),
]


@pytest.mark.parametrize('program, reason', LIMITS, ids=['integers', 'floats', 'set', 'negative'])
def test_slow_pickles_are_refused(program, reason, path):
    save_program(path, program)
    with pytest.raises(ValueError, match=reason):
        pth.read(path)


def test_pickles_with_too_many_instructions_are_refused(path, monkeypatch):
    assert torch_pickle._MOST_INSTRUCTIONS <= 2**21  # which take seconds
    monkeypatch.setattr(torch_pickle, '_MOST_INSTRUCTIONS', 100)
    assert pth.read(save_program(path, b'N' * 99 + b'.')) is None
    save_program(path, b'N' * 100 + b'.')
    with pytest.raises(ValueError, match='more than 100 instructions'):
        pth.read(path)


def test_numbers_as_keys_up_to_the_limits(path):
    """Optimizers once had the addresses of their parameters for keys."""
    keys = [2**16 - 1, 1 - 2**16, *(140234866534752 + 64 * i for i in range(4096)), *range(5000)]
    assert list(pth.read(save(path, dict.fromkeys(keys)))) == keys
    assert pth.read(save(path, {65535, -65535})) == {65535, -65535}


def test_the_names_that_a_pickle_can_use():
    assert set(pth._NAMES) == {
        'torch._utils _rebuild_tensor',
        'torch._utils _rebuild_tensor_v2',
        'torch._utils _rebuild_parameter',
        'torch Size',
        'torch device',
        'collections OrderedDict',
        'collections Counter',
        'argparse Namespace',
        '_codecs encode',
        'builtins set',
        '__builtin__ set',
        *(f'torch {kind}Storage' for kind in DTYPES),
    }
    for name, value in pth._NAMES.items():  # dtypes, and functions of the reader itself
        assert isinstance(value, np.dtype) == name.endswith('Storage')
        assert isinstance(value, np.dtype) or value.__module__ == pth.__name__


def test_a_zip_with_a_huge_list_of_members_is_refused(path, refused):
    pack(path, GOOD)
    _patch(path, b'PK\5\6', 12, struct.pack('<I', 2**24 + 1))
    with open(path, 'r+b') as file:  # so long that there may be such a list
        end = file.read()[-22:]
        file.truncate(2**25)
        file.seek(0, os.SEEK_END)
        file.write(end)
    refused('list of members has 16777217 bytes')


@pytest.mark.parametrize('make, kind', [(os.mkdir, 'folder'), (os.mkfifo, 'pipe')])
def test_pipes_and_devices_are_refused(make, kind, path):
    make(path)
    with pytest.raises(ValueError, match=f'model.pth: is a {kind}, not a file'):
        pth.read(path)


def damaged(good, rng):
    """Bytes changed, taken out, put in twice, or cut off."""
    bad, at, length = bytearray(good), rng.integers(len(good)), rng.integers(1, 20)
    match rng.integers(4):
        case 0:
            for place in rng.integers(len(bad), size=rng.integers(1, 4)):
                bad[place] = rng.choice([rng.integers(256), bad[rng.integers(len(bad))]])
        case 1:
            del bad[at : at + length]
        case 2:
            bad[at:at] = bad[at - length : at]
        case 3:
            del bad[at:]
    return bytes(bad)


@pytest.mark.parametrize('kind', ['zip', 'pickle', 'legacy'])
def test_damaged_files_raise_clear_errors(kind, path):
    """It reads or is refused, and never does anything else."""
    rng = np.random.default_rng(0)
    thing = {'model': a_state_dict()[1], 'args': argparse.Namespace(lr=1e-4), 'device': {1, 'a'}}
    good = (save_legacy if kind == 'legacy' else save)(path, thing).read_bytes()
    if kind == 'pickle':  # whose checksum fits afterwards
        with zipfile.ZipFile(path) as archive:
            members = {name.removeprefix('archive/'): archive.read(name) for name in archive.namelist()}
    refusals = 0
    for _ in range(700):
        if kind == 'pickle':
            pack(path, members | {'data.pkl': damaged(members['data.pkl'], rng)})
        else:
            path.write_bytes(damaged(good, rng))
        try:
            read = pth.state_dict(path)
            assert sum(x.size for x in read.values() if x.strides != (0,) * x.ndim) < 2**20
        except ValueError as error:
            assert str(path) in str(error)
            refusals += 1
    assert refusals > 100


INSTRUCTIONS = [code.encode('latin1') for code in '}]()NQR0Ktaeu\x81\x85\x86\x87\x88\x89bs2.'] + [
    b'K\x01',
    b'X\x01\x00\x00\x00a',
    b'q\x01',
    b'h\x01',
    b'J\xff\xff\xff\x7f',
    b'G' + bytes(8),
    b'\x8a\x02ab',
    TENSOR,
    NAMESPACE,
    ORDERED,
    *(f'c{name}\n'.replace(' ', '\n').encode() for name in pth._NAMES),
]


@given(st.lists(st.sampled_from(INSTRUCTIONS), max_size=30))
def test_random_pickles_are_read_or_refused(tmp_path_factory, program):
    path = save_program(tmp_path_factory.getbasetemp() / 'program.pth', b''.join(program) + b'.')
    try:
        pth.state_dict(path)
    except ValueError as error:
        assert str(path) in str(error)
