# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import jax
import numpy as np
import pytest

from mdhr_jax import errors
from mdhr_jax.commands import failures
from mdhr_jax.machine import locks
from mdhr_jax.run import directory
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.studies import experiments
from mdhr_jax.studies.experiments import Grid, Variant


@pytest.mark.parametrize("line", ['{"variant": "full"}', "[" * 10**5])
def test_a_damaged_line_is_refused(tmp_path, line):
    (tmp_path / "runs.jsonl").write_text(f"{line}\n")
    with pytest.raises(errors.InputError, match="runs.jsonl, line 1: holds no run"):
        experiments.read_runs(tmp_path / "runs.jsonl")


def test_another_data_set_or_variant_of_the_same_name_is_refused(
    finished_run, random_counts, tiny_config, tmp_path
):
    done = finished_run("less", 0, random_counts(np.random.default_rng(0)))
    (tmp_path / "runs.jsonl").write_text(json.dumps(dataclasses.asdict(done)))
    grid = Grid(tiny_config, [Variant("less", {"model.temporal": False})], [0], [1])
    with pytest.raises(errors.InputError, match="differing: .*data, .*variant 'less'"):
        next(experiments.complete(grid, workdir=tmp_path, results=tmp_path))


def test_finished_runs_are_read_back_and_not_done_again(
    finished_run, random_counts, tiny_config, tmp_path
):
    grid = Grid(tiny_config, [Variant("full", {"model.dynamics.scales": (1, 2)})], [0], [1])
    done = finished_run("full", 0, random_counts(np.random.default_rng(0)))
    done = dataclasses.replace(
        done, config=grid.common(), overrides={"model.dynamics.scales": [1, 2]}
    )
    (tmp_path / "runs.jsonl").write_text(json.dumps(dataclasses.asdict(done)) + "\n")
    assert list(experiments.complete(grid, workdir=tmp_path, results=tmp_path)) == [[done]]


@pytest.mark.parametrize("taken", ["runs", "results"])
def test_two_commands_do_not_train_in_the_same_directory(tiny_config, tmp_path, taken):
    grid = Grid(tiny_config, [Variant("full", {})], [0], [1])
    with locks.alone(tmp_path / taken, ""):
        with pytest.raises(errors.InputError, match=f"{taken}: another command is at work here"):
            list(
                experiments.complete(grid, workdir=tmp_path / "runs", results=tmp_path / "results")
            )


def test_a_variant_that_cannot_be_is_refused_before_any_run(tiny_config, tmp_path):
    grid = Grid(tiny_config, [Variant("none", {"model.features": 0})], [0], [1])
    with pytest.raises(errors.InputError, match="config.model.features=0: give at least 1"):
        next(experiments.complete(grid, workdir=tmp_path / "runs", results=tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_budget_in_steps_stands_for_the_epochs(tiny_config):
    grids = [Grid(tiny_config, [], [0], [1], steps) for steps in (None, 5)]
    assert [grid.common()["epochs"] for grid in grids] == [8.0, 0.0]
    assert [grid.common()["steps"] for grid in grids] == [0, 5]


@pytest.mark.parametrize(
    ("entry", "value"),
    [("image_size", 48), ("image_format", "png"), ("crop", "center"), ("seed", 4)],
)
def test_the_same_frames_and_labels_with_other_pictures_are_another_data_set(
    finished_run, random_counts, tiny_config, rendered_set, tmp_path, monkeypatch, entry, value
):
    grid = Grid(tiny_config, [Variant("full", {})], [0], [1])
    done = finished_run("full", 0, random_counts(np.random.default_rng(0)))
    done = dataclasses.replace(done, config=grid.common())
    (tmp_path / "runs.jsonl").write_text(json.dumps(dataclasses.asdict(done)) + "\n")
    metadata = dataclasses.replace(rendered_set.metadata, **{entry: value})
    other = dataclasses.replace(rendered_set, metadata=metadata)
    monkeypatch.setattr(Recipe, "open_data", lambda recipe: other)
    with pytest.raises(
        errors.InputError, match="or data set .differing: .*pictures.; name another"
    ):
        next(experiments.complete(grid, workdir=tmp_path, results=tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("INTERNAL: a program failed: Out of memory allocating 99 bytes"),
        BrokenProcessPool("killed"),
        KeyError("ours"),
    ],
)
def test_whatever_ends_a_run_the_others_are_done_and_recorded(
    error, finished_run, random_counts, tiny_config, tmp_path, monkeypatch, capsys
):
    grid = Grid(tiny_config, [Variant("full", {})], [0, 1, 2], [1])

    def run(function, jobs, where):
        for job in jobs:
            future = Future()
            if job.seed == 1:
                future.set_exception(error)
            else:
                counts = random_counts(np.random.default_rng(0))
                future.set_result(finished_run("full", job.seed, counts))
            yield job, future

    monkeypatch.setattr(experiments.workers, "run", run)
    with pytest.raises((errors.InputError, type(error))) as raised:
        list(experiments.complete(grid, workdir=tmp_path / "runs", results=tmp_path))
    assert failures.report("compare", raised.value) == (1 if isinstance(error, KeyError) else 2)
    done = experiments.read_runs(tmp_path / "runs.jsonl")
    assert [run.seed for run in done] == [0, 2]
    assert "full, seed 1, fold 1: " in capsys.readouterr().err


def test_runs_of_an_earlier_version_are_kept_and_what_cannot_be_checked_is_said(
    finished_run, random_counts, tiny_config, tmp_path, capsys
):
    grid = Grid(tiny_config, [Variant("full", {})], [0], [1])
    earlier = {key: value for key, value in grid.common().items() if key not in directory.ADDED}
    del earlier["pictures"], earlier["model.kind"]
    earlier["region_loss_weight"] = earlier.pop("auxiliary_loss_weight")
    done = finished_run("full", 0, random_counts(np.random.default_rng(0)))
    line = dataclasses.asdict(dataclasses.replace(done, config=earlier))
    for key in ("frames", "seen"):
        del line[key]
    (tmp_path / "runs.jsonl").write_text(json.dumps(line) + "\n")
    ((kept,),) = experiments.complete(grid, workdir=tmp_path, results=tmp_path)
    assert kept.subjects == done.subjects
    (said,) = capsys.readouterr().err.splitlines()
    assert "runs of an earlier version" in said and "cannot be checked" in said
