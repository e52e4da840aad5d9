# SPDX-License-Identifier: Apache-2.0
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdhr_jax import errors
from mdhr_jax.bench import collectives
from mdhr_jax.machine import sharding
from mdhr_jax.numerics import preprocess
from mdhr_jax.run import checkpoint, inputs
from mdhr_jax.run.programs import programs_for
from mdhr_jax.run.recipe import PRECISIONS, Recipe

STEPS = 3


def _devices(count, fsdp=1):
    return sharding.make_mesh(fsdp, devices=jax.devices()[:count])


def _trained(config, source, mesh):
    """Losses and gradient norms of the steps, scores after the last, state."""
    recipe = Recipe.of(config)
    programs = programs_for(recipe, source, mesh, total_steps=STEPS)
    source, put = inputs.reading(recipe, source, mesh)
    state, losses = programs.init(programs.schedule), []
    for batch in itertools.islice(inputs.training_batches(recipe, source, 0), STEPS):
        state, scalars = programs.train(state, put(batch), programs.schedule)
        losses.append([float(scalars["loss"]), float(scalars["gradient_norm"])])
    return np.array(losses), programs.score(state, source, put).scores, state


@pytest.fixture
def sharded_config(config_of_a_kind, monkeypatch):
    config = config_of_a_kind
    monkeypatch.setattr(sharding, "SMALLEST_SHARDED", 256)
    config.learning_rate = 1e-5  # Adam's first steps turn noise into +-learning rate
    # A score jumps where a feature vector is zero to rounding: not one of so many entries.
    config.model.features = 32
    return config


@pytest.mark.slow
def test_eight_devices_train_and_score_as_one_does(sharded_config, rendered_set):
    one, scores, _ = _trained(sharded_config, rendered_set, _devices(1))
    for fsdp in (1, 4):
        losses, sharded_scores, state = _trained(sharded_config, rendered_set, _devices(8, fsdp))
        np.testing.assert_allclose(losses[0, 0], one[0, 0], rtol=1e-5)
        np.testing.assert_allclose(losses[:, 0], one[:, 0], rtol=1e-4)
        np.testing.assert_allclose(losses[0, 1], one[0, 1], rtol=1e-3)  # gradient norm
        np.testing.assert_allclose(sharded_scores, scores, atol=1e-4)
        assert _is_split(state) == (fsdp > 1)


@pytest.fixture
def in_float64(sharded_config, monkeypatch):
    """In float32 rounding moves some input past a kink, and gradients by up to a hundredth."""
    monkeypatch.setitem(PRECISIONS, "float64", jnp.dtype("float64"))
    for order in preprocess.TRAINING:
        monkeypatch.setitem(preprocess.TRAINING, order, _corner)  # the real one is exact in 32 bits
    sharded_config.precision = "float64"
    with jax.enable_x64(True):
        yield sharded_config


def _corner(frames, augment, *, image_size):
    return frames[..., :image_size, :image_size, :] / 255 - 0.5


def _first_step(config, source, mesh, start):
    """Loss and gradients of the first step from a state, and the state."""
    recipe = Recipe.of(config)
    programs = programs_for(recipe, source, mesh, total_steps=STEPS)
    start = start or jax.tree.map(_wide, jax.device_get(programs.init(programs.schedule)))
    state = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), start, programs.abstract)
    batch = sharding.put_batch(mesh, next(inputs.training_batches(recipe, source, 0)))
    state, scalars = programs.train(state, batch, programs.schedule)
    moments = jax.device_get(state["opt_state"][0].mu)  # Adam's first are a tenth of the gradients
    return float(scalars["loss"]), moments, start


def _wide(leaf):
    return leaf.astype("float64") if leaf.dtype == "float32" else leaf


