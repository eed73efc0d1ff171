"""Several processes that train or evaluate together, one or more to a host. Alone, everything here does nothing."""
import contextlib
import errno
import os
import pickle

import jax
from jax.experimental import multihost_utils
import numpy as np

from sgmg_jax import files

PATIENCE = 60  # seconds that a process which leaves waits for the others; they wait for it if it failed, and end then


def initialize(distributed: bool, coordinator: str | None, process_count: int | None,
               process_index: int | None) -> None:
    """Joins the other processes, if one of the flags of commands.define_experiment_flags asks for it. To be called
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
    """What the processes pass, {place: value} each, as one list in the order of places; the same for all."""
    if jax.process_count() == 1:
        return [values[place] for place in sorted(values)]
    data = np.frombuffer(pickle.dumps(values), np.uint8)
    lengths = multihost_utils.process_allgather(np.array([len(data)]))
    padded = np.zeros(lengths.max(), np.uint8)
    padded[:len(data)] = data
    parts = multihost_utils.process_allgather(padded)
    every = {}
    for part, (length,) in zip(parts, lengths):
        every |= pickle.loads(part[:length].tobytes())
    return [every[place] for place in sorted(every)]


def anywhere(condition):
    """Whether it holds on one of the processes at least."""
    if jax.process_count() == 1:
        return bool(condition)
    return bool(multihost_utils.process_allgather(np.array([bool(condition)])).any())
