"""PyTorch checkpoints without PyTorch, and without running what they ask for.

A .pth has raw storages and a pickle that says which tensor is which part of which storage: in a zip since PyTorch 1.6,
one after the other before. A pickle is a program that may call whatever it names, and Python's unpickler does that. The
machine here knows the instructions that torch.save writes and no more, finds names in a table of its own and imports
nothing.
"""
from collections import OrderedDict, deque
import errno
import io
import os
import pathlib
import pickletools
import struct
import types
from typing import NamedTuple
import zipfile
import zlib

import ml_dtypes
import numpy as np

from sgmg_jax import files

# Real ones take a few hundred bytes and some forty instructions a tensor. What one makes takes up to eighty times its
# size in memory.
_LARGEST_PICKLE = 8 * 2 ** 20
_MOST_INSTRUCTIONS = 2 ** 21
_LARGEST_DIRECTORY = 2 ** 24  # bytes of a zip's list of members
_LEGACY = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'  # a number, pickled
_LEGACY_VERSION = 1001
_EMPTY = {'NONE': type(None), 'NEWFALSE': bool, 'NEWTRUE': lambda: True,
          'EMPTY_DICT': dict, 'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple}
_KEYS = (str, int, float, bool, bytes, type(None))
# Python hashes a number by its value, so that one can choose many of one hash; text and bytes with a secret. Optimizers
# once had the addresses of their parameters for keys.
_SMALL, _MOST_LARGE_KEYS = 2 ** 16, 2 ** 12
_DEPTH = 4  # of dicts in dicts that may hold a model

_FETCH = 'Copy or download it again.'
_BARE = 'save the bare state dict again, torch.save(model.state_dict(), path).'
_SAVE = f'If you trust the file, load it with PyTorch and {_BARE}'
_NEWER = ('Load it with PyTorch and save it again: '
          'torch.save(torch.load(old, map_location="cpu", weights_only=True), new).')


class _Unfit(Exception):
    """Why a file is refused and how to mend that, still without its name."""


class _Storage(NamedTuple):
    name: str
    data: np.ndarray | None  # uint8; None: not known yet
    dtype: np.dtype


def is_checkpoint(start: bytes) -> bool:
    """Whether a file that begins so (512 bytes of it) can be of torch.save."""
    return start.startswith((b'PK', _LEGACY)) or start[257:262] == b'ustar'


def read(path: str | os.PathLike) -> object:
    """The object in a file of torch.save, in the zip format that it writes since PyTorch 1.6 or the one before.

    Tensors and parameters are read-only arrays, parts of the file mapped into memory: nothing is copied, so the
    file must not change while they live, and an expanded tensor has stride 0. OrderedDicts stay what they are,
    less PyTorch's _metadata, a Counter is a dict, an argparse.Namespace a types.SimpleNamespace, a torch.Size a
    tuple, a torch.device a str. A zip's checksums are compared, unless torch.save left them out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such checkpoint, is damaged, or asks for more than tensors and plain
          containers. Nothing that it asks for is run or allocated before it is refused.
    """
    path = pathlib.Path(path)
    try:
        files.check_regular(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{path}: no such checkpoint. Check the path, or download the file first.') from error
    try:
        with _File(path) as file:
            if not file.seek(0, os.SEEK_END):
                raise _Unfit(f'the file is empty. {_FETCH}')
            memory = np.asarray(np.memmap(file, np.uint8, 'r'))
            start = memory[:512].tobytes()
            if start.startswith(_LEGACY):
                return _read_legacy(memory)
            if start[257:262] == b'ustar':
                raise _Unfit('is a tar, the format from long before PyTorch 1.6 (0.1.10), which cannot be read here. '
                             f'{_NEWER}')
            if not start.startswith(b'PK'):
                raise _Unfit(f'is no checkpoint of torch.save: it starts with {start[:8]!r}. {_FETCH}')
            return _read_zip(_members(file, memory))
    except _Unfit as error:
        raise ValueError(f'{path}: {error}') from error
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise ValueError(f'{path}: its pickle is none that torch.save writes, or damaged '
                         f'({type(error).__name__}: {error!s:.100}). {_FETCH} {_SAVE}') from error


def state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All tensors of a file of torch.save that names lead to: name -> read-only array, as of `read`.

    The file may hold the state dict itself or have it as an entry, such as 'model'. Where it has tensors in several
    entries, such as 'model' and 'ema', every name begins with that of its entry: 'ema.head.weight'.

    Raises:
        FileNotFoundError, ValueError: as `read`; and ValueError if there is no tensor, with what there is.
    """
    whole = read(path)
    groups, seen, todo = {}, set(), deque([((), whole)] if isinstance(whole, dict) else [])
    while todo:
        place, entries = todo.popleft()
        if id(entries) in seen:  # One dict may be there under several names, and in itself.
            continue
        seen.add(id(entries))
        for name, x in entries.items():
            if isinstance(name, str) and isinstance(x, np.ndarray):
                groups.setdefault(place, {})[name] = x
            elif isinstance(name, str) and isinstance(x, dict) and len(place) < _DEPTH:
                todo.append(((*place, name), x))
    if len(groups) == 1:
        return next(iter(groups.values()))
    found = {}
    for place, tensors in groups.items():
        for name, x in tensors.items():
            name = '.'.join([*place, name])
            if name in found:
                raise ValueError(f'{path}: has the tensor {name!r:.80} twice, in different entries. {_SAVE}')
            found[name] = x
    if found:
        return found
    entries = list(whole) if isinstance(whole, dict) else []
    keys = [f'{key!r:.60}' for key in entries[:10]] + ['...'] * (len(entries) > 10)
    raise ValueError(f'{path}: holds no state dict, neither itself nor as one of its entries, but a '
                     f'{type(whole).__name__} with the keys [{", ".join(keys)}]. If the model is among them, load '
                     f'it with PyTorch and {_BARE}')


class _File(io.FileIO):
    def read(self, size=-1):
        if size > _LARGEST_DIRECTORY:  # zipfile reads it at once, and makes twenty times as much of it.
            raise _Unfit(f'its list of members has {size} bytes, at most {_LARGEST_DIRECTORY} are read. {_FETCH}')
        return super().read(size)


def _members(file, memory):
    """Name, less the folder that all are in -> its bytes, a view of `memory`."""
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # That is a seek to where a damaged zip says.
            raise
        raise _Unfit(f'is a zip cut off or damaged ({error}). {_FETCH}') from error

    members, claimed, summed = {}, sum(info.file_size for info in infos), any(info.CRC for info in infos)
    if claimed > len(memory):
        raise _Unfit(f'its members claim {claimed} bytes, the whole file has {len(memory)}. {_FETCH}')
    for info in infos:
        name = info.orig_filename
        if '\\' in name or '\0' in name or {'', '.', '..'} & set(name.split('/')):
            raise _Unfit(f'member {name!r:.80} is no plain path inside the zip. {_SAVE}')
        if name in members:
            raise _Unfit(f'member {name!r:.80} is there twice. {_SAVE}')
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
            raise _Unfit(f'member {name!r:.80} is compressed or encrypted, which torch.save never does. Unpack the '
                         'zip and pack it again without compression (zip -0 -r -D).')
        offset = info.header_offset
        header = memory[max(offset, 0):][:30].tobytes()
        if offset < 0 or len(header) < 30 or not header.startswith(b'PK\3\4'):
            raise _Unfit(f'member {name!r:.80} is not where the zip says. {_FETCH}')
        # The local header may be padded otherwise than the central one: torch.save aligns with it.
        offset += 30 + sum(struct.unpack('<HH', header[26:]))
        members[name] = memory[offset:offset + info.file_size]
        if len(members[name]) < info.file_size:
            raise _Unfit(f'member {name!r:.80} reaches beyond the end of the file. {_FETCH}')
        if summed and zlib.crc32(members[name]) != info.CRC:  # torch.save can leave them out: all are 0 then.
            raise _Unfit(f'member {name!r:.80} is damaged: its checksum is not that of its bytes. {_FETCH}')

    tops = sorted({name.split('/')[0] for name in members})
    if len(tops) != 1 or f'{tops[0]}/data.pkl' not in members:
        raise _Unfit(f'is a zip, but not of torch.save: that has one folder at its top with data.pkl in it, this '
                     f'{tops[:5]!r:.200}. {_FETCH}')
    return {name.removeprefix(tops[0] + '/'): data for name, data in members.items()}


def _read_zip(members):
    order = members.get('byteorder', np.frombuffer(b'little', np.uint8))[:20].tobytes()
    if order != b'little':
        raise _Unfit(f'its byte order is {order!r}, only little is read here. {_SAVE}')
    if len(members['data.pkl']) > _LARGEST_PICKLE:
        raise _Unfit(f'its data.pkl has {len(members["data.pkl"])} bytes, {_LARGEST_PICKLE} at most are read: the '
                     f'numbers should be beside it, not in it. {_SAVE}')

    def storage(kind, dtype, key, location, numel):
        name = 'data/' + _key_of_storage(kind, dtype, key)
        if name not in members:
            raise _Unfit(f'its {name!r:.80} is missing. {_FETCH}')
        if _of(numel, int) != len(members[name]) // dtype.itemsize:
            raise _Unfit(f'its {_shown(name)} should hold {numel} numbers of {dtype.name}, but has '
                         f'{len(members[name])} bytes. {_FETCH}')
        return _Storage(_shown(name), members[name], dtype)

    return _run(io.BytesIO(members['data.pkl'].tobytes()), storage)


def _read_legacy(memory):
    """Five pickles (a number, a version, facts of the system, the object, the keys of its storages), then each
    storage's bytes behind how many numbers they are."""
    def run(start, storage=None):
        program = io.BytesIO(memory[start:start + _LARGEST_PICKLE].tobytes())
        return _run(program, storage), start + program.tell()

    version, start = run(len(_LEGACY))
    system, start = run(start)
    if version != _LEGACY_VERSION:
        raise _Unfit(f'has version {version!r:.20} of its format, only {_LEGACY_VERSION} is known. {_NEWER}')
    if _of(system, dict).get('little_endian') is not True:
        raise _Unfit(f'was written on a machine of another byte order than little. {_NEWER}')

    # Where the storages are follows from all their types, which only the object tells: it is made twice.
    kinds, sizes = {}, {}

    def learn(kind, dtype, key, location, numel, view=None):
        key = _key_of_storage(kind, dtype, key)
        if kinds.setdefault(key, dtype) != dtype or sizes.setdefault(key, _of(numel, int)) != numel:
            raise _Unfit(f'its storage {_shown(key)} is there with several types or sizes. {_SAVE}')
        return _Storage(f'storage {_shown(key)}', None, dtype)

    at = start
    _, start = run(at, learn)
    keys, start = run(start)
    if len({_of(key, str) for key in _of(keys, list)}) != len(keys) or set(keys) != set(kinds):
        raise _Unfit(f'its list of storages is not that of its tensors. {_FETCH}')
    data = {}
    for key in keys:
        count = int.from_bytes(memory[start:start + 8].tobytes(), 'little')
        data[key] = memory[start + 8:start + 8 + count * kinds[key].itemsize]
        start += 8 + count * kinds[key].itemsize
        if count != sizes[key] or start > len(memory):
            raise _Unfit(f'its storage {_shown(key)} should hold {sizes[key]} numbers of {kinds[key].name}, but has '
                         f'{count}, of {len(data[key])} bytes. {_FETCH}')

    def storage(kind, dtype, key, location, numel, view=None):
        if view is None:
            return _Storage(f'storage {_shown(key)}', data[key], dtype)
        _, offset, size = _of(view, tuple)
        if min(_of(offset, int), _of(size, int)) < 0 or offset + size > numel:
            raise _Unfit(f'a view of its storage {_shown(key)} reaches beyond it. {_FETCH}')
        part = data[key][offset * dtype.itemsize:(offset + size) * dtype.itemsize]
        return _Storage(f'storage {_shown(key)}', part, dtype)

    return run(at, storage)[0]


def _run(program, storage=None):
    """What a pickle describes, by the instructions that torch.save writes.

    Args:
        program: io.BytesIO; stands behind the pickle's end afterwards.
        storage: what a storage's description becomes; None: there are none.
    """
    stack, marks, memo = [], [], {}
    length, copied, large = len(program.getbuffer()), 0, 0

    def above_mark():
        mark = marks.pop()
        values = stack[mark:]
        del stack[mark:]
        return values

    def count(values):
        # A few bytes could have a long list, written once, copied again and again.
        nonlocal copied
        copied += len(values)
        if copied > length:
            raise _Unfit(f'its pickle makes more than its {length} bytes can describe. {_SAVE}')

    def key(value):
        nonlocal large
        large += _is_large(_of(value, *_KEYS))
        if large > _MOST_LARGE_KEYS:
            raise _Unfit(f'its pickle has more than {_MOST_LARGE_KEYS} large numbers as keys. {_SAVE}')
        return value

    for number, (instruction, value, _) in enumerate(pickletools.genops(program)):
        if number == _MOST_INSTRUCTIONS:
            raise _Unfit(f'its pickle has more than {_MOST_INSTRUCTIONS} instructions. {_SAVE}')
        match instruction.name:
            case 'PROTO' if value == 2:
                pass
            # Python 2 wrote text as the strings.
            case ('BINUNICODE' | 'BININT' | 'BININT1' | 'BININT2' | 'LONG1' | 'BINFLOAT' | 'BINSTRING'
                  | 'SHORT_BINSTRING'):
                stack.append(value)
            case name if name in _EMPTY:
                stack.append(_EMPTY[name]())
            case 'MARK':
                marks.append(len(stack))
            case 'BINPUT' | 'LONG_BINPUT':
                memo[value] = stack[-1]
            case 'BINGET' | 'LONG_BINGET':
                stack.append(memo[value])
            case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
                stack.append(tuple([stack.pop() for _ in range(int(instruction.name[-1]))][::-1]))
            case 'TUPLE':
                stack.append(tuple(above_mark()))
            case 'APPEND' | 'APPENDS':
                values = [stack.pop()] if instruction.name == 'APPEND' else above_mark()
                _of(stack[-1], list).extend(values)
            case 'SETITEM' | 'SETITEMS':
                values = [stack.pop(), stack.pop()][::-1] if instruction.name == 'SETITEM' else above_mark()
                target = _of(stack[-1], dict, OrderedDict)
                for name, item in zip(values[::2], values[1::2], strict=True):
                    target[key(name)] = item
            case 'GLOBAL':
                if value not in _NAMES:
                    raise _Unfit(f'its pickle asks for {_shown(value.replace(" ", "."))}, which tensors '
                                 f'do not need and which could run anything. Nothing was run. {_SAVE}')
                stack.append(_NAMES[value])
            case 'BINPERSID' if storage:
                stack.append(storage(*_of(stack.pop(), tuple)))
            case 'REDUCE' | 'NEWOBJ':
                values, make = _of(stack.pop(), tuple), _of(stack.pop(), types.FunctionType)
                for x in values:
                    if isinstance(x, (str, tuple, list, dict)):
                        count(x)
                stack.append(make(*values))
            case 'BUILD':
                state, target = _of(stack.pop(), dict), _of(stack[-1], OrderedDict, types.SimpleNamespace)
                count(state)
                if isinstance(target, types.SimpleNamespace):  # That of an OrderedDict is PyTorch's _metadata.
                    vars(target).update({_of(name, str): item for name, item in state.items()})
            case 'STOP':
                return stack.pop()
            case name:
                raise _Unfit(f'its pickle has the instruction {name}{"" if value is None else f" {value!r:.80}"}, '
                             'which torch.save does not write by itself (it writes pickle protocol 2). Nothing was '
                             f'run. {_SAVE}')


def _of(value, *kinds):
    """`value`, if of one of these very types. Of others even a hash or a repr could take forever."""
    if type(value) not in kinds:
        raise TypeError(f'{type(value).__name__} where {kinds[0].__name__} belongs')
    return value


def _shown(name):
    return files.printable(name[:80])


def _is_large(key):
    return type(key) is float or type(key) is int and abs(key) >= _SMALL


def _key_of_storage(kind, dtype, key):
    if kind != 'storage' or not isinstance(dtype, np.dtype):
        raise _Unfit(f'its pickle refers to what is no storage of a known type. {_SAVE}')
    return _of(key, str)


def _tensor(storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None):
    name, data, dtype = _of(storage, _Storage)
    if data is None:
        return np.zeros(0, dtype)
    if metadata:
        raise _Unfit(f'a tensor in {name} is conjugated or negated only when it is used. Call resolve_conj() and '
                     f'resolve_neg() on it and {_BARE}')
    numbers = [offset, *_of(size, tuple), *_of(stride, tuple)]
    if min(_of(n, int) for n in numbers) < 0 or len(size) != len(stride) or len(size) > 64:
        raise _Unfit(f'a tensor in {name} has no possible offset, size and stride: {numbers!r:.200}. {_SAVE}')
    if 0 in size:
        return np.zeros(size, dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    if last >= len(data) // dtype.itemsize:
        raise _Unfit(f'a tensor of size {size!r:.200} reaches to number {last!r:.40} of {name}, which has '
                     f'{len(data) // dtype.itemsize}. {_FETCH}')
    # NumPy checks these bounds once more.
    return np.ndarray(size, dtype, data, offset * dtype.itemsize, tuple(step * dtype.itemsize for step in stride))


def _encode(text, encoding):
    if _of(encoding, str) != 'latin1':
        raise _Unfit(f'its pickle asks for the codec {encoding!r:.80}, only latin1 is known. {_SAVE}')
    return _of(text, str).encode('latin1')


def _set(values):
    for value in _of(values, list):
        if _is_large(_of(value, *_KEYS)):
            raise _Unfit(f'its pickle has large numbers in a set. {_SAVE}')
    return set(values)


def _ordered(items=()):
    """Of Python 2, with the pairs that it begins with, each a list."""
    return OrderedDict((_of(name, str), item) for name, item in (_of(pair, list) for pair in items))


# All that a pickle can name: dtypes, and functions of this file that make plain values from plain values.
_NAMES = {
    'torch._utils _rebuild_tensor': lambda storage, offset, size, stride: _tensor(storage, offset, size, stride),
    'torch._utils _rebuild_tensor_v2': _tensor,
    'torch._utils _rebuild_parameter': lambda data, requires_grad, hooks: _of(data, np.ndarray),
    'torch Size': lambda size: _of(size, tuple),
    'torch device': lambda kind, *index: ':'.join([_of(kind, str), *(str(_of(i, int)) for i in index)]),
    'collections OrderedDict': _ordered,
    'collections Counter': lambda counts: dict(_of(counts, dict)),  # The milestones of a MultiStepLR.
    'argparse Namespace': lambda: types.SimpleNamespace(),
    '_codecs encode': _encode,
    'builtins set': _set,
    '__builtin__ set': _set,
} | {f'torch {name}Storage': np.dtype(dtype) for name, dtype in {
    'Double': '<f8', 'Float': '<f4', 'Half': '<f2', 'BFloat16': ml_dtypes.bfloat16, 'ComplexDouble': '<c16',
    'ComplexFloat': '<c8', 'Long': '<i8', 'Int': '<i4', 'Short': '<i2', 'Char': 'i1', 'Byte': 'u1', 'Bool': '?',
}.items()}
