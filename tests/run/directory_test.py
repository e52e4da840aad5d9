# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import pytest

from mdhr_jax import errors, facs
from mdhr_jax.configs import base
from mdhr_jax.data import people
from mdhr_jax.run import checkpoint, config_check, directory, kinds, provenance
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.run.trained import load_trained


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("learningrate", 5.0, "config.learningrate: there is no such key; did you mean learning_"),
        ("model.dynamic", 3, "config.model.dynamic: .* did you mean model.dynamics.k"),
        ("batch_size", 0, "config.batch_size=0: give at least 1"),
        ("batch_size", -8, "config.batch_size=-8: give at least 1"),
        ("batch_size", 8.0, "config.batch_size=8.0: give a value like 8"),
        ("batch_size", True, "config.batch_size=True: give a value like 8"),
        ("batch_size", None, "config.batch_size=None: give a value like 8"),
        ("model.auxiliary", 1, "config.model.auxiliary=1: give a value like True"),
        ("model.backbone", 50, "config.model.backbone=50: give a value like 'resnet50'"),
        ("model.features", 0, "config.model.features=0: give at least 1"),
        ("model.dynamics.scales", (1, "2"), r"scales=\[1, '2'\]: give a value like \[1, 2, 3, 4\]"),
        ("model.dynamics.scales", 1, r"scales=1: give a value like \[1, 2, 3, 4\]"),
        ("fsdp", 0, "config.fsdp=0: give at least 1"),
        ("fold", 0, "config.fold=0: give at least 1"),
        ("eval_batch_size", 0, "config.eval_batch_size=0: give at least 1"),
        ("eval_every", 0, "config.eval_every=0: give at least 1"),
        ("checkpoint_every", 0, "config.checkpoint_every=0: give at least 1"),
        ("epochs", -1.0, "config.epochs=-1.0: give 0 or more"),
        ("epochs", float("inf"), "config.epochs=inf: give 0 or more"),
        ("epochs", 0.0, "config.epochs and config.steps are 0: nothing is trained; set one"),
        ("steps", 9, "config.epochs=200.0 and config.steps=9 are two ways .*; set one of them to"),
        ("learning_rate_batch", 0, "config.learning_rate_batch=0: give at least 1"),
        ("learning_rate", float("nan"), "config.learning_rate=nan: give 0 or more"),
        ("learning_rate", -1e-3, "config.learning_rate=-0.001: give 0 or more"),
        ("threshold", 7.0, "config.threshold=7.0: give a number from 0 to 1"),
        ("held_out", -0.1, "config.held_out=-0.1: give a number from 0 to 1"),
        ("seed", -1, r"config.seed=-1: give 0 or more, below 2\*\*63"),
        ("seed", 2**63, "config.seed=9223372036854775808: give 0 or more"),
        ("betas", (0.9, 1.0), r"config.betas=\[0.9, 1.0\]: give two numbers"),
        ("betas", (0.9,), r"config.betas=\[0.9\]: give two numbers from 0 to below 1"),
    ],
)
def test_configurations_that_cannot_be_are_refused_by_key(key, value, expected):
    config = base.get_config()
    flat = config_check.flatten(config.to_dict()) | {key: value}
    with pytest.raises(errors.InputError, match=expected):
        Recipe.of(_nested(flat))


def _nested(flat):
    """A configuration as a file could make it, with keys that `base` does not have."""
    config = base.get_config()
    for key, value in flat.items():
        *parents, name = key.split(".")
        part = config
        for parent in parents:
            part = part[parent]
        with part.ignore_type():
            part[name] = value
    return config


def test_a_key_that_is_missing_is_named():
    config = base.get_config()
    del config.model["features"]
    with pytest.raises(
        errors.InputError, match=r"config\.model\.features: is missing; mdhr_jax/configs/"
    ):
        Recipe.of(config)


@pytest.mark.parametrize("key", list(directory.ADDED))
def test_a_run_of_a_version_without_a_key_is_one_that_did_not_do_it(tiny_config, tmp_path, key):
    recipe = Recipe.of(tiny_config)
    directory.claim(tmp_path, recipe)
    file = tmp_path / "config.json"
    earlier = json.loads(file.read_text())
    assert earlier.pop(key) == directory.ADDED[key]
    file.write_text(json.dumps(earlier))
    assert directory.load_recipe(tmp_path).flat()[key] == directory.ADDED[key]
    directory.claim(tmp_path, recipe)  # and goes on
    with pytest.raises(errors.InputError, match=rf"config\.{key}: is missing"):
        Recipe.of_values(earlier)


def test_a_run_of_a_version_without_kinds_of_models_is_an_mdhr(tiny_config, tmp_path):
    recipe = Recipe.of(tiny_config)
    earlier = recipe.values()
    del earlier["model"]["kind"]
    earlier["region_loss_weight"] = earlier.pop("auxiliary_loss_weight")
    (tmp_path / "config.json").write_text(json.dumps(earlier))
    assert directory.load_recipe(tmp_path) == recipe
    directory.claim(tmp_path, recipe)  # and goes on


