# SPDX-License-Identifier: Apache-2.0
"""Scalars of a run: `metrics.jsonl`, TensorBoard and a progress bar.

`metrics.jsonl` holds one JSON object per line, `{"step": 50, "kind": "train", "loss": 0.31, ...}`,
kind "train" or "eval". A step is a finished update. The file holds only what the run computes, so
that two equal runs write equal files; clock times go to TensorBoard and the progress bar.
"""

import contextlib
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import SupportsFloat

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from mdhr_jax import errors
from mdhr_jax.machine import files
from mdhr_jax.machine.progress import Bar


class RunWriter:
    """Writes the scalars of one run; call `close` at the end.

    Args:
      workdir: directory of the run; gets `metrics.jsonl` and `tensorboard/`.
      step: the checkpoint's step that the run goes on from, 0 for a new run; drops later rows.
      total_steps: where the progress bar ends.

    Raises:
      InputError: `metrics.jsonl` is damaged.
      OSError: it cannot be written; here and in every method.
    """

    def __init__(self, workdir: pathlib.Path, *, step: int, total_steps: int):
        rows = workdir / "metrics.jsonl"
        last = resume_at(rows, step)
        self._rows = rows.open("a", buffering=1)  # a finished line survives the process
        (workdir / "tensorboard").mkdir(exist_ok=True)
        # Not a SummaryWriter: when its thread cannot write, the run waits for ever.
        self._events = EventsWriter(str(workdir / "tensorboard/events"))
        again = SessionLog(status=SessionLog.START)  # hides what an earlier process wrote later
        self._events.write_event(Event(wall_time=time.time(), step=step + 1, session_log=again))
        self._progress = Bar(total_steps, "step", initial=step)
        if last < step:
            self.say(
                f"{rows}: ends at step {last}, before the checkpoint's {step}; what is missing is "
                "lost, the run goes on"
            )

    def train(
        self,
        step: int,
        values: Mapping[str, SupportsFloat],
        *,
        frames_per_second: float,
        input_wait: float,
    ) -> None:
        """Scalars of a training step, `loss` among them; the progress bar moves to `step`.

        Args:
          step: updates so far.
          values: what the step computed.
          frames_per_second: of the step.
          input_wait: share of the step's time in which the loop waited for its input.
        """
        self._write(step, "train", values)
        self._add_event("speed/frames_per_second", frames_per_second, step)
        self._add_event("speed/input_wait", input_wait, step)
        shown = {
            "loss": f"{float(values['loss']):.4f}",
            "frames/s": f"{frames_per_second:.0f}",
            "input": f"{input_wait:.1%}",
        }
        self._progress.set_postfix(shown, refresh=False)
        self._progress.update(step - self._progress.n)

    def evaluation(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Scalars of an evaluation, shown as a line, the F1 of AUs (`f1/AU01`) on another."""
        self._write(step, "eval", values)
        shown = [f"{name} {float(x):.4f}" for name, x in values.items() if "/" not in name]
        self.say(f"step {step}: {', '.join(shown)}")
        aus = [(name[3:], float(x)) for name, x in values.items() if name.startswith("f1/")]
        if aus:
            self.say(f"  F1 in %: {', '.join(f'{au} {100 * f1:.0f}' for au, f1 in aus)}")

    def say(self, line: str) -> None:
        """A line above the progress bar."""
        self._progress.write(line, file=sys.stderr)

    def sync(self) -> None:
        """Brings `metrics.jsonl` to the disk."""
        os.fsync(self._rows.fileno())

    def close(self) -> None:
        """Closes the files and ends the progress bar."""
        closing = contextlib.closing  # of all of them, even if one cannot be written
        with closing(self._rows), closing(self._events), closing(self._progress):
            pass

    def _write(self, step: int, kind: str, values: Mapping[str, SupportsFloat]) -> None:
        numbers = {name: float(value) for name, value in values.items()}
        finite = {name: x if math.isfinite(x) else None for name, x in numbers.items()}
        self._rows.write(json.dumps({"step": step, "kind": kind, **finite}) + "\n")
        for name, number in numbers.items():
            self._add_event(f"{kind}/{name}", number, step)
        self._events.flush()  # a killed run goes on behind its last checkpoint

    def _add_event(self, name: str, number: float, step: int) -> None:
        scalar = summary.scalar(name, number)
        self._events.write_event(Event(wall_time=time.time(), step=step, summary=scalar))


class Silence:
    """A `RunWriter` of a process whose run another one writes."""

    def __init__(self, workdir: pathlib.Path, *, step: int, total_steps: int):
        pass

    def train(self, step: int, values: Mapping[str, SupportsFloat], **measured: float) -> None:
        pass

    def evaluation(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        pass

    def say(self, line: str) -> None:
        pass

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


def read(path: pathlib.Path) -> list[dict]:
    """The finished rows of a `metrics.jsonl`; none when there is no file.

    Raises:
      InputError: a line is not a JSON object with a step.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_text().split("\n")  # a line cut short by a kill has no end
    return [_row(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]


def resume_at(path: pathlib.Path, step: int) -> int:
    """Drops the rows after `step` from a `metrics.jsonl`, all or none of them.

    Returns:
      The step of the last row, 0 if there is none.

    Raises:
      InputError: a line is not a JSON object with a step.
    """
    kept = [row for row in read(path) if row["step"] <= step]
    files.write(path, "".join(json.dumps(row) + "\n" for row in kept))
    return max((row["step"] for row in kept), default=0)


def _row(line: str, place: str) -> dict:
    try:
        row = json.loads(line)
        row["step"]
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise errors.InputError(
            f"{place}: expected a JSON object with a step: delete the line or the file"
        ) from error
    return row
