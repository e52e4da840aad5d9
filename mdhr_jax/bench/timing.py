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


def measure(run: Callable[[], object], windows: int = WINDOWS) -> Timing:
    """Times calls of `run`, whose results are waited for at the end of each window.

    The first two calls, which compile and warm up, do not count.
    """
    _seconds(run, 1)
    calls = max(1, round(_SECONDS / _seconds(run, 1)))
    seconds = sorted(_seconds(run, calls) for _ in range(windows))
    return Timing(statistics.median(seconds), seconds[0], seconds[-1])


def _seconds(run: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        result = run()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / calls
