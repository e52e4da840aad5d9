# SPDX-License-Identifier: Apache-2.0
"""Processes that train together: how they find each other, and that they train as one does."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from mdhr_jax import errors, train
from mdhr_jax.machine import hosts
from mdhr_jax.run import checkpoint, directory, writers

REPOSITORY = pathlib.Path(__file__).parents[2]
SLURM = {
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_STEP_NODELIST": "gpu[017-019,025],big2",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (SLURM, ("gpu017:63111", 4, 3)),
        (SLURM | {"SLURM_STEP_NODELIST": "alpha,beta"}, ("alpha:63111", 4, 3)),
        (SLURM | {"JAX_COORDINATOR_ADDRESS": "other:5"}, ("other:5", 4, 3)),
        (
            {
                "OMPI_COMM_WORLD_SIZE": "2",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
                "OMPI_COMM_WORLD_RANK": "1",
                "PMIX_NAMESPACE": "prterun-here-7@1",
            },
            ("localhost:61949", 2, 1),
        ),
        (
            {
                "JAX_COORDINATOR_ADDRESS": "mdhr-0-0.mdhr:8476",
                "JAX_NUM_PROCESSES": "8",
                "JOB_COMPLETION_INDEX": "0",
            },
            ("mdhr-0-0.mdhr:8476", 8, 0),
        ),
    ],
    ids=["slurm", "slurm-names", "address", "open-mpi", "kubernetes"],
)
def test_launchers_say_which_process_this_is(environment, expected):
    assert hosts.peer(environment) == expected


def test_flags_go_before_the_launcher():
    place = hosts.peer(SLURM, coordinator="here:1", processes=2, process=1)
    assert place == ("here:1", 2, 1)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"},
        SLURM | {"SLURM_STEP_NUM_TASKS": "1"} | {"SLURM_PROCID": "0"},
    ],
    ids=["nothing", "batch script", "one task"],
)
def test_a_process_alone_meets_nobody(environment):
    assert hosts.peer(environment) is None


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"processes": 2}, "give --processes=N and --process=0 to N - 1"),
        ({"process": 1}, "give --processes=N and --process=0 to N - 1"),
        ({"processes": 2, "process": 2}, "process 2 of 2"),
        ({"processes": 2, "process": 0}, "no address to meet at"),
        ({"processes": 2, "process": 0, "coordinator": "here"}, "here to meet at"),
    ],
)
def test_a_place_that_is_none_is_refused(flags, said):
    with pytest.raises(errors.InputError, match=said):
        hosts.peer({}, **flags)


def test_a_port_that_is_taken_is_refused():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        address = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(errors.InputError, match=f"{address}: process 0 cannot answer there"):
            with hosts.together(hosts.Peer(address, 2, 0), pytest.fail):
                pass


def test_a_port_that_is_none_is_refused():
    with pytest.raises(errors.InputError, match="here:99999: process 0 cannot answer there"):
        with hosts.together(hosts.Peer("here:99999", 2, 0), pytest.fail):
            pass


def test_numbers_of_the_first_process_keep_every_bit():
    assert hosts.as_first(1 / 3) == 1 / 3


def test_known_rows_survive_merging():
    rows = np.array([[0.5], [np.nan]], np.float32)
    np.testing.assert_array_equal(hosts.merged(rows), rows)


# Ends a process before a step as Ctrl-C does; all of them are at the same place then.
_STOPPED = """
import sys
from mdhr_jax import cli
from mdhr_jax.machine import sharding
put, before = sharding.put_batch, iter(range(1, {step}))

def put_batch(mesh, batch):
    if "augment" in batch and next(before, None) is None:
        raise KeyboardInterrupt
    return put(mesh, batch)

