# SPDX-License-Identifier: Apache-2.0
"""Jobs side by side: one process per GPU, or per part of the CPU's cores.

A process takes its slot before it imports JAX, so it sees nothing else; this module and the
process that hands the jobs out must therefore not start JAX's devices.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from multiprocessing.queues import SimpleQueue

from mdhr_jax.errors import InputError

# A forked process would inherit what its parent has imported and started.
CONTEXT = multiprocessing.get_context("spawn")
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclasses.dataclass(frozen=True)
class Slot:
    """What one process may use.

    Attributes:
      gpu: its name in `CUDA_VISIBLE_DEVICES`; None for a process without.
      cores: numbers of CPU cores; None for all.
    """

    gpu: str | None = None
    cores: frozenset[int] | None = None

    def take(self, wanted: Connection) -> None:
        """Confines this process to the slot; it ends when the other end of `wanted` is closed."""
        _end_with(wanted)
        if self.gpu is not None:
            os.environ[VISIBLE] = self.gpu
        if self.cores is not None:
            os.sched_setaffinity(0, self.cores)


def _end_with(wanted: Connection) -> None:
    """Ends this process when its parent closes the pipe or is gone, killed or not."""

    def wait() -> None:
        wanted.poll(None)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def slots(processes: int | None = None) -> list[Slot]:
    """Where jobs can run at the same time: every GPU, or the CPU, cut into `processes` parts.

    Raises:
      InputError: more processes than GPUs or cores.
    """
    with ProcessPoolExecutor(1, mp_context=CONTEXT) as pool:
        gpus = pool.submit(_count_gpus).result()
    found = _gpu_slots(gpus) if gpus else _cpu_slots(processes or 1)
    if processes is not None and processes > len(found):
        raise InputError(
            f"--processes={processes}: this machine has slots for {len(found)}; give at most that"
        )
    return found[:processes]


def _count_gpus() -> int:
    import jax

    return jax.local_device_count() if jax.default_backend() == "gpu" else 0


def _gpu_slots(count: int) -> list[Slot]:
    names = os.environ.get(VISIBLE, ",".join(map(str, range(count)))).split(",")
    return [Slot(gpu=name) for name in names[:count]]


def _cpu_slots(parts: int) -> list[Slot]:
    if parts == 1 or not hasattr(os, "sched_getaffinity"):
        return [Slot()]
    cores = sorted(os.sched_getaffinity(0))
    shares = [frozenset(cores[part::parts]) for part in range(parts)]
    return [Slot(cores=share) for share in shares if share]


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run[Job](
    function: Callable[[Job], object], jobs: Iterable[Job], where: Sequence[Slot]
) -> Iterator[tuple[Job, Future]]:
    """Jobs with their results, as they finish; every slot works on one job at a time.

    A job has a process of its own. What it raised is raised by its `future.result()`, a
    `BrokenProcessPool` if it was killed; the others go on. Those that still work when nobody asks
    for results any more, as after Ctrl-C, are ended.
    """
    waiting, running = iter(jobs), {}
    wanted, end = CONTEXT.Pipe(duplex=False)

    def start(slot: Slot) -> None:
        for job in waiting:
            pool = ProcessPoolExecutor(
                1, mp_context=CONTEXT, initializer=slot.take, initargs=(wanted,)
            )
            running[pool.submit(function, job)] = pool, slot, job
            return

    try:
        for slot in where:
            start(slot)
        while running:
            done, _ = concurrent.futures.wait(
                running, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                pool, slot, job = running.pop(future)
                pool.shutdown()
                start(slot)
                yield job, future
    finally:
        end.close()
        for pool, _, _ in running.values():
            pool.shutdown()
        wanted.close()


def pooled[Job: tuple](
    function: Callable[..., object], jobs: Sequence[Job], processes: int
) -> Iterator[Job]:
    """Calls the function with each job's arguments; says which jobs are done, as they finish.

    A process keeps what it has started, such as compiled nets, for its next job, and leaves a GPU
    alone unless `JAX_PLATFORMS` names it. With one process it is this one.

    What is under way when a job raises is finished; after Ctrl-C it is not.

    Raises:
      InputError: a process was killed. What a job raises is raised here.
    """
    if processes <= 1 or len(jobs) <= 1:
        for job in jobs:
            function(*job)
            yield job
        return
    processes = min(processes, len(jobs))
    slots = CONTEXT.SimpleQueue()
    for slot in _shares(processes):
        slots.put(slot)
    wanted, end = CONTEXT.Pipe(duplex=False)
    with (
        wanted,
        end,
        ProcessPoolExecutor(
            processes, mp_context=CONTEXT, initializer=_take_one, initargs=(slots, wanted)
        ) as pool,
    ):
        futures = {pool.submit(function, *job): job for job in jobs}
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
                yield futures[future]
        except BrokenProcessPool as error:
            raise InputError(
                "a process was killed, perhaps for want of memory; the same command goes on, with "
                "fewer --processes if it happens again"
            ) from error
        except (KeyboardInterrupt, GeneratorExit):
            end.close()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _shares(processes: int) -> list[Slot]:
    """A share of the CPU's cores for each process; with more processes than cores, all for all."""
    found = _cpu_slots(processes)
    return found if len(found) == processes else [Slot()] * processes


def _take_one(slots: SimpleQueue, wanted: Connection) -> None:
    """Takes the next slot. As many processes as cores would not fit on a GPU: all use the CPU."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # where one is asked for
    slots.get().take(wanted)
