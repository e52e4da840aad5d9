# SPDX-License-Identifier: Apache-2.0
"""The even pace at which frames follow each other, and how many are missing between two of them.

Training, evaluation and prediction cut their clips by this one rule: a clip goes on as long as no
more frames are missing in a row than it may hold, and never where their number is infinite.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, Num

_BRIDGED = 2.1  # steps by a clock that are one: times are rounded, and a frame may be lost
_ROUNDING = 0.2  # steps


def is_other(fps: float | None, trained: float | None) -> bool:
    """Whether frames per second are so far from those of training that motion looks different.

    Differences between frames are smaller in a faster film. Unknown ones are not.
    """
    return bool(fps and trained and not 2 / 3 < fps / trained < 3 / 2)


def missing(steps: Float[np.ndarray, "*m"]) -> Float[np.ndarray, "*m"]:
    """How many frames are missing where one comes so many steps after the one before it.

    Infinite where no movement leads from one to the other: they lie no whole number of steps apart,
    in the wrong order, or an unknown number (NaN).
    """
    return np.where((steps >= 1) & (steps % 1 == 0), steps - 1, np.inf)


def missing_by_clock(seconds: float, rate: float | None) -> float:
    """The same for two frames of a film, so many seconds apart at so many frames per second.

    At an unknown rate every frame is one that no movement leads to.
    """
    steps = np.nan if rate is None else seconds * rate
    if 0 <= steps <= _BRIDGED:
        return 0.0
    near = abs(steps - np.rint(steps)) < _ROUNDING
    return float(missing(np.asarray(np.rint(steps) if near else steps)))


def step(numbers: Num[np.ndarray, " m"]) -> int:
    """The step at which numbers go on: 10 where every tenth frame was kept, otherwise one.

    It is their smallest one, and more than half of them keep it: what losses leave has no such
    step, nor have two numbers alone.
    """
    steps, counts = np.unique(np.diff(numbers), return_counts=True)
    kept = len(steps) and steps[0] > 0 and counts[0] > max(1, counts.sum() / 2)
    return int(steps[0]) if kept else 1


def gaps(numbers: Num[np.ndarray, " m"], every: int | None = None) -> Float[np.ndarray, " m"]:
    """How many frames are `missing` before each of these; none before the first.

    Args:
      numbers: of the frames.
      every: their step; None: the one that they show themselves.
    """
    lost = missing(np.diff(numbers) / (every or step(numbers)))
    return np.append(0.0, lost)[: len(numbers)]


def places(
    numbers: Int[np.ndarray, " m"], every: int | None = None
) -> tuple[Int[np.ndarray, " m"], Bool[np.ndarray, " m"]]:
    """Where frames stand in a row that also has room for missing ones; and before which it breaks.

    Arguments as for `gaps`.
    """
    lost = gaps(numbers, every)
    breaks = np.isinf(lost)
    return np.cumsum(1 + np.where(breaks, 0, lost)).astype(np.int64), breaks
