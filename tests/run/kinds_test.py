# SPDX-License-Identifier: Apache-2.0
"""A kind of model is one file and one line: what the file holds stands here."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from mdhr_jax import errors
from mdhr_jax.configs import base, graphau
from mdhr_jax.evaluate import evaluate, load
from mdhr_jax.models import backbones, layers
from mdhr_jax.run import directory, kinds
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.train import train


@dataclasses.dataclass(frozen=True)
class Slots:
    """The keys of `config.model`."""

    backbone: str = "resnet_narrow"
    softness: float = 1.0
    init_from: str = ""


class Mean(nnx.Module):
    """AUs from the mean of each frame's features."""

    context = 0

    def __init__(self, layout, slots, rngs):
        self.backbone = backbones.BACKBONES[slots.backbone](rngs=rngs)
        self.linear = layers.Linear(self.backbone.features, len(layout.aus), rngs=rngs)
        self.softness = slots.softness

    def __call__(self, frames, key=None):
        tokens, _ = self.backbone(frames, key)
        logits = self.linear(tokens.mean((2, 3)))
        return {"scores": nnx.sigmoid(logits.astype(jnp.float32) / self.softness)}


@pytest.fixture
def mean_config(monkeypatch, tiny_config):
    monkeypatch.setitem(kinds.KINDS, "mean", kinds.Kind(Slots, Mean))
    tiny_config.model = ConfigDict({"kind": "mean", **dataclasses.asdict(Slots())})
    return tiny_config


def test_the_release_is_the_default_of_every_slot():
    assert kinds.defaults("mdhr") == base.get_config().model.to_dict()
    assert kinds.defaults("graphau") == graphau.get_config().model.to_dict()


def test_a_run_of_another_kind_does_not_go_on(mean_config, tiny_config, tmp_path):
    directory.claim(tmp_path, Recipe.of(base.get_config()))
    with pytest.raises(errors.InputError, match=r"model\.kind \(mdhr -> mean\)"):
        directory.claim(tmp_path, Recipe.of(mean_config))


def test_a_third_kind_trains_and_is_evaluated(mean_config, rendered_set, tmp_path):
    train(mean_config, tmp_path / "run")
    _, scored = evaluate(load(tmp_path / "run"))
    assert scored.scores.shape == (len(scored.rows), len(rendered_set.layout.aus))
    assert ((scored.scores > 0) & (scored.scores < 1)).all()
    assert np.ptp(scored.scores, axis=0).min() > 0


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"edges": "none"}, r"config\.model\.edges: a model of kind 'mean' has no such key"),
        ({"softnes": 2.0}, r"config\.model\.softnes: .* did you mean model\.softness"),
        ({"softness": "x"}, r"config\.model\.softness='x': give a value like 1\.0"),
        ({"kind": "none"}, r"config\.model\.kind='none': choose from mdhr,.* mean"),
    ],
)
def test_keys_of_another_kind_are_refused(mean_config, model, said):
    values = mean_config.to_dict()
    values["model"] |= model
    with pytest.raises(errors.InputError, match=said):
        Recipe.of_values(values)


def test_a_model_of_another_kind_keeps_the_keys_that_both_have(mean_config):
    mean_config.model.backbone = "resnet18"
    assert kinds.changed(mean_config.model.to_dict(), "graphau") == kinds.defaults("graphau") | {
        "backbone": "resnet18"
    }
