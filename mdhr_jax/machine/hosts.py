# SPDX-License-Identifier: Apache-2.0
"""Several processes that train one run together, usually one per machine.

They find each other and end together (`together`): where one dies or its machine stands still, the
others are ended after about `PATIENCE` seconds. For a process that is alone, all of this does
nothing.

Launchers are asked here and not by JAX's own detection (jax/_src/clusters), from which Slurm's
address and port are. That counts SLURM_NTASKS, which a batch script has of its whole job and not of
what was started together; it gives each process of Slurm or Open MPI one device; it needs mpi4py
for Open MPI 5, and for Kubernetes a client with rights of its own. What is missing ends in a
traceback or in waiting there, here in a line that says what to give.
"""

import contextlib
import hashlib
import json
import os
import re
import socket
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float

from mdhr_jax.errors import InputError

MEETING, PATIENCE = 300, 60  # seconds until all are there, and without a sign of life
ADDRESS = "JAX_COORDINATOR_ADDRESS"
# How many processes there are and which one this is, as their launchers say it: srun, mpirun of
# Open MPI, Kubernetes (launch/k8s_jobset.yaml gives the number).
_LAUNCHERS = (
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("JAX_NUM_PROCESSES", "JOB_COMPLETION_INDEX"),
)


class Peer(NamedTuple):
    """One of several processes.

    Attributes:
      coordinator: HOST:PORT at which process 0 answers.
      processes: how many there are.
      process: which of them this is, from 0.
    """

    coordinator: str
    processes: int
    process: int


def peer(
    environment: Mapping[str, str],
    *,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
) -> Peer | None:
    """This process among those that were started together; None if it is alone.

    Args:
      environment: in which launchers name the processes.
      coordinator: as in `Peer`; what is not None goes before the environment.
      processes: as in `Peer`.
      process: as in `Peer`.

    Raises:
      InputError: how many processes there are, which one this is, or the address is missing or
        wrong.
    """
    if processes is None and process is None:
        processes, process = _launched(environment)
    if processes in (None, 1) and not process:
        return None
    if processes is None or process is None or not 0 <= process < processes:
        raise InputError(
            f"process {process} of {processes}: give --processes=N and --process=0 to N - 1 "
            "together"
        )
    address = coordinator or environment.get(ADDRESS) or _address(environment) or ""
    if not re.fullmatch(r".+:\d+", address):
        raise InputError(
            f"{processes} processes, but {address or 'no address'} to meet at: give "
            f"--coordinator=HOST:PORT of process 0, or set {ADDRESS}"
        )
    return Peer(address, processes, process)


def _launched(environment: Mapping[str, str]) -> tuple[int | None, int | None]:
    for processes, process in _LAUNCHERS:
        if processes in environment and process in environment:
            return int(environment[processes]), int(environment[process])
    return None, None


def _address(environment: Mapping[str, str]) -> str | None:
    """Slurm's first node, this machine if Open MPI started all processes here, else None."""
    size = environment.get("OMPI_COMM_WORLD_SIZE")
    if size and size == environment.get("OMPI_COMM_WORLD_LOCAL_SIZE"):
        return f"localhost:{_port(zlib.crc32(environment.get('PMIX_NAMESPACE', '').encode()))}"
    nodes = re.match(r"([^,\[]+)(?:\[(\d+))?", environment.get("SLURM_STEP_NODELIST", ""))
    if nodes is None:
        return None
    return f"{nodes[1]}{nodes[2] or ''}:{_port(int(environment.get('SLURM_JOB_ID', 0)))}"


def _port(job: int) -> int:
    """Jobs that share a machine meet at different ports, all above the usual ephemeral ones."""
    return 61440 + job % 4096


@contextlib.contextmanager
def together(own: Peer | None, report: Callable[[BaseException], int]) -> Iterator[None]:
    """Among the other processes; to be entered before JAX starts its devices, of which it takes
    all that it sees.

    A process that fails ends at once: at its exit, JAX would wait for the others, who wait for it.

    Args:
      own: this process among the others.
      report: says what went wrong and returns the exit code.

    Raises:
      InputError: process 0 cannot answer at its address.
    """
    if own is None:
        yield
        return
    _join(own)
    try:
        yield
    except BaseException as error:
        code = report(error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _join(own: Peer) -> None:
    """JAX ends the process by itself where the others do not come, so it is told before."""
    if own.process == 0:
        _check_free(own.coordinator)
    print(
        f"process {own.process} of {own.processes}: meets the others at {own.coordinator}; "
        f"it ends where they do not come within {MEETING} s",
        file=sys.stderr,
        flush=True,
    )
    # It would keep a terminating signal from ending this process.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        *own,
        cluster_detection_method="deactivate",  # see above; it would also take one device only
        initialization_timeout=MEETING,
        heartbeat_timeout_seconds=PATIENCE,
    )


def _check_free(address: str) -> None:
    with socket.socket() as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind(("", int(address.rpartition(":")[2])))
        except (OSError, OverflowError) as error:  # the latter for no port at all, such as 99999
            raise InputError(
                f"{address}: process 0 cannot answer there ({error}); name another port "
                f"for all with --coordinator or {ADDRESS}"
            ) from error


def is_first() -> bool:
    """Whether this process writes what is written once."""
    return jax.process_index() == 0


def wait(place: str) -> None:
    """Until every process has come to this place in the program."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)


def agree(said: Mapping[str, Any]) -> None:
    """Compares what the processes are about to do with what the first one is.

    Raises:
      InputError: in every process, if one differs; it and the first such entry are named.
    """
    sums = [hashlib.sha256(json.dumps(value).encode()).digest()[:8] for value in said.values()]
    everywhere = _gather(np.frombuffer(b"".join(sums), np.uint32).reshape(len(sums), 2))
    for name, of_processes in zip(said, everywhere.swapaxes(0, 1), strict=True):
        differing = np.flatnonzero((of_processes != of_processes[0]).any(axis=1))
        if differing.size:
            raise InputError(
                f"process {differing[0]} was started with another {name} than process 0: give all "
                "the same flags, and a data set and a --workdir that all of them see"
            )


def as_first(number: float) -> float:
    """What the first process says, to the last bit."""
    return float(_gather(np.array([number]).view(np.uint32))[0].view(np.float64)[0])


def merged(rows: Float[np.ndarray, "m n"]) -> Float[np.ndarray, "m n"]:
    """The rows that any process knows; those that it does not know are NaN."""
    return np.fmax.reduce(_gather(rows))


def _gather(array: np.ndarray) -> np.ndarray:
    """The array of every process, stacked."""
    if jax.process_count() == 1:
        return array[None]
    return np.asarray(multihost_utils.process_allgather(array))
