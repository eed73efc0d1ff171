"""The device mesh: how parameters and batches lie on it.

Axes: 'data' splits the batch, 'fsdp' splits large parameters. The same code runs on one device.
"""
import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np


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


def parameter_shardings(mesh, shapes, minimum=2 ** 16):
    """Splits every array of at least `minimum` numbers along its largest axis that 'fsdp' divides.

    shapes: a tree of arrays or ShapeDtypeStructs (parameters, or a whole training state).
    """
    ways = mesh.shape['fsdp']

    def rule(x):
        divisible = [i for i, n in enumerate(x.shape) if n % ways == 0]
        if ways == 1 or np.prod(x.shape) < minimum or not divisible:
            return NamedSharding(mesh, PartitionSpec())
        axis = max(divisible, key=lambda i: x.shape[i])
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, 'fsdp'))

    return jax.tree.map(rule, shapes)


def global_batch(mesh, batch):
    """This host's share of a batch (NumPy leaves [B ...], [N ...]) -> global arrays, clips split over all devices."""
    sharding = NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def batch_local(function):
    """Applies function(*arrays) to each device's own part of the leading axis.

    For operations that XLA would otherwise run on the gathered batch (every FFT), and any other
    that treats the batch elements independently. Without a mesh it is the function itself.
    """
    def apply(*arrays):
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty or mesh.size == 1 or any(x.shape[0] % mesh.size for x in arrays):
            return function(*arrays)
        spec = PartitionSpec(('data', 'fsdp'))
        return jax.shard_map(function, in_specs=spec, out_specs=spec)(*arrays)
    return apply
