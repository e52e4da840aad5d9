# SPDX-License-Identifier: Apache-2.0
"""One table for results per AU, and its forms: terminal text, Markdown, CSV, JSON.

Text and Markdown show percent with one decimal, as papers do; CSV and JSON hold the unrounded
fractions.
"""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mdhr_jax import bootstrap, errors, facs, metrics

# MDHR's F1 in percent per AU, in the layout's order (paper tables 1 and 2), by layout name.
PAPER_F1 = {
    "bp4d": {
        "ResNet-50": (58.3, 50.9, 58.9, 78.4, 80.3, 84.9, 88.2, 69.5, 56.0, 65.5, 49.5, 59.3),
        "Swin-B": (54.6, 49.7, 61.0, 79.9, 79.4, 85.4, 88.5, 67.8, 56.8, 63.2, 50.9, 55.4),
    },
    "disfa": {
        "ResNet-50": (61.4, 57.7, 70.9, 57.1, 48.3, 75.7, 91.5, 56.7),
        "Swin-B": (65.4, 60.2, 75.2, 50.2, 52.4, 74.3, 93.7, 58.2),
    },
}


SUMMARIES = ("mean", "mean, occurring", "all AUs as one")
LONGEST_LIST = 20  # longer ones are cut in the caption; JSON holds them whole


class Row(NamedTuple):
    """Fractions under the table's columns; nan is shown as n/a."""

    name: str
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of fractions with what they were measured on.

    Attributes:
      details: what the caption says, in its order: `{"protocol": "official", "threshold": 0.5}`.
      columns: names of measures.
      rows: one value per column.
    """

    details: Mapping[str, Any]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def caption(self) -> str:
        """The details in one line."""
        return ", ".join(f"{name} {_detail(value)}" for name, value in self.details.items())

    def text(self) -> str:
        """Aligned columns for a terminal."""
        width = max(len(row.name) for row in self.rows)
        widths = [max(5, len(column)) for column in self.columns]
        lines = [("", self.columns), *((row.name, map(_percent, row.values)) for row in self.rows)]
        text = [
            "  ".join(
                [f"{name:<{width}}", *(f"{x:>{w}}" for x, w in zip(cells, widths, strict=True))]
            )
            for name, cells in lines
        ]
        return "\n".join([self.caption, *text]) + "\n"

    def markdown(self) -> str:
        """A pipe table with the caption under it."""
        lines = [
            ["", *self.columns],
            ["---", *("---:" for _ in self.columns)],
            *([row.name, *map(_percent, row.values)] for row in self.rows),
        ]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{self.caption}\n"

    def csv(self) -> str:
        """Header and rows, without the caption."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row", *self.columns])
        for row in self.rows:
            writer.writerow([row.name, *("n/a" if math.isnan(x) else x for x in row.values)])
        return file.getvalue()

    def json(self) -> str:
        """`{"details": {...}, "rows": {name: {column: fraction or null}}}`."""
        rows = {
            row.name: {
                column: None if math.isnan(x) else x
                for column, x in zip(self.columns, row.values, strict=True)
            }
            for row in self.rows
        }
        return json.dumps({"details": dict(self.details), "rows": rows}, indent=2) + "\n"


def evaluation(
    layout: facs.AuLayout,
    counts: Int[np.ndarray, "s n 4"],
    roc_auc: Float[np.ndarray, " n"],
    details: Mapping[str, Any],
) -> Table:
    """What a model reaches on a test fold: an AU per row, a measure per column.

    Beside F1 stand its interval over subjects, what trivial answers reach on the same labels and,
    for BP4D and DISFA, the paper's. The F1 of an AU that never occurs is n/a; `mean` counts it as
    0, as the release does, `mean, occurring` leaves it out. `all AUs as one` holds the micro
    average.

    Args:
      layout: the AUs that were scored.
      counts: tp, fp, tn, fn of every test subject and AU.
      roc_auc: per AU.
      details: what the caption says.

    Raises:
      InputError: not one label is known.
    """
    if not counts.any():
        raise errors.InputError(
            f"none of {details['frames']} test frames has a known label: evaluate on labelled "
            "frames"
        )
    total = bootstrap.total(counts)
    low, high = bootstrap.f1_interval(counts)
    occurs = metrics.occurs(total)
    columns = {
        "F1": _f1_column(total),
        "low": _rows(low[:-3], occurs, *low[-3:]),
        "high": _rows(high[:-3], occurs, *high[-3:]),
        "bal. acc.": _mean_column(metrics.balanced_accuracy(total)),
        "ROC-AUC": _mean_column(roc_auc),
        "accuracy": _mean_column(metrics.accuracy(total)),
        "always-positive": _f1_column(metrics.always_positive(total)),
        "coin flip": _f1_column(metrics.coin_flip(total)),
    }
    for name, percents in PAPER_F1.get(layout.name, {}).items():
        f1 = np.divide(percents, 100).round(3)
        columns[f"paper {name}"] = [*f1.tolist(), f1.mean(), f1.mean(), np.nan]
    names = (*layout.au_names, *SUMMARIES)
    rows = zip(names, zip(*columns.values(), strict=True), strict=True)
    return Table(details, tuple(columns), tuple(Row(name, values) for name, values in rows))


def _f1_column(counts: metrics.Counts) -> list[float]:
    return _rows(metrics.f1(counts), metrics.occurs(counts), *metrics.f1_summaries(counts))


def _rows(values: np.ndarray, occurs: np.ndarray, *summaries: float) -> list[float]:
    return [*np.where(occurs, values, np.nan).tolist(), *map(float, summaries)]


def _mean_column(values: Float[np.ndarray, " n"]) -> list[float]:
    known = values[~np.isnan(values)]
    mean = float(known.mean()) if len(known) else math.nan
    return [*values.tolist(), mean, mean, math.nan]


def _percent(fraction: float) -> str:
    if math.isnan(fraction):
        return "n/a"
    # Halves go up, as in the paper, whose mean of 66.05 is printed as 66.1.
    return f"{100 * fraction + 1e-9:.1f}"


def _detail(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    if len(value) > LONGEST_LIST:
        return f"{value[0]} ... {value[-1]} ({len(value)} in all)"
    return " ".join(value)
