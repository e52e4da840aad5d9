# SPDX-License-Identifier: Apache-2.0
"""The same training of GraphAU, twice: ours and the PyTorch twin's, same weights, same batches.

    bash launch/torch_env.sh
    .venv/bin/python benchmarks/same_graphau_training.py --out runs/same-graphau

The narrow net with ME-GraphAU's two stages on rendered faces, augmented beforehand, so that both
see the same pixels, and with OpenGraphAU's second stage on the same faces and drawn labels, some of
them unknown. All in float64. Prints how far losses and weights are apart, and keeps the losses in
`losses.json`.
"""

import argparse
import json
import os
import pathlib
import subprocess
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import same_training
import twin
from flax import nnx
from jaxtyping import Float, Int

from mdhr_jax import facs
from mdhr_jax.configs import graphau as graphau_config
from mdhr_jax.interop import graphau_names, official
from mdhr_jax.models import graphau, views
from mdhr_jax.numerics import losses, optim, steps
from mdhr_jax.run import inputs
from mdhr_jax.run.recipe import Recipe

HERE = pathlib.Path(__file__).parent
IMAGE_SIZE, BATCH, FEATURES = 64, 8, 64
RATE = 1e-4  # learning rate of the first step
EDGE_WEIGHT = 0.05
ACTIVE, KNOWN = 0.35, 0.7  # of the drawn labels


class Case(NamedTuple):
    """A release's stage: its AUs, the twin's name of the release, the number, our slots."""

    layout: facs.AuLayout
    release: str
    stage: int
    slots: graphau.Slots


NARROW = {"backbone": "resnet_narrow", "features": FEATURES}
CASES = {
    "ME-GraphAU, stage 1": Case(
        facs.BP4D,
        "megraph_bp4d",
        1,
        graphau.Slots(**NARROW, relations="nearest", edge_head=False),
    ),
    "ME-GraphAU, stage 2": Case(facs.BP4D, "megraph_bp4d", 2, graphau.Slots(**NARROW)),
    "OpenGraphAU, stage 2": Case(
        facs.OPENGRAPHAU,
        "opengraph",
        2,
        graphau.Slots(**NARROW, update="sum_activated", edge_head=False, sides="released"),
    ),
}


class Batches(NamedTuple):
    """Of every step: normalised pictures, labels of a layout's AUs, -1 where unknown."""

    pictures: Float[np.ndarray, "steps b h w 3"]
    labels: dict[str, Int[np.ndarray, "steps b _"]]

    def class_weights(self, layout: facs.AuLayout) -> Float[np.ndarray, " n"]:
        """Of all labels that are known."""
        labels = self.labels[layout.name].reshape(-1, len(layout.aus))
        active, known = (labels == 1).sum(0), (labels >= 0).sum(0)
        return facs.class_weights(np.maximum(active, 1) / known)


class Trained(NamedTuple):
    """The loss before every step, and the official state_dict after the last."""

    losses: list[float]
    state: dict[str, np.ndarray]


def prepare(folder: pathlib.Path, count: int) -> Batches:
    """`count` batches of rendered faces with their labels, and labels drawn for OpenGraphAU."""
    source = same_training.faces(folder / "data", IMAGE_SIZE)
    config = graphau_config.get_config()
    config.data, config.image_size, config.batch_size = str(source.path), IMAGE_SIZE, BATCH
    recipe = Recipe.of(config)
    augment, batches = jax.jit(recipe.augmented), inputs.training_batches(recipe, source, 0)
    pictures, labels = [], []
    for _ in range(count):
        batch = next(batches)
        pictures.append(np.asarray(augment(batch["frames"], batch["augment"]))[:, 0])
        labels.append(batch["labels"][:, 0])
    drawn = np.random.default_rng(0).random((count, BATCH, len(facs.OPENGRAPHAU.aus)))
    unknown = np.where(drawn < KNOWN, drawn < ACTIVE, -1)
    by_layout = {facs.BP4D.name: np.stack(labels), facs.OPENGRAPHAU.name: unknown}
    return Batches(np.stack(pictures), {name: x.astype(np.int64) for name, x in by_layout.items()})


def initial(case: Case) -> dict:
    """Our state before the first step."""
    model = graphau.create(case.layout, case.slots, nnx.Rngs(0))
    trees = zip(official.PARTS, steps.split(model)[1:], strict=True)
    return {"step": 0, **jax.tree.map(np.asarray, dict(trees))}


