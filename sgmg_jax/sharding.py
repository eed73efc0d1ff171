"""The device mesh: how parameters and batches lie on it.

Axes: 'data' splits the batch, 'fsdp' splits large parameters. The same code runs on one device.
"""
import re

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

BATCH = 'data', 'fsdp'  # axes of the mesh that split the batch
# (pattern in a parameter's path, the axes of the mesh that split its last axes)
RULES = (
    (r'/(kernel|embedding)$', ('fsdp',)),
    (r'', ()),
)


def make_mesh(fsdp=1, devices=None):
    """A mesh ('data', 'fsdp') over all devices; `fsdp` of them share one copy of the parameters.

    Raises:
      ValueError: if `fsdp` does not divide the number of devices.
    """
    devices = devices or jax.devices()
    if len(devices) % fsdp:
        raise ValueError(f'config.fsdp = {fsdp} does not divide the {len(devices)} devices.')
    # Auto: the compiler propagates shardings; flax's convolutions reject explicit ones.
    return jax.make_mesh((len(devices) // fsdp, fsdp), ('data', 'fsdp'),
                         axis_types=(AxisType.Auto, AxisType.Auto), devices=devices)


def parameter_shardings(mesh, shapes, minimum=2 ** 12):
    """The sharding of every array of a tree by the first of RULES that its path matches; whole on every device where
    an axis does not divide among the devices, and below `minimum` numbers, which are not worth the gathering.

    shapes: a tree of arrays or ShapeDtypeStructs: parameters, or a whole training state, whose moments lie as
      their parameters do.
    """
    def sharding(path, x):
        path = jax.tree_util.keystr(path, simple=True, separator='/')
        spec = next(spec for pattern, spec in RULES if re.search(pattern, path))
        # Rules count the axes from the last, as kernels have two, three or four.
        spec = (None,) * (x.ndim - len(spec)) + spec
        divides = all(name is None or n % mesh.shape[name] == 0 for n, name in zip(x.shape, spec))
        return NamedSharding(mesh, PartitionSpec(*spec) if x.size >= minimum and divides else PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, shapes)


def gathered(parameters):
    """Parameters, or their gradients, whole on every device: what a step computes with and what it gives. From sharded
    ones XLA would otherwise make a program that passes activations around."""
    if jax.sharding.get_abstract_mesh().empty:
        return parameters
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()), parameters)


def local_copy(mesh, parameters):
    """Parameters, path -> array, whole on the first of this process's devices; those that lie there are not copied."""
    split = {path: x for path, x in parameters.items() if not x.is_fully_replicated}
    whole = jax.jit(_same, out_shardings=NamedSharding(mesh, PartitionSpec()))(split)
    return {path: x.addressable_data(0) for path, x in (parameters | whole).items()}


def _same(x):
    return x


def global_batch(mesh, batch):
    """This host's share of a batch (NumPy leaves [B ...], [N ...]) -> global arrays, clips split over all devices."""
    sharding = NamedSharding(mesh, PartitionSpec(BATCH))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def batch_local(function, shared=0):
    """Applies function(*arguments) to each device's own part of the leading axis; the last `shared` arguments are
    whole on every device.

    For operations that XLA would otherwise run on the gathered batch (every FFT), whose gradients it would sum over
    the devices once a turn of a loop, or of which one would rather not depend on what it does (sampling). Arguments
    are arrays or None. Without a mesh, and for a batch that the devices cannot share out, it is the function itself.
    """
    def apply(*arguments):
        mesh = jax.sharding.get_abstract_mesh()
        count = len(arguments) - shared
        batches = jax.tree.leaves(arguments[:count])
        if mesh.empty or mesh.size == 1 or any(len(x) % mesh.size for x in batches):
            return function(*arguments)
        split = PartitionSpec(BATCH)
        specs = (split,) * count + (PartitionSpec(),) * shared
        # Unchecked, as a scan inside would otherwise have to say that its zeros differ from device to device.
        return jax.shard_map(function, in_specs=specs, out_specs=split, check_vma=False)(*arguments)
    return apply
