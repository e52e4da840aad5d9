# SPDX-License-Identifier: Apache-2.0
"""Keys for training with large batches: schedules in steps, scaled rates, other optimizers."""

import functools
import itertools
import re

import jax
import numpy as np
import pytest

from mdhr_jax import errors, evaluate, train
from mdhr_jax.machine import sharding
from mdhr_jax.run import checkpoint, directory, inputs
from mdhr_jax.run.programs import REMAT, peak_learning_rate, programs_for, schedule_of
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.run.trained import initial_values, load_trained, with_values


def test_the_length_of_a_run_is_given_in_epochs_or_in_steps(tiny_config, rendered_set):
    assert inputs.count_steps(Recipe.of(tiny_config), rendered_set) == 8
    tiny_config.steps, tiny_config.epochs = 37, 0.0
    assert inputs.count_steps(Recipe.of(tiny_config), rendered_set) == 37


def test_the_rate_rises_over_the_steps_of_warm_up_to_the_scaled_one(tiny_config, rendered_set):
    tiny_config.update(warmup_steps=10, batch_size=32, learning_rate_scaling="linear")
    schedule = schedule_of(Recipe.of(tiny_config), rendered_set, 100).learning_rates()
    np.testing.assert_allclose([schedule(5), schedule(10)], [2e-3, 4e-3], rtol=1e-6)
    tiny_config.update(learning_rate_scaling="sqrt", learning_rate_batch=2)
    assert peak_learning_rate(Recipe.of(tiny_config)) == 4e-3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"warmup_steps": 8}, "8 steps of warm-up leave none of the run's 8; shorten it or train"),
        ({"learning_rate_scaling": "cubic"}, "config.learning_rate_scaling.*none, linear, sqrt"),
        ({"remat": "all"}, "config.remat='all' is unknown; choose from none, blocks"),
        ({"accumulate": 2, "batch_size": 6}, "6 clips in 2 micro-batches do not .* multiple of"),
        (
            {"accumulate": 2, "batch_size": 48, "batch_norm_groups": 5},
            "=5 does not divide .* of 24",
        ),
        ({"optimizer": "sgd"}, "config.optimizer='sgd' is unknown; choose from adamw, lamb, lars"),
    ],
)
def test_recipes_that_cannot_be_are_refused_before_anything_is_made(
    tiny_config, tmp_path, changes, expected
):
    tiny_config.update(changes)
    with pytest.raises(errors.InputError, match=expected):
        train.train(tiny_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def two_devices(monkeypatch):
    """A mesh over which even the tiny model's state is split."""
    monkeypatch.setattr(sharding, "SMALLEST_SHARDED", 256)
    return sharding.make_mesh(2, devices=jax.devices()[:2])


def _is_split(tree):
    return any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(tree))


@pytest.mark.long
@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "lamb"},
        pytest.param({"optimizer": "lars"}, marks=pytest.mark.soak),
        {"ema": 0.9, "accumulate": 2},
    ],
    ids=str,
)
def test_the_state_is_split_and_goes_on_from_a_checkpoint(
    tiny_config, rendered_set, tmp_path, two_devices, changes
):
    tiny_config.update(changes)
    recipe = Recipe.of(tiny_config)
    programs = programs_for(recipe, rendered_set, two_devices, 4)
    batches = inputs.training_batches(recipe, rendered_set, 0)
    batches = [sharding.put_batch(two_devices, x) for x in itertools.islice(batches, 4)]
    state, losses = programs.init(programs.schedule), []
    for step, batch in enumerate(batches):
        if step == 2:
            checkpoint.save(tmp_path, "last", 2, state)
        state, scalars = programs.train(state, batch, programs.schedule)
        losses.append(float(scalars["loss"]))
    assert all(_is_split(state[part]) for part in state.keys() - {"step", "batch_stats"})

    restored = checkpoint.restore(tmp_path, "last", programs.abstract)
    for batch in batches[2:]:
        restored, _ = programs.train(restored, batch, programs.schedule)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert len(set(losses)) == 4  # it trains


