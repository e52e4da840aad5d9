# SPDX-License-Identifier: Apache-2.0
"""What `mdhr bench` measures, by name."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from mdhr_jax.bench import collectives, data, report, roofline, saving, steps
from mdhr_jax.bench import profile as traces
from mdhr_jax.errors import InputError
from mdhr_jax.machine import sharding
from mdhr_jax.run.recipe import Recipe


class Result(NamedTuple):
    """What was measured: facts for a JSON file, a table, the compiled program if there is one."""

    facts: dict[str, Any]
    table: str
    program: str = ""


def _machine(recipe: Recipe, windows: int) -> Result:
    del windows
    facts = report.machine_facts(recipe, roofline.machine(recipe.dtype))
    return Result(facts, report.machine_table(facts))


def _train(recipe: Recipe, windows: int) -> Result:
    return _step("train", recipe, steps.training(recipe, windows))


def _infer(recipe: Recipe, windows: int) -> Result:
    return _step("infer", recipe, steps.scoring(recipe, windows))


def _step(what: str, recipe: Recipe, measured: steps.Measured) -> Result:
    facts = report.step_facts(what, recipe, measured)
    return Result(facts, report.step_table(facts), measured.program)


def _data(recipe: Recipe, windows: int) -> Result:
    recipe.open_data()  # what is wrong with it is facts before a step is measured
    step = steps.training(recipe, windows)
    facts = report.data_facts(recipe, data.measure(recipe, step.timing.median), step)
    return Result(facts, report.data_table(facts))


def _saving(recipe: Recipe, windows: int) -> Result:
    facts = report.saving_facts(recipe, saving.measure(recipe, windows))
    return Result(facts, report.saving_table(facts))


def _collectives(recipe: Recipe, windows: int) -> Result:
    rates = collectives.measure(sharding.make_mesh(recipe.fsdp), windows)
    facts = report.collectives_facts(recipe, rates)
    return Result(facts, report.collectives_table(facts))


KINDS: Mapping[str, Callable[[Recipe, int], Result]] = {
    "machine": _machine,
    "train": _train,
    "infer": _infer,
    "data": _data,
    "saving": _saving,
    "collectives": _collectives,
}


def _traced(folder: str) -> contextlib.AbstractContextManager[object]:
    """Without Python's own calls, which slow the program down."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    return jax.profiler.trace(folder, profiler_options=options)


def run(
    what: str, recipe: Recipe, *, windows: int, profile: str | None
) -> tuple[dict[str, Any], str]:
    """Measures; what came out as facts for a JSON file and as a table.

    Args:
      what: key of `KINDS`.
      recipe: of the run whose programs or data are measured.
      windows: whose median counts.
      profile: directory for a trace, if there is to be one; where a program's time goes is facts
        then, too.

    Raises:
      InputError: nothing of that name, a wrong configuration, or no data set for `data`.
    """
    if what not in KINDS:
        raise InputError(f"{what}: nothing to measure; choose from {', '.join(KINDS)}")
    with _traced(profile) if profile else contextlib.nullcontext():
        facts, table, program = KINDS[what](recipe, windows)
    if profile and program:
        seconds = traces.instructions(profile, program)
        facts["spent"] = report.spent_facts(traces.spent(seconds, program))
        facts["kernels"] = report.kernel_facts(seconds, traces.works(program))
        table += f"\n{report.spent_table(facts['spent'])}\n{report.kernel_table(facts['kernels'])}"
    return facts, table
