# SPDX-License-Identifier: Apache-2.0
"""Checks of the program and its machine: speed, state, agreement with the release."""

import json
import pathlib
from collections.abc import Sequence

from absl import flags

from mdhr_jax.commands.flags import (
    Command,
    Flags,
    checked_config,
    config_flag,
    exactly,
    no_flags,
    path_flag,
    require,
)
from mdhr_jax.machine import files

_WHAT = "machine|train|infer|data|saving|collectives"


def _bench_flags(values: Flags, arguments: Sequence[str]) -> None:
    config_flag(values, arguments)
    path_flag(values, "json", "File for everything that was measured.")
    path_flag(
        values, "profile", "Directory for a trace of what was measured (TensorBoard, Perfetto)."
    )
    flags.DEFINE_integer(
        "windows", 5, "Windows whose median counts.", lower_bound=1, flag_values=values
    )


def _bench(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax.bench import run
    from mdhr_jax.run.recipe import Recipe

    (what,) = exactly(arguments, _WHAT)
    recipe = Recipe.of(checked_config(values))
    facts, table = run.run(what, recipe, windows=values.windows, profile=values.profile)
    print(table, end="")
    if values.json:
        files.write(pathlib.Path(values.json), json.dumps(facts, indent=1) + "\n")
    return 0


BENCH = Command(
    "Time steps, scoring, reading, saving or collectives beside what the device can do.",
    f"{_WHAT} --config NAME|FILE [--profile DIR] [--config.KEY=VALUE ...]",
    "mdhr bench infer --config quickstart --windows 1",
    _bench_flags,
    _bench,
)


def _doctor(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax import doctor

    place = pathlib.Path(*exactly(arguments, "DIR")) if arguments else None
    page, well = doctor.doctor(place)
    print(page)
    return 0 if well else 1


DOCTOR = Command(
    "What is installed, devices, memory and disk, a data set's or a run's state; what to do.",
    "[DIR]",
    "mdhr doctor runs/a",
    no_flags,
    _doctor,
)


def _verify_flags(values: Flags, arguments: Sequence[str]) -> None:
    path_flag(values, "golden", "Directory of golden vectors.")
    path_flag(values, "lists", "Directory of the official label lists.")
    flags.DEFINE_list("only", None, "Files to check, by name; default: all.", flag_values=values)
    flags.DEFINE_boolean(
        "training",
        True,
        "Check training, its gradients and optimisation, too, not the evaluation alone.",
        flag_values=values,
    )


def _verify(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax.verify import run

    exactly(arguments)
    require(values, "golden")
    well = run.verify(values.golden, values.lists, only=values.only, training=values.training)
    return 0 if well else 1


VERIFY = Command(
    "Compare with golden vectors of the official release, stage by stage.",
    "--golden DIR [--lists DIR] [--only NAME,...] [--notraining]",
    "mdhr verify --golden tests/golden",
    _verify_flags,
    _verify,
)
