# SPDX-License-Identifier: Apache-2.0
"""A protocol, top to bottom: a checkpoint on a test fold, and what its scores are worth per AU."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from mdhr_jax import hosts, locks, metrics, notes, protocol, provenance, runs, seen, sharding, steps
from mdhr_jax.data import clips, pipeline, records
from mdhr_jax.errors import InputError
from mdhr_jax.faces import pace
from mdhr_jax.interop import files
from mdhr_jax.report import tables


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a model said about every frame of a split, in the order of its rows.

    Attributes:
      source: where the data set's labels and pictures come from, in one line.
      rows: rows of the data set's table.
      subjects: the person in each frame.
      scores: in [0, 1].
      labels: 0 or 1, as known.
      mask: True where the label is known.
      verdict: who of the people was seen in training, as far as it is known.
    """

    source: str
    rows: Int[np.ndarray, " m"]
    subjects: Sequence[str]
    scores: Float[np.ndarray, "m n"]
    labels: Int[np.ndarray, "m n"]
    mask: Bool[np.ndarray, "m n"]
    verdict: seen.Verdict | None = None

    def counts(self, threshold: float | Float[np.ndarray, " n"]) -> metrics.Counts:
        """Hits and misses over all frames."""
        return metrics.count(self.scores, self.labels, self.mask, threshold)

    def subject_counts(
        self, threshold: float | Float[np.ndarray, " n"]
    ) -> tuple[list[str], Int[np.ndarray, "s n 4"]]:
        """People, and for each of them and each AU the counts tp, fp, tn, fn."""
        owner = np.array(self.subjects)
        people = sorted(set(self.subjects))
        counts = [
            metrics.count(self.scores[own], self.labels[own], self.mask[own], threshold)
            for own in (owner == person for person in people)
        ]
        return people, np.array(counts).transpose(0, 2, 1)

    def roc_auc(self) -> Float[np.ndarray, " n"]:
        """Area under the ROC curve per AU."""
        return metrics.roc_auc(self.scores, self.labels, self.mask)

    def best_thresholds(self, default: float) -> Float[np.ndarray, " n"]:
        """The threshold of each AU with the highest F1 on these frames."""
        return protocol.best_thresholds(self.scores, self.labels, self.mask, default)


def score(
    scoring: steps.Scoring,
    state: dict,
    source: records.FrameSource,
    put: Callable[[pipeline.Batch], steps.Batch],
    *,
    fold: int,
    split: str = "test",
    clip_length: int,
    context: int = 0,
    batch_size: int,
    part: range | None = None,
) -> Scores:
    """Scores every frame of a split of the fold once.

    Args:
      scoring: jitted, its scores `sharding.batched` (`runs.scoring`).
      state: holds `params` and `batch_stats`.
      source: the data set.
      put: brings a batch to the devices.
      fold: cross-validation fold, from 1.
      split: as in `folds.split_subjects`.
      clip_length: frames per clip.
      context: frames before and after a clip that the model reads.
      batch_size: clips per batch, a multiple of the number of devices.
      part: the clips of every batch that this one of several processes scores; each gets all.

    Raises:
      InputError: no such fold, a picture that cannot be read, or scores that are not finite.
    """
    rows = source.rows(fold, split)
    frames = source.table.take(rows)
    scores = np.full(frames.labels.shape, np.nan, np.float32)
    batches = pipeline.eval_batches(
        source,
        fold=fold,
        split=split,
        clip_length=clip_length,
        context=context,
        batch_size=batch_size,
        part=part,
    )

    values = scoring.prepare(state["params"], state["batch_stats"])

    def run(batch: tuple[pipeline.Batch, steps.Batch]) -> jax.Array:
        return scoring.step(*values, batch[1])

    for (batch, _), predicted in _late(pipeline.ahead(batches, put), run):
        scores[batch["row"][batch["valid"]]] = sharding.fetch_own(predicted)[batch["valid"]]
    scores = hosts.merged(scores)
    wrong = ~np.isfinite(scores).all(axis=1)
    if wrong.any():
        raise InputError(
            f"{source.path}: the model's scores are not finite in {wrong.sum()} of {len(wrong)} "
            "frames; its values are damaged, or its training failed: use another checkpoint"
        )
    return Scores(
        source.metadata.source,
        rows,
        [frames.subjects[video] for video in frames.video],
        scores,
        (frames.labels == 1).astype(np.int32),
        frames.labels >= 0,
    )


