# SPDX-License-Identifier: Apache-2.0
"""A trained model: what a run reports under its protocol, or an official weight file."""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from mdhr_jax import facs
from mdhr_jax.configs import base, graphau
from mdhr_jax.errors import InputError
from mdhr_jax.faces import align
from mdhr_jax.interop import families, files, names, official
from mdhr_jax.interop.official import CLASSIFIER
from mdhr_jax.machine import devices, notes, sharding
from mdhr_jax.numerics import steps
from mdhr_jax.run import checkpoint, directory, protocol, provenance
from mdhr_jax.run.programs import build_scoring
from mdhr_jax.run.recipe import Recipe

# Of the kinds of which releases published weights.
_CONFIGS = {"mdhr": base, "graphau": graphau}


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
    whole = files.read(path)
    arrays = _without_classifier(whole)
    with directory.naming(path):
        release = families.recognise(arrays)
        recipe = _recipe_of(release)
        shapes, shardings = abstract_state(recipe)
        state = official.load(arrays, shapes, release.rows, release.title)
    count = len(release.layout.aus)
    unused = len(whole) - len(arrays)
    notes.once(
        f"{path}: {release.title}, {count} AUs; {len(arrays)} entries, 0 left over"
        + (f", {unused} of its backbone's unused classifier" if unused else "")
    )
    thresholds = np.full(count, recipe.threshold)
    return Trained(path, recipe, protocol.FILE, jax.device_put(state, shardings), thresholds)


def _without_classifier(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The entries without the backbone's own classifier, which its training may have left."""
    unused = {f"{prefix}.{name}" for prefix in ("backbone", "Backbone") for name in CLASSIFIER}
    return {name: array for name, array in arrays.items() if name not in unused}


def _recipe_of(release: families.Release) -> Recipe:
    """The release's settings for what a file of its holds."""
    config = _CONFIGS[release.kind].get_config()
    config.protocol = protocol.FILE.name
    config.layout = release.layout.name
    config.evaluation_crop = release.crop
    config.model.update_from_flattened_dict(release.slots)
    return Recipe.of(config)


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


def initial_values(recipe: Recipe, abstract: dict) -> dict:
    """What `config.model.init_from` hands over, laid out as in an abstract state.

    From a model of the same kind and AUs that is the backbone and the kind's `handed_over`, from
    others the backbone alone. A line says what is taken over and what begins anew.

    Returns:
      its `params` and `batch_stats`; nothing where none is named.

    Raises:
      InputError: no such run or file, or what it hands over has other shapes.
    """
    if not (start := recipe.model.init_from):
        return {}
    other, is_alike = _start(pathlib.Path(start), recipe, abstract)
    parts = ("backbone", *(recipe.kind.handed_over if is_alike else ()))
    taken = [part for part in parts if part in abstract["params"]]
    values, wanted = (_parts(tree, taken) for tree in (other, abstract))
    for part in taken:
        if _shapes(_parts(values, [part])) != _shapes(_parts(wanted, [part])):
            whose = repr(recipe.model.backbone) if part == "backbone" else "this model"
            raise InputError(
                f"config.model.init_from={start}: its {part} does not fit {whose}; name a run with "
                f"the same {part}"
            )
    anew = sorted(abstract["params"].keys() - set(taken))
    notes.once(
        f"config.model.init_from={start}: takes over {', '.join(taken)}; anew: {', '.join(anew)}"
    )
    return jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), values, wanted)


def _parts(tree: dict, names: Sequence[str]) -> dict:
    """These parts of a model's parameters and of its statistics, where there are any."""
    return {
        group: {name: tree[group][name] for name in names if name in tree[group]}
        for group in official.PARTS
    }


def _start(path: pathlib.Path, recipe: Recipe, abstract: dict) -> tuple[dict, bool]:
    """A state to start from, and whether it is of a model of the same kind and AUs."""
    if files.is_weight_file(path):
        arrays = _without_classifier(files.read(path))
        with directory.naming(path):
            if not families.is_known(arrays):
                return _backbone_of(path, arrays, recipe, abstract), False
    other = load_trained(path)
    same = other.recipe.kind_name == recipe.kind_name
    return other.state, same and other.layout.aus == recipe.layout.aus


def _backbone_of(
    path: pathlib.Path, arrays: dict[str, np.ndarray], recipe: Recipe, abstract: dict
) -> dict:
    """The backbone in a file of torchvision (ResNets) or of Swin's authors."""
    backbone = recipe.model.backbone
    if backbone not in names.BACKBONE_ROWS:
        raise InputError(
            f"config.model.init_from={path}: no official file holds a {backbone!r}; "
            f"use one of {', '.join(names.BACKBONE_ROWS)}"
        )
    like = {part: {"backbone": abstract[part]["backbone"]} for part in official.PARTS}
    rows = names.BACKBONE_ROWS[backbone]("Backbone")
    return official.load(official.backbone_alone(arrays), like, rows, backbone)


def _shapes(tree: dict) -> dict:
    return jax.tree.map(lambda x: x.shape, tree)


def with_values(state: dict, values: dict) -> dict:
    """`state` with those of `initial_values` in place of its own."""
    started = state | {part: state[part] | given for part, given in values.items()}
    if values and "trained" in state:
        # A copy: a training step overwrites both.
        started["trained"] = jax.tree.map(jnp.copy, started["params"])
    return started


AT_ONCE = 16  # frames that a static model scores at a time


class Predictor:
    """A trained model ready for pictures.

    Attributes:
      layout: AUs in the order of the scores.
      clip_length: T, the frames of a clip that are scored; of a static model, as many as it gets
        at a time.
      context: frames before and after them that the model reads.
      record_size: height and width of the pictures that `scores` takes.
      thresholds: score from which each AU counts as active.
      hold: so many missing frames in a row do not end a clip.
      crop: how the faces were cut out that it was trained on; None: unknown.
      template: a key of `align.TEMPLATES`, how it expects faces to lie in their squares where
        `crop` is unknown.
      fps: frame rate of the clips that it was trained on; None: unknown.
    """

    record_size = 256

    def __init__(self, path: str | pathlib.Path):
        trained = load_trained(path)
        recipe = trained.recipe
        self.layout = trained.layout
        self.clip_length = AT_ONCE if recipe.kind.static else recipe.clip_length
        self.context = recipe.context
        self.thresholds = trained.thresholds
        self.hold = recipe.hold
        learned = provenance.read(pathlib.Path(path))
        self.crop = learned.crop if learned else None
        self.fps = learned.fps if learned else None
        self.template = next(
            name
            for name in (recipe.evaluation_crop, self.layout.name, "bp4d")
            if name in align.TEMPLATES
        )
        here = sharding.make_mesh(devices=devices.found()[:1])
        self._scoring = build_scoring(recipe, here)
        state = trained.state
        self._values = self._scoring.prepare(state["params"], state["batch_stats"])

    def scores(self, frames: UInt8[np.ndarray, "b s h w 3"]) -> Float[np.ndarray, "b t n"]:
        """AU scores in [0, 1] of clips of `clip_length` pictures with their context."""
        return np.asarray(self._scoring.step(*self._values, {"frames": frames}))
