# SPDX-License-Identifier: Apache-2.0
"""A training step holds nothing whose result on a GPU depends on the order of its threads.

What XLA cannot do so (`--xla_gpu_deterministic_ops=true` refuses select-and-scatter), or only
slowly (a scatter that adds up floats), is looked for in the program before it is compiled.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdhr_jax.bench import steps as bench
from mdhr_jax.configs import base
from mdhr_jax.machine import sharding
from mdhr_jax.models import backbones, swin
from mdhr_jax.run.recipe import DETERMINISTIC, Recipe


@pytest.fixture
def lowered(monkeypatch):
    """A function that writes a backbone's training step as StableHLO."""
    tiny = {"width": 4, "depths": (2, 1, 1, 1), "heads": (1, 1, 1, 1), "drop_path": 0.5}
    monkeypatch.setitem(backbones.BACKBONES, "swin_tiny", functools.partial(swin.Swin, **tiny))

    def write(backbone, image_size):
        config = base.get_config()
        config.update(batch_size=1, clip_length=2, image_size=image_size)
        config.model.update(backbone=backbone, features=4)
        recipe = Recipe.of(config)
        aus = len(recipe.layout.aus)
        mesh = sharding.make_mesh(devices=jax.devices()[:1])
        programs = bench.training_programs(recipe, mesh)
        batch = {
            "frames": jax.ShapeDtypeStruct((1, 2, 256, 256, 3), np.uint8),
            "labels": jax.ShapeDtypeStruct((1, 2, aus), np.int32),
            "mask": jax.ShapeDtypeStruct((1, 2, aus), bool),
            "augment": jax.ShapeDtypeStruct((1, 7), np.float32),
        }
        return programs.train.lower(programs.abstract, batch, programs.schedule).as_text()

    return write


def _unordered(program):
    """The operations of a program whose result may depend on an order that is left open."""
    scatters = re.findall(r'"stablehlo\.scatter".*?\}\) : \(tensor<[^>]*>', program, re.DOTALL)
    adding = [s for s in scatters if "unique_indices = true" not in s and re.search(r"f\d+>$", s)]
    return adding + re.findall(r"stablehlo\.select_and_scatter", program)


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "size"), [("resnet_narrow", 32), ("swin_tiny", 224)])
def test_a_training_step_leaves_no_order_open(lowered, backbone, size):
    assert _unordered(lowered(backbone, size)) == []


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[jnp.array([0, 0, 1])].sum(),
        lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2,), (1,), "VALID").sum(),
    ],
)
def test_orders_that_are_left_open_are_found(function):
    assert len(_unordered(jax.jit(jax.grad(function)).lower(jnp.arange(4.0)).as_text())) == 1


@pytest.mark.slow
def test_every_program_of_a_run_is_compiled_as_the_key_says(tiny_config, monkeypatch):
    jit, told = jax.jit, {}

    def listen(function, **options):
        told[function.__name__] = options.get("compiler_options")
        return jit(function, **options)

    monkeypatch.setattr(jax, "jit", listen)
    for tiny_config.deterministic in (True, False):
        bench.training_programs(Recipe.of(tiny_config), sharding.make_mesh())
        options = DETERMINISTIC if tiny_config.deterministic else {}
        assert told["train_step"] == sharding.OVERLAPPED | options
        assert told["eval_step"] == told["prepare"] == options


def test_the_compiler_knows_the_options():
    assert jax.jit(lambda x: x + 1, compiler_options=DETERMINISTIC)(1) == 2
