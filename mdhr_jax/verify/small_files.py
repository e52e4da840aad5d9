# SPDX-License-Identifier: Apache-2.0
"""MDHR's small golden files: loss, metric, schedule, preprocessing, units, clip index, weights."""

import json
import pathlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange
from flax import nnx
from jax.typing import ArrayLike

from mdhr_jax import facs
from mdhr_jax.data import clip_facts, lists
from mdhr_jax.interop import names
from mdhr_jax.models import dynamics, graph_attention, layers, relations, swin, temporal
from mdhr_jax.numerics import losses, metrics, optim, preprocess, steps
from mdhr_jax.verify import golden, verdict
from mdhr_jax.verify.verdict import Check

RELATIVE = 1e-6
UNIT = 5e-6  # of the largest value of the golden array
PIXEL = 1e-6
CLASS_WEIGHT = 5e-7  # the official files print six decimals
Arrays = dict[str, np.ndarray]


def _cases(arrays: Arrays, separator: str = ".") -> list[str]:
    return sorted({key.split(separator)[0] for key in arrays})


def loss(arrays: Arrays) -> Iterator[Check]:
    """Weighted asymmetric loss and its gradient."""
    for case in _cases(arrays):
        scores, labels = arrays[f"{case}.x"], arrays[f"{case}.y"]
        weights = arrays.get(f"{case}.weight", np.ones(scores.shape[1])).astype(np.float32)
        mask = np.ones(labels.shape, bool)
        value, gradient = jax.jit(jax.value_and_grad(losses.weighted_asymmetric))(
            scores, labels, mask, weights
        )
        yield verdict.relative(f"{case} loss", value, arrays[f"{case}.loss"], RELATIVE)
        yield verdict.relative(f"{case} gradient", gradient, arrays[f"{case}.grad"], RELATIVE)


def metric(arrays: Arrays) -> Iterator[Check]:
    """Counts, F1 and accuracy."""
    for case in _cases(arrays):
        labels = arrays[f"{case}.label"]
        known = (labels == 0) | (labels == 1)
        threshold = float(arrays[f"{case}.thresh"])
        scores = arrays[f"{case}.pred"]
        counts = metrics.count(scores, labels, known, threshold)
        for kind, count in zip(counts._fields, counts, strict=True):
            yield verdict.exact(f"{case} {kind}", count, arrays[f"{case}.{kind.upper()}"])
        for kind, values in [("f1", metrics.f1(counts)), ("acc", metrics.accuracy(counts))]:
            yield verdict.relative(f"{case} {kind}", values, arrays[f"{case}.{kind}"], RELATIVE)
            mean = arrays[f"{case}.mean_{kind}"]
            yield verdict.relative(f"{case} mean {kind}", values.mean(), mean, RELATIVE)


def schedule(arrays: Arrays) -> Iterator[Check]:
    """Learning rate before given iterations."""
    table = dict(zip(arrays["columns"].tolist(), arrays["table"].T, strict=True))
    per_epoch, steps_done = table["num_iter"], table["iteration"]
    rates = [
        optim.cosine(lr, total_steps=int(epochs * n), warmup_steps=int(warm * n))(int(step))
        for lr, epochs, n, warm, step in zip(
            table["init_lr"],
            table["epochs"],
            per_epoch,
            table["warmup_epoch"],
            steps_done + table["epoch"] * per_epoch,
            strict=True,
        )
    ]
    yield verdict.relative("learning rate", rates, table["lr"], RELATIVE)


def preprocessing(arrays: Arrays) -> Iterator[Check]:
    """Pictures on the host, and 256- and 224-pixel ones on the device as well."""
    for case in _cases(arrays):
        if f"{case}.hw_seed" not in arrays:
            continue
        picture = golden.picture(*arrays[f"{case}.hw_seed"].tolist())
        facts = [picture.sum(dtype=np.int64), picture.flat[0], picture.flat[-1]]
        yield verdict.exact(f"{case} input", facts, arrays[f"{case}.image_sum"])
        on_device = picture.shape[:2] in {(256, 256), (224, 224)}
        if f"{case}.test.sub" in arrays:
            ours = preprocess.host_eval(picture, 224)
            yield from picture_checks(f"{case}.test", ours, arrays)
            if on_device:
                device = preprocess.evaluate(jnp.asarray(picture)[None, None], image_size=224)
                yield levels(f"{case} test on the device", device, ours)
        for row, augment in enumerate(arrays[f"{case}.train.params"]):
            augment = np.append(augment, 0)  # the one order that the release has
            ours = preprocess.host_train(picture, augment, 224)
            yield from picture_checks(f"{case}.train{row}", ours, arrays)
            if on_device:
                draw = jnp.asarray(augment[None], jnp.float32)
                device = preprocess.train(jnp.asarray(picture)[None, None], draw, image_size=224)
                yield levels(f"{case} train {row} on the device", device, ours)


def grey_levels(picture: jax.Array | np.ndarray) -> np.ndarray:
    """The whole levels, 0 to 255, of network input."""
    return np.rint((np.asarray(picture) * preprocess.STD + preprocess.MEAN) * 255).astype(int)


