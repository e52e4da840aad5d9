# SPDX-License-Identifier: Apache-2.0
"""What devices exchange: how fast they do, and how much of it a program asks for."""

import math
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from mdhr_jax.bench import timing
from mdhr_jax.errors import InputError
from mdhr_jax.machine import sharding

_AXES = ("data", "fsdp")
SIZES = (2**16, 2**20, 2**24, 2**28)  # bytes


class Exchange(NamedTuple):
    """A kind of exchange between all devices.

    Attributes:
      run: one device's part in it.
      whole: whether every device begins with the whole array (else with its part).
      kept: whether every device ends with the whole array.
      passes: how often a byte crosses a device's connection, times n / (n - 1) for n devices.
    """

    run: Callable[[jax.Array], jax.Array]
    whole: bool
    kept: bool
    passes: int


KINDS: Mapping[str, Exchange] = {
    "all-reduce": Exchange(lambda x: lax.psum(x, _AXES), True, True, 2),
    "all-gather": Exchange(lambda x: lax.all_gather(x, _AXES, tiled=True), False, True, 1),
    "reduce-scatter": Exchange(lambda x: lax.psum_scatter(x, _AXES, tiled=True), True, False, 1),
}


class Rate(NamedTuple):
    """How fast one exchange is.

    Attributes:
      kind: key of `KINDS`.
      bytes: of the whole array.
      timing: seconds of a call.
      bus: bytes per second that cross each device's connection, as nccl-tests reckons them.
    """

    kind: str
    bytes: int
    timing: timing.Timing
    bus: float


def measure(mesh: Mesh, windows: int) -> list[Rate]:
    """Times every kind for each of `SIZES`, float32.

    Raises:
      InputError: there is one device alone.
    """
    if mesh.size == 1:
        raise InputError(
            "one device exchanges nothing: run on several, such as "
            "XLA_FLAGS=--xla_force_host_platform_device_count=8 with JAX_PLATFORMS=cpu"
        )
    return [_rate(mesh, kind, size, windows) for kind in KINDS for size in SIZES]


def _rate(mesh: Mesh, kind: str, size: int, windows: int) -> Rate:
    exchange, parts = KINDS[kind], mesh.size
    split, everywhere = PartitionSpec(_AXES), PartitionSpec()
    run = jax.jit(
        jax.shard_map(
            exchange.run,
            mesh=mesh,
            in_specs=everywhere if exchange.whole else split,
            out_specs=everywhere if exchange.kept else split,
            check_vma=False,
        )
    )
    entries = -(-size // (4 * parts)) * parts
    place = sharding.replicated(mesh) if exchange.whole else sharding.batched(mesh)
    array = jax.jit(lambda: jnp.ones(entries), out_shardings=place)()
    timed = timing.measure(lambda: run(array), windows)
    crossing = 4 * entries * exchange.passes * (parts - 1) / parts
    return Rate(kind, 4 * entries, timed, crossing / timed.median)


class Volume(NamedTuple):
    """How often a program asks for a kind of exchange, and the bytes of what comes out."""

    times: int
    bytes: int


NAMES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_CALL = re.compile(rf" = (?P<shapes>.*?) (?P<kind>{'|'.join(NAMES)})(?P<started>-start)?\(")
_SHAPE = re.compile(r"(pred|[a-z]+(\d+))\[([\d,]*)\]")


def volumes(program: str) -> dict[str, Volume]:
    """What a compiled program exchanges by kind, each call in its text counted once."""
    volumes: dict[str, Volume] = {}
    for call in _CALL.finditer(program):
        times, size = volumes.get(call["kind"], (0, 0))
        each = sizes(call["shapes"])
        with_operands = call["kind"] == "all-gather" or call["shapes"].startswith("((")
        if call["started"] and with_operands:
            each = each[len(each) // 2 :]  # they stand before results
        if call["started"] and call["kind"] == "collective-permute":
            each = each[1:2]  # operand, result, and what the device needs
        volumes[call["kind"]] = Volume(times + 1, size + sum(each))
    return volumes


def sizes(shapes: str) -> list[int]:
    """Bytes of every array in the text of a program's shape, which may be a tuple of them."""
    return [
        math.prod(int(length) for length in shape.split(",") if length) * int(bits or 8) // 8
        for _, bits, shape in _SHAPE.findall(shapes)
    ]
