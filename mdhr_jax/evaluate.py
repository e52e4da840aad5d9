# SPDX-License-Identifier: Apache-2.0
"""A protocol, top to bottom: a checkpoint on a test fold, and what its scores are worth per AU."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from mdhr_jax import metrics, protocol, runs, sharding, steps
from mdhr_jax.data import pipeline, records
from mdhr_jax.errors import InputError
from mdhr_jax.interop import files
from mdhr_jax.report import tables


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a model said about every frame of a split, in the order of its rows.

    Attributes:
      rows: rows of the data set's table.
      subjects: the person in each frame.
      scores: in [0, 1].
      labels: 0 or 1, as known.
      mask: True where the label is known.
    """

    rows: Int[np.ndarray, " m"]
    subjects: Sequence[str]
    scores: Float[np.ndarray, "m n"]
    labels: Int[np.ndarray, "m n"]
    mask: Bool[np.ndarray, "m n"]

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
    eval_step: Callable[[dict, dict, steps.Batch], jax.Array],
    state: dict,
    source: records.FrameSource,
    mesh: Mesh,
    *,
    fold: int,
    split: str = "test",
    clip_length: int,
    context: int = 0,
    batch_size: int,
) -> Scores:
    """Scores every frame of a split of the fold once.

    Args:
      eval_step: jitted `steps.make_eval_step`.
      state: holds `params` and `batch_stats`.
      source: the data set.
      mesh: where batches go.
      fold: cross-validation fold, from 1.
      split: as in `folds.split_subjects`.
      clip_length: frames per clip.
      context: frames before and after a clip that the model reads.
      batch_size: clips per batch, a multiple of the number of devices.
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
    )

    def run(batch: pipeline.Batch) -> jax.Array:
        return eval_step(state["params"], state["batch_stats"], sharding.put_batch(mesh, batch))

    for batch, predicted in _ahead(batches, run):
        scores[batch["row"][batch["valid"]]] = np.asarray(predicted)[batch["valid"]]
    return Scores(
        rows,
        [frames.subjects[video] for video in frames.video],
        scores,
        (frames.labels == 1).astype(np.int32),
        frames.labels >= 0,
    )


def _ahead(batches: Iterable, run: Callable):
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
) -> tuple[tables.Table, Scores]:
    """Evaluates a run under its protocol, or an official weight file, on a test fold.

    Args:
      checkpoint: the run, or the file.
      data: data set; the one that the run trained on when None.
      fold: fold to test on; the run's own when None.
      asked: protocol that the caller expects.

    Raises:
      InputError: no run, no checkpoint, no data set, a data set with other AUs, a file without
        data set or fold, or a run of another protocol.
    """
    if files.is_weight_file(checkpoint) and not (data and fold):
        raise InputError(
            f"{checkpoint}: a weight file names neither data set nor fold; add --data DIRECTORY "
            "--fold N"
        )
    trained = runs.load(checkpoint)
    protocol.check_trained_for(trained.protocol.name, asked, trained.path)
    config = trained.config
    source = runs.open_data(config, data)
    mesh = sharding.make_mesh()
    step = steps.make_eval_step(runs.eval_graph(config), transform=runs.eval_transform(config))
    scored = score(
        jax.jit(step),
        trained.state,
        source,
        mesh,
        fold=fold or config.fold,
        clip_length=config.clip_length,
        context=runs.context(config),
        batch_size=batch_size(config.eval_batch_size, mesh),
    )
    return table(trained, scored), scored


def batch_size(clips: int, mesh: Mesh) -> int:
    """The configured number of clips, rounded up to a multiple of the devices."""
    return -(-clips // mesh.size) * mesh.size


def table(trained: runs.Trained, scored: Scores) -> tables.Table:
    """The result as a table, with what was chosen where in its caption."""
    people, counts = scored.subject_counts(trained.thresholds)
    return tables.evaluation(
        trained.layout,
        counts,
        scored.roc_auc(),
        details={
            "layout": trained.layout.name,
            "protocol": trained.protocol.name,
            "step": int(trained.state["step"]),
            "step chosen": trained.protocol.step,
            "threshold": _thresholds(trained),
            "seed": trained.config.seed,
            "test subjects": people,
            "frames": len(scored.rows),
        },
    )


def _thresholds(trained: runs.Trained) -> float | str:
    if not trained.config.tune_thresholds:
        return trained.config.threshold
    return "per AU, chosen on held-out training subjects"


def write(result: tables.Table, out: pathlib.Path) -> None:
    """Writes `f1.csv`, `f1.json` and `f1.md`."""
    out.mkdir(parents=True, exist_ok=True)
    for suffix, text in [("csv", result.csv()), ("json", result.json()), ("md", result.markdown())]:
        (out / f"f1.{suffix}").write_text(text)
