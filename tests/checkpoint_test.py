# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdhr_jax import checkpoint, errors, sharding


def _state(value):
    return {
        "step": jnp.int32(value),
        "params": {"stack": {0: jnp.full(3, value, jnp.float32), 1: jnp.ones((2, 2))}},
        "batch_stats": {"mean": jnp.zeros(3)},
        "opt_state": (jnp.full(5, value, jnp.float32),),
    }


def _abstract():
    state = jax.eval_shape(lambda: _state(0))
    return checkpoint.abstract(state, sharding.state_shardings(sharding.make_mesh(), state))


def test_the_newest_of_a_kind_comes_back_bit_equal_and_the_older_one_is_dropped(tmp_path):
    for step in (3, 7):
        checkpoint.save(tmp_path, "last", step, _state(step))
    checkpoint.save(tmp_path, "best", 5, _state(5))
    assert checkpoint.latest_step(tmp_path, "last") == 7
    assert [path.name for path in (tmp_path / "last").iterdir()] == ["7"]
    restored = checkpoint.restore(tmp_path, "last", _abstract())
    np.testing.assert_array_equal(restored["params"]["stack"][0], np.full(3, 7))
    np.testing.assert_array_equal(restored["opt_state"][0], np.full(5, 7))
    assert int(checkpoint.restore(tmp_path, "best", _abstract())["step"]) == 5


def test_saving_a_step_again_replaces_it(tmp_path):
    checkpoint.save(tmp_path, "last", 3, _state(1))
    checkpoint.save(tmp_path, "last", 3, _state(2))
    assert int(checkpoint.restore(tmp_path, "last", _abstract())["step"]) == 2


def test_the_model_is_read_without_the_optimizer(tmp_path):
    checkpoint.save(tmp_path, "last", 3, _state(3))
    wanted = _abstract()
    del wanted["opt_state"]
    assert checkpoint.restore(tmp_path, "last", wanted).keys() == wanted.keys()


def test_what_is_missing_or_does_not_fit_is_refused(tmp_path):
    with pytest.raises(errors.InputError, match="holds no 'last' checkpoint"):
        checkpoint.restore(tmp_path, "last", _abstract())
    checkpoint.save(tmp_path, "last", 3, _state(3) | {"params": {"other": jnp.ones(4)}})
    with pytest.raises(errors.InputError, match="another model's checkpoint, 3 arrays differ"):
        checkpoint.restore(tmp_path, "last", _abstract())
