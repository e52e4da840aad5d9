# SPDX-License-Identifier: Apache-2.0
import dataclasses
import fcntl
import json

import numpy as np
import pytest

from mdhr_jax import errors, experiments, runs
from mdhr_jax.experiments import Plan, Variant


def test_a_damaged_line_is_refused(tmp_path):
    (tmp_path / "runs.jsonl").write_text('{"variant": "full"}\n')
    with pytest.raises(errors.InputError, match="runs.jsonl, line 1: holds no run"):
        experiments.read_runs(tmp_path / "runs.jsonl")


def test_another_data_set_or_variant_of_the_same_name_is_refused(
    finished_run, random_counts, tiny_config, tmp_path
):
    done = finished_run("less", 0, random_counts(np.random.default_rng(0)))
    (tmp_path / "runs.jsonl").write_text(json.dumps(dataclasses.asdict(done)))
    plan = Plan(tiny_config, [Variant("less", {"model.temporal": False})], [0], [1])
    with pytest.raises(errors.InputError, match="differing: .*data, .*variant 'less'"):
        next(experiments.complete(plan, workdir=tmp_path, results=tmp_path))


def test_finished_runs_are_read_back_and_not_done_again(
    finished_run, random_counts, tiny_config, tmp_path
):
    plan = Plan(tiny_config, [Variant("full", {"model.dynamics.scales": (1, 2)})], [0], [1])
    done = finished_run("full", 0, random_counts(np.random.default_rng(0)))
    done = dataclasses.replace(
        done, config=plan.common(), overrides={"model.dynamics.scales": [1, 2]}
    )
    (tmp_path / "runs.jsonl").write_text(json.dumps(dataclasses.asdict(done)) + "\n")
    assert list(experiments.complete(plan, workdir=tmp_path, results=tmp_path)) == [[done]]


def test_two_commands_do_not_train_in_the_same_directory(tiny_config, tmp_path):
    plan = Plan(tiny_config, [Variant("full", {})], [0], [1])
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(errors.InputError, match="another command is at work here"):
            list(experiments.complete(plan, workdir=tmp_path, results=tmp_path))


def test_a_variant_that_cannot_be_is_refused_before_any_run(tiny_config, tmp_path):
    plan = Plan(tiny_config, [Variant("none", {"model.features": 0})], [0], [1])
    with pytest.raises(errors.InputError, match="config.model.features=0: give at least 1"):
        next(experiments.complete(plan, workdir=tmp_path / "runs", results=tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_budget_in_steps_stands_for_the_epochs(tiny_config):
    plans = [Plan(tiny_config, [], [0], [1], steps) for steps in (None, 5)]
    assert [plan.common()["epochs"] for plan in plans] == [8.0, 0.0]
    assert [plan.common()["steps"] for plan in plans] == [0, 5]


@pytest.mark.parametrize(
    ("entry", "value"),
    [("image_size", 48), ("image_format", "png"), ("crop", "center"), ("seed", 4)],
)
def test_the_same_frames_and_labels_with_other_pictures_are_another_data_set(
    finished_run, random_counts, tiny_config, rendered_set, tmp_path, monkeypatch, entry, value
):
    plan = Plan(tiny_config, [Variant("full", {})], [0], [1])
    done = finished_run("full", 0, random_counts(np.random.default_rng(0)))
    done = dataclasses.replace(done, config=plan.common())
    (tmp_path / "runs.jsonl").write_text(json.dumps(dataclasses.asdict(done)) + "\n")
    metadata = dataclasses.replace(rendered_set.metadata, **{entry: value})
    other = dataclasses.replace(rendered_set, metadata=metadata)
    monkeypatch.setattr(runs, "open_data", lambda config: other)
    with pytest.raises(errors.InputError, match="or data set .differing: data.; name another"):
        next(experiments.complete(plan, workdir=tmp_path, results=tmp_path))
