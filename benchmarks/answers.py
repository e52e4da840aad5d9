# SPDX-License-Identifier: Apache-2.0
"""What both sides of side_by_side.py share: the clock, and requests over a pipe.

A request is a line of JSON, `{"name": ..., "windows": ..., "seconds": ...}`, and so is its answer,
`{"answer": ...}` or, when the side cannot do that, `{"error": ...}`. Standard library only: the
sides run in Python environments of their own.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any


def seconds_per_call(
    run: Callable[[], object], wait: Callable[[object], object], windows: int, seconds: float
) -> list[float]:
    """Of every window of about `seconds`, at whose end the last result is waited for.

    A longer call is a window. The first two calls, which compile and warm up, do not count.
    """
    _window(run, wait, 1)
    calls = max(1, round(seconds / _window(run, wait, 1)))
    return [_window(run, wait, calls) for _ in range(windows)]


def first_line(error: Exception) -> str:
    """What an error says before it goes into details."""
    return next(iter(str(error).strip().splitlines()), "")


def _window(run: Callable[[], object], wait: Callable[[object], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        result = run()
    wait(result)
    return (time.perf_counter() - start) / calls


def serve(
    programs: Mapping[str, Callable[[], object]],
    wait: Callable[[object], object],
    facts: Mapping[str, Callable[[], Any]],
) -> None:
    """Answers requests on standard input until it ends.

    Args:
      programs: what is timed, by name.
      wait: waits for the result of a program.
      facts: what is only asked for; a request for it has no windows.
    """
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever is printed meanwhile
    for line in sys.stdin:
        request = json.loads(line)
        name, windows, seconds = request["name"], request["windows"], request["seconds"]
        try:
            timed = windows and seconds_per_call(programs[name], wait, windows, seconds)
            reply = {"answer": timed or facts[name]()}
        except Exception as error:  # told, with its reason, in the table
            reply = {"error": f"{type(error).__name__}: {first_line(error)}"}
        print(json.dumps(reply), file=answers, flush=True)
