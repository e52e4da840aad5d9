# SPDX-License-Identifier: Apache-2.0
"""Runs and what many of them say."""

import functools
import os
import pathlib
from collections.abc import Sequence

from absl import flags

from mdhr_jax.commands import failures
from mdhr_jax.commands.flags import (
    Command,
    Flags,
    checked_config,
    chosen_folds,
    config_flag,
    exactly,
    grid_flags,
    measure_flags,
    path_flag,
    require,
    run_flags,
)
from mdhr_jax.errors import InputError


def _quickstart_flags(values: Flags, arguments: Sequence[str]) -> None:
    path_flag(values, "out", "Directory of the run.", "runs/quickstart")
    flags.DEFINE_enum("layout", "bp4d", ["bp4d", "disfa"], "AU layout.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Of people, scenes and the training.", flag_values=values)


def _quickstart(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax import quickstart

    exactly(arguments)
    quickstart.quickstart(pathlib.Path(values.out), values.layout, values.seed)
    return 0


QUICKSTART = Command(
    "Render faces, train the small model, score it on unseen people; minutes on a CPU.",
    "[--out DIR]",
    "mdhr quickstart --out runs/quickstart",
    _quickstart_flags,
    _quickstart,
)


def _train_flags(values: Flags, arguments: Sequence[str]) -> None:
    run_flags(values, arguments)
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT of process 0, where several train together; the same for all. Slurm's nodes are "
        "known without it.",
        flag_values=values,
    )
    number = "; from Slurm, Open MPI or Kubernetes where one of them starts the processes."
    flags.DEFINE_integer(
        "processes", None, f"How many train together{number}", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer(
        "process", None, f"Which of them this is, from 0{number}", lower_bound=0, flag_values=values
    )


def _train(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax import train
    from mdhr_jax.machine import hosts

    exactly(arguments)
    own = hosts.peer(
        os.environ,
        coordinator=values.coordinator,
        processes=values.processes,
        process=values.process,
    )
    name = f"train, process {own.process} of {own.processes}" if own else "train"
    with hosts.together(own, functools.partial(failures.report, name)):
        train.train(checked_config(values), values.workdir)
    return 0


TRAIN = Command(
    "Train; the same command resumes.",
    "--config NAME|FILE --workdir DIR [--config.KEY=VALUE ...]",
    "mdhr train --config quickstart --workdir runs/a --config.data=data/faces --config.epochs=5",
    _train_flags,
    _train,
)


def _crossval_flags(values: Flags, arguments: Sequence[str]) -> None:
    run_flags(values, arguments)
    measure_flags(values)


def _crossval(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax.studies import crossval

    exactly(arguments)
    workdir = pathlib.Path(values.workdir)
    table = crossval.crossval(
        checked_config(values), workdir, values.protocol, values.oracle_thresholds
    )
    print(table.text(), end="")
    return 0


CROSSVAL = Command(
    "Train and evaluate every fold, and their mean.",
    "--config NAME|FILE --workdir DIR [--config.KEY=VALUE ...]",
    "mdhr crossval --config quickstart --workdir runs/folds "
    "--config.data=data/faces --config.epochs=5",
    _crossval_flags,
    _crossval,
)


def _compare_flags(values: Flags, arguments: Sequence[str]) -> None:
    run_flags(values, arguments)
    path_flag(values, "results", "Directory for runs.jsonl and table.md; default: WORKDIR.")
    flags.DEFINE_multi_string(
        "variant", [], "NAME: KEY=VALUE ...; the first is compared with.", flag_values=values
    )
    grid_flags(values)


def _compare(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax.studies import compare, experiments

    exactly(arguments)
    config = checked_config(values)
    variants = [compare.parse_variant(text, config) for text in values.variant]
    if len({variant.name for variant in variants}) < max(len(values.variant), 1):
        raise InputError("--variant: give at least one, each with a name of its own")
    table = compare.compare(
        experiments.Grid(config, variants, range(values.seeds), chosen_folds(values.folds, config)),
        workdir=pathlib.Path(values.workdir),
        results=pathlib.Path(values.results or values.workdir),
        processes=values.processes,
    )
    print(table, end="")
    return 0


COMPARE = Command(
    "Train variants of a configuration with several seeds, and tabulate the differences.",
    "--config NAME|FILE --workdir DIR --variant NAME: [KEY=VALUE ...] ... [--folds 1,2,3]",
    "mdhr compare --config quickstart --workdir runs/compared "
    "--config.data=data/faces --config.epochs=5 --seeds 1 --variant full "
    "--variant 'no motion: model.dynamics.kind=none'",
    _compare_flags,
    _compare,
)


def _tables_flags(values: Flags, arguments: Sequence[str]) -> None:
    config_flag(values, arguments, "bp4d_resnet50")
    flags.DEFINE_string(
        "table", None, "The paper's 1 to 5, or forms: what it writes otherwise.", flag_values=values
    )
    path_flag(values, "data", "Directory of a prepared data set.")
    path_flag(
        values, "workdir", "Directory of the runs; the same command resumes them.", "runs/tables"
    )
    path_flag(values, "results", "Directory for runs.jsonl, tables, pictures; default: WORKDIR.")
    flags.DEFINE_multi_string(
        "init_from",
        [],
        "BACKBONE=RUN|FILE: where rows with that backbone start; once for each backbone.",
        flag_values=values,
    )
    grid_flags(values)
    flags.DEFINE_integer(
        "budget_steps",
        None,
        "Training steps of a run; default: the configuration's.",
        lower_bound=1,
        flag_values=values,
    )


def _tables(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax.configs import ablations as rows
    from mdhr_jax.run import config_check
    from mdhr_jax.studies import ablations, experiments

    exactly(arguments)
    require(values, "table")
    if values.table not in rows.TABLES:
        raise InputError(f"--table={values.table} is unknown; choose from {', '.join(rows.TABLES)}")
    table = rows.TABLES[values.table]
    if values.data is None:
        print(ablations.listing(table), end="")
        print("To run these rows, add --data DIRECTORY.")
        return 0
    config = checked_config(values)
    config.data = values.data
    if not values["config"].present:  # the default one is BP4D's
        config.layout = table.layout
    grid = experiments.Grid(
        config,
        ablations.variants(
            table, config_check.flatten(config.to_dict()), ablations.parse_starts(values.init_from)
        ),
        range(values.seeds),
        chosen_folds(values.folds, config),
        values.budget_steps,
    )
    text = ablations.run(
        table,
        grid,
        workdir=pathlib.Path(values.workdir),
        results=pathlib.Path(values.results or values.workdir),
        name=f"table-{values.table}",
        processes=values.processes,
    )
    print(text, end="")
    return 0


TABLES = Command(
    "The paper's tables as runs: train what is missing, show ours beside the paper's.",
    "--table 1|2|3|4|5|forms [--data DIR --seeds N --budget_steps N]",
    "mdhr tables --table 3",
    _tables_flags,
    _tables,
)
