# SPDX-License-Identifier: Apache-2.0
"""How far long work is, with the time left."""

import io
import sys

import tqdm

LINE_INTERVAL = 30  # seconds between lines where no terminal shows a bar


class Bar(tqdm.tqdm):
    """A bar on standard error in a terminal; elsewhere, as in logs, a line now and then.

    Args:
      total: where it ends, None if nobody knows.
      unit: what is counted.
      initial: where it begins.
      about: what it stands behind.
      show: False for silence.
    """

    def __init__(
        self,
        total: int | None,
        unit: str,
        *,
        initial: int = 0,
        about: str | None = None,
        show: bool = True,
    ):
        terminal = sys.stderr.isatty()
        super().__init__(
            total=total,
            unit=unit,
            initial=initial,
            desc=about,
            disable=not show,
            file=sys.stderr if terminal else _Lines(),
            mininterval=0.1 if terminal else LINE_INTERVAL,
            dynamic_ncols=terminal,
        )


class _Lines(io.TextIOBase):
    """Standard error for logs: each state of the bar on a line of its own."""

    def write(self, text: str) -> int:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")
        return len(text)
