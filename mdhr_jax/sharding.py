# SPDX-License-Identifier: Apache-2.0
"""The mesh and where arrays lie on it. Results never depend on the number of devices."""

import os
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mdhr_jax.errors import InputError

GPUS = pathlib.Path("/dev/nvidiactl")  # there is one where NVIDIA's driver is
SMALLEST_SHARDED = 2**16  # entries; smaller arrays cost more to gather than to keep


def make_mesh(fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The devices (all by default) as ("data", "fsdp").

    Batches are split over both axes, the state over the second.

    Raises:
      InputError: the devices do not divide by `fsdp`, or JAX overlooks this machine's GPU.
    """
    devices = _all_devices() if devices is None else devices
    if len(devices) % fsdp:
        raise InputError(f"fsdp={fsdp} does not divide the {len(devices)} devices; use a divisor")
    # JAX's default axis type is Explicit, which folding frames into the batch does not support.
    return jax.make_mesh(
        (len(devices) // fsdp, fsdp),
        ("data", "fsdp"),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=devices,
    )


def _all_devices() -> Sequence[jax.Device]:
    """Those of JAX; the CPU of a machine with a GPU only where that is asked for."""
    asked = {"JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"} & os.environ.keys()
    if jax.default_backend() == "cpu" and GPUS.exists() and not asked:
        raise InputError(
            "this machine has a GPU that JAX cannot use: pip install 'mdhr-jax[cuda]', or set "
            "JAX_PLATFORMS=cpu to take the CPU"
        )
    return jax.devices()


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


def put_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process's part of a batch, on its devices."""
    sharding = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }
