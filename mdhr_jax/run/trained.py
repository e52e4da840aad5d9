# SPDX-License-Identifier: Apache-2.0
"""A trained model: what a run reports under its protocol, or an official weight file."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from mdhr_jax import facs
from mdhr_jax.configs import base
from mdhr_jax.errors import InputError
from mdhr_jax.interop import files, names, official
from mdhr_jax.machine import devices, sharding
from mdhr_jax.numerics import steps
from mdhr_jax.run import checkpoint, directory, protocol, provenance
from mdhr_jax.run.programs import build_scoring
from mdhr_jax.run.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model: what a run reports under its protocol, or a weight file.

    Attributes:
      path: the run or the file.
      recipe: how it was trained; the release's for a file.
      protocol: how its step was chosen.
      state: `step`, `params` and `batch_stats`.
      thresholds: score from which each AU counts as active.
    """

    path: pathlib.Path
    recipe: Recipe
    protocol: protocol.Protocol
    state: dict
    thresholds: Float[np.ndarray, " n"]

    @property
    def layout(self) -> facs.AuLayout:
        """Its AUs and regions."""
        return self.recipe.layout


def load_trained(path: str | pathlib.Path) -> Trained:
    """Reads a run's reported checkpoint or an official weight file.

    Raises:
      InputError: neither is there, it is damaged, or the run has not got that far.
    """
    path = pathlib.Path(path)
    return _load_file(path) if files.is_weight_file(path) else _load_run(path)


def _load_run(path: pathlib.Path) -> Trained:
    recipe = directory.load_recipe(path)
    _check_aus(path, recipe.layout)
    chosen = protocol.FILE if recipe.protocol_name == protocol.FILE.name else recipe.protocol
    shapes, shardings = abstract_state(recipe)
    wanted = checkpoint.abstract(shapes, shardings)
    state = checkpoint.restore(directory.checkpoints(path), chosen.checkpoint, wanted)
    step = int(state["step"])
    facts = checkpoint.facts(directory.checkpoints(path), chosen.checkpoint, step)
    thresholds = _thresholds(path, recipe, step, facts.get("evaluation"))
    return Trained(path, recipe, chosen, state, thresholds)


def _check_aus(path: pathlib.Path, layout: facs.AuLayout) -> None:
    """Refuses a run whose layout has had other AUs, or in another order: scores have no names."""
    learned = provenance.read(path)
    if learned and learned.aus != list(layout.aus):
        raise InputError(
            f"{path}: was trained on AUs {learned.aus}, layout {layout.name!r} now has "
            f"{list(layout.aus)}; register the layout as it was"
        )


def _load_file(path: pathlib.Path) -> Trained:
    arrays = files.read(path)
    config = base.get_config()
    config.protocol = protocol.FILE.name
    with directory.naming(path):
        layout, config.model.backbone = official.recognise(arrays)
        config.layout = layout.name
        recipe = Recipe.of(config)
        shapes, shardings = abstract_state(recipe)
        state = official.load(arrays, shapes, layout, recipe.model.backbone)
    thresholds = np.full(len(layout.aus), recipe.threshold)
    return Trained(path, recipe, protocol.FILE, jax.device_put(state, shardings), thresholds)


def abstract_state(recipe: Recipe) -> tuple[dict, dict]:
    """Shapes of what a trained model consists of, and how it lies on the devices."""
    _, params, batch_stats = steps.split(recipe.outline)
    step = jax.ShapeDtypeStruct((), jnp.int32)
    shapes = {"step": step, "params": params, "batch_stats": batch_stats}
    return shapes, sharding.state_shardings(sharding.make_mesh(), shapes)


def _thresholds(
    workdir: pathlib.Path, recipe: Recipe, step: int, evaluation: dict | None
) -> np.ndarray:
    """The fixed threshold for every AU, or those that were chosen at that step's evaluation.

    The checkpoint's, or the one in the metrics for a checkpoint of an earlier version.
    """
    layout = recipe.layout
    if not recipe.tune_thresholds:
        return np.full(len(layout.aus), recipe.threshold)
    for row in [evaluation] if evaluation else directory.evaluations(workdir):
        if row["step"] == step:
            return np.array([row[f"threshold/{name}"] for name in layout.au_names])
    raise InputError(
        f"{workdir / 'metrics.jsonl'}: holds no evaluation of step {step}, which chose the "
        "thresholds; bring the file back"
    )


def initial_backbone(recipe: Recipe, abstract: dict) -> dict:
    """The backbone that `config.model.init_from` names, laid out as in an abstract state.

    Returns:
      its `params` and `batch_stats`; nothing where none is named.

    Raises:
      InputError: no such run or file, or its backbone is another one.
    """
    path = pathlib.Path(recipe.model.init_from)
    if not recipe.model.init_from:
        return {}
    wanted = {part: {"backbone": abstract[part]["backbone"]} for part in official.PARTS}
    if files.is_weight_file(path):
        other = _official_backbone(path, recipe, wanted)
    else:
        other = load_trained(path).state
    backbone = {part: {"backbone": other[part]["backbone"]} for part in official.PARTS}
    if _shapes(backbone) != _shapes(wanted):
        raise InputError(
            f"config.model.init_from={path}: its backbone does not fit {recipe.model.backbone!r}; "
            "name a run with the same backbone"
        )
    return jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), backbone, wanted)


def _shapes(tree: dict) -> dict:
    return jax.tree.map(lambda x: x.shape, tree)


def with_backbone(state: dict, backbone: dict) -> dict:
    """`state` with the backbone of `initial_backbone` in place of its own."""
    started = state | {part: state[part] | values for part, values in backbone.items()}
    if backbone and "trained" in state:
        # A copy: a training step overwrites both.
        started["trained"] = jax.tree.map(jnp.copy, started["params"])
    return started


def _official_backbone(path: pathlib.Path, recipe: Recipe, like: dict) -> dict:
    """The backbone in a file of MDHR, of torchvision (ResNet-50) or of Swin's authors (Swin-B)."""
    if recipe.model.backbone not in names.BACKBONE_ROWS:
        raise InputError(
            f"config.model.init_from={path}: no official file holds a {recipe.model.backbone!r}; "
            f"use one of {', '.join(names.BACKBONE_ROWS)}"
        )
    arrays = official.backbone_alone(files.read(path))
    with directory.naming(path):
        return official.load(arrays, like, recipe.layout, recipe.model.backbone)


class Predictor:
    """A trained model ready for pictures.

    Attributes:
      layout: AUs in the order of the scores.
      clip_length: T, the frames of a clip that are scored.
      context: frames before and after them that the model reads.
      record_size: height and width of the pictures that `scores` takes.
      thresholds: score from which each AU counts as active.
      hold: so many missing frames in a row do not end a clip.
      crop: how the faces were cut out that it was trained on; None: unknown.
      fps: frame rate of the clips that it was trained on; None: unknown.
    """

    record_size = 256

    def __init__(self, path: str | pathlib.Path):
        trained = load_trained(path)
        recipe = trained.recipe
        self.layout = trained.layout
        self.clip_length, self.context = recipe.clip_length, recipe.context
        self.thresholds = trained.thresholds
        self.hold = recipe.hold
        learned = provenance.read(pathlib.Path(path))
        self.crop = learned.crop if learned else None
        self.fps = learned.fps if learned else None
        here = sharding.make_mesh(devices=devices.found()[:1])
        self._scoring = build_scoring(recipe, here)
        state = trained.state
        self._values = self._scoring.prepare(state["params"], state["batch_stats"])

    def scores(self, frames: UInt8[np.ndarray, "b s h w 3"]) -> Float[np.ndarray, "b t n"]:
        """AU scores in [0, 1] of clips of `clip_length` pictures with their context."""
        return np.asarray(self._scoring.step(*self._values, {"frames": frames}))
