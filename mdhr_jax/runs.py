# SPDX-License-Identifier: Apache-2.0
"""A run's directory: its configuration, and the model behind its checkpoints.

`config.json` says what was trained, `metrics.jsonl` how it went, `checkpoints/` holds the states.
Where a trained model is asked for, an official weight file (`interop.files`) does as well.
"""

import contextlib
import difflib
import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict

from configs import base
from mdhr_jax import checkpoint, facs, preprocess, sharding, steps
from mdhr_jax.data import records
from mdhr_jax.errors import InputError
from mdhr_jax.interop import files, names, official
from mdhr_jax.models import mdhr

PRECISIONS = {name: jnp.dtype(name) for name in ("float32", "bfloat16")}


def config_file(workdir: pathlib.Path) -> pathlib.Path:
    """Where a run keeps its configuration."""
    return workdir / "config.json"


def checkpoints(workdir: pathlib.Path) -> pathlib.Path:
    """Where a run keeps its states."""
    return workdir / "checkpoints"


def flatten(config: dict, prefix: str = "") -> dict[str, object]:
    """Nested keys as dotted ones, tuples as lists, as JSON has them."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def claim(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Saves the configuration in a new run, or checks that it is the one of an old run.

    Raises:
      InputError: the run was started with other values; the keys are named.
    """
    file = config_file(workdir)
    if not file.exists():
        workdir.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(config.to_dict(), indent=2) + "\n")
        return
    old, new = flatten(load_config(workdir).to_dict()), flatten(config.to_dict())
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if changed:
        listed = ", ".join(f"{key} ({old.get(key)} -> {new.get(key)})" for key in changed)
        raise InputError(
            f"{workdir}: this run has another configuration: {listed}; "
            "use these values again or another --workdir"
        )


def load_config(workdir: pathlib.Path) -> ConfigDict:
    """The configuration that a run was started with, or the release's for an official file.

    Raises:
      InputError: the directory holds no run, or the file no MDHR.
    """
    if files.is_weight_file(workdir):
        return _official_config(workdir)
    try:
        return ConfigDict(json.loads(config_file(workdir).read_text()))
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{workdir}: holds no run (no readable config.json in it)") from error


def _official_config(path: pathlib.Path) -> ConfigDict:
    arrays = files.read(path)
    with _naming(path):
        layout, backbone = official.recognise(arrays)
    config = base.get_config()
    config.layout, config.model.backbone = layout.name, backbone
    return config


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
    """Puts the file before what is wrong with its entries."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def nearest(key: str, known: list[str]) -> str:
    """`; did you mean ...?` for a mistyped key, empty when nothing is near."""
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _chosen[Kind](config: ConfigDict, key: str, table: Mapping[str, Kind]) -> Kind:
    """What a key of the configuration names in a table; InputError with the choices otherwise."""
    try:
        return mdhr.choose(f"config.{key}", table, config[key])
    except ValueError as error:
        raise InputError(str(error)) from error


def layout_of(config: ConfigDict) -> facs.AuLayout:
    """The configured AU layout; InputError with the choices when there is none of that name."""
    return _chosen(config, "layout", facs.LAYOUTS)


def open_data(config: ConfigDict, path: str | pathlib.Path | None = None) -> records.FrameSource:
    """The data set that a configuration (or `path`) names, if it has the layout's AUs.

    Raises:
      InputError: no directory given, nothing in it, or other AUs.
    """
    path = path or config.data
    if not path:
        raise InputError("no data set given; add --config.data=DIRECTORY")
    source, layout = records.open_dataset(path), layout_of(config)
    if source.layout != layout:
        raise InputError(
            f"{path}: has layout {source.layout.name!r} with AUs {list(source.layout.aus)}, the "
            f"model has layout {layout.name!r} with AUs {list(layout.aus)}; use matching ones"
        )
    return source


def model_factory(config: ConfigDict) -> Callable[[nnx.Rngs], mdhr.MDHR]:
    """`rngs -> model` as configured.

    Raises:
      InputError: a slot has no such kind, or the kinds do not go together.
    """
    model = config.model
    create = functools.partial(
        _create,
        layout_of(config),
        model.initial,
        backbone=model.backbone,
        dynamics=model.dynamics.kind,
        scales=tuple(model.dynamics.scales),
        k=model.dynamics.k,
        features=model.features,
        afe=model.afe,
        auxiliary=model.auxiliary,
        edges=model.edges,
        temporal=model.temporal,
    )
    return create


def _create(layout: facs.AuLayout, initial: str, rngs: nnx.Rngs, **slots) -> mdhr.MDHR:
    try:
        set_values = mdhr.choose("initial", mdhr.INITIAL, initial)
        model = mdhr.MDHR(layout, rngs=rngs, **slots)
    except ValueError as error:
        raise InputError(f"config.model: {error}") from error
    set_values(model)
    return model


def precision(config: ConfigDict) -> jnp.dtype:
    """The arithmetic type that a configuration names."""
    return _chosen(config, "precision", PRECISIONS)


def check_image_size(config: ConfigDict, model: mdhr.MDHR) -> None:
    """Refuses image sizes that the backbone does not take."""
    multiple = model.backbone.image_multiple
    if config.image_size < multiple or config.image_size % multiple:
        raise InputError(
            f"config.image_size={config.image_size}: backbone {config.model.backbone!r} takes "
            f"multiples of {multiple}"
        )


def eval_graph(config: ConfigDict) -> nnx.GraphDef:
    """The model's definition as it runs in testing."""
    model = nnx.eval_shape(lambda: model_factory(config)(nnx.Rngs(0)))
    check_image_size(config, model)
    return steps.split(mdhr.eval_view(model, dtype=precision(config)))[0]


