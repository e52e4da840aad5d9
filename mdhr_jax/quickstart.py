# SPDX-License-Identifier: Apache-2.0
"""`mdhr quickstart`: render faces, train the small model, score it on people it has never seen."""

import contextlib
import json
import pathlib
import time
from collections.abc import Iterator

import numpy as np

from mdhr_jax import evaluate, facs, train
from mdhr_jax.configs import quickstart as quickstart_config
from mdhr_jax.data import records
from mdhr_jax.data.builders import rendered
from mdhr_jax.machine import files, locks
from mdhr_jax.numerics import metrics, preprocess
from mdhr_jax.report import plots
from mdhr_jax.run import writers
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.run.scoring import Scores

# Many people in short videos: what a small net must learn is to see through the person.
SUBJECTS, VIDEOS_PER_SUBJECT, FRAMES_PER_VIDEO = 640, 2, 30
PICTURES_SHOWN = 12
_ANNOUNCED = """\
1 of 3: {people} people are rendered (about a minute on two idle cores)
2 of 3: a small net learns from two thirds of them (three minutes, the first F1 within one)
3 of 3: F1 on the others, pictures and tables in {out}"""


def quickstart(out: pathlib.Path, layout_name: str, seed: int = 0) -> None:
    """Runs everything into `out`; what an earlier call finished is not done again.

    The seed is that of people, labels and scenes, and of the training.

    Leaves the data set, the run, `f1.{csv,json,md}`, `curves.png`, `f1.png`, `timeline.png` and
    `result.json` (mean and per-AU F1 of the `last` checkpoint as fractions, subjects, seconds).
    """
    layout = facs.LAYOUTS[layout_name]
    config = quickstart_config.get_config()
    config.layout, config.data, config.seed = layout_name, str(out / "data"), seed
    recipe = Recipe.of(config)
    seconds: dict[str, float] = {}
    print(_ANNOUNCED.format(people=SUBJECTS, out=out), flush=True)
    with _timed("render", seconds):
        source = rendered.build(
            out / "data",
            layout,
            seed=seed,
            subjects=SUBJECTS,
            videos_per_subject=VIDEOS_PER_SUBJECT,
            frames_per_video=FRAMES_PER_VIDEO,
            image_size=preprocess.resized(recipe.image_size),
        )
    with _timed("train", seconds):
        train.train(config, out)
    with locks.alone(out, "name another --out"):
        with _timed("evaluate", seconds):
            result, scored = evaluate.evaluate(evaluate.load(out))
            result.write(out / "f1")
        with _timed("pictures", seconds):
            draw(out, source, scored, recipe.threshold)
        summary = summarise(source, scored, recipe, seconds)
        files.write(out / "result.json", json.dumps(summary, indent=2) + "\n")
    print(result.text(), end="")
    print(f"pictures and tables in {out}")


@contextlib.contextmanager
def _timed(phase: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[phase] = round(time.perf_counter() - start, 1)


def summarise(
    source: records.FrameSource,
    scored: Scores,
    recipe: Recipe,
    seconds: dict[str, float],
) -> dict:
    """What `result.json` holds."""
    counts = scored.counts(recipe.threshold)
    f1 = metrics.f1(counts)
    baseline = metrics.f1(metrics.always_positive(counts))
    return {
        "mean_f1": float(f1.mean()),
        "always_positive_mean_f1": float(baseline.mean()),
        "per_au_f1": dict(zip(source.layout.au_names, f1.tolist(), strict=True)),
        "test_subjects": _subjects(source, recipe.fold, "test"),
        "train_subjects": _subjects(source, recipe.fold, "train"),
        "seconds": seconds,
    }


def _subjects(source: records.FrameSource, fold: int, split: str) -> list[str]:
    return list(dict.fromkeys(source.table.take(source.rows(fold, split)).subjects))


def draw(out: pathlib.Path, source: records.FrameSource, scored: Scores, threshold: float) -> None:
    """Training curves, F1 per AU, and one test video with true and predicted AUs over time."""
    names = source.layout.au_names
    counts = scored.counts(threshold)
    plots.training_curves(out / "curves.png", writers.read(out / "metrics.jsonl"))
    plots.f1_bars(
        out / "f1.png",
        names,
        metrics.f1(counts),
        metrics.f1(metrics.always_positive(counts)),
        "F1 on unseen people",
    )
    test = source.table.take(scored.rows)
    video = liveliest_video(test.video, scored.labels)
    shown = np.flatnonzero(test.video == video)
    positions = np.linspace(0, len(shown) - 1, PICTURES_SHOWN).astype(int)
    plots.au_timeline(
        out / "timeline.png",
        source.pictures(scored.rows[shown[positions]]),
        positions,
        scored.labels[shown],
        scored.scores[shown],
        names,
        scored.mask[shown],
        f"{test.videos[video]}, a person outside the training set",
        threshold,
    )


def liveliest_video(video: np.ndarray, labels: np.ndarray) -> int:
    """The video with the most changes of labels: the most to see."""
    changes = np.abs(np.diff(labels, axis=0)).sum(1) * (np.diff(video) == 0)
    return int(np.argmax(np.bincount(video[1:], changes)))
