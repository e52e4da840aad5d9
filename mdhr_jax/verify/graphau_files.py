# SPDX-License-Identifier: Apache-2.0
"""The small golden files of the GraphAU family: units, losses, preprocessing, lists."""

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

from mdhr_jax import facs
from mdhr_jax.interop import graphau_names, names
from mdhr_jax.models import au_graph, graphau, layers, views
from mdhr_jax.numerics import losses, preprocess, steps
from mdhr_jax.verify import golden, graphau_lists, models, small_files, verdict
from mdhr_jax.verify.graphau import METRICS, RELATIONS, UPDATES, head_layouts
from mdhr_jax.verify.small_files import Arrays
from mdhr_jax.verify.verdict import Check, Unchecked

UNIT = 1e-5  # of the largest value of the golden array
NORM = 1e-4  # of each gradient's norm: some are sums that nearly cancel;
ZERO = 1e-5  # below this they are zero
LOSS, LOSS_GRADIENT = 2e-6, 1e-6  # the gradient relative to its largest entry
FAMILIES = {"me": "megraph", "og": "opengraph"}
NEIGHBOURS = {"me": 3, "og": 4}
SEEDS = {"me1": 11, "me2": 12, "og1": 13, "og2": 14}  # of the factors of what is differentiated
# Entries that tell this family's files from MDHR's of the same names.
SIGNS = {"units": "ties.x", "loss": "edge.loss", "preprocess": "jitter0.order"}


class _Head(NamedTuple):
    """A head on a few positions: what stands between static features and scores.

    Attributes:
      name: of the case, such as `me1_l1`.
      model: shapes only.
      params, batch_stats: by the recipe.
    """

    name: str
    model: graphau.GraphAU
    rows: list[names.NameRule]
    params: dict
    batch_stats: dict

    @classmethod
    def of(cls, name: str, arrays: Arrays, seed: int) -> "_Head":
        """The head of a case of `units.npz`."""
        kind, _, metric = name.partition("_")
        family, stage = FAMILIES[kind[:2]], int(kind[2])
        _, n, features = arrays[f"{name}.eval.f_v"].shape
        layout = facs.OPENGRAPHAU if family == "opengraph" else facs.layout(_first_aus(n))
        slots = graphau.Slots(
            backbone="resnet_narrow",
            features=features,
            relations=RELATIONS[stage],
            neighbours=NEIGHBOURS[kind[:2]],
            metric=METRICS[family][metric or "dots"],
            update=UPDATES[family],
            edge_head=family == "megraph",
            sides="released",
        )
        model: Any = nnx.eval_shape(lambda: graphau.create(layout, slots, nnx.Rngs(0)))
        model.backbone = model.static = layers.Identity()
        rows = graphau_names.table(layout, "resnet50")
        params, batch_stats = (
            models.drawn(tree, rows, seed, gains=golden.UNIT_GAINS)
            for tree in steps.split(model)[1:]
        )
        return cls(name, model, rows, params, batch_stats)

    def run(self, static: jax.Array, *, train: bool) -> tuple[dict, dict, dict]:
        """Outputs, gradients of sums with given factors, and statistics after the call."""
        view = views.train_view if train else views.eval_view
        graph, *_ = steps.split(view(self.model, dtype=jnp.float32))
        seed = SEEDS[self.name.split("_")[0]]

        def total(params: dict):
            model = nnx.merge(graph, params, self.batch_stats)
            outputs = model.relate(static)
            stats = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
            result = _weighed(outputs["scores"], seed + 1)
            if len(outputs["edge_logits"]):
                result += _weighed(outputs["edge_logits"], seed + 2)
            return result, (outputs, stats)

        gradients, (outputs, stats) = jax.jit(jax.grad(total, has_aux=True))(self.params)
        return outputs, self.official(gradients), self.official(stats)

    def official(self, tree: dict) -> dict[str, np.ndarray]:
        """A tree under its official names."""
        return names.to_official(tree, names.entries(tree, self.rows))


def _first_aus(n: int) -> str:
    return facs.own_name(facs.BP4D.aus[:n])


def _weighed(values: jax.Array, seed: int) -> jax.Array:
    return (values * np.random.RandomState(seed).standard_normal(values.shape)).sum()


def units(arrays: Arrays, directory: pathlib.Path) -> Iterator[Check]:
    """Whole heads on small inputs, in evaluation and training."""
    file = directory / "units.json"
    seed = json.loads(file.read_text())["base_seed"] if file.exists() else 1
    for name in sorted({key.split(".")[0] for key in arrays} - {"ties"}):
        head = _Head.of(name, arrays, seed)
        static = rearrange(jnp.asarray(arrays[f"{name}.x"]), "b p d -> b 1 1 p d")
        for mode in ("eval", "train"):
            outputs, gradients, stats = head.run(static, train=mode == "train")
            yield from _tensor_checks(f"{name}.{mode}", outputs, arrays)
        yield from _norm_checks(name, gradients, arrays)
        yield from _running_checks(name, stats, arrays)
    similarity = au_graph.METRICS["dots"](jnp.asarray(arrays["ties.x"])[:, None])
    adjacency = au_graph.nearest(similarity, 2)
    normalised = au_graph.normalised(adjacency)
    yield verdict.exact("ties adj", adjacency[:, 0], arrays["ties.adj"])
    yield verdict.to_largest("ties norm_adj", normalised[:, 0], arrays["ties.norm_adj"], UNIT)


