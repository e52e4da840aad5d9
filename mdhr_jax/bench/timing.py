# SPDX-License-Identifier: Apache-2.0
"""Seconds per call, as the median of windows."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax

WINDOWS = 5
_SECONDS = 1.0  # of a window, about


class Timing(NamedTuple):
    """Seconds per call in the median window, the fastest and the slowest."""

    median: float
    fastest: float
    slowest: float


def measure(run: Callable[[], object], windows: int = WINDOWS, seconds: float = _SECONDS) -> Timing:
    """Times calls of `run`, whose results are waited for at the end of each window.

    The first two calls, which compile and warm up, do not count.

    Args:
      run: the call.
      windows: how many.
      seconds: of a window, about; a longer call is a window.
    """
    _seconds(run, 1)
    calls = max(1, round(seconds / _seconds(run, 1)))
    taken = sorted(_seconds(run, calls) for _ in range(windows))
    return Timing(statistics.median(taken), taken[0], taken[-1])


def _seconds(run: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        result = run()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / calls
