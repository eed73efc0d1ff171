"""Several processes that train or evaluate together, one or more to a host. Alone, everything here does nothing."""
import contextlib
import errno
import json
import os

import jax
from jax.experimental import multihost_utils
import numpy as np

from sgmg_jax import files

PATIENCE = 60  # seconds that a process which leaves waits for the others; they wait for it if it failed, and end then


def initialize(distributed: bool, coordinator: str | None, process_count: int | None,
               process_index: int | None) -> None:
    """Joins the other processes, if one of the flags of commands.run_experiment asks for it. To be called
    before anything of JAX is used.

    Raises:
        ValueError: for flags that do not go together, and where the environment asks for devices that are not there.
    """
    given = coordinator, process_count, process_index
    if distributed:
        if any(x is not None for x in given):
            raise ValueError('--distributed: finds the processes by itself. Leave out --coordinator, --process_count '
                             'and --process_index, or it.')
        jax.distributed.initialize(shutdown_timeout_seconds=PATIENCE)
    elif any(x is not None for x in given):
        if any(x is None for x in given):
            raise ValueError(f'--coordinator={given[0]} --process_count={given[1]} --process_index={given[2]}: give '
                             'all three.')
        if process_index >= process_count:
            raise ValueError(f'--process_index={process_index}: must be below --process_count={process_count}.')
        jax.distributed.initialize(*given, shutdown_timeout_seconds=PATIENCE)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # an assertion where the driver of a GPU is missing
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f'JAX_PLATFORMS={os.environ.get("JAX_PLATFORMS", "")}: JAX finds no such device here '
                         f'({reason}). Unset it, or install the extra for the device: pip install .[cuda] or '
                         '.[tpu].') from error


def is_first():
    """Whether this process is the one that writes what there is only one of."""
    return jax.process_index() == 0


def wait(name):
    """Until all processes are here. name: of the place, the same for all."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def share(items):
    """The places of this process's items of a sequence: every process_count-th."""
    return range(jax.process_index(), len(items), jax.process_count())


@contextlib.contextmanager
def locked(path, doing):
    """`files.locked` by the first process, for all of them.

    Raises:
        BlockingIOError, OSError: as there, in every process.
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
            raise BlockingIOError(errno.EWOULDBLOCK, 'the first process could not lock a file there; it says why',
                                  str(path.parent))
        yield


def gather(values):
    """What the processes pass, {place: value} each, as one list in the order of places; the same for all, and of the
    same types with one process as with several. A value is what `encode` takes."""
    parts = [encode(values)]
    if jax.process_count() > 1:
        data = np.frombuffer(parts[0], np.uint8)
        lengths = multihost_utils.process_allgather(np.array([len(data)]))
        padded = np.zeros(lengths.max(), np.uint8)
        padded[:len(data)] = data
        parts = [part[:length].tobytes() for part, (length,) in zip(multihost_utils.process_allgather(padded), lengths)]
    every = {}
    for part in parts:
        every |= decode(part)
    return [every[place] for place in sorted(every)]


def encode(value):
    """JSON of None, bool, int, float, str, and of lists, tuples, dicts and NumPy's numbers in arrays that hold them.

    `decode` gives back exactly what it was, scalars of NumPy as those of Python. Nothing that is read runs code.

    Raises:
        TypeError: for anything else.
    """
    return json.dumps(_tagged(value)).encode()


def decode(data):
    """What `encode` wrote. Raises ValueError for anything else."""
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
    raise TypeError(f'a {type(value).__name__} cannot be sent to the other processes, only plain values, lists, '
                    'tuples, dicts and arrays of numbers')


def _untagged(value):
    match value:
        case {'tuple': items}:
            return tuple(items)
        case {'dict': pairs}:
            return dict(pairs)
        case {'array': numbers, 'shape': shape, 'type': kind}:
            return np.array(numbers, kind).reshape(shape)
    raise ValueError(f'not what another process of this version sends: {value!r:.200}')


def anywhere(condition):
    """Whether it holds on one of the processes at least."""
    if jax.process_count() == 1:
        return bool(condition)
    return bool(multihost_utils.process_allgather(np.array([bool(condition)])).any())
