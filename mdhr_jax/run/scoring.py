# SPDX-License-Identifier: Apache-2.0
"""Scores of every frame of a split, clip by clip."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from mdhr_jax.data import pipeline, records
from mdhr_jax.errors import InputError
from mdhr_jax.machine import hosts, sharding
from mdhr_jax.numerics import metrics, steps
from mdhr_jax.run import protocol, seen


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


def score_split(
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
      scoring: jitted, its scores `sharding.batched` (`programs.build_scoring`).
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
    _check_finite(source, scores)
    return Scores(
        source.metadata.source,
        rows,
        [frames.subjects[video] for video in frames.video],
        scores,
        (frames.labels == 1).astype(np.int32),
        frames.labels >= 0,
    )


def _check_finite(source: records.FrameSource, scores: Float[np.ndarray, "m n"]) -> None:
    wrong = ~np.isfinite(scores).all(axis=1)
    if wrong.any():
        raise InputError(
            f"{source.path}: the model's scores are not finite in {wrong.sum()} of {len(wrong)} "
            "frames; its values are damaged, or its training failed: use another checkpoint"
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


def whole_batches(clips: int, mesh: Mesh) -> int:
    """The configured number of clips, rounded up to a multiple of the devices."""
    return -(-clips // mesh.size) * mesh.size