@pytest.mark.long
def test_two_four_and_eight_devices_have_the_gradients_of_one(in_float64, rendered_set):
    loss, gradients, start = _first_step(in_float64, rendered_set, _devices(1), None)
    for count, fsdp in ((2, 1), (4, 1), (8, 1), (8, 4)):
        mesh = _devices(count, fsdp)
        found, sharded, _ = _first_step(in_float64, rendered_set, mesh, start)
        assert found == pytest.approx(loss, rel=1e-12)
        jax.tree.map(_assert_close, sharded, gradients)


def _assert_close(found, expected):
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-9 * np.abs(expected).max() + 1e-14)


def _is_split(state):
    return any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))


@pytest.mark.long
def test_a_checkpoint_of_any_number_of_devices_goes_on_with_any_other(
    sharded_config, rendered_set, tmp_path
):
    source, recipe, losses = rendered_set, Recipe.of(sharded_config), {}
    first, second = itertools.islice(inputs.training_batches(recipe, source, 0), 2)
    meshes = [_devices(1), _devices(2), _devices(8, 4)]
    made = [programs_for(recipe, source, mesh, STEPS) for mesh in meshes]
    for before, (mesh, programs) in enumerate(zip(meshes, made, strict=True)):
        state, _ = programs.train(
            programs.init(programs.schedule), sharding.put_batch(mesh, first), programs.schedule
        )
        checkpoint.save(tmp_path / str(before), "last", 1, state)
        for after, (other_mesh, others) in enumerate(zip(meshes, made, strict=True)):
            restored = checkpoint.restore(tmp_path / str(before), "last", others.abstract)
            jax.tree.map(np.testing.assert_array_equal, restored, state)
            _, scalars = others.train(
                restored, sharding.put_batch(other_mesh, second), others.schedule
            )
            losses[before, after] = float(scalars["loss"])
    for (before, _), loss in losses.items():
        assert loss == pytest.approx(losses[before, before], rel=1e-5)


def _sent(config, source, mesh):
    """What a training step exchanges, and how many bytes parameters and statistics have."""
    recipe = Recipe.of(config)
    programs = programs_for(recipe, source, mesh, STEPS)
    batch = sharding.put_batch(mesh, next(inputs.training_batches(recipe, source, 0)))
    program = programs.train.lower(programs.abstract, batch, programs.schedule).compile()
    held = [programs.abstract[part] for part in ("params", "batch_stats")]
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(held))
    return collectives.volumes(program.as_text()), size


@pytest.mark.long
def test_with_statistics_of_each_device_gradients_alone_are_exchanged(sharded_config, rendered_set):
    together, _ = _sent(sharded_config, rendered_set, _devices(8))
    sharded_config.batch_norm_groups = 8
    alone, size = _sent(sharded_config, rendered_set, _devices(8))
    assert set(alone) == {"all-reduce"}
    assert alone["all-reduce"].bytes < 1.01 * size
    assert alone["all-reduce"].times < together["all-reduce"].times


@pytest.mark.slow
def test_a_split_state_sends_parameters_and_no_activations(sharded_config, rendered_set):
    sent, size = _sent(sharded_config, rendered_set, _devices(8, 4))
    assert set(sent) <= {"all-gather", "all-reduce", "reduce-scatter"}
    assert sent["all-gather"].bytes < 1.01 * size


def test_the_largest_divisible_axis_is_split_and_small_arrays_are_not():
    mesh = sharding.make_mesh(4)
    shapes = {
        "large": jax.ShapeDtypeStruct((10, 4096, 64), np.float32),
        "odd": jax.ShapeDtypeStruct((333, 333), np.float32),
        "small": jax.ShapeDtypeStruct((64,), np.float32),
    }
    rule = sharding.state_shardings(mesh, shapes)
    assert rule["large"].spec == jax.sharding.PartitionSpec(None, "fsdp")
    assert rule["odd"].is_fully_replicated
    assert rule["small"].is_fully_replicated


def test_fsdp_that_does_not_divide_the_devices_is_refused():
    with pytest.raises(errors.InputError, match="fsdp=3 does not divide the 8 devices"):
        sharding.make_mesh(3)
