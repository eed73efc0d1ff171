"""PyTorch checkpoints without PyTorch, and without running what they ask for.

A .pth is a zip of raw storages and of a pickle that says which tensor is which part of which storage. A pickle
is a program that may call whatever it names, and Python's unpickler does that. The machine here knows the
instructions that torch.save writes and no more, finds names in a table of its own and imports nothing.
"""
from collections import OrderedDict
import errno
import os
import pathlib
import pickletools
import struct
import types
from typing import NamedTuple
import zipfile

import ml_dtypes
import numpy as np

# Real ones take a few hundred bytes a tensor. What one makes takes up to eighty times its size in memory.
_LARGEST_PICKLE = 8 * 2 ** 20
_LEGACY = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
_EMPTY = {'NONE': type(None), 'NEWFALSE': bool, 'NEWTRUE': lambda: True,
          'EMPTY_DICT': dict, 'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple}
ENTRIES = 'model', 'state_dict', 'model_state_dict'  # where a file may have the state dict
_KEYS = (str, int, float, bool, bytes, type(None))

_FETCH = 'Copy or download it again.'
_BARE = 'save the bare state dict again, torch.save(model.state_dict(), path).'
_SAVE = f'If you trust the file, load it with PyTorch and {_BARE}'
_NEWER = ('Load it with a newer PyTorch and save it again: '
          'torch.save(torch.load(old, map_location="cpu", weights_only=True), new).')


class _Unfit(Exception):
    """Why a file is refused and how to mend that, still without its name."""


class _Storage(NamedTuple):
    name: str
    data: np.ndarray  # uint8
    dtype: np.dtype


def read(path: str | os.PathLike) -> object:
    """The object in a file of torch.save, in the zip format that it writes since PyTorch 1.6.

    Tensors and parameters are read-only arrays, parts of the file mapped into memory: nothing is copied, so the
    file must not change while they live, and an expanded tensor has stride 0. OrderedDicts stay what they are,
    less PyTorch's _metadata, a Counter is a dict, an argparse.Namespace a types.SimpleNamespace, a torch.Size a
    tuple, a torch.device a str. Checksums are not compared, as torch.save can leave them out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such checkpoint, is damaged, or asks for more than tensors and plain
          containers. Nothing that it asks for is run or allocated before it is refused.
    """
    path = pathlib.Path(path)
    try:
        with open(path, 'rb') as file:
            if not file.seek(0, os.SEEK_END):
                raise _Unfit(f'the file is empty. {_FETCH}')
            memory = np.asarray(np.memmap(file, np.uint8, 'r'))
            members = _members(file, memory)
        order = members.get('byteorder', np.frombuffer(b'little', np.uint8)).tobytes()
        if order != b'little':
            raise _Unfit(f'its byte order is {order!r:.20}, only little is read here. {_SAVE}')
        if len(members['data.pkl']) > _LARGEST_PICKLE:
            raise _Unfit(f'its data.pkl has {len(members["data.pkl"])} bytes, {_LARGEST_PICKLE} at most are read: the '
                         f'numbers should be beside it, not in it. {_SAVE}')
        return _run(members['data.pkl'].tobytes(), members)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{path}: no such checkpoint. Check the path, or download the file first.') from error
    except _Unfit as error:
        raise ValueError(f'{path}: {error}') from error
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise ValueError(f'{path}: its data.pkl is no pickle that torch.save writes, or damaged '
                         f'({type(error).__name__}: {error!s:.100}). {_FETCH} {_SAVE}') from error


def state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a model in a file of torch.save: name -> read-only array, as of `read`.

    The file holds the state dict itself, or has it as one of ENTRIES.

    Raises:
        FileNotFoundError, ValueError: as `read`; and ValueError if there is no state dict, with what there is.
    """
    whole = read(path)
    entries = whole if isinstance(whole, dict) else {}
    for found in (whole, *map(entries.get, ENTRIES)):
        if isinstance(found, dict) and found and all(
                isinstance(name, str) and isinstance(x, np.ndarray) for name, x in found.items()):
            return dict(found)
    keys = [f'{key!r:.60}' for key in list(entries)[:10]] + ['...'] * (len(entries) > 10)
    raise ValueError(f'{path}: holds no state dict, neither itself nor as its entry {" or ".join(ENTRIES)}, but a '
                     f'{type(whole).__name__} with the keys [{", ".join(keys)}]. If the model is among them, load '
                     f'it with PyTorch and {_BARE}')


def _members(file, memory):
    """Name, less the folder that all are in -> its bytes, a view of `memory`."""
    start = memory[:512].tobytes()
    if not start.startswith(b'PK'):
        if start.startswith(_LEGACY) or start[257:262] == b'ustar':
            raise _Unfit(f'has the format from before PyTorch 1.6, which cannot be read here. {_NEWER}')
        raise _Unfit(f'is no checkpoint of torch.save: it starts with {start[:8]!r}. {_FETCH}')
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # That is a seek to where a damaged zip says.
            raise
        raise _Unfit(f'is a zip cut off or damaged ({error}). {_FETCH}') from error

    members, claimed = {}, sum(info.file_size for info in infos)
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

    tops = sorted({name.split('/')[0] for name in members})
    if len(tops) != 1 or f'{tops[0]}/data.pkl' not in members:
        raise _Unfit(f'is a zip, but not of torch.save: that has one folder at its top with data.pkl in it, this '
                     f'{tops[:5]!r:.200}. {_FETCH}')
    return {name.removeprefix(tops[0] + '/'): data for name, data in members.items()}


def _run(program, members):
    """What a pickle describes, by the instructions that torch.save writes."""
    stack, marks, memo, copied = [], [], {}, 0

    def above_mark():
        mark = marks.pop()
        values = stack[mark:]
        del stack[mark:]
        return values

    def count(values):
        # A few bytes could have a long list, written once, copied again and again.
        nonlocal copied
        copied += len(values)
        if copied > len(program):
            raise _Unfit(f'its data.pkl makes more than its {len(program)} bytes can describe. {_SAVE}')

    for instruction, value, _ in pickletools.genops(program):
        match instruction.name:
            case 'PROTO' if value == 2:
                pass
            case 'BINUNICODE' | 'BININT' | 'BININT1' | 'BININT2' | 'LONG1' | 'BINFLOAT':
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
                for key, item in zip(values[::2], values[1::2], strict=True):
                    target[_of(key, *_KEYS)] = item
            case 'GLOBAL':
                if value not in _NAMES:
                    raise _Unfit(f'its data.pkl asks for {value.replace(" ", "."):.80}, which tensors do not need and '
                                 f'which could run anything. Nothing was run. {_SAVE}')
                stack.append(_NAMES[value])
            case 'BINPERSID':
                stack.append(_storage(members, *_of(stack.pop(), tuple)))
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
                    vars(target).update({_of(key, str): item for key, item in state.items()})
            case 'STOP':
                return stack.pop()
            case name:
                raise _Unfit(f'its data.pkl has the instruction {name}{"" if value is None else f" {value!r:.80}"}, '
                             'which torch.save does not write by itself (it writes pickle protocol 2). Nothing was '
                             f'run. {_SAVE}')


def _of(value, *kinds):
    """`value`, if of one of these very types. Of others even a hash or a repr could take forever."""
    if type(value) not in kinds:
        raise TypeError(f'{type(value).__name__} where {kinds[0].__name__} belongs')
    return value


def _storage(members, kind, dtype, key, location, numel):
    if kind != 'storage' or not isinstance(dtype, np.dtype):
        raise _Unfit(f'its data.pkl refers to what is no storage of a known type. {_SAVE}')
    name = 'data/' + _of(key, str)
    if name not in members:
        raise _Unfit(f'its {name!r:.80} is missing. {_FETCH}')
    if _of(numel, int) != len(members[name]) // dtype.itemsize:
        raise _Unfit(f'its {name} should hold {numel} numbers of {dtype.name}, but has {len(members[name])} bytes. '
                     f'{_FETCH}')
    return _Storage(name, members[name], dtype)


def _tensor(storage, offset, size, stride, requires_grad, hooks, metadata=None):
    name, data, dtype = _of(storage, _Storage)
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
        raise _Unfit(f'its data.pkl asks for the codec {encoding!r:.80}, only latin1 is known. {_SAVE}')
    return _of(text, str).encode('latin1')


# All that a pickle can name: dtypes, and functions of this file that make plain values from plain values.
_NAMES = {
    'torch._utils _rebuild_tensor_v2': _tensor,
    'torch._utils _rebuild_parameter': lambda data, requires_grad, hooks: _of(data, np.ndarray),
    'torch Size': lambda size: _of(size, tuple),
    'torch device': lambda kind, *index: ':'.join([_of(kind, str), *(str(_of(i, int)) for i in index)]),
    'collections OrderedDict': lambda: OrderedDict(),
    'collections Counter': lambda counts: dict(_of(counts, dict)),  # The milestones of a MultiStepLR.
    'argparse Namespace': lambda: types.SimpleNamespace(),
    '_codecs encode': _encode,
} | {f'{module} set': lambda values: {_of(value, *_KEYS) for value in _of(values, list)}
     for module in ('builtins', '__builtin__')
} | {f'torch {name}Storage': np.dtype(dtype) for name, dtype in {
    'Double': '<f8', 'Float': '<f4', 'Half': '<f2', 'BFloat16': ml_dtypes.bfloat16, 'ComplexDouble': '<c16',
    'ComplexFloat': '<c8', 'Long': '<i8', 'Int': '<i4', 'Short': '<i2', 'Char': 'i1', 'Byte': 'u1', 'Bool': '?',
}.items()}
