# SPDX-License-Identifier: Apache-2.0
"""The mesh and where arrays lie on it. Results never depend on the number of devices."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mdhr_jax.errors import InputError
from mdhr_jax.machine import devices as all_devices

SMALLEST_SHARDED = 2**16  # entries; smaller arrays cost more to gather than to keep
# Compiler options of a training step: GPUs send gradients as soon as these are known. XLA's default
# begins no exchange before the last one has ended, and sends gradients after the backward pass.
OVERLAPPED = {
    "xla_gpu_experimental_collective_start_as_early_as_possible": True,
    "xla_gpu_experimental_parallel_collective_overlap_limit": 4,
}


def make_mesh(fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The devices (all by default) as ("data", "fsdp").

    Batches are split over both axes, the state over the second.

    Raises:
      InputError: the devices do not divide by `fsdp`, or JAX overlooks this machine's GPU.
    """
    devices = all_devices.found() if devices is None else devices
    if len(devices) % fsdp:
        raise InputError(f"fsdp={fsdp} does not divide the {len(devices)} devices; use a divisor")
    # JAX's default axis type is Explicit, which folding frames into the batch does not support.
    return jax.make_mesh(
        (len(devices) // fsdp, fsdp),
        ("data", "fsdp"),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=devices,
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(mesh: Mesh, abstract_state: dict) -> dict:
    """One rule: the largest axis that divides by "fsdp" is split, small arrays are replicated."""
    parts = mesh.shape["fsdp"]

    def rule(leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        axes = [axis for axis, size in enumerate(leaf.shape) if size % parts == 0]
        if parts == 1 or not axes or leaf.size < SMALLEST_SHARDED:
            return replicated(mesh)
        largest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, "fsdp"))

    return jax.tree.map(rule, abstract_state)


def gathered(mesh: Mesh, tree: dict) -> dict:
    """Within a jitted function: the whole arrays on every device.

    Otherwise XLA may split the work on activations as it finds the parameters split, and send
    activations to and fro.
    """
    return jax.lax.with_sharding_constraint(tree, replicated(mesh))


def batched(mesh: Mesh) -> NamedSharding:
    """The leading axis split over all devices."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def own_part(mesh: Mesh, length: int) -> range:
    """Where this process's devices are in a leading axis of that length."""
    held = batched(mesh).addressable_devices_indices_map((length,)).values()
    places = [range(*rows.indices(length)) for (rows,) in filter(None, held)]
    return range(min(p.start for p in places), max(p.stop for p in places))


def fetch_own(array: jax.Array) -> np.ndarray:
    """This process's part of a `batched` array."""
    held = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([held[start] for start in sorted(held)])


def put_everywhere(mesh: Mesh, array: np.ndarray) -> jax.Array:
    """The whole array on every device."""
    return jax.make_array_from_callback(array.shape, replicated(mesh), lambda part: array[part])


def put_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process's part of a batch, on its devices."""
    return {
        name: jax.make_array_from_process_local_data(batched(mesh), array)
        for name, array in batch.items()
    }
