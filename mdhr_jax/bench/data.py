# SPDX-License-Identifier: Apache-2.0
"""How many frames a second each way of reading gives (`inputs.INPUTS`)."""

import os
import pathlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from mdhr_jax.bench import steps
from mdhr_jax.data import decoded, pipeline, records
from mdhr_jax.machine import sharding
from mdhr_jax.numerics import steps as step_programs
from mdhr_jax.run import inputs
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.run.scoring import whole_batches

_WATCHED = 2.0  # seconds of training, about, that each input feeds
_READERS = 4  # threads that read the file of decoded pictures


class Rate(NamedTuple):
    """Frames per second of one way of reading.

    Attributes:
      input: key of `inputs.INPUTS`, or `decoded.npy` for that file alone.
      frames: how many were read, each once.
      cold: with nothing of the files in memory.
      warm: right after that.
      wait: share of a training's time in which it waits for this input; None for the file.
      fed: seconds of a training step that this input feeds; None for the file.
    """

    input: str
    frames: int
    cold: float
    warm: float
    wait: float | None
    fed: float | None


def measure(recipe: Recipe, step_seconds: float) -> list[Rate]:
    """Reads every frame of the configured data set once, in batches as in training.

    Frames that the devices hold are gathered there; cold, they are brought there first. The first
    rate is that of the decoded pictures' file, read from its beginning to its end: what the disk,
    or the system's memory, gives at most.

    Args:
      recipe: names the data set.
      step_seconds: of a training step, which says how many are fed.

    Raises:
      InputError: no data set, or a picture that cannot be read.
    """
    source, mesh = recipe.open_data(), sharding.make_mesh()
    file = _file_rate(source)  # later, pages that resident pictures map would stay in memory
    training, fed = steps.Training(recipe, mesh), max(3, round(_WATCHED / step_seconds))
    return [file, *(_rate(recipe, source, mesh, name, training, fed) for name in inputs.INPUTS)]


def _rate(
    recipe: Recipe,
    source: records.FrameSource,
    mesh: Mesh,
    name: str,
    training: steps.Training,
    fed: int,
) -> Rate:
    _forget(source.path)
    start = time.perf_counter()
    source, put = inputs.INPUTS[name](source, mesh)
    _read(recipe, source, put, mesh)
    cold = time.perf_counter() - start
    warm = _seconds(lambda: _read(recipe, source, put, mesh))
    frames = len(source.table)
    wait, step = _fed(inputs.training_batches(recipe, source, 0), put, training, fed)
    return Rate(name, frames, frames / cold, frames / warm, wait, step)


def _fed(
    batches: Iterator[pipeline.Batch],
    put: inputs.Put,
    take_step: Callable[[step_programs.Batch], object],
    count: int,
) -> tuple[float, float]:
    """Share of time in which so many steps wait for their batches, and seconds of each.

    As in a training, a step is waited for when the next one is under way.
    """
    feed, before = pipeline.ahead(batches, put), None
    for _ in range(2):  # compile, and what comes before the first step is no matter of speed
        jax.block_until_ready(take_step(next(feed)[1]))
    start, waited = time.perf_counter(), 0.0
    for _ in range(count):
        asked = time.perf_counter()
        _, placed = next(feed)
        waited += time.perf_counter() - asked
        jax.block_until_ready(before)
        before = take_step(placed)
    jax.block_until_ready(before)
    seconds = time.perf_counter() - start
    return waited / seconds, seconds / count


def _file_rate(source: records.FrameSource) -> Rate:
    pictures = decoded.pictures(source, progress=True)
    rows = np.array_split(np.arange(len(pictures)), -(-len(pictures) // 16))
    place = np.empty((16, *pictures.shape[1:]), np.uint8)  # of all threads: nobody looks at it

    def read() -> None:
        with ThreadPoolExecutor(_READERS) as pool:
            for _ in pool.map(lambda some: decoded.read(pictures, some, place[: len(some)]), rows):
                pass

    _forget(source.path)
    frames = len(pictures)
    return Rate("decoded.npy", frames, frames / _seconds(read), frames / _seconds(read), None, None)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _read(recipe: Recipe, source: records.FrameSource, put: inputs.Put, mesh: Mesh) -> None:
    """What a loader does for all frames, whether or not a device takes them."""
    for batch in _batches(recipe, source, mesh):
        if source.by_row:
            jax.block_until_ready(_gather(put(batch)))


_gather = jax.jit(step_programs.frames)


def _batches(recipe: Recipe, source: records.FrameSource, mesh: Mesh) -> Iterator[pipeline.Batch]:
    """Every frame is tested in one fold."""
    for fold in range(1, len(source.folds) + 1):
        yield from pipeline.eval_batches(
            source,
            fold=fold,
            clip_length=recipe.clip_length,
            batch_size=whole_batches(recipe.batch_size, mesh),
        )


def _forget(folder: pathlib.Path) -> None:
    """Drops what the system keeps of the files in memory."""
    for file in folder.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
