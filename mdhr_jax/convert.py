# SPDX-License-Identifier: Apache-2.0
"""`mdhr convert`: a trained model from one form to another, run or weight file."""

import dataclasses
import pathlib

from mdhr_jax.errors import InputError
from mdhr_jax.interop import families, files, official
from mdhr_jax.machine import locks
from mdhr_jax.run import checkpoint, directory, provenance, seen
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.run.trained import Trained, load_trained


def convert(source: pathlib.Path, target: pathlib.Path, *, clip_length: int, k: int) -> None:
    """Reads a model from `source` and writes it to `target`; either is a run or a weight file.

    A file holds weights only: a run's configuration and the thresholds that it chose stay behind.

    Args:
      source: a run, or an official file of PyTorch or safetensors.
      target: a directory for a new run, or a file (`.pth`, `.pt`, `.safetensors`).
      clip_length: T, frames, for a model from a file: files do not say it.
      k: half the temporal window, frames, likewise.

    Raises:
      InputError: nothing readable in `source`, a model that has no official form, or a run that is
        there already.
    """
    trained = load_trained(source)
    if target.suffix in files.SUFFIXES:
        files.write(target, _official(trained))
        return
    recipe = trained.recipe
    if files.is_weight_file(source):
        recipe = _timed(recipe, clip_length, k)
    with locks.alone(target, "name another directory"):
        if directory.config_file(target).exists():
            raise InputError(f"{target}: holds a run already; name another directory")
        directory.claim(target, recipe, _learned(source))
        kind, step = trained.protocol.checkpoint, int(trained.state["step"])
        is_file = files.is_weight_file(source)
        facts = {} if is_file else checkpoint.facts(directory.checkpoints(source), kind, step)
        for each in {"last", kind}:  # `last` tells training that it cannot go on
            checkpoint.save(directory.checkpoints(target), each, step, trained.state, facts)


def _timed(recipe: Recipe, clip_length: int, k: int) -> Recipe:
    """The recipe of a file's model with what files do not say of time; of frames there is none."""
    if recipe.kind.static:
        return recipe
    dynamics = dataclasses.replace(recipe.model.dynamics, k=k)
    model = dataclasses.replace(recipe.model, dynamics=dynamics)
    return dataclasses.replace(recipe, clip_length=clip_length, model=model)


def _learned(source: pathlib.Path) -> provenance.Learned | None:
    """What the model has learned from, as far as the source says."""
    learned = None if files.is_weight_file(source) else provenance.read(source)
    if learned is None:
        return None
    known = seen.of_model(source)
    return dataclasses.replace(learned, people=known.people, unknown=list(known.unknown))


def _official(trained: Trained) -> dict:
    recipe = trained.recipe
    try:
        release = families.of_model(recipe.kind_name, recipe.layout, recipe.model)
    except ValueError as error:
        raise InputError(
            f"{trained.path}: not a model of the release, which has no {error}; only the "
            "release's have an official form"
        ) from error
    return official.export(trained.state, release.rows)
