# SPDX-License-Identifier: Apache-2.0
import itertools

import jax
import numpy as np
import pytest

from mdhr_jax import errors, sharding, train

STEPS = 3


def _losses_and_scores(config, source, mesh):
    programs = train.compile_programs(config, source, mesh, total_steps=STEPS)
    source, put = train.reading(config, source, mesh)
    state, losses = programs.init(), []
    for batch in itertools.islice(train.training_batches(config, source, 0), STEPS):
        state, scalars = programs.train(state, put(batch))
        losses.append([float(scalars["loss"]), float(scalars["gradient_norm"])])
    return np.array(losses), programs.score(state, source, put).scores, state


@pytest.mark.slow
def test_eight_devices_and_sharded_state_give_the_losses_of_one(
    tiny_config, rendered_set, monkeypatch
):
    monkeypatch.setattr(sharding, "SMALLEST_SHARDED", 256)
    tiny_config.learning_rate = 1e-5  # Adam's first steps turn noise into +-learning rate
    one, scores, _ = _losses_and_scores(
        tiny_config, rendered_set, sharding.make_mesh(devices=jax.devices()[:1])
    )
    for fsdp in (1, 4):
        losses, sharded_scores, state = _losses_and_scores(
            tiny_config, rendered_set, sharding.make_mesh(fsdp)
        )
        np.testing.assert_allclose(losses[0, 0], one[0, 0], rtol=1e-5)
        np.testing.assert_allclose(losses[:, 0], one[:, 0], rtol=1e-4)
        np.testing.assert_allclose(losses[0, 1], one[0, 1], rtol=1e-3)  # gradient norm
        np.testing.assert_allclose(sharded_scores, scores, atol=1e-4)
        is_split = [not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state)]
        assert any(is_split) == (fsdp > 1)


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
