# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mdhr_jax import cli, convert, evaluate, facs, train
from mdhr_jax.configs import base
from mdhr_jax.errors import InputError
from mdhr_jax.interop import files, names, official
from mdhr_jax.models import backbones, mdhr, resnet
from mdhr_jax.numerics import steps
from mdhr_jax.run import checkpoint, directory
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.run.trained import abstract_state, initial_values, load_trained, with_values


@pytest.fixture
def config(tiny_config, monkeypatch, one_device):
    """The tiny run's configuration with ResNet-50's structure, taken for the release's."""
    tiny = functools.partial(resnet.ResNet, depths=(1, 2, 1, 1), width=2)
    monkeypatch.setitem(backbones.BACKBONES, "resnet50", tiny)
    tiny_config.model.backbone = "resnet50"
    monkeypatch.setattr(base, "get_config", tiny_config.copy_and_resolve_references)
    slots = functools.partial(mdhr.Slots, features=tiny_config.model.features)
    monkeypatch.setattr(mdhr, "Slots", slots)
    return tiny_config.copy_and_resolve_references()


@pytest.fixture
def run(config, tmp_path):
    """A run at its beginning: a configuration and a checkpoint."""
    directory.claim(tmp_path / "run", Recipe.of(config))
    state = _random_state(config)
    for kind in ("last", "best"):
        checkpoint.save(directory.checkpoints(tmp_path / "run"), kind, 9, state)
    return tmp_path / "run", state


def _random_state(config):
    shapes, _ = abstract_state(Recipe.of(config))
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda x: jnp.asarray(rng.uniform(0.5, 1, x.shape), x.dtype), shapes)
    return state | {"step": jnp.int32(9)}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", files.SUFFIXES)
def test_a_run_to_a_file_and_back_is_the_same_model(run, config, tmp_path, suffix):
    path, state = run
    file = tmp_path / f"model{suffix}"
    assert cli.main(["convert", str(path), str(file)]) == 0
    back = tmp_path / "back"
    arguments = ["--clip_length", "8", "--k", "2"]
    assert cli.main(["convert", str(file), str(back), *arguments]) == 0
    trained = load_trained(back)
    new = trained.recipe
    assert (new.layout_name, new.model.backbone) == ("bp4d", "resnet50")
    assert (new.clip_length, new.model.dynamics.k) == (8, 2)
    jax.tree.map(np.testing.assert_array_equal, trained.state, state)
    assert trained.protocol.name == "unknown"


@pytest.mark.slow
def test_a_file_is_evaluated_as_its_run_is(run, config, tmp_path):
    path, _ = run
    convert.convert(path, tmp_path / "model.pth", clip_length=4, k=1)
    table, scored = evaluate.evaluate(
        evaluate.load(tmp_path / "model.pth", data=config.data, fold=1)
    )
    _, expected = evaluate.evaluate(evaluate.load(path))
    np.testing.assert_array_equal(scored.scores, expected.scores)
    assert table.details["protocol"] == "unknown"
    assert table.details["step"] == 9


@pytest.mark.slow
def test_a_run_starts_from_the_backbone_of_a_file(run, config, tmp_path):
    path, state = run
    file = tmp_path / "imagenet.pth"
    own = official.backbone_alone(official.export(state, names.table(facs.BP4D, "resnet50")))
    imagenet = {name.removeprefix("Backbone."): array for name, array in own.items()}
    files.write(file, imagenet | {"fc.weight": np.zeros((10, 4), np.float32)})
    config.model.init_from = str(file)
    recipe = Recipe.of(config)
    _, *fresh = steps.split(recipe.create(nnx.Rngs(0)))
    fresh = jax.device_put(dict(zip(official.PARTS, fresh, strict=True)), jax.devices()[0])
    started = with_values(fresh, initial_values(recipe, fresh))
    for part in official.PARTS:
        jax.tree.map(
            np.testing.assert_array_equal, started[part]["backbone"], state[part]["backbone"]
        )
        own = started[part].keys() - {"backbone"}
        assert all(started[part][name] is fresh[part][name] for name in own)


@pytest.mark.slow
def test_a_converted_model_is_not_trained_on(run, config, one_device):
    with pytest.raises(InputError, match="start a run of its own with config.model.init_from"):
        train.train(config, run[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"backbone": "resnet_narrow"}, "which has no model.backbone=resnet_narrow"),
        ({"temporal": False}, "which has no model.temporal=False"),
        ({"afe": "none", "edges": "none"}, "which has no model.afe=none, model.edges=none"),
    ],
)
def test_models_that_the_release_does_not_have_are_refused(config, tmp_path, change, expected):
    config.model.update(change)
    directory.claim(tmp_path / "run", Recipe.of(config))
    checkpoint.save(directory.checkpoints(tmp_path / "run"), "best", 1, _random_state(config))
    with pytest.raises(InputError, match=expected):
        convert.convert(tmp_path / "run", tmp_path / "out.pth", clip_length=16, k=5)
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.slow
def test_a_run_is_not_overwritten(run, tmp_path):
    with pytest.raises(InputError, match="holds a run already"):
        convert.convert(run[0], run[0], clip_length=16, k=5)


def test_a_file_without_mdhr_is_refused(tmp_path):
    files.write(tmp_path / "other.pth", {"conv1.weight": np.zeros(3, np.float32)})
    with pytest.raises(InputError, match="other.pth: holds no MDHR, ME-GraphAU or OpenGraphAU"):
        load_trained(tmp_path / "other.pth")