def picture_checks(key: str, ours: np.ndarray, arrays: Arrays) -> Iterator[Check]:
    """A picture as network input against the golden one of this name."""
    stage = key.replace(".", " ")
    yield verdict.exact(f"{stage} sum of levels", grey_levels(ours).sum(), arrays[f"{key}.u8sum"])
    planes = rearrange(ours, "h w c -> c h w")
    sampled = golden.sample(planes, arrays[f"{key}.sub"].size)
    yield verdict.absolute(f"{stage} pixels", sampled, arrays[f"{key}.sub"], PIXEL)
    wide = planes.astype(np.float64)
    statistics = (wide.mean(), wide.std())
    yield verdict.absolute(f"{stage} mean, std", statistics, arrays[f"{key}.stat"][:2], PIXEL)


def levels(stage: str, device: jax.Array, host: np.ndarray) -> Check:
    """A picture of a batch of one, made on the device, against the host's, in grey levels."""
    difference = np.abs(grey_levels(device[0, 0]) - grey_levels(host))
    note = f"grey levels; {100 * (difference > 0).mean():.3f} % of values differ"
    return Check(stage, float(difference.max()), 1.0, note)


def _call(module: nnx.Module, params: dict, stats: dict, *inputs: ArrayLike, train: bool = False):
    """Runs one module with given parameters; returns its output and the new statistics."""
    module = nnx.view(module, raise_if_not_found=False, use_running_average=not train)
    graph, *_ = steps.split(module)

    def apply(params: dict, stats: dict, *inputs: jax.Array):
        merged = nnx.merge(graph, params, stats)
        output = merged(*inputs)
        return output, nnx.to_pure_dict(nnx.state(merged, nnx.BatchStat))

    return jax.jit(apply)(params, stats, *inputs)


def units(arrays: Arrays) -> Iterator[Check]:
    """Single modules on small explicit inputs."""
    yield from _graph_attention(arrays)
    yield from _window_averages(arrays)
    yield from _classifier(arrays)
    yield from _temporal(arrays)
    yield from _senders(arrays)
    yield from _swin_stage(arrays)
    yield from _adamw(arrays)


def _graph_attention(arrays: Arrays) -> Iterator[Check]:
    module = graph_attention.GraphAttention(arrays["gat.bias"].size, rngs=nnx.Rngs(0))
    params = {
        "linear": {"kernel": arrays["gat.linear.weight"].T},
        "source": arrays["gat.scoring_fn_source"].reshape(-1),
        "target": arrays["gat.scoring_fn_target"].reshape(-1),
        "bias": arrays["gat.bias"],
    }
    nodes, adjacency = arrays["gat.x"][None], arrays["gat.adj"][None].astype(np.int32)
    (ours, _), _ = _call(module, params, {}, nodes, adjacency)
    yield verdict.to_largest("graph attention", ours[0], arrays["gat.out"], UNIT)


def _window_averages(arrays: Arrays) -> Iterator[Check]:
    for key in arrays:
        if key.startswith("pool.") and key.endswith(".in"):
            setting = key.split(".")[1]
            frames, k = map(int, setting.removeprefix("T").split("k"))
            window = dynamics.window_average(frames, k)
            ours = np.einsum("tj,bjc->btc", window, arrays[key])
            stored = arrays[f"pool.{setting}.out"]
            yield verdict.to_largest(f"temporal average T={frames} k={k}", ours, stored, UNIT)


def _classifier(arrays: Arrays) -> Iterator[Check]:
    module = layers.CosineClassifier(*arrays["cls.sc"].shape, rngs=nnx.Rngs(0))
    ours, _ = _call(module, {"class_vectors": arrays["cls.sc"]}, {}, arrays["cls.x"][None])
    yield verdict.to_largest("cosine classifier", ours[0], arrays["cls.out"], UNIT)


def _temporal(arrays: Arrays) -> Iterator[Check]:
    aus, features = arrays["tcn.x"].shape[1:]
    module = temporal.TemporalConvolution(aus, features, rngs=nnx.Rngs(0))
    filters = [f"tcn.p.temporal_cnn.{n}" for n in range(aus)]
    params = {
        "kernel": np.stack([rearrange(arrays[f"{f}.weight"], "d 1 k -> k d") for f in filters], 1),
        "bias": np.stack([arrays[f"{f}.bias"] for f in filters]),
        "norm": {"scale": arrays["tcn.p.bn.weight"], "bias": arrays["tcn.p.bn.bias"]},
    }
    running = arrays["tcn.p.bn.running_mean"], arrays["tcn.p.bn.running_var"]
    stats = {"norm": dict(zip(("mean", "var"), running, strict=True))}
    nodes = rearrange(arrays["tcn.x"], "(b t) n d -> b t n d", b=2)
    for mode in ("eval", "train"):
        ours, new = _call(module, params, stats, nodes, train=mode == "train")
        flat = rearrange(ours, "b t n d -> (b t) n d")
        yield verdict.to_largest(f"temporal filter, {mode}", flat, arrays[f"tcn.{mode}"], UNIT)
    yield verdict.to_largest("temporal running mean", new["norm"]["mean"], arrays["tcn.rm"], UNIT)
    yield verdict.to_largest("temporal running var", new["norm"]["var"], arrays["tcn.rv"], UNIT)


