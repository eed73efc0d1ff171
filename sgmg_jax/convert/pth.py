"""Reads PyTorch checkpoints without PyTorch and without running their code.

A .pth has raw storages and a pickle that describes each tensor as a part of a storage; since PyTorch 1.6 they are in a
zip, before that one after the other. torch_pickle.py interprets the pickle, which may only use the names in the table
below.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
import errno
import io
import os
import pathlib
import struct
import types
from typing import Any, NamedTuple
import zipfile
import zlib

import ml_dtypes
import numpy as np

from sgmg_jax import files
from sgmg_jax.convert import torch_pickle
from sgmg_jax.convert.torch_pickle import BARE, FETCH, KEYS, LARGEST, SAVE, Unfit, exactly, is_large, shown

_LARGEST_DIRECTORY = 2**24  # bytes of a zip's list of members
_LEGACY = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'  # the magic number, pickled
_LEGACY_VERSION = 1001
_DEPTH = 4  # maximum nesting of dicts that may hold a model

_NEWER = (
    'Load it with PyTorch and save it again: torch.save(torch.load(old, map_location="cpu", weights_only=True), new).'
)


class _Storage(NamedTuple):
    name: str
    data: np.ndarray | None  # uint8; None: not known yet
    dtype: np.dtype


def is_checkpoint(start: bytes) -> bool:
    """Whether a file with this start (512 bytes) may be from torch.save."""
    return start.startswith((b'PK', _LEGACY)) or start[257:262] == b'ustar'


def read(path: str | os.PathLike) -> object:
    """The object in a file from torch.save, in the zip format since PyTorch 1.6 or the format before it.

    Tensors and parameters become read-only arrays that are views of the memory-mapped file: nothing is copied, so the
    file must not change while they live, and an expanded tensor has stride 0. An OrderedDict stays one but loses
    PyTorch's _metadata; a Counter becomes a dict, an argparse.Namespace a types.SimpleNamespace, a torch.Size a tuple,
    a torch.device a str. The checksums of a zip are compared if torch.save wrote them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not such a checkpoint, is damaged, or has more than tensors and plain containers. It is
          refused before anything in it is run or allocated.
    """
    path = pathlib.Path(path)
    try:
        files.check_regular(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{path}: no such checkpoint. Check the path, or download the file first.') from error
    try:
        with _File(path) as file:
            if not file.seek(0, os.SEEK_END):
                raise Unfit(f'the file is empty. {FETCH}')
            memory = np.asarray(np.memmap(file, np.uint8, 'r'))
            start = memory[:512].tobytes()
            if start.startswith(_LEGACY):
                return _read_legacy(memory)
            if start[257:262] == b'ustar':
                raise Unfit(
                    f'is a tar, the format from long before PyTorch 1.6 (0.1.10), which cannot be read here. {_NEWER}'
                )
            if not start.startswith(b'PK'):
                raise Unfit(f'is no checkpoint of torch.save: it starts with {start[:8]!r}. {FETCH}')
            return _read_zip(_members(file, memory))
    except Unfit as error:
        raise ValueError(f'{path}: {error}') from error
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise ValueError(
            f'{path}: its pickle is damaged or was not written by torch.save '
            f'({type(error).__name__}: {error!s:.100}). {FETCH} {SAVE}'
        ) from error


def state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All named tensors in a file from torch.save: name -> read-only array, as in `read`.

    The file may hold the state dict itself, or have it as an entry such as 'model'. If several entries have tensors,
    such as 'model' and 'ema', names start with the entry: 'ema.head.weight'.

    Raises:
        FileNotFoundError, ValueError: as `read`; also ValueError if there is no tensor, with a list of what there is.
    """
    whole = read(path)
    groups: dict[tuple[str, ...], dict[str, np.ndarray]] = {}
    seen: set[int] = set()
    todo: deque[tuple[tuple[str, ...], dict]] = deque([((), whole)] if isinstance(whole, dict) else [])
    while todo:
        place, entries = todo.popleft()
        if id(entries) in seen:  # A dict may occur under several names, and in itself.
            continue
        seen.add(id(entries))
        for name, x in entries.items():
            if isinstance(name, str) and isinstance(x, np.ndarray):
                groups.setdefault(place, {})[name] = x
            elif isinstance(name, str) and isinstance(x, dict) and len(place) < _DEPTH:
                todo.append(((*place, name), x))
    if len(groups) == 1:
        return next(iter(groups.values()))
    found: dict[str, np.ndarray] = {}
    for place, tensors in groups.items():
        for name, x in tensors.items():
            name = '.'.join([*place, name])
            if name in found:
                raise ValueError(f'{path}: has the tensor {name!r:.80} twice, in different entries. {SAVE}')
            found[name] = x
    if found:
        return found
    names = list(whole) if isinstance(whole, dict) else []
    keys = [f'{key!r:.60}' for key in names[:10]] + ['...'] * (len(names) > 10)
    raise ValueError(
        f'{path}: holds no state dict, neither itself nor as one of its entries, but a '
        f'{type(whole).__name__} with the keys [{", ".join(keys)}]. If the model is among them, load '
        f'it with PyTorch and {BARE}'
    )


