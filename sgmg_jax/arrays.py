"""Reads arrays from untrusted HDF5 and MATLAB files: type and size are checked before memory is taken."""

from collections.abc import Sequence
import io
import math
import os
import struct
import zlib

import h5py
import numpy as np
import scipy.io

from sgmg_jax import files

LARGEST = 2**27  # bytes of a file
MOST_VALUES = 2**25  # per array; the masks of a frame or a video have at most a tenth of it
# MATLAB's numeric types, by scipy's names.
_NUMBERS = ('logical', 'double', 'single', 'int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32', 'int64', 'uint64')
_COMPRESSED = 15
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}


def read_h5(file: str | os.PathLike, names: Sequence[str], below: str | os.PathLike | None = None) -> list[np.ndarray]:
    """Numeric arrays of an HDF5 file.

    Args:
        below: a folder that a link to the file must not lead out of.

    Raises:
        OSError: there is no such file.
        ValueError: naming the file: it is broken, lacks one of the names, or one is not a numeric array or too large.
    """
    files.check_regular(file, LARGEST, below)
    try:
        with h5py.File(file, 'r') as content:
            if not set(names) <= content.keys():
                raise ValueError(
                    f'{file}: must have the data sets {" and ".join(names)}, has '
                    f'{sorted(content)[:20]!a:.200}. Unpack this file again.'
                )
            return [_read_data_set(content, name, file) for name in names]
    except Exception as error:  # On damaged files h5py raises nearly all built-in exceptions.
        if isinstance(error, ValueError) and str(error).startswith(f'{file}: '):
            raise
        raise ValueError(f'{file}: broken HDF5 ({files.printable(str(error))}). Unpack this file again.') from error


def _read_data_set(content: h5py.File, name: str, file: str | os.PathLike) -> np.ndarray:
    # The data must be in this file: links, external and virtual data sets may name other files.
    array = content[name] if isinstance(content.get(name, getlink=True), h5py.HardLink) else None
    if (
        not isinstance(array, h5py.Dataset)
        or array.shape is None
        or array.dtype.kind not in 'biuf'
        or (array.is_virtual or array.external)
    ):
        raise ValueError(f'{file}: {name} must be an array of numbers. Unpack this file again.')
    if array.size > MOST_VALUES:
        raise ValueError(
            f'{file}: {name} has the shape {array.shape}; at most {MOST_VALUES:,} values are read. '
            'Unpack this file again.'
        )
    if array.chunks:
        _check_chunks(array, f'{file}: {name}')
    return np.asarray(array)


def _check_chunks(array: h5py.Dataset, where: str) -> None:
    """Raises ValueError if an array's chunks unpack to more than their declared size: HDF5 would take that memory."""
    count, values = array.id.get_num_chunks(), math.prod(array.chunks)
    if count * values > MOST_VALUES:
        raise ValueError(
            f'{where} is kept in {count} parts of the shape {array.chunks}; at most {MOST_VALUES:,} '
            'values are read. Unpack this file again.'
        )
    settings = array.id.get_create_plist()
    filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
    if not set(filters) <= _FILTERS or len(set(filters)) < len(filters):  # Compressed twice, it unpacks to far more.
        raise ValueError(f'{where} is packed in a way that is not read. Unpack this file again.')
    if h5py.h5z.FILTER_DEFLATE not in filters:
        return
    size = values * array.dtype.itemsize
    for i in range(count):
        skipped, data = array.id.read_direct_chunk(array.id.get_chunk_info(i).chunk_offset)
        if not skipped and len(zlib.decompressobj().decompress(data, size + 1)) > size:
            raise ValueError(f'{where} unpacks to more than its size. Unpack this file again.')


def read_mat(file: str | os.PathLike, name: str, below: str | os.PathLike | None = None) -> np.ndarray:
    """A numeric array of a MATLAB file (version 4 or 5).

    Raises:
        OSError: there is no such file.
        ValueError: naming the file: it is broken, lacks the name, or it is not a numeric array or too large.
    """
    data = files.read_bytes(file, LARGEST, below)
    try:
        _check_unpacked(data)
        found = {each: (shape, kind) for each, shape, kind in scipy.io.whosmat(io.BytesIO(data))}
        shape, kind = found.get(name, ((), ''))
        good = kind in _NUMBERS and np.prod(shape, dtype=float) <= MOST_VALUES
        if good:
            return scipy.io.loadmat(io.BytesIO(data), variable_names=[name])[name]
    except Exception as error:  # On truncated files scipy raises various exceptions, even IndexError and TypeError.
        raise ValueError(
            f'{file}: broken MATLAB file ({files.printable(str(error))}). Unpack this file again.'
        ) from error
    if name not in found:
        raise ValueError(
            f'{file}: must have the variable {name}, has {sorted(found)[:20]!a:.200}. Unpack this file again.'
        )
    raise ValueError(
        f'{file}: {name} must be an array of at most {MOST_VALUES:,} numbers, is {kind} of the shape '
        f'{shape}. Unpack this file again.'
    )


def _check_unpacked(data: bytes) -> None:
    """Raises ValueError if a variable (each is compressed separately) unpacks to too much."""
    order, position = {b'MI': '>', b'IM': '<'}.get(data[126:128]), 128
    while order and position + 8 <= len(data):
        kind, size = struct.unpack_from(f'{order}II', data, position)
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            unpacker.decompress(data[position + 8 : position + 8 + size], 8 * MOST_VALUES)
            if unpacker.unconsumed_tail:
                raise ValueError('a variable unpacks to gigabytes')
        position += 8 + size
