# SPDX-License-Identifier: Apache-2.0
"""A run's directory: its configuration, and the model behind its checkpoints.

`config.json` says what was trained, `data.json` on what, `metrics.jsonl` how it went,
`checkpoints/` holds the states. Where a trained model is asked for, an official weight file
(`interop.files`) does as well.
"""

import contextlib
import dataclasses
import difflib
import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict

from configs import base
from mdhr_jax import (
    checkpoint,
    config_check,
    devices,
    facs,
    losses,
    preprocess,
    protocol,
    provenance,
    sharding,
    steps,
    writers,
)
from mdhr_jax import files as whole
from mdhr_jax.data import records
from mdhr_jax.errors import InputError
from mdhr_jax.interop import files, names, official
from mdhr_jax.models import mdhr

# How the same is computed: a run may go on with other values of these.
MEANS = ("deterministic", "fsdp", "input")
# Keys that runs of earlier versions do not have, and what these did.
ADDED = {"allow_seen_subjects": False, "deterministic": False}
# Compiler options: GPUs take no kernel that adds in the order in which its threads finish, nor one
# that was the fastest in a trial. Triton's products have no other choice but such a trial.
DETERMINISTIC = {"xla_gpu_deterministic_ops": True, "xla_gpu_enable_triton_gemm": False}
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


def check(config: ConfigDict) -> None:
    """Refuses a configuration that has not exactly the keys of `configs/base.py`, or wrong values.

    Raises:
      InputError: the first such key, by its name.
    """
    values, known = flatten(config.to_dict()), flatten(base.get_config().to_dict())
    for key in sorted(values.keys() - known.keys()):
        raise InputError(
            f"config.{key}: there is no such key{nearest(key, list(known))}; configs/base.py names "
            "every key"
        )
    for key in sorted(known.keys() - values.keys()):
        raise InputError(f"config.{key}: is missing; configs/base.py names every key")
    config_check.check(values, known)


def claim(
    workdir: pathlib.Path, config: ConfigDict, learned: provenance.Learned | None = None
) -> None:
    """Saves the configuration in a new run, or checks that it trains as an old run does.

    Args:
      workdir: the run.
      config: as it is to be trained.
      learned: what it learns from; None for a run that is not trained here.

    Raises:
      InputError: the run was started with other values (the keys are named) or another data set.
    """
    file = config_file(workdir)
    if not file.exists():
        if learned:
            provenance.write(workdir, learned)
        _write(file, config)
        return
    stored = load_config(workdir)
    old, new = flatten(stored.to_dict()), flatten(config.to_dict())
    changed = [key for key in sorted(new) if old[key] != new[key] and key not in (*MEANS, "data")]
    if changed:
        listed = ", ".join(f"{key} ({old[key]} -> {new[key]})" for key in changed)
        raise InputError(
            f"{workdir}: this run has another configuration: {listed}; "
            "use these values again or another --workdir"
        )
    if learned:
        provenance.check(workdir, learned)
    if stored.data != config.data:  # the data set has moved
        stored.data = config.data
        _write(file, stored)


def _write(file: pathlib.Path, config: ConfigDict) -> None:
    whole.write(file, json.dumps(config.to_dict(), indent=2) + "\n")


def load_config(workdir: pathlib.Path) -> ConfigDict:
    """The configuration that a run was started with.

    Raises:
      InputError: the directory holds no run, or no configuration that could be a run's.
    """
    file = config_file(workdir)
    try:
        values = json.loads(file.read_text())
    except (OSError, RecursionError, ValueError) as error:
        raise InputError(f"{workdir}: holds no run (no readable config.json in it)") from error
    if not isinstance(values, dict):
        raise InputError(f"{file}: holds no configuration; bring back a copy of it")
    config = ConfigDict(ADDED | values)
    with _naming(file):
        check(config)
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


def chosen[Kind](config: ConfigDict, key: str, table: Mapping[str, Kind]) -> Kind:
    """What a key of the configuration names in a table.

    Raises:
      InputError: nothing; the choices are named.
    """
    try:
        return mdhr.choose(f"config.{key}", table, config[key])
    except ValueError as error:
        raise InputError(str(error)) from error


def protocol_of(config: ConfigDict) -> protocol.Protocol:
    """The configured protocol; InputError when there is none of that name, or its keys clash."""
    found = chosen(config, "protocol", protocol.PROTOCOLS)
    if config.tune_thresholds and found.split != "held-out":
        raise InputError(
            f"config.tune_thresholds: protocol {found.name!r} has no frames to choose thresholds "
            "on; use config.protocol=held-out"
        )
    return found


def layout_of(config: ConfigDict) -> facs.AuLayout:
    """The configured AU layout; InputError with the choices when there is none of that name."""
    try:
        return facs.layout(config.layout)
    except ValueError as error:
        raise InputError(f"config.layout: {error}") from error


