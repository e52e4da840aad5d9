# SPDX-License-Identifier: Apache-2.0
"""Cross-validation: every fold trained and tested, and all of them together (paper section 4.1)."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from mdhr_jax import evaluate, train
from mdhr_jax.machine import locks
from mdhr_jax.report import tables
from mdhr_jax.run import protocol, seen
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.run.trained import load_trained


def crossval(
    config: ConfigDict,
    workdir: pathlib.Path,
    expected_protocol: str | None = None,
    oracle: bool = False,
) -> tables.Table:
    """Runs all folds under `workdir/fold1`, `fold2`, ...; finished ones are only evaluated.

    Writes each fold's tables to its own `evaluation/`, and the summary to `workdir`.

    Args:
      config: of every fold's run; its fold is replaced.
      workdir: directory of the runs.
      expected_protocol: protocol that the caller expects; any when None.
      oracle: shows F1 with thresholds chosen on the test folds as well.

    Returns:
      F1 of every fold, their mean, and the F1 of all folds' frames together.

    Raises:
      InputError: as `train.train`; another protocol is configured than expected.
    """
    recipe = Recipe.of(config)
    protocol.check_trained_for(recipe.protocol_name, expected_protocol, "this configuration")
    source = recipe.open_data()
    folds = range(1, len(source.folds) + 1)
    for fold in folds:  # before the first is trained
        seen.check_start(dataclasses.replace(recipe, fold=fold), source)
    results, subjects, counts = [], [], []
    for fold in folds:
        config.fold = fold
        place = workdir / f"fold{fold}"
        train.train(config, place)
        trained = load_trained(place)
        scored = evaluate.test(trained)
        results.append(evaluate.table(trained, scored, oracle))
        people, own = scored.subject_counts(trained.thresholds)
        subjects += people
        counts.append(own)
        with locks.in_turn(place / "evaluation"):
            published = evaluate.beside(trained.recipe)
            tables.write(trained.layout, results[-1], "F1", published, place / "evaluation")
    summary = summarise(results, subjects, np.concatenate(counts))
    with locks.in_turn(workdir):
        tables.write(recipe.layout, summary, "F1 mean of folds", evaluate.beside(recipe), workdir)
    return summary


def summarise(
    results: Sequence[tables.Table], subjects: Sequence[str], counts: Int[np.ndarray, "s n 4"]
) -> tables.Table:
    """The folds' F1, each measure's mean over folds, and F1 of all frames with its interval.

    Args:
      results: the folds' tables.
      subjects: the test subjects of all folds.
      counts: tp, fp, tn, fn of each of them and every AU.
    """
    first, details = results[0], [result.details for result in results]
    pooled = tables.f1_columns(subjects, counts)
    columns = {
        **{f"F1 fold {i}": result.column("F1") for i, result in enumerate(results, start=1)},
        "F1 mean of folds": _mean_of_folds(results, "F1"),
        "F1 pooled": pooled["F1"],
        "low": pooled["low"],
        "high": pooled["high"],
    }
    for measure in first.columns:
        if measure not in pooled:
            columns[measure] = _mean_of_folds(results, measure)
    together = {
        "step": [each["step"] for each in details],
        "test subjects": sorted(person for each in details for person in each["test subjects"]),
        "seen in training": "; ".join(sorted({each["seen in training"] for each in details})),
        "frames": sum(each["frames"] for each in details),
        "low to high": tables.interval_of("F1 pooled"),
    }
    rows = [row.name for row in first.rows]
    return tables.Table.of_columns({**first.details, **together}, rows, columns)


def _mean_of_folds(results: Sequence[tables.Table], measure: str) -> Float[np.ndarray, " m"]:
    """Mean over the folds in which the value is known; nan where it is known in none."""
    folds = np.array([result.column(measure) for result in results])
    known = ~np.isnan(folds)
    total = np.where(known, folds, 0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
