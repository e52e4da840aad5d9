# SPDX-License-Identifier: Apache-2.0
"""What `mdhr bench` measures, by name."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from mdhr_jax import runs, sharding
from mdhr_jax.bench import collectives, data, report, steps
from mdhr_jax.errors import InputError


def _train(config: ConfigDict, windows: int) -> tuple[dict, str]:
    said = report.step_facts("train", config, steps.training(config, windows))
    return said, report.step_table(said)


def _infer(config: ConfigDict, windows: int) -> tuple[dict, str]:
    said = report.step_facts("infer", config, steps.scoring(config, windows))
    return said, report.step_table(said)


def _data(config: ConfigDict, windows: int) -> tuple[dict, str]:
    runs.open_data(config)  # what is wrong with it is said before a step is measured
    step = steps.training(config, windows)
    said = report.data_facts(config, data.measure(config, step.timing.median), step)
    return said, report.data_table(said)


def _collectives(config: ConfigDict, windows: int) -> tuple[dict, str]:
    rates = collectives.measure(sharding.make_mesh(config.fsdp), windows)
    said = report.collectives_facts(config, rates)
    return said, report.collectives_table(said)


KINDS: Mapping[str, Callable[[ConfigDict, int], tuple[dict, str]]] = {
    "train": _train,
    "infer": _infer,
    "data": _data,
    "collectives": _collectives,
}


def run(
    what: str, config: ConfigDict, *, windows: int, profile: str | None
) -> tuple[dict[str, Any], str]:
    """Measures; what came out as facts for a JSON file and as a table.

    Args:
      what: key of `KINDS`.
      config: of the run whose programs or data are measured.
      windows: whose median counts.
      profile: directory for a trace, if there is to be one.

    Raises:
      InputError: nothing of that name, a wrong configuration, or no data set for `data`.
    """
    if what not in KINDS:
        raise InputError(f"{what}: nothing to measure; choose from {', '.join(KINDS)}")
    runs.check(config)
    with jax.profiler.trace(profile) if profile else contextlib.nullcontext():
        return KINDS[what](config, windows)
