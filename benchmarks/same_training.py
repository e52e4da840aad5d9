# SPDX-License-Identifier: Apache-2.0
"""The same training, twice: ours and the PyTorch twin's, same weights, same batches.

    bash launch/torch_env.sh
    .venv/bin/python benchmarks/same_training.py --out runs/same

Prepares rendered clips (augmented beforehand, so that both see the same pixels) and initial
weights, trains both in float64 and in float32, writes `losses.json` and `same-training.png`.
"""

import argparse
import functools
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import twin
from flax import nnx
from ml_collections import ConfigDict

from mdhr_jax import facs
from mdhr_jax.configs import base
from mdhr_jax.data import records
from mdhr_jax.data.builders import rendered
from mdhr_jax.interop import files, names, official
from mdhr_jax.models import views
from mdhr_jax.numerics import optim, preprocess, steps
from mdhr_jax.run import inputs
from mdhr_jax.run.recipe import Recipe

DTYPES = ("float64", "float32")


def configuration(folder: pathlib.Path) -> ConfigDict:
    """The narrow net with every part, short clips of small pictures."""
    config = base.get_config()
    config.data = str(folder / "data")
    config.image_size = 64
    config.clip_length = 8
    config.batch_size = 4
    config.clips_per_video = 4
    config.learning_rate = 1e-4
    config.model.backbone = "resnet_narrow"
    config.model.features = 64
    config.model.dynamics.k = 2
    return config


def faces(folder: pathlib.Path, image_size: int) -> records.FrameSource:
    """Rendered people from whom both sides learn."""
    return rendered.build(
        folder,
        facs.BP4D,
        seed=0,
        subjects=24,
        videos_per_subject=2,
        frames_per_video=24,
        image_size=preprocess.resized(image_size),
        progress=False,
    )


def prepare(folder: pathlib.Path, count: int) -> Recipe:
    """Writes `count` batches and what the twin begins with into `folder`."""
    config = configuration(folder)
    source = faces(folder / "data", config.image_size)
    recipe = Recipe.of(config)
    batches = inputs.training_batches(recipe, source, 0)
    augment = jax.jit(functools.partial(preprocess.train, image_size=config.image_size))
    images, labels = [], []
    for _ in range(count):
        batch = next(batches)
        images.append(np.asarray(augment(batch["frames"], batch["augment"])))
        labels.append(batch["labels"])
    np.save(folder / "images.npy", np.stack(images))
    np.save(folder / "labels.npy", np.stack(labels))
    _, params, batch_stats = steps.split(recipe.create(nnx.Rngs(0)))
    state = {"step": 0, "params": params, "batch_stats": batch_stats}
    twin.write_start(folder, state, recipe, source)
    return recipe


def ours(folder: pathlib.Path, recipe: Recipe, dtype: str) -> list[float]:
    """Our loss before every step, from `initial.pth` over the batches of `folder`."""
    facts = json.loads((folder / "facts.json").read_text())
    images, labels = _batches(folder)
    objective = steps.Objective(
        facs.BP4D, tuple(facts["class_weights"]), recipe.auxiliary_loss_weight
    )
    with jax.enable_x64(dtype == "float64"):
        graph, *like = steps.split(views.train_view(recipe.outline, dtype=jnp.dtype(dtype)))
        like = dict(zip(official.PARTS, like, strict=True))
        state = official.load(
            files.read(folder / "initial.pth"), like, names.table(facs.BP4D, "resnet50"), "resnet50"
        )
        schedule = optim.cosine(recipe.learning_rate, total_steps=len(images))
        optimizer = optim.adamw(
            schedule,
            betas=recipe.betas,
            epsilon=recipe.epsilon,
            weight_decay=recipe.weight_decay,
        )
        params, stats = (
            jax.tree.map(lambda x: jnp.asarray(x, dtype), state[part]) for part in official.PARTS
        )
        opt_state = optimizer.init(params)

        @jax.jit
        def step(params: dict, stats: dict, opt_state: tuple, clips: jax.Array, wanted: jax.Array):
            known = jnp.ones(wanted.shape, bool)
            losses, gradients, stats, _ = steps.loss_and_gradients(
                graph, objective, params, stats, clips, wanted, known
            )
            updates, opt_state = optimizer.update(gradients, opt_state, params)
            params = jax.tree.map(jnp.add, params, updates)
            return params, stats, opt_state, losses["loss"]

        losses = []
        for clips, wanted in zip(images, labels, strict=True):
            clips = jnp.asarray(clips, dtype)
            params, stats, opt_state, loss = step(params, stats, opt_state, clips, wanted)
            losses.append(float(loss))
    return losses


def theirs(folder: pathlib.Path, recipe: Recipe, dtype: str) -> list[float]:
    """The twin's loss before every step."""
    images, labels = _batches(folder)
    count = len(images)
    with twin.Twin(folder, dtype) as other:
        return [
            other.step(
                clips,
                wanted,
                recipe.learning_rate * (1 + math.cos(math.pi * step / count)) / 2,
            )
            for step, (clips, wanted) in enumerate(zip(images, labels, strict=True))
        ]


def _batches(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    images, labels = (
        np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "labels")
    )
    return images, labels


def draw(losses: dict[str, dict[str, list[float]]], path: pathlib.Path) -> None:
    """Both curves, and how far they are apart."""
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (curves, apart) = pyplot.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
    curves.plot(losses["float32"]["ours"], color="#0072b2", label="JAX, float32")
    curves.plot(losses["float32"]["theirs"], color="#e69f00", ls="--", label="PyTorch, float32")
    curves.set_title("loss before every step", loc="left")
    for dtype, colour in zip(DTYPES, ("#009e73", "#cc79a7"), strict=True):
        difference = np.abs(np.subtract(losses[dtype]["ours"], losses[dtype]["theirs"]))
        apart.semilogy(np.maximum(difference, 1e-17), color=colour, label=dtype)
    apart.set_title("difference between the two", loc="left")
    for axes in (curves, apart):
        axes.set_xlabel("step")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Trains all four, prints how far they are apart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    recipe = prepare(arguments.out, arguments.steps)
    losses = {
        dtype: {
            "ours": ours(arguments.out, recipe, dtype),
            "theirs": theirs(arguments.out, recipe, dtype),
        }
        for dtype in DTYPES
    }
    (arguments.out / "losses.json").write_text(json.dumps(losses))
    draw(losses, arguments.out / "same-training.png")
    for dtype, pair in losses.items():
        difference = np.abs(np.subtract(pair["ours"], pair["theirs"]))
        print(f"{dtype}: largest difference {difference.max():.1e} at step {difference.argmax()}")


if __name__ == "__main__":
    main()
