# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint costs a training that goes on beside it."""

import pathlib
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax

from mdhr_jax.bench import steps, timing
from mdhr_jax.machine import sharding
from mdhr_jax.run import checkpoint
from mdhr_jax.run.recipe import Recipe


class Saving(NamedTuple):
    """Medians of several checkpoints.

    Attributes:
      alone: seconds of a step while nothing is written.
      beside: seconds of a step until a checkpoint is wholly written.
      returns: seconds that the training waits for `Saver.save`.
      written: seconds until the checkpoint counts.
      bytes: of the state that is saved.
    """

    alone: float
    beside: float
    returns: float
    written: float
    bytes: int


def measure(recipe: Recipe, windows: int) -> Saving:
    """Saves a training's state into the directory for temporary files while it takes steps.

    Raises:
      InputError: the configuration is wrong, or a checkpoint cannot be written there.
    """
    mesh = sharding.make_mesh(recipe.fsdp)
    training = steps.Training(recipe, mesh)
    batch = steps.random_batch(recipe, recipe.batch_size, mesh)
    alone = timing.measure(lambda: training(batch), windows).median
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(training.state))
    with tempfile.TemporaryDirectory() as folder:
        with checkpoint.Saver(pathlib.Path(folder)) as saver:
            found = [_saved(saver, training, batch, step) for step in range(1, windows + 1)]
    beside, returns, written = map(statistics.median, zip(*found, strict=True))
    return Saving(alone, beside, returns, written, size)


def _saved(
    saver: checkpoint.Saver, training: steps.Training, batch: dict, step: int
) -> tuple[float, float, float]:
    """Seconds of a step beside a checkpoint, until it was taken, until it is written."""
    start = time.perf_counter()
    saver.save(["last"], step, training.state)
    taken, count = time.perf_counter(), 0
    with ThreadPoolExecutor(1) as beside:
        written = beside.submit(saver.wait)
        while not (count and written.done()):
            jax.block_until_ready(training(batch))
            count += 1
        end = time.perf_counter()
        written.result()
    return (end - taken) / count, taken - start, end - start
