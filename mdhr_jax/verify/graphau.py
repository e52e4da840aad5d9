# SPDX-License-Identifier: Apache-2.0
"""The golden configurations of the GraphAU family: the whole network in evaluation and training.

Differences are in units of the golden tensor's standard deviation. Tolerances are three times
float32's noise in the original code, or ten times that of another port; Swin's noise is a tenth of
a ResNet's, and so are most of its tolerances.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

from mdhr_jax.interop import graphau_names, names
from mdhr_jax.models import graphau, views
from mdhr_jax.numerics import losses, steps
from mdhr_jax.verify import golden, models, verdict
from mdhr_jax.verify.cases import Case
from mdhr_jax.verify.verdict import Check, Values

RELATIONS = {1: "nearest", 2: "gated"}  # by stage
# The release's metrics; the two call the same ones otherwise.
METRICS = {
    "megraph": {"dots": "dots", "cosine": "cosine", "l1": "manhattan"},
    "opengraph": {"dots": "dots", "cosine": "cosine", "l1": "euclidean", "l2": "manhattan"},
}
UPDATES = {"megraph": "activated_sum", "opengraph": "sum_activated"}

# Stage -> largest difference in evaluation of ResNets and of Swins, in training of both.
STAGES = {
    **dict.fromkeys(("s1", "s2", "s3", "s4", "bb"), (5e-4, 8e-5, 1e-3, 5e-5)),
    "global": (8e-4, 1e-4, 1.5e-3, 5e-4),
    "f_u": (8e-4, 1e-4, 2e-3, 5e-4),
    "f_v": (1.5e-4, 5e-5, 5e-4, 8e-5),
    "si": (1.5e-4, 8e-5, 2e-4, 8e-5),
    "adj": (0.0, 0.0, 0.0, 0.0),
    **dict.fromkeys(("gnn", "x1", "x2"), (2e-4, 5e-5, 8e-4, 8e-5)),
    "fam": (1.5e-3, 3e-5, 5e-3, 2e-4),
    **dict.fromkeys(("arm", "edge_map"), (1e-2, 5e-5, 5e-3, 8e-5)),
    **dict.fromkeys(("f_e", "e1", "e2"), (3e-3, 8e-5, 1.5e-3, 8e-5)),
    "edge_logits": (3e-3, 5e-5, 1e-3, 8e-5),
    "scores": (3e-5, 3e-5, 1.5e-4, 2e-5),
}
SAMPLED, SAMPLED_GRADIENT = 2048, 256
# Mean and standard deviation, and the L2 norm relative to itself: of the backbone's stages, others.
STATISTIC = {True: 2e-6, False: 5e-6}
LOSS, EDGE_LOSS = 2e-6, 5e-5
RUNNING_MEAN, RUNNING_VAR = 5e-6, 5e-5
# Relative differences of gradients, of ResNets and Swins: global norm, norms of the parameters
# with the least noise, of all that have little, entries.
GLOBAL_NORM = (5e-3, 5e-4)
PARAMETER_NORM = (1e-2, 5e-3)
ANY_NORM = (3e-2, 2e-2)
DEEP = ("backbone.", "global_linear.")
DEEP_ENTRY = (0.15, 3e-2)
HEAD_ENTRY = (0.3, 3e-2)


def _is_swin(case: Case) -> bool:
    return case.backbone.startswith("swin")


def _model(case: Case) -> graphau.GraphAU:
    """The case's model, shapes only."""
    facts = case.facts
    family = facts["family"]
    slots = graphau.Slots(
        backbone=case.backbone,
        features=facts["shapes"]["eval.global"][-1],
        relations=RELATIONS[facts["stage"]],
        neighbours=facts.get("top_k", 1),
        metric=METRICS[family][facts.get("metric", "dots")],
        update=UPDATES[family],
        edge_head=family == "megraph",
        sides="released",
    )
    return nnx.eval_shape(lambda: graphau.create(case.layout, slots, nnx.Rngs(0)))


def _rows(case: Case) -> list[names.NameRule]:
    return graphau_names.table(case.layout, case.backbone)


def weights(case: Case) -> tuple[dict, dict]:
    """The case's parameters and statistics in our tree."""
    _, *trees = steps.split(_model(case))
    params, batch_stats = (
        models.drawn(tree, _rows(case), case.facts["base_seed"]) for tree in trees
    )
    return params, batch_stats


