"""Several processes that train or evaluate together, one or more per host. With one process, all this does nothing."""

from collections.abc import Iterator, Mapping, Sized
import contextlib
import errno
import json
import os
import pathlib
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils
import numpy as np

from sgmg_jax import files

T = TypeVar('T')
# Shutdown barrier timeout in seconds: how long an exiting process waits for the others (and they for a crashed one).
PATIENCE = 60


def initialize(
    distributed: bool, coordinator: str | None, process_count: int | None, process_index: int | None
) -> None:
    """Joins the other processes if one of the flags of commands.run_experiment says so. Call it before using JAX.

    Raises:
        ValueError: for flags that do not go together, or if JAX_PLATFORMS names devices that are missing.
    """
    given = coordinator, process_count, process_index
    if distributed:
        if any(x is not None for x in given):
            raise ValueError(
                '--distributed: finds the processes itself. Leave out --coordinator, --process_count and '
                '--process_index, or leave out --distributed.'
            )
        jax.distributed.initialize(shutdown_timeout_seconds=PATIENCE)
    elif any(x is not None for x in given):
        if coordinator is None or process_count is None or process_index is None:
            raise ValueError(
                f'--coordinator={given[0]} --process_count={given[1]} --process_index={given[2]}: give all three.'
            )
        if process_index >= process_count:
            raise ValueError(f'--process_index={process_index}: must be below --process_count={process_count}.')
        jax.distributed.initialize(coordinator, process_count, process_index, shutdown_timeout_seconds=PATIENCE)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # AssertionError: the GPU driver is missing
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f'JAX_PLATFORMS={os.environ.get("JAX_PLATFORMS", "")}: JAX finds no such device here '
            f'({reason}). Unset it, or install the extra for the device: pip install .[cuda] or '
            '.[tpu].'
        ) from error


def is_first() -> bool:
    """Whether this is the process that writes shared files."""
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Waits until all processes call it. name: of this barrier, the same in all processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def share(items: Sized) -> range:
    """The indices of this process's share of `items`: every process_count-th."""
    return range(jax.process_index(), len(items), jax.process_count())


@contextlib.contextmanager
def locked(path: pathlib.Path, doing: str) -> Iterator[None]:
    """`files.locked` by the first process on behalf of all.

    Raises:
        BlockingIOError, OSError: as in `files.locked`, in every process.
    """
    with contextlib.ExitStack() as stack:
        refused = None
        if is_first():
            try:
                stack.enter_context(files.locked(path, doing))
            except OSError as error:
                refused = error
        if anywhere(refused):
            if refused:
                raise refused
            raise BlockingIOError(
                errno.EWOULDBLOCK,
                'the first process could not lock a file there; see its error message',
                str(path.parent),
            )
        yield


def gather(values: Mapping[Any, T]) -> list[T]:
    """Joins the mappings {place: value} of all processes: the values in the order of their places.

    All processes get the same list, of the same types for one process as for several. See `encode` for allowed values.
    """
    parts = [encode(dict(values))]
    if jax.process_count() > 1:
        data = np.frombuffer(parts[0], np.uint8)
        lengths = multihost_utils.process_allgather(np.array([len(data)]))
        padded = np.zeros(lengths.max(), np.uint8)
        padded[: len(data)] = data
        parts = [part[:length].tobytes() for part, (length,) in zip(multihost_utils.process_allgather(padded), lengths)]
    every: dict[Any, T] = {}
    for part in parts:
        every |= decode(part)
    return [every[place] for place in sorted(every)]


def encode(value: object) -> bytes:
    """Serialises None, bool, int, float, str, lists, tuples, dicts and numeric NumPy arrays as JSON.

    `decode` restores the same value; NumPy scalars become Python's. Unlike pickle, decoding runs no code.

    Raises:
        TypeError: for a value of another type.
    """
    return json.dumps(_tagged(value)).encode()


def decode(data: bytes) -> Any:
    """The inverse of `encode`. Raises ValueError for other data."""
    return json.loads(data, object_hook=_untagged)


def _tagged(value):
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list():
            return [_tagged(x) for x in value]
        case tuple():
            return {'tuple': [_tagged(x) for x in value]}
        case dict():
            return {'dict': [[_tagged(key), _tagged(x)] for key, x in value.items()]}
        case np.generic() if value.dtype.kind in 'biuf':
            return value.item()
        case np.ndarray() if value.dtype.kind in 'biuf':
            return {'array': value.ravel().tolist(), 'shape': value.shape, 'type': value.dtype.str}
    raise TypeError(
        f'a {type(value).__name__} cannot be sent to the other processes; use plain values, lists, '
        'tuples, dicts or arrays of numbers'
    )


def _untagged(value):
    match value:
        case {'tuple': items}:
            return tuple(items)
        case {'dict': pairs}:
            return dict(pairs)
        case {'array': numbers, 'shape': shape, 'type': kind}:
            return np.array(numbers, kind).reshape(shape)
    raise ValueError(
        f'received {value!r:.200}, which this version does not send. Run the same version in all processes.'
    )


def anywhere(condition: object) -> bool:
    """Whether `condition` is true in at least one process."""
    if jax.process_count() == 1:
        return bool(condition)
    return bool(multihost_utils.process_allgather(np.array([bool(condition)])).any())
