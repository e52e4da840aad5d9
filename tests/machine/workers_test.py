# SPDX-License-Identifier: Apache-2.0
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

from mdhr_jax import errors
from mdhr_jax.machine import workers
from mdhr_jax.machine.workers import Slot

CORES = sorted(os.sched_getaffinity(0))


# `eval` is a function that every process can import.
CORES_SEEN, GPU_SEEN = "__import__('os').sched_getaffinity(0)", "__import__('os').environ['{}']"


def test_every_job_runs_in_its_slot_and_a_failure_stops_no_other():
    where = [Slot(gpu="3", cores=frozenset(CORES[:1]))]
    gpu = GPU_SEEN.format(workers.VISIBLE)
    futures = dict(workers.run(eval, ["1 / 0", CORES_SEEN, gpu], where))
    assert list(futures) == ["1 / 0", CORES_SEEN, gpu]
    with pytest.raises(ZeroDivisionError):
        futures["1 / 0"].result()
    assert futures[CORES_SEEN].result() == {CORES[0]}
    assert futures[gpu].result() == "3"


def test_a_killed_job_stops_no_other():
    killed = "__import__('os')._exit(1)"
    futures = dict(workers.run(eval, [killed, "2 + 2"], [Slot()]))
    with pytest.raises(BrokenProcessPool):
        futures[killed].result()
    assert futures["2 + 2"].result() == 4


def test_processes_side_by_side_leave_the_gpu_alone_unless_asked(tmp_path, monkeypatch):
    says = "__import__('pathlib').Path({0!r}).write_text(__import__('os').environ['JAX_PLATFORMS'])"
    for platform, expected in ((None, "cpu"), ("cuda", "cuda")):
        monkeypatch.setenv("JAX_PLATFORMS", platform or "")
        if platform is None:
            monkeypatch.delenv("JAX_PLATFORMS")
        files = [tmp_path / f"{expected}{number}" for number in range(2)]
        assert len(list(workers.pooled(eval, [(says.format(str(f)),) for f in files], 2))) == 2
        assert {file.read_text() for file in files} == {expected}


SLEEPS = "[__import__('pathlib').Path({0!r}).touch(), __import__('time').sleep(60)]"


def test_what_nobody_waits_for_any_more_is_ended(tmp_path):
    started, start = tmp_path / "started", time.monotonic()
    running = workers.run(eval, ["1", SLEEPS.format(str(started))], [Slot(), Slot()])
    assert next(running)[1].result() == 1
    _wait_for(started)
    running.close()
    assert not multiprocessing.active_children()
    assert time.monotonic() - start < 30


COMMAND = """
import signal, sys
from mdhr_jax.machine import workers
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
for _ in {call}:
    pass
"""


@pytest.mark.parametrize(
    "call",
    [
        "workers.run(eval, [sys.argv[1]], [workers.Slot()])",
        "workers.pooled(eval, [(sys.argv[1],), ('1',)], 2)",
    ],
)
def test_an_interrupt_of_the_command_alone_ends_its_jobs(tmp_path, call):
    started = tmp_path / "started"
    command = [sys.executable, "-c", COMMAND.format(call=call), SLEEPS.format(str(started))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        _wait_for(started)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)  # its jobs hold the same pipe
    assert b"KeyboardInterrupt" in said


def _wait_for(file):
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_the_cpus_cores_are_shared_out():
    (alone,) = workers.slots()
    assert alone == Slot()
    shares = workers.slots(len(CORES))
    assert [place.cores for place in shares] == [{core} for core in CORES]


def test_gpus_keep_the_names_that_the_user_gave(monkeypatch):
    assert workers._gpu_slots(2) == [Slot(gpu="0"), Slot(gpu="1")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert workers._gpu_slots(2) == [Slot(gpu="4"), Slot(gpu="7")]


@pytest.mark.slow
def test_more_processes_than_slots_are_refused():
    with pytest.raises(errors.InputError, match="give at most that"):
        workers.slots(len(CORES) + 1)