def eval_transform(config: ConfigDict) -> Callable[[jax.Array], jax.Array]:
    """From the frames of clips to network input, as configured for testing."""
    transform = _chosen(config, "evaluation_crop", preprocess.EVALUATION)
    return functools.partial(transform, image_size=config.image_size)


def restore_model(workdir: pathlib.Path, config: ConfigDict, kind: str) -> dict:
    """`step`, `params` and `batch_stats` of a run's checkpoint (`last` or `best`), or of a file.

    Raises:
      InputError: the run has no such checkpoint, or the file other entries.
    """
    shapes = jax.eval_shape(functools.partial(_model_state, model_factory(config)))
    shardings = sharding.state_shardings(sharding.make_mesh(), shapes)
    if files.is_weight_file(workdir):
        return jax.device_put(_official_state(workdir, config, shapes), shardings)
    wanted = checkpoint.abstract(shapes, shardings)
    return checkpoint.restore(checkpoints(workdir), kind, wanted)


def _official_state(path: pathlib.Path, config: ConfigDict, like: dict) -> dict:
    arrays = files.read(path)
    with _naming(path):
        return official.load(arrays, like, layout_of(config), config.model.backbone)


def with_initial_backbone(state: dict, config: ConfigDict) -> dict:
    """`state` with the backbone that `config.model.init_from` names, if it names one.

    Raises:
      InputError: no such run or file, or its backbone is another one.
    """
    path = pathlib.Path(config.model.init_from)
    if not config.model.init_from:
        return state
    own = {part: {"backbone": state[part]["backbone"]} for part in official.PARTS}
    if files.is_weight_file(path):
        other = _official_backbone(path, config, own)
    else:
        other = restore_model(path, load_config(path), "last")
    started = dict(state)
    for part, like in own.items():
        old, new = like["backbone"], other[part]["backbone"]
        if jax.tree.map(jnp.shape, old) != jax.tree.map(jnp.shape, new):
            raise InputError(
                f"config.model.init_from={path}: its backbone does not fit "
                f"{config.model.backbone!r}; name a run with the same backbone"
            )
        placed = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), new, old)
        started[part] = state[part] | {"backbone": placed}
    return started


def _official_backbone(path: pathlib.Path, config: ConfigDict, like: dict) -> dict:
    """The backbone in a file of MDHR, of torchvision (ResNet-50) or of Swin's authors (Swin-B)."""
    if config.model.backbone not in names.BACKBONE_ROWS:
        raise InputError(
            f"config.model.init_from={path}: no official file holds a {config.model.backbone!r}; "
            f"use one of {', '.join(names.BACKBONE_ROWS)}"
        )
    arrays = official.backbone_alone(files.read(path))
    with _naming(path):
        return official.load(arrays, like, layout_of(config), config.model.backbone)


def _model_state(create: Callable[[nnx.Rngs], mdhr.MDHR]) -> dict:
    _, params, batch_stats = steps.split(create(nnx.Rngs(0)))
    return {"step": jnp.zeros((), jnp.int32), "params": params, "batch_stats": batch_stats}


class Predictor:
    """A trained model ready for pictures.

    Attributes:
      layout: AUs in the order of the scores.
      clip_length: T, the frames of a clip.
      record_size: height and width of the pictures that `scores` takes.
      threshold: score from which an AU counts as active.
    """

    record_size = 256

    def __init__(self, workdir: str | pathlib.Path, kind: str = "last"):
        workdir = pathlib.Path(workdir)
        config = load_config(workdir)
        self.layout = layout_of(config)
        self.clip_length = config.clip_length
        self.threshold = config.threshold
        graph, transform = eval_graph(config), eval_transform(config)
        state = restore_model(workdir, config, kind)

        @jax.jit
        def run(frames: UInt8[jax.Array, "b t h w 3"]) -> Float[jax.Array, "b t n"]:
            outputs, _ = steps.run(graph, state["params"], state["batch_stats"], transform(frames))
            return outputs["scores"]

        self._run = run

    def scores(self, frames: UInt8[np.ndarray, "b t h w 3"]) -> Float[np.ndarray, "b t n"]:
        """AU scores in [0, 1] of clips of `clip_length` pictures of `record_size` pixels."""
        return np.asarray(self._run(frames))