def test_whole_numbers_do_for_floats_and_every_range_has_a_key():
    config = base.get_config()
    with config.ignore_type():
        config.update(epochs=3, learning_rate=0, betas=[0, 0.999])
    of_kinds = [config_check.flatten({"model": kinds.defaults(kind)}) for kind in kinds.KINDS]
    assert config_check.RANGES.keys() <= Recipe.of(config).flat().keys() | set().union(*of_kinds)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", "config.json: holds no configuration; bring back a copy"),
        ("null", "config.json: holds no configuration; bring back a copy"),
        ("{}", r"config.json: config\.accumulate: is missing"),
        ('{"fold": 1', "run: holds no run"),
        ("[" * 10**5, "run: holds no run"),
        ("\udcff", "run: holds no run"),
    ],
)
def test_a_damaged_configuration_is_refused(tmp_path, text, expected):
    (tmp_path / "run").mkdir()
    file = tmp_path / "run/config.json"
    file.write_text(text, errors="surrogateescape")
    with pytest.raises(errors.InputError, match=expected) as refused:
        load_trained(tmp_path / "run")
    assert "\n" not in str(refused.value)


def _learned(source):
    return provenance.Learned.of(source, people.Seen(people.videos(source, source.table.subjects)))


def test_a_configuration_is_written_wholly_or_not_at_all(tiny_config, tmp_path, monkeypatch):
    def full(file, data):
        file.open("w").close()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            directory.claim(tmp_path, Recipe.of(tiny_config))
    directory.claim(tmp_path, Recipe.of(tiny_config))
    assert directory.load_recipe(tmp_path) == Recipe.of(tiny_config)
    written = (tmp_path / "config.json").read_text()
    assert json.loads(written) == json.loads(json.dumps(tiny_config.to_dict()))


def test_a_run_keeps_to_its_data_set_wherever_that_lies(tiny_config, rendered_set, tmp_path):
    directory.claim(tmp_path, Recipe.of(tiny_config), _learned(rendered_set))
    tiny_config.data = "elsewhere"
    directory.claim(tmp_path, Recipe.of(tiny_config), _learned(rendered_set))
    assert directory.load_recipe(tmp_path).data == "elsewhere"
    assert provenance.read(tmp_path) == _learned(rendered_set)
    tiny_config.data = "third"
    for entry, value in [
        ("index_sha256", "x"),
        ("crop", "x"),
        ("image_size", 9),
    ]:
        metadata = dataclasses.replace(rendered_set.metadata, **{entry: value})
        other = dataclasses.replace(rendered_set, metadata=metadata)
        with pytest.raises(errors.InputError, match="begun with another data set"):
            directory.claim(tmp_path, Recipe.of(tiny_config), _learned(other))
    assert directory.load_recipe(tmp_path).data == "elsewhere"


def test_a_run_goes_on_with_other_values_of_what_gives_the_same_numbers_alone(
    tiny_config, tmp_path
):
    recipe, goes_on = Recipe.of(tiny_config), set()
    directory.claim(tmp_path, recipe)
    for key in recipe.flat().keys() - {"model.kind"}:  # of which there may be one alone
        try:
            directory.claim(tmp_path, _with_another(recipe, key))
            goes_on.add(key)
        except errors.InputError as error:
            assert f"another configuration: {key} (" in str(error)
    assert goes_on == {"data", "deterministic", "fsdp", "input"}


def _with_another(values, key):
    """The recipe with some other value of a key, whether a configuration would take it or not."""
    name, _, rest = key.partition(".")
    name = f"{name}_name" if name in ("layout", "protocol") else name
    old = getattr(values, name)
    others = {bool: lambda: not old, str: lambda: f"{old}x", tuple: lambda: old[::-1]}
    new = _with_another(old, rest) if rest else others.get(type(old), lambda: old + 1)()
    return dataclasses.replace(values, **{name: new})


@pytest.mark.parametrize("text", ["", "[]", "null", '"crop"', '{"crop": "none"}', "[" * 10**5])
def test_a_damaged_data_file_is_refused(rendered_set, tmp_path, text):
    (tmp_path / "data.json").write_text(text)
    learned = _learned(rendered_set)
    for read in (provenance.read, lambda path: provenance.check(path, learned)):
        with pytest.raises(errors.InputError, match=r"data\.json: does not say what the run was"):
            read(tmp_path)


@pytest.mark.parametrize("aus", [facs.BP4D.aus[::-1], facs.BP4D.aus[:-1]])
def test_a_layout_that_has_changed_under_its_name_is_refused(
    tiny_config, rendered_set, tmp_path, monkeypatch, aus
):
    directory.claim(tmp_path, Recipe.of(tiny_config), _learned(rendered_set))
    with pytest.raises(errors.InputError, match="holds no 'best' checkpoint"):
        load_trained(tmp_path)
    regions = (facs.Region("all", facs.LOWER, aus),)
    changed = facs.AuLayout("bp4d", aus, regions, region_blocks=False, fps=25.0)
    monkeypatch.setitem(facs.LAYOUTS, "bp4d", changed)
    monkeypatch.setattr(checkpoint, "restore", None)
    with pytest.raises(errors.InputError, match=r"on AUs \[1, 2, .* register the layout as it was"):
        load_trained(tmp_path)