def verify(case: Case, *, training: bool = True) -> Iterator[Check]:
    """Every stage of one configuration: evaluation, and training if it is there."""
    model, (params, batch_stats) = _model(case), weights(case)
    yield from _evaluation(case, model, params, batch_stats)
    if training and "train.labels" in case.arrays:
        yield from _training(case, model, params, batch_stats)


def official_layouts(case: Case, outputs: dict) -> dict[str, np.ndarray]:
    """Our named intermediates as the golden files hold them: frames, AUs or edges, positions.

    Of a Swin's last stage only what its norm makes (`bb`) is an intermediate of ours.
    """
    tensors = {}

    def add(name: str, array: jax.Array, rule: str) -> None:
        tensors[name] = rearrange(np.asarray(array), f"b 1 {rule}")

    maps = (
        outputs["maps"][1:] if _is_swin(case) else outputs["maps"]
    )  # inputs, or outputs, of stages
    for stage, array in enumerate(maps, start=1):
        add(f"s{stage}", array, "h w c -> b c h w")
    add("bb", outputs["tokens"], "h w c -> b (h w) c")
    add("global", outputs["static"], "h w c -> b (h w) c")
    tensors |= head_layouts(outputs)
    return tensors


def head_layouts(outputs: dict) -> dict[str, np.ndarray]:
    """The same of what follows the static features."""
    found = {
        "f_u": (outputs["own_maps"], "n p d -> b n p d"),
        "f_v": (outputs["own_nodes"], "n d -> b n d"),
        "scores": (outputs["scores"], "n -> b n"),
    }
    if "adjacency" in outputs:
        found |= {
            "si": (outputs["similarity"], "n m -> b n m"),
            "adj": (outputs["adjacency"], "n m -> b n m"),
            "gnn": (outputs["graph"], "n d -> b n d"),
        }
    if "edge_maps" in outputs:
        edge = "n m p d -> b (n m) p d"
        found |= {
            "fam": (outputs["au_maps"], "n p d -> b n p d"),
            "arm": (outputs["pair_maps"], edge),
            "edge_map": (outputs["edge_maps"], edge),
        }
        for layer, (nodes, edges) in enumerate(
            zip(outputs["nodes"], outputs["edges"], strict=True)
        ):
            found[f"e{layer}" if layer else "f_e"] = (edges, "n m d -> b (n m) d")
            if layer:
                found[f"x{layer}"] = (nodes, "n d -> b n d")
    if len(outputs["edge_logits"]):
        found["edge_logits"] = (outputs["edge_logits"], "e c -> b e c")
    return {
        name: rearrange(np.asarray(array), f"b 1 {rule}") for name, (array, rule) in found.items()
    }


def forward_checks(case: Case, mode: str, tensors: dict[str, np.ndarray]) -> Iterator[Check]:
    """Every stage in official layout against the golden one; `mode` is `eval` or `train`."""
    column = 2 * (mode == "train") + _is_swin(case)
    for name, ours in tensors.items():
        tolerance, stage, key = STAGES[name][column], f"{mode} {name}", f"{mode}.{name}"
        if key in case.arrays:
            unit = float(case.arrays[key].std()) or 1.0
            yield verdict.in_units(stage, ours, case.arrays[key], unit, tolerance)
            continue
        statistics = case.arrays[f"{key}.stat"]
        if f"{key}.sub" in case.arrays:
            sampled, unit = golden.sample(ours, SAMPLED), float(statistics[1])
            yield verdict.in_units(stage, sampled, case.arrays[f"{key}.sub"], unit, tolerance)
        yield from _statistic_checks(name, stage, ours, statistics, tolerance)


def _statistic_checks(
    name: str, stage: str, ours: np.ndarray, stored: np.ndarray, tolerance: float
) -> Iterator[Check]:
    wide, unit = ours.astype(np.float64), float(stored[1])
    least = STATISTIC[name in ("s1", "s2", "s3", "s4", "bb", "global")]
    moments, ends = (wide.mean(), wide.std()), (wide.min(), wide.max())
    yield verdict.in_units(f"{stage} mean, std", moments, stored[:2], unit, least)
    yield verdict.in_units(f"{stage} min, max", ends, stored[2:4], unit, tolerance)
    yield verdict.relative(f"{stage} L2 norm", np.linalg.norm(wide), stored[4], least)


