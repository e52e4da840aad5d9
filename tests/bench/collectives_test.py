# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdhr_jax.bench import collectives
from mdhr_jax.machine import sharding


@pytest.mark.slow
@pytest.mark.parametrize("kind", collectives.KINDS)
def test_exchanges_are_what_their_names_say(kind):
    mesh = sharding.make_mesh(4)
    rate = collectives._rate(mesh, kind, 1000, 1)
    assert rate.bytes == 1024  # a whole number of float32 on each of eight devices
    passes = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 1}[kind]
    assert rate.bus == pytest.approx(passes * 1024 * 7 / 8 / rate.timing.median)


def test_what_a_program_exchanges_is_counted():
    mesh = sharding.make_mesh()
    array = jax.device_put(np.ones((8, 128), np.float32), sharding.batched(mesh))

    def total_and_all(x):
        return x.sum(axis=0), 2 * x

    whole = sharding.replicated(mesh)
    program = jax.jit(total_and_all, out_shardings=(whole, whole)).lower(array).compile()
    assert collectives.volumes(program.as_text()) == {
        "all-reduce": (1, 512),
        "all-gather": (1, 4096),
    }


def test_pairs_and_started_exchanges_are_counted():
    text = """
  %a = (f32[64]{0}, bf16[2,3]{1,0}) all-reduce(%x, %y), channel_id=1
  %b = f32[] all-reduce-start(%z), channel_id=2
  %c = f32[] all-reduce-done(%b)
  %d = (f32[4]{0}, f32[32]{0}) all-gather-start(%c), channel_id=3
  %e = (f32[8]{0}, f32[8]{0}, u32[], u32[]) collective-permute-start(%d), channel_id=4
  %f = ((f32[2]{0}, bf16[4]{0}), (f32[2]{0}, bf16[4]{0})) all-reduce-start(%e, %e), channel_id=5
"""
    assert collectives.volumes(text) == {
        "all-reduce": (3, 256 + 12 + 4 + 8 + 8),
        "all-gather": (1, 128),
        "collective-permute": (1, 32),
    }


def test_a_program_of_one_device_exchanges_nothing():
    program = jax.jit(jnp.sum).lower(jnp.ones(8)).compile()
    assert collectives.volumes(program.as_text()) == {}
