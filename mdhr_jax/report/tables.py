# SPDX-License-Identifier: Apache-2.0
"""One table for results per AU, and its forms: terminal text, Markdown, CSV, JSON.

Text and Markdown show percent with one decimal, as papers do; CSV and JSON hold the unrounded
fractions.
"""

import csv
import dataclasses
import io
import itertools
import json
import math
import pathlib
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mdhr_jax import errors, facs
from mdhr_jax.machine import files
from mdhr_jax.numerics import bootstrap, metrics
from mdhr_jax.report import markdown, paper

SUMMARIES = ("mean", "mean, occurring", "all AUs as one")
LONGEST_LIST = 20  # longer ones are cut in the caption; JSON holds them whole
HEADER_WIDTH, CAPTION_WIDTH = 8, 100  # characters, in a terminal

Columns = Mapping[str, Float[np.ndarray, " m"]]


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

    @classmethod
    def of_columns(
        cls, details: Mapping[str, Any], rows: Sequence[str], columns: Columns
    ) -> "Table":
        """A table of measures with one value per row each."""
        values = np.stack(list(columns.values()), axis=1).tolist()
        return cls(details, tuple(columns), tuple(map(Row, rows, map(tuple, values))))

    def column(self, name: str) -> Float[np.ndarray, " m"]:
        """The values of a measure, from top to bottom."""
        place = self.columns.index(name)
        return np.array([row.values[place] for row in self.rows])

    @property
    def caption(self) -> str:
        """The details in one line."""
        return _caption(self.details)

    def text(self) -> str:
        """Aligned columns for a terminal."""
        headers = [
            textwrap.wrap(name, HEADER_WIDTH, break_long_words=False) for name in self.columns
        ]
        height = max(map(len, headers))
        lines = list(zip(*(["" for _ in range(height - len(h))] + h for h in headers), strict=True))
        lines = [("", *line) for line in lines] + self._cells()
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        text = [
            "  ".join([f"{name:<{widths[0]}}", *(map(str.rjust, cells, widths[1:]))])
            for name, *cells in lines
        ]
        return "\n".join([*textwrap.wrap(self.caption, CAPTION_WIDTH), *text]) + "\n"

    def markdown(self) -> str:
        """A pipe table with the caption under it."""
        return f"{markdown.table(('', *self.columns), self._cells())}\n{self.caption}\n"

    def _cells(self) -> list[tuple[str, ...]]:
        return [(row.name, *map(_percent, row.values)) for row in self.rows]

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

    def write(self, stem: pathlib.Path) -> None:
        """Writes `<stem>.csv`, `<stem>.json` and `<stem>.md`."""
        for suffix, text in (("csv", self.csv()), ("json", self.json()), ("md", self.markdown())):
            files.write(stem.with_name(f"{stem.name}.{suffix}"), text)


def write(
    layout: facs.AuLayout,
    result: Table,
    measure: str,
    published: Mapping[str, paper.System],
    out: pathlib.Path,
) -> None:
    """Writes `f1` and, for BP4D and DISFA, `paper` into a directory: `.csv`, `.json`, `.md` each.

    Args:
      layout: the AUs of the result.
      result: an `evaluation`, or a table with its rows.
      measure: its column that stands beside the paper's F1.
      published: as in `evaluation`.
      out: the directory.
    """
    result.write(out / "f1")
    if layout.name in paper.SYSTEMS:
        beside_paper(layout, result, measure, published.values()).write(out / "paper")


def evaluation(
    layout: facs.AuLayout,
    subjects: Sequence[str],
    counts: Int[np.ndarray, "s n 4"],
    roc_auc: Float[np.ndarray, " n"],
    published: Mapping[str, paper.System],
    details: Mapping[str, Any],
    oracle: metrics.Counts | None = None,
) -> Table:
    """What a model reaches on a test fold: an AU per row, a measure per column.

    Beside F1 stand its interval over subjects, what trivial answers reach on the same labels and
    what others have published. The F1 of an AU that never occurs is n/a; `mean` counts it as
    0, as the release does, `mean, occurring` leaves it out. `all AUs as one` holds the micro
    average.

    Args:
      layout: the AUs that were scored.
      subjects: the people tested on.
      counts: tp, fp, tn, fn of each of them and every AU.
      roc_auc: per AU.
      published: results to stand beside, by the heading of their columns (`published.beside`).
      details: what the caption says.
      oracle: counts with thresholds chosen on these frames, shown as such in one more column.

    Raises:
      InputError: not one label is known.
    """
    if not counts.any():
        raise errors.InputError(
            f"none of {details['frames']} test frames has a known label: evaluate on labelled "
            "frames"
        )
    total = bootstrap.total(counts)
    columns = {
        **f1_columns(subjects, counts),
        "bal. acc.": _with_mean(metrics.balanced_accuracy(total)),
        "ROC-AUC": _with_mean(roc_auc),
        "accuracy": _with_mean(metrics.accuracy(total)),
        "always-positive": _f1(metrics.always_positive(total)),
        "coin flip": _f1(metrics.coin_flip(total)),
    }
    details = {**details, "low to high": interval_of("F1")}
    if oracle is not None:
        columns["F1, thresholds chosen on test"] = _f1(oracle)
        details["thresholds chosen on test"] = "fit the frames that they are scored on: no result"
    for column, system in published.items():
        mean = system.mean / 100
        columns[column] = np.append(np.divide(system.f1, 100).round(3), [mean, mean, np.nan])
    return Table.of_columns(details, (*layout.au_names, *SUMMARIES), columns)