def open_data(config: ConfigDict, path: str | pathlib.Path | None = None) -> records.FrameSource:
    """The data set that a configuration (or `path`) names, with its protocol's splits.

    Raises:
      InputError: no directory given, nothing in it, or other AUs than the layout's.
    """
    path = path or config.data
    if not path:
        raise InputError("no data set given; add --config.data=DIRECTORY")
    source, layout = records.open_dataset(path), layout_of(config)
    if source.layout.aus != layout.aus:
        raise InputError(
            f"{path}: has layout {source.layout.name!r} with AUs {list(source.layout.aus)}, the "
            f"model has layout {layout.name!r} with AUs {list(layout.aus)}; name another data set, "
            f"or train another model with --config.layout={source.layout.name}"
        )
    held_out = config.held_out if config.protocol == "held-out" else 0.0
    return dataclasses.replace(source, held_out=held_out, hold=config.hold)


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
        window=model.dynamics.window,
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


def loss_reduction(config: ConfigDict) -> losses.Reduction:
    """How the configured loss is summed up."""
    return chosen(config, "loss_reduction", losses.REDUCTIONS)


def precision(config: ConfigDict) -> jnp.dtype:
    """The arithmetic type that a configuration names."""
    return chosen(config, "precision", PRECISIONS)


def compiler_options(config: ConfigDict) -> dict[str, bool]:
    """What the compiler is told of a run's programs."""
    return DETERMINISTIC if config.deterministic else {}


def check_image_size(config: ConfigDict, model: mdhr.MDHR) -> None:
    """Refuses image sizes that the backbone does not take."""
    multiple = model.backbone.image_multiple
    if config.image_size % multiple:
        raise InputError(
            f"config.image_size={config.image_size}: backbone {config.model.backbone!r} takes "
            f"multiples of {multiple}"
        )


def eval_graph(config: ConfigDict) -> nnx.GraphDef:
    """The model's definition as it runs in testing."""
    return steps.split(_tested(config))[0]


def eval_transform(config: ConfigDict) -> Callable[[jax.Array], jax.Array]:
    """From the frames of clips to network input, as configured for testing."""
    transform = chosen(config, "evaluation_crop", preprocess.EVALUATION)
    return functools.partial(transform, image_size=config.image_size)


def scoring(config: ConfigDict, mesh: Mesh) -> steps.Scoring:
    """How the configured model scores clips that are split over the devices."""
    tested, dtype = _tested(config), precision(config)
    graph, *_ = steps.split(tested)

    def prepare(params: dict, batch_stats: dict) -> tuple[dict, dict]:
        model = nnx.merge(graph, params, batch_stats)
        return steps.split(mdhr.folded_view(model, dtype=dtype))[1:]

    folded = nnx.eval_shape(functools.partial(mdhr.folded_view, dtype=dtype), tested)
    step = steps.make_eval_step(steps.split(folded)[0], transform=eval_transform(config))
    options = compiler_options(config)
    return steps.Scoring(
        jax.jit(prepare, out_shardings=sharding.replicated(mesh), compiler_options=options),
        jax.jit(step, out_shardings=sharding.batched(mesh), compiler_options=options),
    )


def context(config: ConfigDict) -> int:
    """Frames before and after a clip that the configured model reads."""
    return _outline(config).dynamics.context


def _tested(config: ConfigDict) -> mdhr.MDHR:
    """The outline as it runs in testing."""
    model = _outline(config)
    check_image_size(config, model)
    return mdhr.eval_view(model, dtype=precision(config))


