# SPDX-License-Identifier: Apache-2.0
"""Cross-validation: every fold trained and tested, and their mean (paper section 4.1)."""

import pathlib

import numpy as np
from ml_collections import ConfigDict

from mdhr_jax import evaluate, runs, train
from mdhr_jax.report import tables


def crossval(config: ConfigDict, workdir: pathlib.Path) -> tables.Table:
    """Runs all folds under `workdir/fold1`, `fold2`, ...; finished ones are only evaluated.

    Writes each fold's table to its own `evaluation/`, and the summary to `workdir`.

    Returns:
      F1 of the `last` checkpoint of every fold, their mean, and the mean of always-positive.

    Raises:
      InputError: as `train.train`.
    """
    folds = range(1, len(runs.open_data(config).folds) + 1)
    results = []
    for fold in folds:
        config.fold = fold
        train.train(config, workdir / f"fold{fold}")
        result, _ = evaluate.evaluate(workdir / f"fold{fold}")
        evaluate.write(result, workdir / f"fold{fold}" / "evaluation")
        results.append(result)
    summary = summarise(results)
    evaluate.write(summary, workdir)
    return summary


def summarise(results: list[tables.Table]) -> tables.Table:
    """One row of F1 per fold, then means over folds of F1 and always-positive, then the paper."""
    rows = {name: [_values(result, name) for result in results] for name in _names(results[0])}
    summary = [tables.Row(f"F1 fold {fold}", f1) for fold, f1 in enumerate(rows["F1"], start=1)]
    for name, values in rows.items():
        label = name if name.startswith("F1 paper") else f"{name}, mean of folds"
        summary.append(tables.Row(label, tuple(np.mean(values, axis=0).tolist())))
    details = {
        key: results[0].details[key] for key in ("layout", "protocol", "threshold", "checkpoint")
    }
    frames = sum(result.details["frames"] for result in results)
    return tables.Table(details | {"frames": frames}, results[0].columns, tuple(summary))


def _names(result: tables.Table) -> list[str]:
    return [row.name for row in result.rows]


def _values(result: tables.Table, name: str) -> tuple[float, ...]:
    return next(row.values for row in result.rows if row.name == name)
