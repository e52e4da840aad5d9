# SPDX-License-Identifier: Apache-2.0
"""What a run learns from: batches of a data set, read as the recipe says."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from mdhr_jax import facs
from mdhr_jax.data import decoded, pipeline, records
from mdhr_jax.errors import InputError
from mdhr_jax.machine import hosts, sharding
from mdhr_jax.numerics import preprocess, steps
from mdhr_jax.run.recipe import Recipe, chosen

type Put = Callable[[pipeline.Batch], steps.Batch]
type Fed = tuple[pipeline.Batch, steps.Batch]


def reading(
    recipe: Recipe, source: records.FrameSource, mesh: Mesh
) -> tuple[records.FrameSource, Put]:
    """The data set as `config.input` reads it, and what brings its batches to the devices.

    Raises:
      InputError: no such way of reading, or no place for decoded pictures.
    """
    return chosen("input", INPUTS, recipe.input)(source, mesh)


def _encoded(source: records.FrameSource, mesh: Mesh) -> tuple[records.FrameSource, Put]:
    return source, functools.partial(sharding.put_batch, mesh)


def _mapped(source: records.FrameSource, mesh: Mesh) -> tuple[records.FrameSource, Put]:
    pictures = decoded.pictures(source, progress=hosts.is_first())
    read = functools.partial(decoded.read, pictures)
    return _encoded(dataclasses.replace(source, decoded=read), mesh)


def _resident(source: records.FrameSource, mesh: Mesh) -> tuple[records.FrameSource, Put]:
    pictures = sharding.put_everywhere(mesh, decoded.pictures(source, progress=hosts.is_first()))
    by_row, put = _encoded(dataclasses.replace(source, by_row=True), mesh)
    return by_row, lambda batch: put(batch) | {"pictures": pictures}


INPUTS = {"encoded": _encoded, "mapped": _mapped, "resident": _resident}


def steps_per_epoch(recipe: Recipe, source: records.FrameSource) -> int:
    """Training steps that an epoch has, the last one counted whole."""
    return pipeline.steps_per_epoch(
        source,
        fold=recipe.fold,
        clip_length=recipe.clip_length,
        clips_per_video=recipe.clips_per_video,
        batch_size=recipe.batch_size,
    )


def count_steps(recipe: Recipe, source: records.FrameSource) -> int:
    """Steps of the whole run; at least one."""
    return recipe.steps or max(1, round(recipe.epochs * steps_per_epoch(recipe, source)))


def class_weights(recipe: Recipe, source: records.FrameSource) -> Float[np.ndarray, " n"]:
    """Of the AUs, from the training labels of the fold.

    Raises:
      InputError: no AU is ever active there.
    """
    labels = source.table.labels[source.rows(recipe.fold, "train")]
    known = np.maximum((labels >= 0).sum(0), 1)
    rates = (labels == 1).sum(0) / known
    if not rates.any():
        raise InputError(f"{source.path}: no AU is ever active in fold {recipe.fold}'s training")
    never = [name for name, rate in zip(source.layout.au_names, rates, strict=True) if not rate]
    if never and hosts.is_first():
        # Its weight would be infinite; that of the rarest other AU still teaches "not active".
        print(f"{source.path}: {', '.join(never)} never active in training, weighted as the rarest")
    return facs.class_weights(np.where(rates > 0, rates, rates[rates > 0].min()))


def training_batches(
    recipe: Recipe, source: records.FrameSource, start: int, part: range | None = None
) -> Iterator[pipeline.Batch]:
    """The run's batches from step `start` on, or those clips of them that are in `part`."""
    return pipeline.train_batches(
        source,
        fold=recipe.fold,
        clip_length=recipe.clip_length,
        batch_size=recipe.batch_size,
        clips_per_video=recipe.clips_per_video,
        seed=recipe.seed,
        crop_offsets=preprocess.crop_offsets(recipe.image_size, recipe.augmentation),
        colour_jitter=preprocess.COLOUR_JITTER * recipe.augmentation,
        context=recipe.context,
        start_step=start,
        micro_batches=recipe.accumulate,
        part=part,
    )
