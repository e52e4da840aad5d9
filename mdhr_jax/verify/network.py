# SPDX-License-Identifier: Apache-2.0
"""The golden configurations: the whole network in evaluation, training and optimisation.

Tolerances are float32 noise with room: a correct port on a CPU stays 10 to 40 times below them.
Swin's noise is a tenth of the ResNet's, and so are its tolerances (a quarter on accelerators).
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange
from flax import nnx

from mdhr_jax import facs
from mdhr_jax.interop import names
from mdhr_jax.models import mdhr, views
from mdhr_jax.numerics import optim, steps
from mdhr_jax.verify import golden, models, verdict
from mdhr_jax.verify.cases import Case
from mdhr_jax.verify.verdict import Check, Values

BACKBONES = {"resnet": "resnet50", "swin_transformer": "swin_b"}
# Not of `configs.base`: what is verified does not change with a default.
RELEASE: dict[str, Any] = {
    "dynamics": "multiscale",
    "scales": (1, 2, 3, 4),
    "features": 512,
    "window": "zero",
    "afe": "block",
    "auxiliary": True,
    "edges": "cross_region_activated",
    "temporal": True,
}
ADAMW: dict[str, Any] = {"betas": (0.9, 0.999), "epsilon": 1e-8, "weight_decay": 5e-4}

# Stage -> largest absolute difference in evaluation and in training (ResNet).
STAGES = {
    "ms1": (5e-4, 2e-3),
    "ms2": (5e-4, 2e-3),
    "ms3": (5e-4, 2e-3),
    "ms4": (5e-4, 2e-3),
    "bb": (5e-4, 2e-3),
    "static": (5e-4, 2e-3),
    "pool1": (3e-4, 1e-3),
    "pool2": (3e-4, 1e-3),
    "pool3": (3e-4, 1e-3),
    "pool4": (3e-4, 1e-3),
    "scale_w": (2e-4, 2e-3),
    "mfd": (1e-3, 5e-3),
    "logit": (2e-3, 5e-3),
    "mask": (0.0, 0.0),
    "adj": (0.0, 0.0),
    "att": (5e-5, 2e-4),
    "nodes": (2e-4, 5e-4),
    "gat": (2e-4, 5e-4),
    "tcn": (3e-4, 1e-3),
    "scores": (1e-5, 5e-5),
}
SAMPLED, SAMPLED_GRADIENT = 4096, 512
STATISTIC = 2e-6  # mean and standard deviation absolute, L2 norm relative
LOSS, REGION_LOSS = 1e-5, 2e-4
RUNNING_MEAN, RUNNING_VAR = 2e-5, 5e-5
# Relative differences of gradients: global norm, norms of the low-noise parameters, entries.
GLOBAL_NORM = {"resnet": 5e-3, "swin_transformer": 5e-4}
PARAMETER_NORM = {"resnet": 1e-2, "swin_transformer": 5e-3}
DEEP = ("Backbone.", "MFD.", "global_linear.")
DEEP_ENTRY = {"resnet": 0.1, "swin_transformer": 2e-2}
SCORE_VECTOR_ENTRY = {"resnet": 0.2, "swin_transformer": 2e-3}
HEAD_ENTRY = {"resnet": 1e-2, "swin_transformer": 2e-3}
# Five AdamW steps: the total loss before each step and after the last.
OPTIMISATION_LOSS = (1e-5, 1e-3, 5e-3, 5e-3, 5e-3, 5e-3)
DELTA_MEDIAN, DELTA_LARGEST = 1e-2, 0.5


def weights(case: Case) -> tuple[dict, dict]:
    """The case's parameters and statistics in our tree."""
    return _weights(case.layout, case.backbone, case.facts["base_seed"])


@functools.lru_cache(maxsize=1)
def _weights(layout: facs.AuLayout, backbone: str, seed: int) -> tuple[dict, dict]:
    """Parameters and statistics drawn by the recipe, in our tree."""
    model = nnx.eval_shape(lambda: _model(layout, backbone, k=1))
    _, params, batch_stats = steps.split(model)
    rows = names.table(layout, BACKBONES[backbone])
    return models.drawn(params, rows, seed), models.drawn(batch_stats, rows, seed)


def _model(layout: facs.AuLayout, backbone: str, k: int) -> mdhr.MDHR:
    return mdhr.MDHR(layout, backbone=BACKBONES[backbone], k=k, rngs=nnx.Rngs(0), **RELEASE)


def verify(case: Case, *, training: bool = True) -> Iterator[Check]:
    """Every stage of one configuration: evaluation, training, and optimisation if it is there."""
    params, batch_stats = weights(case)
    model = nnx.eval_shape(lambda: _model(case.layout, case.backbone, case.facts["k"]))
    yield from _evaluation(case, model, params, batch_stats)
    if not training:
        return
    yield from _training(case, model, params, batch_stats)
    if "opt.losses" in case.arrays:
        yield from _optimisation(case, model, params, batch_stats)


