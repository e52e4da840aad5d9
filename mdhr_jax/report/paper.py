# SPDX-License-Identifier: Apache-2.0
"""The paper's Tables 1 (BP4D) and 2 (DISFA): F1 per AU of every system in them, as printed.

The printed means are theirs; some are not the mean of their row. They stand in `paper.json`.
"""

import importlib.resources
import json
import math
import statistics
from typing import NamedTuple

MISPRINT = 0.3  # points between printed mean and mean of the row that rounding can't explain


class System(NamedTuple):
    """A row of the paper's table.

    Attributes:
      name: as printed.
      kind: the paper's group.
      printed_mean: of F1 over AUs, percent.
      f1: percent per AU, in the layout's order; nan where the mean alone is published.
    """

    name: str
    kind: str
    printed_mean: float
    f1: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of the row, percent; the printed one where that is all."""
        return statistics.fmean([x for x in self.f1 if not math.isnan(x)] or [self.printed_mean])

    @property
    def is_misprinted(self) -> bool:
        """Whether printed mean and row say different things."""
        return abs(self.printed_mean - self.mean) > MISPRINT


def _read() -> dict[str, tuple[System, ...]]:
    text = importlib.resources.files("mdhr_jax.report").joinpath("paper.json").read_text()
    return {
        layout: tuple(System(**{**row, "f1": tuple(row["f1"])}) for row in rows)
        for layout, rows in json.loads(text).items()
    }


SYSTEMS = _read()
"""Systems in the paper's order, by the name of their data set's layout."""
