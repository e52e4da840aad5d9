# SPDX-License-Identifier: Apache-2.0
"""A run's directory: what lies where, and whether a run may go on in it.

`config.json` says what was trained, `data.json` on what, `metrics.jsonl` how it went,
`checkpoints/` holds the states.
"""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from mdhr_jax import facs
from mdhr_jax.errors import InputError
from mdhr_jax.machine import files
from mdhr_jax.run import provenance, writers
from mdhr_jax.run.recipe import Recipe

# How the same is computed: a run may go on with other values of these.
MEANS = ("deterministic", "fsdp", "input")
# Keys that runs of earlier versions do not have, and what these did.
ADDED = {"allow_seen_subjects": False, "deterministic": False, "jitter_order": "fixed"}
RENAMED = {"region_loss_weight": "auxiliary_loss_weight"}


def config_file(workdir: pathlib.Path) -> pathlib.Path:
    """Where a run keeps its configuration."""
    return workdir / "config.json"


def checkpoints(workdir: pathlib.Path) -> pathlib.Path:
    """Where a run keeps its states."""
    return workdir / "checkpoints"


def claim(workdir: pathlib.Path, recipe: Recipe, learned: provenance.Learned | None = None) -> None:
    """Saves the configuration in a new run, or checks that it trains as an old run does.

    Args:
      workdir: the run.
      recipe: as it is to be trained.
      learned: what it learns from; None for a run that is not trained here.

    Raises:
      InputError: the run was started with other values (the keys are named) or another data set.
    """
    file = config_file(workdir)
    if not file.exists():
        if learned:
            provenance.write(workdir, learned)
        _write(file, recipe)
        return
    stored = load_recipe(workdir)
    old, new = stored.flat(), recipe.flat()
    changed = [
        key
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key not in (*MEANS, "data")
    ]
    if changed:
        listed = ", ".join(f"{key} ({old.get(key)} -> {new.get(key)})" for key in changed)
        raise InputError(
            f"{workdir}: this run has another configuration: {listed}; "
            "use these values again or another --workdir"
        )
    if learned:
        provenance.check(workdir, learned)
    if stored.data != recipe.data:  # the data set has moved
        _write(file, dataclasses.replace(stored, data=recipe.data))


def _write(file: pathlib.Path, recipe: Recipe) -> None:
    files.write(file, json.dumps(recipe.values(), indent=2, sort_keys=True) + "\n")


def load_recipe(workdir: pathlib.Path) -> Recipe:
    """The recipe that a run was started with.

    Raises:
      InputError: the directory holds no run, or no configuration that could be a run's.
    """
    file = config_file(workdir)
    try:
        values = json.loads(file.read_text())
    except (OSError, RecursionError, ValueError) as error:
        raise InputError(f"{workdir}: holds no run (no readable config.json in it)") from error
    if not isinstance(values, dict):
        raise InputError(f"{file}: holds no configuration; bring back a copy of it")
    with naming(file):
        return Recipe.of_values(_as_now(values))


def _as_now(values: dict) -> dict:
    """A configuration of an earlier version as this one would write it."""
    now = ADDED | renamed(values)
    if isinstance(model := now.get("model"), dict):
        now["model"] = {"kind": "mdhr"} | model
    return now


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an earlier version under the names that keys have now."""
    return {RENAMED.get(key, key): value for key, value in values.items()}


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
    """Puts the file before what is wrong with its entries."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def threshold_scalars(
    layout: facs.AuLayout, thresholds: Float[np.ndarray, " n"]
) -> dict[str, float]:
    """Thresholds as scalars of an evaluation."""
    names = (f"threshold/{name}" for name in layout.au_names)
    return dict(zip(names, thresholds.tolist(), strict=True))


def evaluations(workdir: pathlib.Path) -> list[dict]:
    """The evaluation rows of a run so far."""
    return [row for row in writers.read(workdir / "metrics.jsonl") if row["kind"] == "eval"]
