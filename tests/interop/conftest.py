# SPDX-License-Identifier: Apache-2.0
"""What the tests of whole checkpoints share."""

import shutil

import numpy as np
import pytest

from mdhr_jax.machine import sharding
from mdhr_jax.run.programs import build_scoring
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.run.trained import load_trained


@pytest.fixture
def folder(tmp_path):
    """`tmp_path`, of which nothing is kept: Swin-B fills up to two gigabytes."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture
def evaluate(monkeypatch):
    """Scores of normalised clips by a run, as its evaluation computes them."""
    monkeypatch.setattr(Recipe, "transform", property(lambda recipe: lambda frames: frames))

    def scores(run, clips):
        trained = load_trained(run)
        scoring = build_scoring(trained.recipe, sharding.make_mesh())
        values = scoring.prepare(trained.state["params"], trained.state["batch_stats"])
        return np.asarray(scoring.step(*values, {"frames": clips}))

    return scores