class _File(io.FileIO):
    def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]  # never None: the file blocks
        if size is not None and size > _LARGEST_DIRECTORY:  # zipfile would read it at once, and use 20 times as much.
            raise Unfit(f'its list of members has {size} bytes, at most {_LARGEST_DIRECTORY} are read. {FETCH}')
        return super().read(size)


def _members(file: io.FileIO, memory: np.ndarray) -> dict[str, np.ndarray]:
    """The members of a zip: name, without their common folder -> bytes, a view of `memory`."""
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: a damaged zip made it seek nowhere.
            raise
        raise Unfit(f'is a zip cut off or damaged ({error}). {FETCH}') from error

    members: dict[str, np.ndarray] = {}
    claimed, summed = sum(info.file_size for info in infos), any(info.CRC for info in infos)
    if claimed > len(memory):
        raise Unfit(f'its members claim {claimed} bytes, the whole file has {len(memory)}. {FETCH}')
    for info in infos:
        name = info.orig_filename
        if '\\' in name or '\0' in name or {'', '.', '..'} & set(name.split('/')):
            raise Unfit(f'member {name!r:.80} is no plain path inside the zip. {SAVE}')
        if name in members:
            raise Unfit(f'member {name!r:.80} is there twice. {SAVE}')
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
            raise Unfit(
                f'member {name!r:.80} is compressed or encrypted, which torch.save never does. Unpack the '
                'zip and pack it again without compression (zip -0 -r -D).'
            )
        offset = info.header_offset
        header = memory[max(offset, 0) :][:30].tobytes()
        if offset < 0 or len(header) < 30 or not header.startswith(b'PK\3\4'):
            raise Unfit(f'member {name!r:.80} is not where the zip says. {FETCH}')
        # The local header has its own padding: torch.save uses it for alignment.
        offset += 30 + sum(struct.unpack('<HH', header[26:]))
        members[name] = memory[offset : offset + info.file_size]
        if len(members[name]) < info.file_size:
            raise Unfit(f'member {name!r:.80} reaches beyond the end of the file. {FETCH}')
        if summed and zlib.crc32(members[name].data) != info.CRC:  # All are 0 if torch.save left them out.
            raise Unfit(f'member {name!r:.80} is damaged: its checksum is not that of its bytes. {FETCH}')

    tops = sorted({name.split('/')[0] for name in members})
    if len(tops) != 1 or f'{tops[0]}/data.pkl' not in members:
        raise Unfit(
            f'is a zip, but not of torch.save: that has one folder at its top with data.pkl in it, this '
            f'{tops[:5]!r:.200}. {FETCH}'
        )
    return {name.removeprefix(tops[0] + '/'): data for name, data in members.items()}