def _step_program(config, source, mesh):
    """The compiled training step, and a batch for it."""
    recipe = Recipe.of(config)
    programs = programs_for(recipe, source, mesh, 4)
    batch = sharding.put_batch(mesh, next(inputs.training_batches(recipe, source, 0)))
    return (
        programs,
        programs.train.lower(programs.abstract, batch, programs.schedule).compile(),
        batch,
    )


@pytest.mark.long
def test_micro_batches_exchange_no_pictures_between_devices(tiny_config, rendered_set):
    tiny_config.accumulate = 2
    mesh = sharding.make_mesh(devices=jax.devices()[:2])
    _, step, _ = _step_program(tiny_config, rendered_set, mesh)
    exchanges = [
        line
        for line in step.as_text().splitlines()
        if re.search(r"= \S+ (all-gather|all-to-all|collective-permute)", line)
    ]
    assert "all-reduce" in step.as_text() and exchanges == []


@pytest.mark.long
def test_micro_batches_are_the_groups_of_batch_normalisation(tiny_config, rendered_set):
    mesh, found = sharding.make_mesh(devices=jax.devices()[:2]), []
    for key in ("accumulate", "batch_norm_groups"):
        config = tiny_config.copy_and_resolve_references()
        config[key] = 2
        programs, step, batch = _step_program(config, rendered_set, mesh)
        found.append(step(programs.init(programs.schedule), batch, programs.schedule)[1])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3), *found)
    np.testing.assert_allclose(found[0]["loss"], found[1]["loss"], rtol=1e-5)


@pytest.mark.long
def test_blocks_computed_again_learn_the_same_in_less_memory(tiny_config, rendered_set):
    tiny_config.image_size, tiny_config.batch_size = 64, 16
    mesh, found = sharding.make_mesh(devices=jax.devices()[:1]), {}
    for tiny_config.remat in REMAT:
        programs, step, batch = _step_program(tiny_config, rendered_set, mesh)
        state, scalars = step(programs.init(programs.schedule), batch, programs.schedule)
        memory = step.memory_analysis().temp_size_in_bytes
        found[tiny_config.remat] = memory, state["batch_stats"], scalars
    (all_kept, stats, scalars), (recomputed, stats_again, scalars_again) = found.values()
    assert recomputed < 0.8 * all_kept
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, (stats_again, scalars_again), (stats, scalars))


@pytest.mark.long
def test_the_average_is_what_is_scored_loaded_and_started_from(
    tiny_config, rendered_set, tmp_path, one_device
):
    tiny_config.update(ema=0.9, protocol="last", eval_every=8)
    train.train(tiny_config, tmp_path / "run")
    recipe = Recipe.of(tiny_config)
    programs = programs_for(recipe, rendered_set, sharding.make_mesh(), 8)
    state = checkpoint.restore(directory.checkpoints(tmp_path / "run"), "last", programs.abstract)
    loaded = load_trained(tmp_path / "run").state
    jax.tree.map(np.testing.assert_array_equal, loaded["params"], state["params"])
    kernels = (state[part]["static"]["linear"]["kernel"] for part in ("params", "trained"))
    assert (next(kernels) != next(kernels)).any()

    result, _ = evaluate.evaluate(evaluate.load(tmp_path / "run"))
    (mean,) = [row.values[0] for row in result.rows if row.name == "mean"]
    assert mean == pytest.approx(directory.evaluations(tmp_path / "run")[-1]["mean_f1"], abs=1e-12)

    tiny_config.model.init_from = str(tmp_path / "run")
    recipe = Recipe.of(tiny_config)
    backbone = initial_values(recipe, programs.abstract)
    started = with_values(programs.init(programs.schedule), backbone)
    for part in ("params", "trained"):
        jax.tree.map(
            np.testing.assert_array_equal, started[part]["backbone"], loaded["params"]["backbone"]
        )
    batch = sharding.put_batch(
        sharding.make_mesh(), next(inputs.training_batches(recipe, rendered_set, 0))
    )
    programs.train(
        started, batch, programs.schedule
    )  # gives both away: they must not be the same arrays
