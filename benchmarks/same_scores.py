# SPDX-License-Identifier: Apache-2.0
"""A whole training in JAX and in PyTorch, several seeds: do they reach the same F1?

    bash launch/torch_env.sh
    .venv/bin/python benchmarks/same_scores.py --data runs/quickstart/data --out runs/same-scores

`mdhr train` and the PyTorch twin begin each seed with the same weights and see the same augmented
clips (float32); both are scored on the same test frames. Each does so again with a learning rate
that is larger by a millionth, which shows how far rounding alone drives the same program. Writes
`runs.jsonl`, a line per finished training, `losses/`, `table.md` and `comparison.png`; a repeated
call does what is missing.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable

import jax
import numpy as np
import twin
from ml_collections import ConfigDict

from mdhr_jax import evaluate, train
from mdhr_jax.configs import quickstart
from mdhr_jax.data import records
from mdhr_jax.machine import sharding
from mdhr_jax.machine.progress import Bar
from mdhr_jax.numerics import preprocess, steps
from mdhr_jax.run import inputs, writers
from mdhr_jax.run.programs import programs_for
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.run.scoring import Scores, score_split
from mdhr_jax.studies import compare, experiments

Side = Callable[[ConfigDict, pathlib.Path], tuple[Scores, list[float]]]


def ours(config: ConfigDict, folder: pathlib.Path) -> tuple[Scores, list[float]]:
    """Scores of `mdhr train`, and the loss before every step."""
    train.train(config, folder)
    _, scored = evaluate.evaluate(folder)
    rows = writers.read(folder / "metrics.jsonl")
    return scored, [row["loss"] for row in rows if row["kind"] == "train"]


def theirs(config: ConfigDict, folder: pathlib.Path) -> tuple[Scores, list[float]]:
    """The same of the twin, which gets our batches and learning rates."""
    recipe, mesh = Recipe.of(config), sharding.make_mesh()
    source = recipe.open_data()
    count = inputs.count_steps(recipe, source)
    programs = programs_for(recipe, source, mesh, count)
    state = programs.init(programs.schedule)
    twin.write_start(folder, state, recipe, source)
    rates = programs.schedule.learning_rates()
    augment = jax.jit(functools.partial(preprocess.train, image_size=recipe.image_size))
    batches = inputs.training_batches(recipe, source, 0)
    losses = []
    with twin.Twin(folder, "float32") as other:
        with Bar(count, "step") as bar:
            for step in range(count):
                batch = next(batches)
                images = augment(batch["frames"], batch["augment"])
                losses.append(other.step(images, batch["labels"], float(rates(step))))
                bar.update()
        return _score(other, recipe, source, mesh), losses


def _score(
    other: twin.Twin, recipe: Recipe, source: records.FrameSource, mesh: jax.sharding.Mesh
) -> Scores:
    transform = jax.jit(recipe.transform)

    def step(params: dict, batch_stats: dict, batch: dict) -> jax.Array:
        images = np.asarray(transform(batch["frames"]))
        return jax.device_put(other.scores(images, len(source.layout.aus)))

    return score_split(
        steps.Scoring(lambda *values: values, step),
        {"params": {}, "batch_stats": {}},
        source,
        functools.partial(sharding.put_batch, mesh),
        fold=recipe.fold,
        clip_length=recipe.clip_length,
        batch_size=recipe.eval_batch_size,
    )


SIDES: dict[str, tuple[Side, float]] = {  # and a factor of the learning rate
    "JAX": (ours, 1),
    "PyTorch": (theirs, 1),
    "JAX, nudged": (ours, 1 + 1e-6),
    "PyTorch, nudged": (theirs, 1 + 1e-6),
}


def run(name: str, config: ConfigDict, out: pathlib.Path) -> experiments.Run:
    """One training of one side, with its losses in `losses/`."""
    side, factor = SIDES[name]
    place = f"{name.lower().replace(', ', '-')}-{config.seed}"
    shared = Recipe.of(config).flat()
    nudged = config.copy_and_resolve_references()
    nudged.learning_rate *= factor
    scored, losses = side(nudged, out / place)
    (out / "losses").mkdir(exist_ok=True)
    (out / f"losses/{place}.json").write_text(json.dumps(losses))
    subjects, counts = scored.subject_counts(config.threshold)
    del shared["seed"], shared["fold"]
    shared["data"] = scored.source
    return experiments.Run(
        variant=name,
        seed=config.seed,
        fold=config.fold,
        step=len(losses),
        config=shared,
        overrides={} if factor == 1 else {"learning_rate": nudged.learning_rate},
        subjects=subjects,
        counts=counts.tolist(),
        seconds=None,
        frames=len(scored.rows),
    )


def main() -> None:
    """Trains what is missing, tabulates all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, help="instead of the quickstart's")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = quickstart.get_config()
    config.data = arguments.data
    config.epochs = arguments.epochs or config.epochs
    done = experiments.read_runs(arguments.out / experiments.RUNS)
    for config.seed in range(arguments.seeds):
        for name in SIDES:
            if (name, config.seed) in {(run.variant, run.seed) for run in done}:
                continue
            done.append(run(name, config, arguments.out))
            with (arguments.out / experiments.RUNS).open("a") as file:
                file.write(json.dumps(dataclasses.asdict(done[-1])) + "\n")
    rows = compare.summarise(done, list(SIDES))
    text = compare.table(rows, done)
    (arguments.out / "table.md").write_text(text)
    compare.picture(arguments.out / "comparison.png", rows, done)
    print(text, end="")


if __name__ == "__main__":
    main()