def _evaluation(
    case: Case, model: graphau.GraphAU, params: dict, batch_stats: dict
) -> Iterator[Check]:
    graph, *_ = steps.split(views.eval_view(model, dtype=jnp.float32))
    outputs, _ = jax.jit(functools.partial(steps.forward, graph))(params, batch_stats, case.clips)
    yield from forward_checks(case, "eval", official_layouts(case, outputs))


def train_batch(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames, labels and mask of the training vectors."""
    labels = rearrange(case.arrays["train.labels"], "b n -> b 1 n")
    return case.clips, labels, labels >= 0


def _objective(case: Case) -> steps.Objective:
    weights = tuple(case.arrays["class_weight"].tolist())
    lam = case.facts.get("lam", 0.0)
    return steps.Objective(case.layout, weights, lam, auxiliary=losses.EDGES)


def _training(
    case: Case, model: graphau.GraphAU, params: dict, batch_stats: dict
) -> Iterator[Check]:
    objective, batch = _objective(case), train_batch(case)
    learn = functools.partial(steps.loss_and_gradients, models.train_graph(model), objective)
    parts, gradients, stats, outputs = jax.jit(learn)(params, batch_stats, *batch)
    yield from forward_checks(case, "train", official_layouts(case, outputs))
    yield from loss_checks(case, *(parts[name] for name in ("loss", "au_loss", "edge_loss")))

    def in_float64() -> Iterator[Check]:
        wide = models.float64_gradients(model, objective, params, batch_stats, batch)
        return gradient_checks(case, official_arrays(case, wide))

    checks = list(gradient_checks(case, official_arrays(case, gradients)))
    yield from models.settled(checks, in_float64)
    yield from running_checks(case, official_arrays(case, stats))


def official_arrays(case: Case, tree: dict) -> dict[str, np.ndarray]:
    """A tree of parameters or statistics under its official names."""
    return names.to_official(tree, names.entries(tree, _rows(case)))


def loss_checks(case: Case, total: Values, aus: Values, edges: Values) -> Iterator[Check]:
    """The training loss and its two parts."""
    stored = case.facts["train_loss"]
    yield verdict.absolute("train loss total", total, stored["total"], LOSS)
    yield verdict.absolute("train loss AUs", aus, stored["wa"], LOSS)
    yield verdict.absolute("train loss edges", edges, stored["edge"] or 0.0, EDGE_LOSS)


def gradient_checks(case: Case, ours: dict[str, np.ndarray]) -> Iterator[Check]:
    """Training gradients by official name: names, norms and sampled entries."""
    facts, column = case.facts, int(_is_swin(case))
    norms = {name: np.linalg.norm(g.astype(np.float64)) for name, g in ours.items()}
    stored = dict(zip(facts["train_grad_names"], case.arrays["train.grad_norms"], strict=True))
    yield verdict.exact("train gradient names", sorted(norms), sorted(stored))
    total = np.sqrt(sum(norm**2 for norm in norms.values()))
    largest = facts["train_global_grad_norm"]
    yield verdict.relative("train global gradient norm", total, largest, GLOBAL_NORM[column])
    zero = set(facts["train_structurally_zero_grads"])
    noisy = zero | set(facts["noisy_grad_params"])
    for which, chosen, tolerance in [
        ("of low noise", facts["recommended_grad_params"], PARAMETER_NORM[column]),
        ("but noisy ones", [name for name in stored if name not in noisy], ANY_NORM[column]),
    ]:
        yield verdict.relative(
            f"train gradient norms, {len(chosen)} {which}",
            [norms[name] for name in chosen],
            [stored[name] for name in chosen],
            tolerance,
        )
    for key, entries in case.arrays.items():
        name = key.removeprefix("train.grad.").removesuffix(".sub")
        if key.startswith("train.grad.") and name not in zero:
            sampled = golden.sample(ours[name], SAMPLED_GRADIENT)
            tolerance = (DEEP_ENTRY if name.startswith(DEEP) else HEAD_ENTRY)[column]
            yield verdict.to_largest(f"train gradient {name}", sampled, entries, tolerance)


def running_checks(case: Case, ours: dict[str, np.ndarray]) -> Iterator[Check]:
    """Running statistics by official name, after one training step."""
    for key, stored in case.arrays.items():
        if key.startswith("train.bn."):
            name = key.removeprefix("train.bn.")
            tolerance = RUNNING_MEAN if name.endswith("mean") else RUNNING_VAR
            yield verdict.absolute(f"train {name}", ours[name], stored, tolerance)
