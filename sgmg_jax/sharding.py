"""The device mesh, and how parameters and batches are laid out on it.

Axes: 'data' and 'shards'. Both split the batch; 'shards' also splits large parameters and their optimizer state, which
are stored in shards between steps and gathered for each step. The same code runs on one device.
"""

from collections.abc import Callable, Mapping, Sequence
import re
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

BATCH = 'data', 'shards'  # the mesh axes that split the batch
# (pattern in a parameter's path, the mesh axes that split its last axes)
RULES: tuple[tuple[str, tuple[str, ...]], ...] = ((r'/(kernel|embedding)$', ('shards',)), (r'', ()))


def make_mesh(storage_shards: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices; groups of `storage_shards` of them share one copy of the parameters between steps.

    Raises:
      ValueError: if `storage_shards` does not divide the number of devices.
    """
    devices = devices or jax.devices()
    if len(devices) % storage_shards:
        raise ValueError(
            f'config.storage_shards = {storage_shards} does not divide the number of devices, '
            f'{len(devices)}. Set it to a divisor.'
        )
    # Auto: the compiler propagates shardings; flax's convolutions reject explicit ones.
    return jax.make_mesh(
        (len(devices) // storage_shards, storage_shards),
        BATCH,
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=devices,
    )


def parameter_shardings(mesh: Mesh, shapes: Any, minimum: int = 2**12) -> Any:
    """The sharding of every array in a tree, by the first of RULES that matches its path.

    An array is replicated if the mesh does not divide its axis evenly, or if it has fewer than `minimum` numbers, which
    are not worth gathering.

    Args:
        shapes: a tree of arrays or ShapeDtypeStructs: parameters or a whole training state, whose optimizer moments are
            sharded like their parameters.
    """

    def sharding(path: tuple, x: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        rule = next(axes for pattern, axes in RULES if re.search(pattern, name))
        # Rules count axes from the last, because kernels have two to four axes.
        axes = (None,) * (x.ndim - len(rule)) + rule
        divides = all(axis is None or n % mesh.shape[axis] == 0 for n, axis in zip(x.shape, axes))
        return NamedSharding(mesh, PartitionSpec(*axes) if x.size >= minimum and divides else PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, shapes)


def gathered(parameters: Any) -> Any:
    """Replicates parameters, or their gradients, on every device for the computation of a step. From sharded parameters
    XLA would otherwise compile a program that moves activations between devices."""
    if jax.sharding.get_abstract_mesh().empty:
        return parameters
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()), parameters)


def local_copy(mesh: Mesh, parameters: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Parameters, path -> whole array on this process's first device; those already replicated are not copied."""
    split = {path: x for path, x in parameters.items() if not x.is_fully_replicated}
    whole = jax.jit(_same, out_shardings=NamedSharding(mesh, PartitionSpec()))(split)
    return {path: x.addressable_data(0) for path, x in {**parameters, **whole}.items()}


def _same(x):
    return x


def global_batch(mesh: Mesh, batch: Any) -> Any:
    """This host's part of a batch (NumPy leaves [B ...], [N ...]) -> global arrays, clips split over all devices."""
    sharding = NamedSharding(mesh, PartitionSpec(BATCH))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def batch_local(function: Callable, shared: int = 0) -> Callable:
    """Applies `function` to each device's own part of the leading axis; the last `shared` arguments are replicated.

    For operations that XLA would otherwise run on the gathered batch (every FFT), whose gradients it would all-reduce
    in every loop iteration, or whose partitioning we do not want to leave to XLA (sampling). Arguments are arrays or
    None. Without a mesh, or if the devices do not divide the batch, `function` runs unchanged.
    """

    def apply(*arguments):
        mesh = jax.sharding.get_abstract_mesh()
        count = len(arguments) - shared
        batches = jax.tree.leaves(arguments[:count])
        if mesh.empty or mesh.size == 1 or any(len(x) % mesh.size for x in batches):
            return function(*arguments)
        split = PartitionSpec(BATCH)
        specs = (split,) * count + (PartitionSpec(),) * shared
        # With the check, a scan inside would have to declare that its initial zeros differ between devices.
        return jax.shard_map(function, in_specs=specs, out_specs=split, check_vma=False)(*arguments)

    return apply