def _read_zip(members: Mapping[str, np.ndarray]) -> object:
    order = members.get('byteorder', np.frombuffer(b'little', np.uint8))[:20].tobytes()
    if order != b'little':
        raise Unfit(f'its byte order is {order!r}; only little is supported. {SAVE}')
    if len(members['data.pkl']) > LARGEST:
        raise Unfit(
            f'its data.pkl has {len(members["data.pkl"])} bytes; at most {LARGEST} are read, because the '
            f'numbers should be in other members. {SAVE}'
        )

    def storage(kind: object, dtype: object, key: object, location: object, numel: object) -> _Storage:
        key, dtype = _checked_storage(kind, dtype, key)
        name = f'data/{key}'
        if name not in members:
            raise Unfit(f'its {name!r:.80} is missing. {FETCH}')
        if exactly(numel, int) != len(members[name]) // dtype.itemsize:
            raise Unfit(
                f'its {shown(name)} should hold {numel} numbers of {dtype.name}, but has '
                f'{len(members[name])} bytes. {FETCH}'
            )
        return _Storage(shown(name), members[name], dtype)

    return torch_pickle.run(io.BytesIO(members['data.pkl'].tobytes()), _NAMES, storage)


def _read_legacy(memory: np.ndarray) -> object:
    """Reads five pickles (magic number, version, facts about the system, the object, the keys of its storages), then
    for each storage the count of its numbers and their bytes."""

    def run(start: int, storage: Callable | None = None) -> tuple[Any, int]:
        program = io.BytesIO(memory[start : start + LARGEST].tobytes())
        return torch_pickle.run(program, _NAMES, storage), start + program.tell()

    version, start = run(len(_LEGACY))
    system, start = run(start)
    if version != _LEGACY_VERSION:
        raise Unfit(f'has version {version!r:.20} of its format; only {_LEGACY_VERSION} is known. {_NEWER}')
    if exactly(system, dict).get('little_endian') is not True:
        raise Unfit(f'was written on a machine with another byte order than little. {_NEWER}')

    # The places of the storages depend on their dtypes, which only the object has: it is built twice.
    kinds: dict[str, np.dtype] = {}
    sizes: dict[str, int] = {}

    def learn(
        kind: object, dtype: object, key: object, location: object, numel: object, view: object = None
    ) -> _Storage:
        key, dtype = _checked_storage(kind, dtype, key)
        if kinds.setdefault(key, dtype) != dtype or sizes.setdefault(key, exactly(numel, int)) != numel:
            raise Unfit(f'its storage {shown(key)} is there with several types or sizes. {SAVE}')
        return _Storage(f'storage {shown(key)}', None, dtype)

    at = start
    _, start = run(at, learn)
    keys, start = run(start)
    if len({exactly(key, str) for key in exactly(keys, list)}) != len(keys) or set(keys) != set(kinds):
        raise Unfit(f'its list of storages is not that of its tensors. {FETCH}')
    data = {}
    for key in keys:
        count = int.from_bytes(memory[start : start + 8].tobytes(), 'little')
        data[key] = memory[start + 8 : start + 8 + count * kinds[key].itemsize]
        start += 8 + count * kinds[key].itemsize
        if count != sizes[key] or start > len(memory):
            raise Unfit(
                f'its storage {shown(key)} should hold {sizes[key]} numbers of {kinds[key].name}, but has '
                f'{count}, of {len(data[key])} bytes. {FETCH}'
            )

    def storage(kind: object, dtype: np.dtype, key: str, location: object, numel: int, view: object = None) -> _Storage:
        if view is None:
            return _Storage(f'storage {shown(key)}', data[key], dtype)
        _, offset, size = exactly(view, tuple)
        if min(exactly(offset, int), exactly(size, int)) < 0 or offset + size > numel:
            raise Unfit(f'a view of its storage {shown(key)} reaches beyond it. {FETCH}')
        part = data[key][offset * dtype.itemsize : (offset + size) * dtype.itemsize]
        return _Storage(f'storage {shown(key)}', part, dtype)

    return run(at, storage)[0]