def official_layouts(outputs: dict, layout: facs.AuLayout) -> dict[str, np.ndarray]:
    """Our named intermediates as the golden files hold them: clip-major frames, channels first."""
    tensors = {}

    def add(name: str, array: jax.Array, rule: str) -> None:
        tensors[name] = rearrange(np.asarray(array), f"b t {rule}")

    for scale, (maps, pooled) in enumerate(
        zip(outputs["maps"], outputs["pooled"], strict=True), start=1
    ):
        add(f"ms{scale}", maps, "h w c -> (b t) c h w")
        add(f"pool{scale}", pooled, "h w c -> (b t) c h w")
    add("bb", outputs["tokens"], "h w c -> (b t) (h w) c")
    add("static", outputs["static"], "h w c -> (b t) (h w) c")
    add("mfd", outputs["motion"], "h w c -> (b t) (h w) c")
    add("scale_w", outputs["scale_weights"], "h w s -> (b t) s h w")
    for region, logits in zip(layout.regions, outputs["region_logits"], strict=True):
        add(f"logit_{region.name}", logits, "c -> (b t) c")
    for name, ours in [("mask", "senders"), ("scores", "scores")]:
        add(name, outputs[ours], "n -> (b t) n")
    for name, ours in [("adj", "adjacency"), ("att", "attention")]:
        add(name, outputs[ours], "n m -> (b t) n m")
    for name, ours in [("nodes", "nodes"), ("gat", "graph"), ("tcn", "temporal")]:
        add(name, outputs[ours], "n d -> (b t) n d")
    return tensors


def forward_checks(case: Case, mode: str, tensors: dict[str, np.ndarray]) -> Iterator[Check]:
    """Every stage in official layout against the golden one; `mode` is `eval` or `train`."""
    share = 1.0
    if case.backbone == "swin_transformer":
        share = 0.1 if jax.default_backend() == "cpu" else 0.25
    for name, ours in tensors.items():
        tolerance = share * STAGES[name.split("_")[0] if "logit" in name else name][mode == "train"]
        stage = f"{mode} {name}"
        if f"{mode}.{name}" in case.arrays:
            yield verdict.absolute(stage, ours, case.arrays[f"{mode}.{name}"], tolerance)
            continue
        sampled = case.arrays[f"{mode}.{name}.sub"]
        yield verdict.absolute(stage, golden.sample(ours, SAMPLED), sampled, tolerance)
        yield from _statistic_checks(stage, ours, case.arrays[f"{mode}.{name}.stat"], tolerance)


def _statistic_checks(
    stage: str, ours: np.ndarray, stored: np.ndarray, tolerance: float
) -> Iterator[Check]:
    wide = ours.astype(np.float64)
    yield verdict.absolute(f"{stage} mean, std", (wide.mean(), wide.std()), stored[:2], STATISTIC)
    yield verdict.absolute(f"{stage} min, max", (wide.min(), wide.max()), stored[2:4], tolerance)
    yield verdict.relative(f"{stage} L2 norm", np.linalg.norm(wide), stored[4], STATISTIC)


def _evaluation(case: Case, model: mdhr.MDHR, params: dict, batch_stats: dict) -> Iterator[Check]:
    graph, *_ = steps.split(views.eval_view(model, dtype=jnp.float32))
    outputs, _ = jax.jit(functools.partial(steps.forward, graph))(params, batch_stats, case.clips)
    yield from forward_checks(case, "eval", official_layouts(outputs, case.layout))