def _late(batches: Iterable, run: Callable):
    """Results one batch late, so that the device works while the host reads the last ones."""
    waiting = None
    for batch in batches:
        current = batch, run(batch)
        if waiting is not None:
            yield waiting
        waiting = current
    if waiting is not None:
        yield waiting


def evaluate(
    checkpoint: str | pathlib.Path,
    *,
    data: str | pathlib.Path | None = None,
    fold: int | None = None,
    asked: str | None = None,
    allow_seen: bool = False,
) -> tuple[tables.Table, Scores]:
    """Evaluates a run under its protocol, or an official weight file, on a test fold.

    Args:
      checkpoint: the run, or the file.
      data: data set; the one that the run trained on when None.
      fold: fold to test on; the run's own when None.
      asked: protocol that the caller expects.
      allow_seen: tests on people who were seen in training, too; the table says so.

    Raises:
      InputError: as `load` and `test`.
    """
    trained = load(checkpoint, data=data, fold=fold, asked=asked, allow_seen=allow_seen)
    scored = test(trained)
    return table(trained, scored), scored


def write_tables(
    checkpoint: str | pathlib.Path,
    out: pathlib.Path,
    *,
    data: str | pathlib.Path | None = None,
    fold: int | None = None,
    asked: str | None = None,
    allow_seen: bool = False,
    oracle: bool = False,
    against: str | pathlib.Path | None = None,
) -> str:
    """Evaluates as `evaluate` does, writes the tables, and returns them as text.

    Args:
      checkpoint: the run, or the file.
      out: directory of `f1`, `paper` and `difference`, each as `.csv`, `.json` and `.md`.
      data: data set; the one that the run trained on when None.
      fold: fold to test on; the run's own when None.
      asked: protocol that the caller expects.
      allow_seen: as in `evaluate`.
      oracle: shows F1 with thresholds chosen on the test fold as well.
      against: another run or file, to take the difference from.

    Raises:
      InputError: as `load` and `test`, or as `check_comparable`.
    """
    ask = functools.partial(load, data=data, fold=fold, asked=asked, allow_seen=allow_seen)
    trained, other = ask(checkpoint), ask(against) if against else None
    if other:
        check_comparable(trained, other)
    # First: a place that cannot be written costs no evaluation.
    with locks.alone(out, "name another --out"):
        scored = test(trained)
        result = table(trained, scored, oracle)
        tables.write(trained.layout, result, "F1", out)
        if not other:
            return result.text()
        compared = difference(trained, scored, other, test(other))
        compared.write(out / "difference")
    return f"{result.text()}\n{compared.text()}"


def load(
    checkpoint: str | pathlib.Path,
    *,
    data: str | pathlib.Path | None = None,
    fold: int | None = None,
    asked: str | None = None,
    allow_seen: bool = False,
) -> runs.Trained:
    """Reads what is to be evaluated; arguments as those of `evaluate`.

    Returns:
      The trained model, whose recipe names the data set and the fold to test on.

    Raises:
      InputError: no run, no checkpoint, a file without data set or fold, a run of another
        protocol, no data set, or test subjects whom the model has learned from.
    """
    if files.is_weight_file(checkpoint) and not (data and fold):
        raise InputError(
            f"{checkpoint}: a weight file names neither data set nor fold; add --data DIRECTORY "
            "--fold N"
        )
    trained = runs.load(checkpoint)
    protocol.check_trained_for(trained.protocol.name, asked, trained.path)
    own = trained.recipe
    recipe = dataclasses.replace(
        own, data=str(data or own.data), fold=own.fold if fold is None else fold
    )
    source = recipe.open_data()
    seen.check_tested(trained.path, source, recipe.fold, allowed=allow_seen)
    _warn_of_other_pictures(trained.path, source)
    return dataclasses.replace(trained, recipe=recipe)


def _warn_of_other_pictures(path: pathlib.Path, source: records.FrameSource) -> None:
    """Scores of faces that are cut in another way, or move at another pace, may be worse."""
    learned, tested = provenance.read(path), source.metadata
    if learned and (learned.crop != tested.crop or pace.is_other(tested.fps, learned.fps)):
        notes.once(
            f"{path}: has learned from faces cut by {learned.crop}, {learned.fps:g} frames per "
            f"second; those tested are cut by {tested.crop}, {tested.fps:g} frames per second: its "
            "scores may be worse"
        )


