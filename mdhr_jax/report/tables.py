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
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mdhr_jax import errors, facs, metrics

# MDHR's F1 in percent per AU, in the layout's order (paper tables 1 and 2), by layout name.
PAPER_F1 = {
    "bp4d": {
        "BP4D ResNet-50": (58.3, 50.9, 58.9, 78.4, 80.3, 84.9, 88.2, 69.5, 56.0, 65.5, 49.5, 59.3),
        "BP4D Swin-B": (54.6, 49.7, 61.0, 79.9, 79.4, 85.4, 88.5, 67.8, 56.8, 63.2, 50.9, 55.4),
    },
    "disfa": {
        "DISFA ResNet-50": (61.4, 57.7, 70.9, 57.1, 48.3, 75.7, 91.5, 56.7),
        "DISFA Swin-B": (65.4, 60.2, 75.2, 50.2, 52.4, 74.3, 93.7, 58.2),
    },
}


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
      columns: AU names, then "mean".
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
        lines = [[" " * width, *(f"{column:>5}" for column in self.columns)]]
        for row in self.rows:
            lines.append([f"{row.name:<{width}}", *(f"{_percent(x):>5}" for x in row.values)])
        return "\n".join([self.caption, *(" ".join(line) for line in lines)]) + "\n"

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
    counts: metrics.Counts,
    *,
    protocol: str,
    threshold: float,
    checkpoint: str,
    step: int,
    subjects: Sequence[str],
    frames: int,
) -> Table:
    """The result on a test fold beside always-positive and, for BP4D and DISFA, the paper.

    Args:
      layout: the AUs that were scored.
      counts: over the whole fold, at `threshold`.
      protocol: name of the protocol, e.g. `official`.
      threshold: score from which an AU counts as active.
      checkpoint: `last` or `best`.
      step: the checkpoint's step.
      subjects: test subjects.
      frames: number of frames scored.

    Raises:
      InputError: not one label is known.
    """
    accuracy = metrics.accuracy(counts)
    if np.isnan(accuracy).all():
        raise errors.InputError(
            f"none of {frames} test frames has a known label: evaluate on labelled frames"
        )
    rows = [
        _row("F1", metrics.f1(counts)),
        Row("accuracy", (*accuracy.tolist(), float(np.nanmean(accuracy)))),
        _row("always-positive F1", metrics.f1(metrics.always_positive(counts))),
    ]
    for name, percents in PAPER_F1.get(layout.name, {}).items():
        rows.append(_row(f"F1 paper, {name}", np.divide(percents, 100).round(3)))
    details = {
        "layout": layout.name,
        "protocol": protocol,
        "threshold": threshold,
        "checkpoint": checkpoint,
        "step": step,
        "test subjects": list(subjects),
        "frames": frames,
    }
    return Table(details, (*layout.au_names, "mean"), tuple(rows))


def _row(name: str, values: Float[np.ndarray, " n"]) -> Row:
    return Row(name, (*values.tolist(), float(values.mean())))


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
