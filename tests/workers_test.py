# SPDX-License-Identifier: Apache-2.0
import os

import pytest

from mdhr_jax import errors, workers
from mdhr_jax.workers import Place

CORES = sorted(os.sched_getaffinity(0))


def what_i_see(job):
    if job == "fails":
        raise errors.InputError("refused")
    return job, os.environ.get("CUDA_VISIBLE_DEVICES"), os.sched_getaffinity(0)


def test_every_job_runs_in_its_place_and_a_failure_stops_no_other():
    where = [Place(gpu="3", cores=frozenset(CORES[:1]))]
    jobs = ["fails", "one", "two"]
    futures = dict(workers.run(what_i_see, jobs, where))
    assert list(futures) == jobs
    with pytest.raises(errors.InputError, match="refused"):
        futures["fails"].result()
    for job in ("one", "two"):
        assert futures[job].result() == (job, "3", {CORES[0]})


def test_the_cpus_cores_are_shared_out():
    (alone,) = workers.places()
    assert alone == Place()
    shares = workers.places(len(CORES))
    assert [place.cores for place in shares] == [{core} for core in CORES]


def test_gpus_keep_the_names_that_the_user_gave(monkeypatch):
    assert workers._gpu_places(2) == [Place(gpu="0"), Place(gpu="1")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert workers._gpu_places(2) == [Place(gpu="4"), Place(gpu="7")]


def test_more_processes_than_places_are_refused():
    with pytest.raises(errors.InputError, match="give at most that"):
        workers.places(len(CORES) + 1)