def test(trained: runs.Trained) -> Scores:
    """Scores the frames of the test fold that the recipe names.

    Raises:
      InputError: no data set, one with other AUs, or no such fold.
    """
    recipe, mesh, source = trained.recipe, sharding.make_mesh(), trained.recipe.open_data()
    verdict = seen.verdict(seen.of_model(trained.path), source, recipe.fold)
    scored = score(
        runs.scoring(recipe, mesh),
        trained.state,
        source,
        functools.partial(sharding.put_batch, mesh),
        fold=recipe.fold,
        clip_length=recipe.clip_length,
        context=recipe.context,
        batch_size=batch_size(recipe.eval_batch_size, mesh),
    )
    return dataclasses.replace(scored, verdict=verdict)


def batch_size(clips: int, mesh: Mesh) -> int:
    """The configured number of clips, rounded up to a multiple of the devices."""
    return -(-clips // mesh.size) * mesh.size


def table(trained: runs.Trained, scored: Scores, oracle: bool = False) -> tables.Table:
    """The result as a table, with what was chosen where in its caption.

    Args:
      trained: what was evaluated.
      scored: what it said.
      oracle: shows F1 with thresholds chosen on these very frames as well.
    """
    people, counts = scored.subject_counts(trained.thresholds)
    chosen_here = scored.best_thresholds(trained.recipe.threshold)
    return tables.evaluation(
        trained.layout,
        people,
        counts,
        scored.roc_auc(),
        details={
            "layout": trained.layout.name,
            "data": scored.source,
            **_choices(trained),
            "test subjects": people,
            "seen in training": str(scored.verdict),
            "frames": len(scored.rows),
        },
        oracle=scored.counts(chosen_here) if oracle else None,
    )


def difference(
    trained: runs.Trained, scored: Scores, other: runs.Trained, scored_other: Scores
) -> tables.Table:
    """F1 of two models on the same frames, each under its protocol, and their difference."""
    people, counts = scored.subject_counts(trained.thresholds)
    _, others = scored_other.subject_counts(other.thresholds)
    details = {
        "layout": trained.layout.name,
        "data": scored.source,
        "F1": {"of": str(trained.path), **_choices(trained)},
        "F1 against": {"of": str(other.path), **_choices(other)},
        "test subjects": people,
        "seen in training": str(scored.verdict),
        "seen in training of the other": str(scored_other.verdict),
        "frames": len(scored.rows),
    }
    return tables.difference(trained.layout, people, counts, others, details)


def check_comparable(trained: runs.Trained, other: runs.Trained) -> None:
    """Refuses to compare what is not tested on the same frames.

    Raises:
      InputError: the two have other AUs, test subjects, frames or labels.
    """
    aus, other_aus = (" ".join(run.layout.au_names) for run in (trained, other))
    if aus != other_aus:
        raise InputError(
            f"{other.path}: has {other_aus}, but {trained.path} has {aus}; compare with a run of "
            "the same AUs"
        )
    frames, other_frames = _test_frames(trained), _test_frames(other)
    if not _are_equal(frames, other_frames):
        raise InputError(
            f"{other.path}: tested on other subjects, frames or labels ({_size(other_frames)}) "
            f"than {trained.path} ({_size(frames)}); compare with a run of the same data set and "
            "fold"
        )


def _test_frames(trained: runs.Trained) -> clips.FrameTable:
    source = trained.recipe.open_data()
    return source.table.take(source.rows(trained.recipe.fold, "test"))


def _are_equal(frames: clips.FrameTable, others: clips.FrameTable) -> bool:
    return all(
        np.array_equal(getattr(frames, name), getattr(others, name)) for name in vars(frames)
    )


def _size(frames: clips.FrameTable) -> str:
    people = sorted(set(frames.subjects))
    return f"{len(frames)} frames of {len(people)} people, {people[0]} to {people[-1]}"


def _choices(trained: runs.Trained) -> dict[str, Any]:
    """What was chosen where."""
    return {
        "protocol": trained.protocol.name,
        "step": int(trained.state["step"]),
        "step chosen": trained.protocol.step,
        "threshold": _thresholds(trained),
        "seed": trained.recipe.seed,
    }


def _thresholds(trained: runs.Trained) -> float | str:
    if not trained.recipe.tune_thresholds:
        return trained.recipe.threshold
    return "per AU, chosen on held-out training subjects"
