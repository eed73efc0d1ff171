"""Several processes that train or evaluate together, one or more to a host. Alone, everything here does nothing."""
import json

from absl import flags
import jax
from jax.experimental import multihost_utils
import numpy as np

PATIENCE = 60  # seconds that a process which leaves waits for the others; they wait for it if it failed, and end then


def define_flags():
    """The flags that `initialize` reads, for a script's top level."""
    flags.DEFINE_bool('distributed', False, 'Join the other processes of this TPU pod slice, or of this Slurm job, '
                                            'which has one for each GPU.')
    flags.DEFINE_string('coordinator', None, 'Elsewhere: host:port of the process that has --process_index=0.')
    flags.DEFINE_integer('process_count', None, 'How many processes there are, the same for all.', lower_bound=1)
    flags.DEFINE_integer('process_index', None, 'Which of them this is.', lower_bound=0)


def initialize():
    """Joins the other processes, if a flag asks for it. To be called before anything of JAX is used.

    Raises:
        ValueError: for flags that do not go together.
    """
    values = flags.FLAGS
    given = values.coordinator, values.process_count, values.process_index
    if values.distributed:
        if any(x is not None for x in given):
            raise ValueError('--distributed: finds the processes by itself. Leave out --coordinator, --process_count '
                             'and --process_index, or it.')
        jax.distributed.initialize(shutdown_timeout_seconds=PATIENCE)
    elif any(x is not None for x in given):
        if any(x is None for x in given):
            raise ValueError(f'--coordinator={given[0]} --process_count={given[1]} --process_index={given[2]}: give '
                             'all three.')
        jax.distributed.initialize(*given, shutdown_timeout_seconds=PATIENCE)


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