sharding.put_batch = put_batch
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture
def start(config_file, quick_compilation_elsewhere):
    """Starts `mdhr train` in so many processes with one device each."""

    def start(workdir, processes, *flags, of_last=(), stop_before=10**6):
        with socket.socket() as found:
            found.bind(("localhost", 0))
            port = found.getsockname()[1]
        command = [sys.executable, "-c", _STOPPED.format(step=stop_before), "train"]
        command += ["--config", str(config_file()), "--workdir", str(workdir), *flags]
        command += [f"--coordinator=localhost:{port}", f"--processes={processes}"]
        own = {processes - 1: of_last}
        return [
            subprocess.Popen(
                [*command, f"--process={process}", *own.get(process, ())],
                env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for process in range(processes)
        ]

    return start


def _end(processes):
    """Exit codes and what was said."""
    said = [process.communicate(timeout=400) for process in processes]
    return [process.returncode for process in processes], ["".join(texts) for texts in said]


def _curve(workdir):
    rows = writers.read(workdir / "metrics.jsonl")
    assert rows
    return {
        name: np.array([row[name] for row in rows if name in row])
        for name in ("loss", "gradient_norm", "mean_f1")
    }


def _assert_same_curve(workdir, other):
    one, two = _curve(workdir), _curve(other)
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-4)
    np.testing.assert_allclose(two["loss"][0], one["loss"][0], rtol=1e-5)
    np.testing.assert_allclose(two["gradient_norm"][0], one["gradient_norm"][0], rtol=1e-3)
    np.testing.assert_array_equal(two["mean_f1"], one["mean_f1"])


@pytest.fixture
def four_steps(tiny_config):
    tiny_config.learning_rate = 1e-5  # Adam's first steps turn noise into +-learning rate
    # A score jumps where a feature vector is zero to rounding: not one of so many entries.
    tiny_config.model.features = 32
    tiny_config.epochs = 4.0
    tiny_config.eval_every = tiny_config.checkpoint_every = 2
    return tiny_config


@pytest.mark.long
def test_two_processes_train_as_one_does_and_one_goes_on_from_there(
    four_steps, start, one_device, tmp_path
):
    one, two = tmp_path / "one", tmp_path / "two"
    train.train(four_steps, one)
    codes, said = _end(start(two, 2, stop_before=4))
    assert codes[0] == 130, said
    assert "on 2 x cpu in 2 processes" in said[0]
    assert checkpoint.latest_step(directory.checkpoints(two), "last") == 2
    train.train(four_steps, two)
    _assert_same_curve(one, two)


@pytest.mark.long
def test_four_processes_with_a_split_state_go_on_where_one_stopped(
    four_steps, start, stop_at_step, one_device, tmp_path
):
    one, four = tmp_path / "one", tmp_path / "four"
    train.train(four_steps, one)
    stop_at_step(4)
    with pytest.raises(KeyboardInterrupt):
        train.train(four_steps, four)
    codes, said = _end(start(four, 4, "--config.fsdp=2"))
    assert codes == [0] * 4, said
    assert "step 2 of 4 on 4 x cpu in 4 processes" in said[0]
    _assert_same_curve(one, four)


@pytest.mark.slow
def test_processes_that_were_started_otherwise_are_named(four_steps, start, tmp_path):
    codes, said = _end(start(tmp_path / "run", 2, of_last=["--config.seed=1"]))
    assert codes[1] == 2
    assert "process 1 was started with another configuration than process 0" in said[1]
    assert codes[0] != 0


@pytest.mark.long
def test_where_one_is_killed_the_others_end(four_steps, start, tmp_path):
    processes = start(tmp_path / "run", 2, "--config.epochs=100000")
    until = time.monotonic() + 300
    while not (tmp_path / "run/checkpoints/last").exists() and time.monotonic() < until:
        time.sleep(0.5)
    assert (tmp_path / "run/checkpoints/last").exists()
    processes[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    codes, said = _end(processes)
    assert time.monotonic() - killed < 2 * hosts.PATIENCE
    assert codes[0] != 0
    assert re.search(r"task:1|process 1|peer", said[0])
