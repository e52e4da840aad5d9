# SPDX-License-Identifier: Apache-2.0
"""Keys for training with large batches: schedules in steps, scaled rates, other optimizers."""

import itertools

import jax
import numpy as np
import pytest

from mdhr_jax import checkpoint, errors, optim, sharding, train


def test_the_length_of_a_run_is_given_in_epochs_or_in_steps(tiny_config, rendered_set):
    assert train.count_steps(tiny_config, rendered_set) == 8
    tiny_config.steps, tiny_config.epochs = 37, 0.0
    assert train.count_steps(tiny_config, rendered_set) == 37


def test_the_rate_rises_over_the_steps_of_warm_up_to_the_scaled_one(tiny_config, rendered_set):
    tiny_config.update(warmup_steps=10, batch_size=32, learning_rate_scaling="linear")
    schedule = train.schedule(tiny_config, rendered_set, 100)
    np.testing.assert_allclose([schedule(5), schedule(10)], [2e-3, 4e-3], rtol=1e-6)
    tiny_config.update(learning_rate_scaling="sqrt", learning_rate_batch=2)
    assert train.peak_learning_rate(tiny_config) == 4e-3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"warmup_steps": 8}, "8 steps of warm-up leave none of the run's 8; shorten it or train"),
        ({"learning_rate_scaling": "cubic"}, "config.learning_rate_scaling.*none, linear, sqrt"),
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


@pytest.mark.slow
@pytest.mark.parametrize("name", list(optim.OPTIMIZERS))
def test_optimizers_are_split_and_go_on_from_a_checkpoint(
    tiny_config, rendered_set, tmp_path, two_devices, name
):
    tiny_config.optimizer = name
    programs = train.compile_programs(tiny_config, rendered_set, two_devices, 4)
    batches = train.training_batches(tiny_config, rendered_set, 0)
    batches = [sharding.put_batch(two_devices, x) for x in itertools.islice(batches, 4)]
    state, losses = programs.init(), []
    for step, batch in enumerate(batches):
        if step == 2:
            checkpoint.save(tmp_path, "last", 2, state)
        state, scalars = programs.train(state, batch)
        losses.append(float(scalars["loss"]))
    assert _is_split(state["opt_state"])

    restored = checkpoint.restore(tmp_path, "last", programs.abstract)
    for batch in batches[2:]:
        restored, _ = programs.train(restored, batch)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert len(set(losses)) == 4  # it trains