def _tensor_checks(key: str, outputs: dict, arrays: Arrays) -> Iterator[Check]:
    tensors = head_layouts(outputs)
    if "adjacency" in outputs:
        tensors["norm_adj"] = np.asarray(au_graph.normalised(outputs["adjacency"])[:, 0])
    for stored, golden_array in arrays.items():
        if stored.startswith(f"{key}."):
            name = stored.removeprefix(f"{key}.").removesuffix(".sub")
            ours = tensors[name]
            if stored.endswith(".sub"):
                ours = golden.sample(ours, golden_array.size)
            tolerance = 0.0 if name == "adj" else UNIT
            stage = f"{key} {name}".replace(".", " ")
            yield verdict.to_largest(stage, ours, golden_array, tolerance)


def _norm_checks(name: str, gradients: Arrays, arrays: Arrays) -> Iterator[Check]:
    """Norms of gradients that are something, and of those that are zero but for rounding."""
    prefix = f"{name}.grad_norm."
    stored = {key.removeprefix(prefix): x for key, x in arrays.items() if key.startswith(prefix)}
    ours = {leaf: np.linalg.norm(gradients[f"head.{leaf}"].astype(np.float64)) for leaf in stored}
    zero = [leaf for leaf, norm in stored.items() if norm < ZERO]
    some = [leaf for leaf in stored if leaf not in zero]
    found, wanted = ([norms[leaf] for leaf in some] for norms in (ours, stored))
    yield verdict.relative(f"{name} gradient norms, {len(some)}", found, wanted, NORM)
    none = [ours[leaf] for leaf in zero]
    yield verdict.absolute(f"{name} gradients of zero, {len(zero)}", none, [0.0] * len(zero), ZERO)


def _running_checks(name: str, stats: Arrays, arrays: Arrays) -> Iterator[Check]:
    for key, stored in arrays.items():
        if key.startswith(f"{name}.bn."):
            leaf = key.removeprefix(f"{name}.bn.")
            yield verdict.to_largest(f"{name} {leaf}", stats[f"head.{leaf}"], stored, UNIT)


def loss(arrays: Arrays, directory: pathlib.Path) -> Iterator[Check | Unchecked]:
    """Weighted asymmetric loss of known labels, cross-entropy of edges, and their gradients."""
    del directory
    for case in sorted({key.split(".")[0] for key in arrays} - {"edge", "sam"}):
        labels = arrays[f"{case}.y"]
        weights = arrays.get(f"{case}.weight", np.ones(labels.shape[1])).astype(np.float32)
        learn = jax.value_and_grad(losses.weighted_asymmetric)
        found = jax.jit(learn)(arrays[f"{case}.x"], labels, labels != -1, weights)
        yield from _loss_checks(arrays, case, *found)
    labels = arrays["edge.y"]
    learn = jax.value_and_grad(losses.edge_cross_entropy)
    found = jax.jit(learn)(arrays["edge.logits"], labels, np.ones(labels.shape, bool))
    yield from _loss_checks(arrays, "edge", *found)
    yield Unchecked("sam", "there is no SAM here: OpenGraphAU's set is not given away")


def _loss_checks(
    arrays: Arrays, case: str, value: jax.Array, gradient: jax.Array
) -> Iterator[Check]:
    yield verdict.absolute(f"{case} loss", value, arrays[f"{case}.loss"], LOSS)
    stored = arrays[f"{case}.grad"]
    yield verdict.to_largest(f"{case} gradient", gradient, stored, LOSS_GRADIENT)


def preprocessing(arrays: Arrays, directory: pathlib.Path) -> Iterator[Check | Unchecked]:
    """Test pictures, of which the middle is taken, training crops, colours in any order."""
    del directory
    for case in sorted({key.split(".")[0] for key in arrays if key.endswith(".hw_seed")}):
        picture = golden.picture(*arrays[f"{case}.hw_seed"].tolist())
        facts = [picture.sum(dtype=np.int64), picture.flat[0], picture.flat[-1]]
        yield verdict.exact(f"{case} input", facts, arrays[f"{case}.image_sum"])
        yield from _test_pictures(case, picture, arrays)
        for key, draw in arrays.items():
            if key.startswith(f"{case}.train") and key.endswith(".params"):
                crop = key.removesuffix(".params")
                ours = preprocess.host_train(picture, np.array([*draw, 1.0, 1.0, 1.0, 0.0]), 224)
                levels, stage = small_files.grey_levels(ours), crop.replace(".", " ")
                yield verdict.exact(f"{stage} sum of levels", levels.sum(), arrays[f"{crop}.u8sum"])
    picture = golden.picture(*arrays["sq256.hw_seed"].tolist())
    for case in sorted({key.split(".")[0] for key in arrays if key.endswith(".order")}):
        factors, order = arrays[f"{case}.factors"].tolist(), arrays[f"{case}.order"].tolist()
        levels = preprocess.host_jitter(picture, factors, order)
        yield verdict.exact(f"{case} sum of levels", levels.sum(), arrays[f"{case}.u8sum"])


def _test_pictures(case: str, picture: np.ndarray, arrays: Arrays) -> Iterator[Check]:
    """On the host, and square ones on the device as well."""
    ours = preprocess.host_eval_centre(picture, 224)
    yield from small_files.picture_checks(f"{case}.test", ours, arrays)
    if picture.shape[0] == picture.shape[1]:
        device = preprocess.evaluate_centre(jnp.asarray(picture)[None, None], image_size=224)
        yield small_files.levels(f"{case} test on the device", device, ours)


ARRAY_FILES: dict[str, Callable[[Arrays, pathlib.Path], Iterator[Check | Unchecked]]] = {
    "units": units,
    "loss": loss,
    "preprocess": preprocessing,
}
LIST_FILES: dict[str, Callable[[pathlib.Path, pathlib.Path], Iterator[Check]]] = {
    "lists": graphau_lists.lists
}