def rates(count: int) -> list[float]:
    """The learning rate of every step."""
    with jax.enable_x64(True):
        schedule = optim.cosine(RATE, total_steps=count)
        return [float(schedule(step)) for step in range(count)]


def ours(case: Case, batches: Batches) -> Trained:
    """Trained by our steps."""
    count, start = len(batches.pictures), initial(case)
    model = nnx.eval_shape(lambda: graphau.create(case.layout, case.slots, nnx.Rngs(0)))
    with jax.enable_x64(True):
        graph = steps.split(views.train_view(model, dtype=jnp.float64, drop_path=False))[0]
        weights = tuple(batches.class_weights(case.layout).tolist())
        objective = steps.Objective(case.layout, weights, EDGE_WEIGHT, auxiliary=losses.EDGES)
        optimizer = optim.adamw(
            optim.cosine(RATE, total_steps=count),
            betas=(0.9, 0.999),
            epsilon=1e-8,
            weight_decay=5e-4,
        )
        params, stats = (
            jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), start[part])
            for part in official.PARTS
        )
        opt_state = optimizer.init(params)

        @jax.jit
        def step(params: dict, stats: dict, opt_state: tuple, frames: jax.Array, wanted: jax.Array):
            found, gradients, stats, _ = steps.loss_and_gradients(
                graph, objective, params, stats, frames, wanted, wanted >= 0
            )
            updates, opt_state = optimizer.update(gradients, opt_state, params)
            return jax.tree.map(jnp.add, params, updates), stats, opt_state, found["loss"]

        before = []
        for pictures, labels in zip(
            batches.pictures, batches.labels[case.layout.name], strict=True
        ):
            frames = jnp.asarray(pictures[:, None], jnp.float64)
            params, stats, opt_state, loss = step(params, stats, opt_state, frames, labels[:, None])
            before.append(float(loss))
        state = {"step": count, "params": params, "batch_stats": stats}
        return Trained(before, official.export(state, _rows(case)))


def theirs(folder: pathlib.Path, case: Case, batches: Batches) -> Trained:
    """Trained by the twin."""
    state = official.export(initial(case), _rows(case))
    np.savez(
        folder / "given.npz",
        release=case.release,
        backbone=case.slots.backbone,
        stage=case.stage,
        features=case.slots.features,
        edge_weight=EDGE_WEIGHT,
        class_weights=batches.class_weights(case.layout),
        pictures=batches.pictures,
        labels=batches.labels[case.layout.name],
        rates=rates(len(batches.pictures)),
        **{f"state.{name}": array for name, array in state.items()},
    )
    files = folder / "given.npz", folder / "after.npz"
    command = [twin.TORCH, HERE / "torch_graphau_training.py", *files, "float64"]
    # Threads would wait for each other longer than these small maps take.
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    with np.load(folder / "after.npz") as after:
        state = {name: after[f"state.{name}"] for name in state}
        return Trained(after["loss"].tolist(), state)


def _rows(case: Case) -> list:
    return graphau_names.table(case.layout, "resnet50")  # the narrow net has its names


def apart(one: Trained, other: Trained) -> tuple[float, float]:
    """Largest relative difference of the losses; largest one of weights and statistics.

    The latter relative to the entry's largest number where that is above 1.
    """
    loss = np.abs(np.divide(one.losses, other.losses) - 1).max()
    state = max(
        np.abs(array - other.state[name]).max() / max(1.0, np.abs(array).max())
        for name, array in one.state.items()
    )
    return float(loss), float(state)


def main() -> None:
    """Trains all, prints how far the two are apart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    batches, kept = prepare(arguments.out, arguments.steps), {}
    for name, case in CASES.items():
        pair = ours(case, batches), theirs(arguments.out, case, batches)
        loss, state = apart(*pair)
        kept[name] = {"ours": pair[0].losses, "theirs": pair[1].losses}
        print(
            f"{name}: loss {pair[0].losses[0]:.3f} to {pair[0].losses[-1]:.3f}; largest difference "
            f"{loss:.1e} of the loss, {state:.1e} of the weights after {arguments.steps} steps"
        )
    (arguments.out / "losses.json").write_text(json.dumps(kept))


if __name__ == "__main__":
    main()
