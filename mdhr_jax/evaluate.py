# SPDX-License-Identifier: Apache-2.0
"""A protocol, top to bottom: a checkpoint on a test fold, per-AU F1 beside trivial answers."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from mdhr_jax import checkpoint, metrics, runs, sharding, steps
from mdhr_jax.data import pipeline, records
from mdhr_jax.errors import InputError
from mdhr_jax.interop import files
from mdhr_jax.report import tables

# Where the checkpoint comes from -> what was chosen where.
PROTOCOLS = {
    "last": "last step",
    "best": "best step, chosen on this test fold",
    "file": "unknown, the file does not say how its step was chosen",
}


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a model said about every frame of a split, in the order of its rows.

    Attributes:
      rows: rows of the data set's table.
      scores: in [0, 1].
      labels: 0 or 1, as known.
      mask: True where the label is known.
      counts: hits and misses over all of it.
    """

    rows: Int[np.ndarray, " m"]
    scores: Float[np.ndarray, "m n"]
    labels: Int[np.ndarray, "m n"]
    mask: Bool[np.ndarray, "m n"]
    counts: metrics.Counts


def score(
    eval_step: Callable[[dict, dict, steps.Batch], tuple[jax.Array, metrics.Counts]],
    state: dict,
    source: records.FrameSource,
    mesh: Mesh,
    *,
    fold: int,
    clip_length: int,
    batch_size: int,
) -> Scores:
    """Scores every frame of the fold's test split once.

    Args:
      eval_step: jitted `steps.make_eval_step`.
      state: holds `params` and `batch_stats`.
      source: the data set.
      mesh: where batches go.
      fold: cross-validation fold, from 1.
      clip_length: frames per clip.
      batch_size: clips per batch, a multiple of the number of devices.
    """
    rows = source.rows(fold, "test")
    labels = source.table.labels[rows]
    scores = np.full(labels.shape, np.nan, np.float32)
    counts = metrics.Counts(*np.zeros((4, labels.shape[1]), np.int64))
    batches = pipeline.eval_batches(
        source, fold=fold, clip_length=clip_length, batch_size=batch_size
    )
    for batch, predicted, counted in _ahead(
        batches,
        lambda batch: eval_step(
            state["params"], state["batch_stats"], sharding.put_batch(mesh, batch)
        ),
    ):
        scores[batch["row"][batch["valid"]]] = np.asarray(predicted)[batch["valid"]]
        counts = metrics.add(counts, metrics.Counts(*map(np.asarray, counted)))
    return Scores(rows, scores, (labels == 1).astype(np.int32), labels >= 0, counts)


def _ahead(batches: Iterable, run: Callable):
    """Results one batch late, so that the device works while the host reads the last ones."""
    waiting = None
    for batch in batches:
        current = (batch, *run(batch))
        if waiting is not None:
            yield waiting
        waiting = current
    if waiting is not None:
        yield waiting


def evaluate(
    workdir: str | pathlib.Path,
    *,
    data: str | pathlib.Path | None = None,
    fold: int | None = None,
    kind: str = "last",
) -> tuple[tables.Table, Scores]:
    """Evaluates a run's checkpoint on a test fold.

    Args:
      workdir: the run, or an official weight file.
      data: data set; the one that the run trained on when None.
      fold: fold to test on; the run's own when None.
      kind: `last` or `best`.

    Raises:
      InputError: no run, no checkpoint, no data set, or a data set with other AUs.
    """
    workdir = pathlib.Path(workdir)
    if kind not in checkpoint.KINDS:
        raise InputError(f"checkpoint {kind!r} is unknown; choose from last, best")
    config = runs.load_config(workdir)
    source = runs.open_data(config, data)
    fold = fold or config.fold
    mesh = sharding.make_mesh()
    state = runs.restore_model(workdir, config, kind)
    eval_step = jax.jit(
        steps.make_eval_step(
            runs.eval_graph(config),
            transform=runs.eval_transform(config),
            threshold=config.threshold,
        )
    )
    scored = score(
        eval_step,
        state,
        source,
        mesh,
        fold=fold,
        clip_length=config.clip_length,
        batch_size=batch_size(config.eval_batch_size, mesh),
    )
    kind = "file" if files.is_weight_file(workdir) else kind
    return table(scored, source, config.threshold, kind, int(state["step"])), scored


def batch_size(clips: int, mesh: Mesh) -> int:
    """The configured number of clips, rounded up to a multiple of the devices."""
    return -(-clips // mesh.size) * mesh.size


def table(
    scored: Scores, source: records.FrameSource, threshold: float, kind: str, step: int
) -> tables.Table:
    """The result as a table, with what was chosen where in its caption."""
    return tables.evaluation(
        source.layout,
        scored.counts,
        protocol=PROTOCOLS[kind],
        threshold=threshold,
        checkpoint=kind,
        step=step,
        subjects=list(dict.fromkeys(source.table.take(scored.rows).subjects)),
        frames=len(scored.rows),
    )


def write(result: tables.Table, out: pathlib.Path) -> None:
    """Writes `f1.csv`, `f1.json` and `f1.md`."""
    out.mkdir(parents=True, exist_ok=True)
    for suffix, text in [("csv", result.csv()), ("json", result.json()), ("md", result.markdown())]:
        (out / f"f1.{suffix}").write_text(text)