def train_batch(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clips, labels and mask of the training vectors."""
    clips = case.clips[: case.facts["train_B"], : case.facts["train_T"]]
    labels = case.arrays["train.labels"]
    return clips, labels, np.ones(labels.shape, bool)


def _objective(case: Case) -> steps.Objective:
    weights = tuple(case.arrays["class_weight"].tolist())
    return steps.Objective(case.layout, weights, case.facts["lam"])


def _training(case: Case, model: mdhr.MDHR, params: dict, batch_stats: dict) -> Iterator[Check]:
    step = jax.jit(
        functools.partial(steps.loss_and_gradients, models.train_graph(model), _objective(case))
    )
    losses, gradients, stats, outputs = step(params, batch_stats, *train_batch(case))
    yield from forward_checks(case, "train", official_layouts(outputs, case.layout))
    yield from loss_checks(case, *(losses[name] for name in ("loss", "au_loss", "region_loss")))
    arrays = official_arrays(case, gradients)
    yield from _settled(case, model, params, batch_stats, list(gradient_checks(case, arrays)))
    yield from running_checks(case, official_arrays(case, stats))


def official_arrays(case: Case, tree: dict) -> dict[str, np.ndarray]:
    """A tree of parameters or statistics under its official names."""
    found = names.entries(tree, names.table(case.layout, BACKBONES[case.backbone]))
    return names.to_official(tree, found)


def loss_checks(case: Case, total: Values, aus: Values, regions: Values) -> Iterator[Check]:
    """The training loss and its two parts."""
    stored = case.facts["train_loss"]
    yield verdict.absolute("train loss total", total, stored["total"], LOSS)
    yield verdict.absolute("train loss AUs", aus, stored["wa"], LOSS)
    yield verdict.absolute("train loss regions", regions, stored["ce"], REGION_LOSS)


def _settled(
    case: Case, model: mdhr.MDHR, params: dict, batch_stats: dict, checks: list[Check]
) -> Iterator[Check]:
    """The checks, where they are out in float32 those of float64."""

    def in_float64() -> Iterator[Check]:
        batch, objective = train_batch(case), _objective(case)
        gradients = models.float64_gradients(model, objective, params, batch_stats, batch)
        return gradient_checks(case, official_arrays(case, gradients))

    return models.settled(checks, in_float64)


def gradient_checks(case: Case, ours: dict[str, np.ndarray]) -> Iterator[Check]:
    """Training gradients by official name: names, norms and sampled entries."""
    norms = {name: np.linalg.norm(g.astype(np.float64)) for name, g in ours.items()}
    stored = dict(zip(case.facts["train_grad_names"], case.arrays["train.grad_norms"], strict=True))
    yield verdict.exact("train gradient names", sorted(norms), sorted(stored))
    total = np.sqrt(sum(norm**2 for norm in norms.values()))
    yield verdict.relative(
        "train global gradient norm",
        total,
        case.facts["train_global_grad_norm"],
        GLOBAL_NORM[case.backbone],
    )
    low_noise = case.facts["recommended_grad_params"]
    yield verdict.relative(
        f"train gradient norms of {len(low_noise)} parameters",
        [norms[name] for name in low_noise],
        [stored[name] for name in low_noise],
        PARAMETER_NORM[case.backbone],
    )
    for key, entries in case.arrays.items():
        if key.startswith("train.grad.") and key.endswith(".sub"):
            name = key.removeprefix("train.grad.").removesuffix(".sub")
            sampled = golden.sample(ours[name], SAMPLED_GRADIENT)
            tolerance = _entry_tolerance(name)[case.backbone]
            yield verdict.to_largest(f"train gradient {name}", sampled, entries, tolerance)


def _entry_tolerance(name: str) -> dict[str, float]:
    if name.startswith(DEEP):
        return DEEP_ENTRY
    return SCORE_VECTOR_ENTRY if "scoring_fn" in name else HEAD_ENTRY


def running_checks(case: Case, ours: dict[str, np.ndarray]) -> Iterator[Check]:
    """Running statistics by official name, after one training step."""
    for key, stored in case.arrays.items():
        if key.startswith("train.bn."):
            name = key.removeprefix("train.bn.")
            tolerance = RUNNING_MEAN if name.endswith("mean") else RUNNING_VAR
            yield verdict.absolute(f"train {name}", ours[name], stored, tolerance)


def _optimisation(case: Case, model: mdhr.MDHR, params: dict, batch_stats: dict) -> Iterator[Check]:
    optimizer = optim.adamw(1e-4, **ADAMW)
    graph, objective = models.train_graph(model), _objective(case)

    @jax.jit
    def step(params: dict, opt_state: optax.OptState, batch: tuple):
        losses, gradients, *_ = steps.loss_and_gradients(
            graph, objective, params, batch_stats, *batch
        )
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return losses["loss"], optax.apply_updates(params, updates), opt_state

    batch, current, opt_state = train_batch(case), params, optimizer.init(params)
    for row, tolerance in enumerate(OPTIMISATION_LOSS):
        final = current  # the loss after the last step needs one more forward pass only
        loss, current, opt_state = step(current, opt_state, batch)
        stored = case.arrays["opt.losses"][row, 0]
        yield verdict.absolute(f"AdamW loss after {row} steps", loss, stored, tolerance)
    yield from _delta_checks(case, jax.tree.map(jnp.subtract, final, params))


def _delta_checks(case: Case, delta: dict) -> Iterator[Check]:
    ours = official_arrays(case, delta)
    stored = case.facts["opt_param_delta_norm"]
    zero = set(case.facts["train_structurally_zero_grads"])
    ratios = [
        abs(np.linalg.norm(ours[name]) - norm) / norm
        for name, norm in stored.items()
        if name not in zero and norm > 0
    ]
    yield Check("AdamW change of parameters, median", float(np.median(ratios)), DELTA_MEDIAN)
    yield Check("AdamW change of parameters, largest", float(np.max(ratios)), DELTA_LARGEST)
