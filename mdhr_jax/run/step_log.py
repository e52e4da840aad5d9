# SPDX-License-Identifier: Apache-2.0
"""The scalars of steps, logged one step late."""

import pathlib
import time
from collections.abc import Iterator

import jax
import numpy as np

from mdhr_jax.data import pipeline
from mdhr_jax.errors import NonFiniteLossError
from mdhr_jax.run import writers


class LateLog:
    """Logs a step's scalars when the next step is under way, so that the device never waits.

    A step whose loss or gradient is not finite has changed nothing (`steps`); it is told of, and
    after `PATIENCE` of them in a row the run stops.
    """

    PATIENCE = 3

    def __init__(
        self,
        workdir: pathlib.Path,
        writer: writers.RunWriter | writers.Silence,
        frames_per_step: int,
    ):
        self._workdir, self._writer, self._frames = workdir, writer, frames_per_step
        self._waiting: tuple[int, dict[str, jax.Array], pipeline.Batch] | None = None
        self._wasted = 0  # steps in a row
        self.restart_clock()

    def take[Item](self, feed: Iterator[Item]) -> Item:
        """The next of `feed`; the time that it takes is one of waiting for input."""
        start = time.perf_counter()
        fed = next(feed)
        self._waited += time.perf_counter() - start
        return fed

    def add(self, step: int, scalars: dict[str, jax.Array], batch: pipeline.Batch) -> None:
        """Takes a step's scalars, and what it learned from; logs those of the step before."""
        self.flush()
        self._waiting = step, scalars, batch

    def flush(self) -> None:
        """Logs what waits; NonFiniteLossError after too many steps in vain."""
        if self._waiting is None:
            return
        (step, scalars, batch), self._waiting = self._waiting, None
        values = {name: float(value) for name, value in scalars.items()}
        seconds = time.perf_counter() - self._since
        self._writer.train(
            step,
            values,
            frames_per_second=self._frames / seconds,
            input_wait=self._waited / seconds,
        )
        bad = [name for name in ("loss", "gradient_norm") if not np.isfinite(values[name])]
        self._wasted = self._wasted + 1 if bad else 0
        if bad:
            self._tell(step, f"the {bad[0].replace('_', ' ')} is {values[bad[0]]}", batch)
        self.restart_clock()

    def _tell(self, step: int, what: str, batch: pipeline.Batch) -> None:
        if self._wasted < self.PATIENCE:
            self._writer.say(f"step {step}: {what}; the step is left out")
            return
        own = f"-{jax.process_index()}" if jax.process_count() > 1 else ""
        file = self._workdir / f"nonfinite{own}.npz"
        np.savez(file, **batch)  # type: ignore[arg-type]  # no array is called allow_pickle
        raise NonFiniteLossError(
            f"steps {step - self.PATIENCE + 1} to {step}: {what}; the last checkpoint is kept, and "
            f"{file} holds the batch: resume with a lower config.learning_rate in another --workdir"
        )

    def restart_clock(self) -> None:
        """Leaves what came between two steps out of the frames per second and the waiting."""
        self._since, self._waited = time.perf_counter(), 0.0
