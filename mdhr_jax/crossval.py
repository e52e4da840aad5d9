# SPDX-License-Identifier: Apache-2.0
"""Cross-validation: every fold trained and tested, and all of them together (paper section 4.1)."""

import pathlib
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from mdhr_jax import bootstrap, evaluate, metrics, protocol, runs, train
from mdhr_jax.report import tables


def crossval(config: ConfigDict, workdir: pathlib.Path, asked: str | None = None) -> tables.Table:
    """Runs all folds under `workdir/fold1`, `fold2`, ...; finished ones are only evaluated.

    Writes each fold's table to its own `evaluation/`, and the summary to `workdir`.

    Returns:
      F1 of every fold, their mean, and the F1 of all folds' frames together.

    Raises:
      InputError: as `train.train`; `asked` is another protocol than the configured one.
    """
    protocol.check_trained_for(config.protocol, asked, "this configuration")
    folds = range(1, len(runs.open_data(config).folds) + 1)
    results, counts = [], []
    for fold in folds:
        config.fold = fold
        place = workdir / f"fold{fold}"
        train.train(config, place)
        result, scored = evaluate.evaluate(place)
        evaluate.write(result, place / "evaluation")
        results.append(result)
        counts.append(scored.subject_counts(runs.load(place).thresholds)[1])
    summary = summarise(results, counts)
    evaluate.write(summary, workdir)
    return summary


def summarise(results: Sequence[tables.Table], counts: Sequence[np.ndarray]) -> tables.Table:
    """The folds' F1, each measure's mean over folds, and F1 of all frames with its interval.

    Args:
      results: the folds' tables.
      counts: tp, fp, tn, fn of the folds' test subjects and AUs, `(s, n, 4)` each.
    """
    everybody = np.concatenate(counts)
    f1, occurs = _pooled(bootstrap.total(everybody))
    low, high = bootstrap.f1_interval(everybody)
    columns = {f"F1 fold {i}": _column(result, "F1") for i, result in enumerate(results, start=1)}
    columns["F1 mean of folds"] = _mean_of_folds(results, "F1")
    columns["F1 pooled"] = np.where(occurs, f1, np.nan)
    columns["low"] = np.where(occurs, low, np.nan)
    columns["high"] = np.where(occurs, high, np.nan)
    for measure in results[0].columns[3:]:
        columns[measure] = _mean_of_folds(results, measure)
    names = [row.name for row in results[0].rows]
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    details = {
        key: results[0].details[key]
        for key in ("layout", "protocol", "step chosen", "threshold", "seed")
    }
    for key, together in (("test subjects", len(everybody)), ("frames", _frames(results))):
        details[key] = together
    details["steps"] = " ".join(str(result.details["step"]) for result in results)
    rows = tuple(map(tables.Row, names, values))
    return tables.Table(details, tuple(columns), rows)


def _pooled(counts: metrics.Counts) -> tuple[np.ndarray, np.ndarray]:
    """F1 of AUs and their summaries, and which of them mean something."""
    f1 = np.concatenate([metrics.f1(counts), metrics.f1_summaries(counts)])
    return f1, np.concatenate([metrics.occurs(counts), [True] * 3])


def _column(result: tables.Table, name: str) -> np.ndarray:
    place = result.columns.index(name)
    return np.array([row.values[place] for row in result.rows])


def _mean_of_folds(results: Sequence[tables.Table], name: str) -> np.ndarray:
    """Mean over the folds in which the value is known; nan where it is known in none."""
    folds = np.array([_column(result, name) for result in results])
    known = ~np.isnan(folds)
    total = np.where(known, folds, 0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def _frames(results: Sequence[tables.Table]) -> int:
    return sum(result.details["frames"] for result in results)