def _senders(arrays: Arrays) -> Iterator[Check]:
    for layout in (facs.BP4D, facs.DISFA):
        key = f"mask.{layout.name}"
        logits = tuple(
            jnp.asarray(arrays[f"{key}.logit{r}"])[None] for r in range(len(layout.regions))
        )
        ours = relations.active_aus(layout, logits)[0]
        yield verdict.exact(f"active AUs, {layout.name}", ours, arrays[f"{key}.out"])


class _SwinStage(nnx.Module):
    """Two blocks and the merge after them, named as in `swin.Swin`."""

    def __init__(self, width: int, heads: int):
        rngs = nnx.Rngs(0)
        blocks = [
            swin.Block(width, heads, shifted=shifted, drop_rate=0.0, rngs=rngs)
            for shifted in (False, True)
        ]
        self.stages = nnx.List([nnx.List(blocks)])
        self.merges = nnx.List([swin.PatchMerge(width, rngs=rngs)])

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.stages[0]:
            x = block(x, (None, None))
        return self.merges[0](x)


def _swin_stage(arrays: Arrays) -> Iterator[Check]:
    table = arrays["swin.p.blocks.0.attn.relative_position_bias_table"]
    module = _SwinStage(arrays["swin.x"].shape[-1], table.shape[1])
    _, params, _ = steps.split(module)
    tree = {"backbone": params}
    found = names.entries(tree, names.table(facs.BP4D, "swin_b"))
    prefix = "Backbone.layers.0."
    official = {entry.name: arrays[f"swin.p.{entry.name.removeprefix(prefix)}"] for entry in found}
    params = names.from_official(tree, found, official)["backbone"]
    side = int(arrays["swin.x"].shape[1] ** 0.5)
    maps = rearrange(arrays["swin.x"], "m (h w) c -> m h w c", h=side)
    ours, _ = _call(module, params, {}, maps)
    flat = rearrange(ours, "m h w c -> m (h w) c")
    yield verdict.to_largest("Swin stage and merge", flat, arrays["swin.out"], UNIT)
    index = arrays["swin.relative_position_index"]
    yield verdict.exact("relative positions", swin.relative_position_index(), index)
    yield verdict.exact("shift mask", swin.shift_mask(side), arrays["swin.attn_mask_14"])


def _adamw(arrays: Arrays) -> Iterator[Check]:
    for setting in ("official", "large"):
        rate, decay, *betas, epsilon = arrays[f"adamw.{setting}.hyper"].tolist()
        optimizer = optim.adamw(rate, betas=tuple(betas), epsilon=epsilon, weight_decay=decay)
        params = jnp.asarray(arrays[f"adamw.{setting}.p0"])
        opt_state, ours = optimizer.init(params), []
        for gradient in arrays[f"adamw.{setting}.grads"]:
            updates, opt_state = optimizer.update(jnp.asarray(gradient), opt_state, params)
            params = optax.apply_updates(params, updates)
            ours.append(params)
        stored = arrays[f"adamw.{setting}.p"]
        yield verdict.to_largest(f"AdamW, {setting} rate", np.stack(ours), stored, RELATIVE)


def clip_index(directory: pathlib.Path, lists_root: pathlib.Path) -> Iterator[Check]:
    """Clips cut from the official lists, against `clip_index.json` and `.npz`."""
    stored = json.loads((directory / "clip_index.json").read_text())
    with np.load(directory / "clip_index.npz") as file:
        arrays = dict(file)
    for name, facts in stored.items():
        dataset, fold = name.split("_fold")
        ours = clip_facts.clip_index_facts(lists_root, facs.LAYOUTS[dataset.lower()], int(fold))
        for key in ("val_pad_per_clip", "val_positive_counts"):
            yield verdict.exact(f"{name} {key}", ours.pop(key), arrays[f"{name}_{key}"])
        wrong = sorted(key for key in facts if ours.get(key) != facts[key])
        yield Check(f"{name} clip index", float(len(wrong)), 0.0, ", ".join(wrong))


def class_weights(directory: pathlib.Path, lists_root: pathlib.Path) -> Iterator[Check]:
    """Class weights from the training label lists, against the official files' six decimals."""
    for name, facts in json.loads((directory / "class_weights.json").read_text()).items():
        dataset, fold = name.split("_fold")
        layout = facs.LAYOUTS[dataset.lower()]
        ours = lists.read_fold(lists_root, layout, int(fold), "train").class_weights
        yield verdict.absolute(f"{name} class weights", ours, facts["file"], CLASS_WEIGHT)


ARRAY_FILES: dict[str, Callable[[Arrays], Iterator[Check]]] = {
    "loss": loss,
    "metric": metric,
    "lr": schedule,
    "preprocess": preprocessing,
    "units": units,
}
LIST_FILES: dict[str, Callable[[pathlib.Path, pathlib.Path], Iterator[Check]]] = {
    "clip_index": clip_index,
    "class_weights": class_weights,
}