def f1_columns(subjects: Sequence[str], counts: Int[np.ndarray, "s n 4"]) -> Columns:
    """`F1` of all subjects together and the ends of its interval, `low` and `high`."""
    total = bootstrap.total(counts)
    low, high = bootstrap.f1_interval(counts, subjects)
    return {"F1": _f1(total), "low": _occurring(low, total), "high": _occurring(high, total)}


def difference(
    layout: facs.AuLayout,
    subjects: Sequence[str],
    counts: Int[np.ndarray, "s n 4"],
    others: Int[np.ndarray, "s n 4"],
    details: Mapping[str, Any],
) -> Table:
    """F1 of two models on the same people, and how much the first is better.

    Args:
      layout: the AUs that were scored.
      subjects: the people tested on.
      counts: tp, fp, tn, fn of each of them and every AU with the first model.
      others: likewise with the other.
      details: what the caption says.
    """
    total, other = bootstrap.total(counts), bootstrap.total(others)
    low, high = bootstrap.difference_interval(counts, others, subjects)
    columns = {
        "F1": _f1(total),
        "F1 against": _f1(other),
        "difference": _f1(total) - _f1(other),
        "low": _occurring(low, total),
        "high": _occurring(high, total),
    }
    details = {**details, "low to high": interval_of("the difference") + " in pairs"}
    return Table.of_columns(details, (*layout.au_names, *SUMMARIES), columns)


def beside_paper(
    layout: facs.AuLayout, result: Table, measure: str, published: Iterable[paper.System]
) -> Table:
    """All systems of the paper's table, others and, in the last row, a result: AUs as columns.

    Both the printed mean and the mean of the row are shown, and marked where they differ.

    Args:
      layout: that of BP4D or DISFA.
      result: an `evaluation`, or a table with its rows.
      measure: its column.
      published: further systems; those that the paper has, too, stand once.
    """
    systems = list(dict.fromkeys([*paper.SYSTEMS[layout.name], *published]))
    ours = result.column(measure)[: len(layout.aus) + 1]
    rows = [
        Row(
            f"{system.name} *" if system.is_misprinted else system.name,
            tuple(np.divide([*system.f1, system.mean, system.printed_mean], 100).round(6).tolist()),
        )
        for system in systems
    ]
    groups = itertools.groupby(systems, lambda system: system.kind)
    details = {
        "ours": {"measure": measure, **result.details},
        "others": "as printed in the paper",
        "marked *": f"the printed mean is more than {paper.MISPRINT} off the mean of the row",
        **{kind: [system.name for system in group] for kind, group in groups},
    }
    columns = (*layout.au_names, "mean", "printed")
    return Table(details, columns, (*rows, Row("ours", (*ours.tolist(), math.nan))))


def interval_of(what: str) -> str:
    """What the ends of an interval mean."""
    return (
        f"{bootstrap.INTERVAL:.0%} interval of {what} over {bootstrap.DRAWS} draws of test subjects"
    )


def _f1(counts: metrics.Counts) -> Float[np.ndarray, " m"]:
    return _occurring(metrics.f1_and_summaries(counts), counts)


def _occurring(values: Float[np.ndarray, " m"], counts: metrics.Counts) -> Float[np.ndarray, " m"]:
    """Values of AUs and `SUMMARIES`, nan for AUs that never occur."""
    known = np.append(metrics.occurs(counts), [True] * len(SUMMARIES))
    return np.where(known, values, np.nan)


def _with_mean(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
    known = values[~np.isnan(values)]
    mean = known.mean() if len(known) else np.nan
    return np.append(values, [mean, mean, np.nan])


def _percent(fraction: float) -> str:
    if math.isnan(fraction):
        return "n/a"
    # Halves go up, as in the paper, whose mean of 66.05 is printed as 66.1.
    return f"{100 * fraction + 1e-9:.1f}"


def _caption(details: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_detail(value)}" for name, value in details.items())


def _detail(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({_caption(value)})"
    if not isinstance(value, list):
        return str(value)
    if len(value) > LONGEST_LIST:
        return f"{value[0]} ... {value[-1]} ({len(value)} in all)"
    return " ".join(map(str, value))
