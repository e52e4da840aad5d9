# SPDX-License-Identifier: Apache-2.0
"""How many frames a second each way of reading gives (`train.INPUTS`)."""

import os
import pathlib
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mdhr_jax import evaluate, runs, sharding, steps, train
from mdhr_jax.data import decoded, pipeline, records


class Rate(NamedTuple):
    """Frames per second of one way of reading.

    Attributes:
      input: key of `train.INPUTS`.
      frames: how many were read, each once.
      cold: with nothing of the files in memory.
      warm: right after that.
    """

    input: str
    frames: int
    cold: float
    warm: float


def measure(config: ConfigDict) -> list[Rate]:
    """Reads every frame of the configured data set once, in batches as in training.

    Frames that the devices hold are gathered there; cold, they are brought there first.

    Raises:
      InputError: no data set, or a picture that cannot be read.
    """
    source, mesh = runs.open_data(config), sharding.make_mesh()
    decoded.pictures(source, progress=True)
    return [_rate(config, source, mesh, name) for name in train.INPUTS]


def _rate(config: ConfigDict, source: records.FrameSource, mesh: Mesh, name: str) -> Rate:
    _forget(source.path)
    start = time.perf_counter()
    source, put = train.INPUTS[name](source, mesh)
    _read(config, source, put, mesh)
    between = time.perf_counter()
    _read(config, source, put, mesh)
    end = time.perf_counter()
    frames = len(source.table)
    return Rate(name, frames, frames / (between - start), frames / (end - between))


def _read(config: ConfigDict, source: records.FrameSource, put: train.Put, mesh: Mesh) -> None:
    """What a loader does for all frames, whether or not a device takes them."""
    for batch in _batches(config, source, mesh):
        if source.by_row:
            jax.block_until_ready(_gather(put(batch)))


_gather = jax.jit(steps.frames)


def _batches(
    config: ConfigDict, source: records.FrameSource, mesh: Mesh
) -> Iterator[pipeline.Batch]:
    """Every frame is tested in one fold."""
    for fold in range(1, len(source.folds) + 1):
        yield from pipeline.eval_batches(
            source,
            fold=fold,
            clip_length=config.clip_length,
            batch_size=evaluate.batch_size(config.batch_size, mesh),
        )


def _forget(folder: pathlib.Path) -> None:
    """Drops what the system keeps of the files in memory."""
    for file in folder.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
