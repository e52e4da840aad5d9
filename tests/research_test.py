# SPDX-License-Identifier: Apache-2.0
"""Research extensions: what is new is defined here and the package stays as it is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mdhr_jax import facs
from mdhr_jax.models import backbones, layers, mdhr, views
from mdhr_jax.numerics import optim, preprocess, steps

pytestmark = pytest.mark.long  # a whole training step is compiled

TRANSFORM = functools.partial(preprocess.train, image_size=32)
SLOTS = {
    "dynamics": "multiscale",
    "scales": (1, 2, 3, 4),
    "k": 2,
    "features": 8,
    "window": "zero",
    "afe": "block",
    "auxiliary": True,
    "edges": "cross_region_activated",
    "temporal": True,
}


@pytest.fixture(autouse=True)
def isolation(monkeypatch):
    """What a test registers is gone afterwards."""
    monkeypatch.setattr(facs, "LAYOUTS", dict(facs.LAYOUTS))
    monkeypatch.setattr(backbones, "BACKBONES", dict(backbones.BACKBONES))


def random_batch(layout):
    """Two labelled clips of four noise frames."""
    rng = np.random.default_rng(0)
    shape = (2, 4, len(layout.aus))
    batch = {
        "frames": rng.integers(0, 256, (2, 4, 37, 37, 3), np.uint8),
        "labels": rng.integers(0, 2, shape, np.int32),
        "mask": np.ones(shape, bool),
        "augment": np.tile(np.float32([2, 3, 1, 0.9, 1.1, 1.2, 0]), (2, 1)),
    }
    return jax.tree.map(jnp.asarray, batch)


def all_differ(before, after):
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).any(), before, after)))


def test_a_layout_of_five_aus_takes_a_training_step():
    eyes = facs.Region("eyes", rows=(0, 4), aus=(4, 7))
    mouth = facs.Region("mouth", rows=(3, 7), aus=(12, 25, 26))
    mine = facs.AuLayout(
        "mine", aus=(4, 7, 12, 25, 26), regions=(eyes, mouth), region_blocks=True, fps=30.0
    )
    facs.LAYOUTS["mine"] = mine

    def create(rngs):
        return mdhr.MDHR(mine, backbone="resnet_narrow", **SLOTS, rngs=rngs)

    schedule = optim.cosine(1e-3, total_steps=100)
    optimizer = optim.adamw(schedule, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=5e-4)
    state = jax.jit(lambda: steps.init_state(create, optimizer, jax.random.key(0)))()
    model = nnx.eval_shape(lambda: create(nnx.Rngs(0)))
    graph, _, _ = steps.split(views.train_view(model, dtype=jnp.float32))
    objective = steps.Objective(mine, class_weights=(1.0,) * 5, auxiliary_weight=0.01)
    step = steps.make_train_step(
        graph, objective, optimizer, schedule, transform=TRANSFORM, key=jax.random.key(0)
    )
    new_state, scalars = jax.jit(step)(state, random_batch(mine))

    assert np.isfinite(scalars["loss"])
    assert all_differ(state["params"], new_state["params"])


def test_a_backbone_of_ones_own_takes_a_training_step():
    class Patches(nnx.Module):
        channels, features, image_multiple = (4, 4, 4, 4), 4, 32

        def __init__(self, *, rngs):
            self.scales = nnx.List(layers.PatchLinear(p, 3, 4, rngs=rngs) for p in (4, 8, 16, 32))

        def __call__(self, frames, key=None):
            maps = [jax.nn.relu(scale(frames)) for scale in self.scales]
            return maps[-1], maps

    backbones.BACKBONES["mine"] = Patches

    def create(rngs):
        return mdhr.MDHR(facs.DISFA, backbone="mine", **SLOTS, rngs=rngs)

    schedule = optim.cosine(1e-3, total_steps=100)
    optimizer = optim.adamw(schedule, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=5e-4)
    state = jax.jit(lambda: steps.init_state(create, optimizer, jax.random.key(0)))()
    model = nnx.eval_shape(lambda: create(nnx.Rngs(0)))
    graph, _, _ = steps.split(views.train_view(model, dtype=jnp.float32))
    objective = steps.Objective(facs.DISFA, class_weights=(1.0,) * 8, auxiliary_weight=0.01)
    step = steps.make_train_step(
        graph, objective, optimizer, schedule, transform=TRANSFORM, key=jax.random.key(0)
    )
    new_state, scalars = jax.jit(step)(state, random_batch(facs.DISFA))

    assert np.isfinite(scalars["loss"])
    assert all_differ(state["params"], new_state["params"])
