"""Checksums of arrays and JSON, so that damage on disk raises an error instead of changing weights."""

from collections.abc import Mapping
import json
from typing import Any
import zlib

import jax
from jax.experimental import multihost_utils
import numpy as np

ODD = 2654435761, 2246822519, 3266489917, 668265263, 374761393  # large primes


def of_arrays(arrays: Mapping[str, jax.Array | np.ndarray]) -> dict[str, int]:
    """A checksum of the bits of each array, independent of its layout on devices and processes.

    It is a weighted sum of the numbers' bits, modulo 2 ** 32, with odd weights computed from their indices: a single
    flipped bit always changes it, and each process can sum its own part. A collective: all processes must call it with
    arrays of the same names.
    """
    found = {path: _sum_of_bits(x) for path, x in arrays.items()}
    shared = [path for path, x in arrays.items() if not getattr(x, 'is_fully_addressable', True)]
    if shared:
        every = multihost_utils.process_allgather(np.array([found[path] for path in shared], np.uint32))
        found |= dict(zip(shared, every.sum(0, dtype=np.uint32).tolist()))
    return found


def _sum_of_bits(x: Any) -> int:
    """The sum over the parts of an array that this process holds; replicas count once."""
    if getattr(x, 'is_fully_addressable', True):
        parts = [(np.asarray(x), (slice(None),) * np.ndim(x))]
    else:
        parts = [(np.asarray(shard.data), shard.index) for shard in x.addressable_shards if shard.replica_id == 0]
    total = np.zeros((), np.uint32)
    for data, index in parts:
        bits = np.ascontiguousarray(data).view(f'u{data.itemsize}').reshape(data.shape).astype(np.uint32)
        for axis in reversed(range(data.ndim)):  # The product of odd weights is odd.
            places = np.arange(*index[axis].indices(x.shape[axis]), dtype=np.uint32)
            bits = bits @ (places * np.uint32(ODD[axis % len(ODD)]) | np.uint32(1))
        total += bits
    return int(total)


def of_json(content: object) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())
