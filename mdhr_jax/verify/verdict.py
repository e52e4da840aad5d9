# SPDX-License-Identifier: Apache-2.0
"""One line of the verdict: a stage, its largest difference, the tolerance, in or out."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np

type Values = np.ndarray | jax.Array | np.number | Sequence | float


@dataclasses.dataclass(frozen=True)
class Check:
    """The outcome of one stage.

    Attributes:
      stage: what was compared.
      difference: the largest difference, in the unit that `tolerance` has; nan counts as out.
      tolerance: the bound; 0 means equal.
      note: what a reader should know besides.
    """

    stage: str
    difference: float
    tolerance: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance."""
        return not math.isnan(self.difference) and self.difference <= self.tolerance

    def __str__(self) -> str:
        verdict = "ok" if self.passed else "OUT"
        return (
            f"  {self.stage:<42} {self.difference:>10.2e}  {self.tolerance:>8.0e}  "
            f"{verdict:<3}  {self.note}"
        ).rstrip()


@dataclasses.dataclass(frozen=True)
class Unchecked:
    """What a golden file holds and nothing here answers to, and why."""

    stage: str
    why: str
    passed = True

    def __str__(self) -> str:
        return f"  {self.stage:<42} not checked: {self.why}"


HEADER = f"  {'stage':<42} {'difference':>10}  {'at most':>8}"


def absolute(stage: str, ours: Values, golden: Values, tolerance: float) -> Check:
    """Largest absolute difference; differing shapes are infinitely apart."""
    ours, golden = np.asarray(ours, np.float64), np.asarray(golden, np.float64)
    if ours.shape != golden.shape:
        return Check(stage, math.inf, tolerance, f"shape {ours.shape}, expected {golden.shape}")
    return Check(stage, float(np.abs(ours - golden).max(initial=0)), tolerance)


def relative(stage: str, ours: Values, golden: Values, tolerance: float) -> Check:
    """Largest difference relative to the golden entry itself; zeros must be met exactly."""
    ours, golden = np.asarray(ours, np.float64), np.asarray(golden, np.float64)
    difference = np.abs(ours - golden)
    scale = np.where(difference == 0, 1, np.abs(golden))
    with np.errstate(divide="ignore"):
        return Check(stage, float((difference / scale).max(initial=0)), tolerance)


def to_largest(stage: str, ours: Values, golden: Values, tolerance: float) -> Check:
    """Largest difference relative to the largest golden entry."""
    scale = float(np.abs(golden).max(initial=0)) or 1.0
    return in_units(stage, ours, golden, scale, tolerance)


def in_units(stage: str, ours: Values, golden: Values, unit: float, tolerance: float) -> Check:
    """Largest difference in this unit."""
    check = absolute(stage, ours, golden, tolerance)
    return dataclasses.replace(check, difference=check.difference / unit)


def exact(stage: str, ours: Values, golden: Values) -> Check:
    """Number of differing entries, none allowed."""
    ours, golden = np.asarray(ours), np.asarray(golden)
    if ours.shape != golden.shape:
        return Check(stage, math.inf, 0.0, f"shape {ours.shape}, expected {golden.shape}")
    return Check(stage, float((ours != golden).sum()), 0.0)