def _checked_storage(kind: object, dtype: object, key: object) -> tuple[str, np.dtype]:
    """Key and dtype of a storage."""
    if kind != 'storage' or not isinstance(dtype, np.dtype):
        raise Unfit(f'its pickle refers to something that is not a storage of a known type. {SAVE}')
    return exactly(key, str), dtype


def _tensor(storage: object, offset: Any, size: Any, stride: Any, *options: object) -> np.ndarray:
    """options: requires_grad, hooks and, in newer files, metadata."""
    if len(options) > 3:
        raise TypeError(f'a tensor has {4 + len(options)} arguments')
    metadata = options[2] if len(options) == 3 else None
    name, data, dtype = exactly(storage, _Storage)
    if data is None:
        return np.zeros(0, dtype)
    if metadata:
        raise Unfit(
            f'a tensor in {name} is lazily conjugated or negated. Call resolve_conj() and resolve_neg() on it '
            f'and {BARE}'
        )
    numbers = [offset, *exactly(size, tuple), *exactly(stride, tuple)]
    if min(exactly(n, int) for n in numbers) < 0 or len(size) != len(stride) or len(size) > 64:
        raise Unfit(f'a tensor in {name} has no possible offset, size and stride: {numbers!r:.200}. {SAVE}')
    if 0 in size:
        return np.zeros(size, dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    if last >= len(data) // dtype.itemsize:
        raise Unfit(
            f'a tensor of size {size!r:.200} reaches to number {last!r:.40} of {name}, which has '
            f'{len(data) // dtype.itemsize}. {FETCH}'
        )
    # NumPy checks the bounds again.
    return np.ndarray(size, dtype, data, offset * dtype.itemsize, tuple(step * dtype.itemsize for step in stride))


def _encode(text: object, encoding: object) -> bytes:
    if exactly(encoding, str) != 'latin1':
        raise Unfit(f'its pickle uses the codec {encoding!r:.80}; only latin1 is known. {SAVE}')
    return exactly(text, str).encode('latin1')


def _set(values: object) -> set:
    for value in exactly(values, list):
        if is_large(exactly(value, *KEYS)):
            raise Unfit(f'its pickle has large numbers in a set. {SAVE}')
    return set(exactly(values, list))


def _ordered(items: Any = ()) -> OrderedDict:
    """Python 2 passes the first items, each as a list."""
    return OrderedDict((exactly(name, str), item) for name, item in (exactly(pair, list) for pair in items))


# The names that a pickle can use: dtypes, and functions of this file from plain values to plain values.
_NAMES: dict[str, object] = {
    'torch._utils _rebuild_tensor': lambda storage, offset, size, stride: _tensor(storage, offset, size, stride),
    'torch._utils _rebuild_tensor_v2': _tensor,
    'torch._utils _rebuild_parameter': lambda data, requires_grad, hooks: exactly(data, np.ndarray),
    'torch Size': lambda size: exactly(size, tuple),
    'torch device': lambda kind, *index: ':'.join([exactly(kind, str), *(str(exactly(i, int)) for i in index)]),
    'collections OrderedDict': _ordered,
    'collections Counter': lambda counts: dict(exactly(counts, dict)),  # milestones of a MultiStepLR
    'argparse Namespace': lambda: types.SimpleNamespace(),
    '_codecs encode': _encode,
    'builtins set': _set,
    '__builtin__ set': _set,
} | {
    f'torch {name}Storage': np.dtype(dtype)
    for name, dtype in {
        'Double': '<f8',
        'Float': '<f4',
        'Half': '<f2',
        'BFloat16': ml_dtypes.bfloat16,
        'ComplexDouble': '<c16',
        'ComplexFloat': '<c8',
        'Long': '<i8',
        'Int': '<i4',
        'Short': '<i2',
        'Char': 'i1',
        'Byte': 'u1',
        'Bool': '?',
    }.items()
}