def _outline(config: ConfigDict) -> mdhr.MDHR:
    """The configured model with shapes for arrays."""
    return nnx.eval_shape(lambda: model_factory(config)(nnx.Rngs(0)))


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model: what a run reports under its protocol, or a weight file.

    Attributes:
      path: the run or the file.
      config: its configuration; the release's for a file.
      protocol: how its step was chosen.
      state: `step`, `params` and `batch_stats`.
      thresholds: score from which each AU counts as active.
    """

    path: pathlib.Path
    config: ConfigDict
    protocol: protocol.Protocol
    state: dict
    thresholds: Float[np.ndarray, " n"]

    @property
    def layout(self) -> facs.AuLayout:
        """Its AUs and regions."""
        return layout_of(self.config)


def load(path: str | pathlib.Path) -> Trained:
    """Reads a run's reported checkpoint or an official weight file.

    Raises:
      InputError: neither is there, it is damaged, or the run has not got that far.
    """
    path = pathlib.Path(path)
    return _load_file(path) if files.is_weight_file(path) else _load_run(path)


def _load_run(path: pathlib.Path) -> Trained:
    config = load_config(path)
    _check_aus(path, layout_of(config))
    chosen = protocol.FILE if config.protocol == protocol.FILE.name else protocol_of(config)
    shapes, shardings = _abstract_model(config)
    wanted = checkpoint.abstract(shapes, shardings)
    state = checkpoint.restore(checkpoints(path), chosen.checkpoint, wanted)
    step = int(state["step"])
    said = checkpoint.said(checkpoints(path), chosen.checkpoint, step)
    thresholds = _thresholds(path, config, step, said.get("evaluation"))
    return Trained(path, config, chosen, state, thresholds)


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
    with _naming(path):
        layout, config.model.backbone = official.recognise(arrays)
        config.layout = layout.name
        shapes, shardings = _abstract_model(config)
        state = official.load(arrays, shapes, layout, config.model.backbone)
    thresholds = np.full(len(layout.aus), config.threshold)
    return Trained(path, config, protocol.FILE, jax.device_put(state, shardings), thresholds)


def _abstract_model(config: ConfigDict) -> tuple[dict, dict]:
    """Shapes of a configured model's state, and how it lies on the devices."""
    shapes = jax.eval_shape(functools.partial(_model_state, model_factory(config)))
    return shapes, sharding.state_shardings(sharding.make_mesh(), shapes)


def threshold_scalars(
    layout: facs.AuLayout, thresholds: Float[np.ndarray, " n"]
) -> dict[str, float]:
    """Thresholds as scalars of an evaluation."""
    names = (f"threshold/{name}" for name in layout.au_names)
    return dict(zip(names, thresholds.tolist(), strict=True))


def _thresholds(
    workdir: pathlib.Path, config: ConfigDict, step: int, evaluation: dict | None
) -> np.ndarray:
    """The fixed threshold for every AU, or those that were chosen at that step's evaluation.

    The checkpoint's, or the one in the metrics for a checkpoint of an earlier version.
    """
    layout = layout_of(config)
    if not config.tune_thresholds:
        return np.full(len(layout.aus), config.threshold)
    for row in [evaluation] if evaluation else evaluations(workdir):
        if row["step"] == step:
            return np.array([row[f"threshold/{name}"] for name in layout.au_names])
    raise InputError(
        f"{workdir / 'metrics.jsonl'}: holds no evaluation of step {step}, which chose the "
        "thresholds; bring the file back"
    )


def evaluations(workdir: pathlib.Path) -> list[dict]:
    """The evaluation rows of a run so far."""
    return [row for row in writers.read(workdir / "metrics.jsonl") if row["kind"] == "eval"]


def initial_backbone(config: ConfigDict, abstract: dict) -> dict:
    """The backbone that `config.model.init_from` names, laid out as in an abstract state.

    Returns:
      its `params` and `batch_stats`; nothing where none is named.

    Raises:
      InputError: no such run or file, or its backbone is another one.
    """
    path = pathlib.Path(config.model.init_from)
    if not config.model.init_from:
        return {}
    wanted = {part: {"backbone": abstract[part]["backbone"]} for part in official.PARTS}
    if files.is_weight_file(path):
        other = _official_backbone(path, config, wanted)
    else:
        other = load(path).state
    found = {part: {"backbone": other[part]["backbone"]} for part in official.PARTS}
    if _shapes(found) != _shapes(wanted):
        raise InputError(
            f"config.model.init_from={path}: its backbone does not fit {config.model.backbone!r}; "
            "name a run with the same backbone"
        )
    return jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), found, wanted)


def _shapes(tree: dict) -> dict:
    return jax.tree.map(lambda x: x.shape, tree)


def with_backbone(state: dict, backbone: dict) -> dict:
    """`state` with the backbone of `initial_backbone` in place of its own."""
    started = state | {part: state[part] | values for part, values in backbone.items()}
    if backbone and "trained" in state:
        # A copy: a training step overwrites both.
        started["trained"] = jax.tree.map(jnp.copy, started["params"])
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
        trained = load(path)
        config = trained.config
        self.layout = trained.layout
        self.clip_length, self.context = config.clip_length, context(config)
        self.thresholds = trained.thresholds
        self.hold = config.hold
        learned = provenance.read(pathlib.Path(path))
        self.crop, self.fps = (learned.crop, learned.fps) if learned else (None, None)
        here = sharding.make_mesh(devices=devices.found()[:1])
        self._scoring = scoring(config, here)
        state = trained.state
        self._values = self._scoring.prepare(state["params"], state["batch_stats"])

    def scores(self, frames: UInt8[np.ndarray, "b s h w 3"]) -> Float[np.ndarray, "b t n"]:
        """AU scores in [0, 1] of clips of `clip_length` pictures with their context."""
        return np.asarray(self._scoring.step(*self._values, {"frames": frames}))
