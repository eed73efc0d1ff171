"""Files of torch.save, good and hostile, written by hand: Python's own pickler, with names that need no torch.

Written the same way as PyTorch 2.13 writes them, which was compared once, byte for byte but for its keys.
"""

from collections import OrderedDict
import io
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np

DTYPES = {
    'Double': np.float64,
    'Float': np.float32,
    'Half': np.float16,
    'BFloat16': ml_dtypes.bfloat16,
    'ComplexDouble': np.complex128,
    'ComplexFloat': np.complex64,
    'Long': np.int64,
    'Int': np.int32,
    'Short': np.int16,
    'Char': np.int8,
    'Byte': np.uint8,
    'Bool': np.bool_,
}
KINDS = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


class Global:
    """A name that the pickle asks for."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self):
        raise AssertionError('only there to be written')


class Call:
    """`function(*values)` when unpickled, then with `state` set."""

    def __init__(self, function, *values, state=None):
        self.parts = (function, values, state)


class Storage:
    def __init__(self, numbers, numel=None, key=None):
        self.numbers = np.asarray(numbers).reshape(-1)
        self.numel, self.key = self.numbers.size if numel is None else numel, key


class Part:
    """A storage within another, which the format from before 1.6 has."""

    def __init__(self, whole, offset, size):
        self.whole, self.place = whole, ('1', offset, size)


REBUILD = Global('torch._utils', '_rebuild_tensor_v2')


def view(storage, offset, size, stride, *more):
    return Call(REBUILD, storage, offset, size, stride, False, OrderedDict(), *more)


def tensor(numbers):
    numbers = np.ascontiguousarray(numbers).reshape(np.shape(numbers))
    return view(Storage(numbers), 0, numbers.shape, tuple(step // numbers.itemsize for step in numbers.strides))


def parameter(numbers):
    return Call(Global('torch._utils', '_rebuild_parameter'), tensor(numbers), True, OrderedDict())


class Writer(pickle._Pickler):
    dispatch = pickle._Pickler.dispatch.copy()

    def __init__(self, file, legacy=False):
        super().__init__(file, protocol=2)
        self.storages, self.legacy = {}, legacy

    def save_name(self, x):
        self.write(f'c{x.module}\n{x.name}\n'.encode())
        self.memoize(x)

    dispatch[Global] = save_name

    def reducer_override(self, x):
        return x.parts if isinstance(x, Call) else NotImplemented

    def persistent_id(self, x):
        if not isinstance(x, (Storage, Part)):
            return None
        storage, place = (x, None) if isinstance(x, Storage) else (x.whole, x.place)
        key = next((key for key, known in self.storages.items() if known is storage), None) or storage.key
        key = key or str(len(self.storages) + (94160492015664 if self.legacy else 0))
        self.storages.setdefault(key, storage)
        identity = 'storage', Global('torch', KINDS[storage.numbers.dtype] + 'Storage'), key, 'cpu', storage.numel
        return (*identity, place) if self.legacy else identity


def pickled(thing, legacy=False):
    """The pickle; and the storages that it names: key -> Storage."""
    file = io.BytesIO()
    writer = Writer(file, legacy)
    writer.dump(thing)
    return file.getvalue(), writer.storages


def pack(path, members, top='archive', compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, 'w', compression) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(f'{top}/{name}')
            info.compress_type = compression
            info.extra = struct.pack('<HH', 0x4246, 13) + b'Z' * 13  # As torch.save aligns: local headers only.
            archive.writestr(info, data)
            info.extra = b''
    return path


def save(path, thing, **more):
    """As PyTorch writes since 1.6."""
    program, storages = pickled(thing)
    storages = {f'data/{i}': x.numbers.tobytes() for i, x in enumerate(storages.values())}
    return pack(path, {'data.pkl': program, 'byteorder': b'little', **storages, 'version': b'3\n', **more})


def save_program(path, program):
    return pack(path, {'data.pkl': program, 'data/0': bytes(16), 'version': b'3\n'})


def save_legacy(path, thing, *, version=1001, little=True, keys=None, tail=b''):
    """As PyTorch wrote before 1.6, and still does on demand: pickles one after the other, then the storages."""
    program, storages = pickled(thing, legacy=True)
    system = {'protocol_version': version, 'little_endian': little, 'type_sizes': {'short': 2, 'int': 4, 'long': 4}}
    parts = [pickle.dumps(x, protocol=2) for x in (0x1950A86A20F9469CFC6C, version, system)]
    parts += [program, pickle.dumps(list(storages) if keys is None else keys, protocol=2)]
    for x in storages.values():
        parts += [struct.pack('<q', x.numbers.size), x.numbers.tobytes()]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b''.join(parts) + tail)
    return path
