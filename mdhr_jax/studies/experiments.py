# SPDX-License-Identifier: Apache-2.0
"""Trainings that belong together: variants of a configuration, each with several seeds and folds.

A finished run leaves one line in `runs.jsonl`: what was run, and its counts per test subject, from
which every table is made. Runs of one seed share the initial values of the parts that they share,
the order of clips and the augmentation, so variants are compared seed by seed.
"""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from mdhr_jax import evaluate, train
from mdhr_jax.errors import InputError, NonFiniteLossError
from mdhr_jax.machine import locks, notes, workers
from mdhr_jax.machine.progress import Bar
from mdhr_jax.run import config_check, directory, kinds, seen
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.run.trained import load_trained

RUNS = "runs.jsonl"


@dataclasses.dataclass(frozen=True)
class Variant:
    """A name, and the configuration keys in which it differs from the common configuration."""

    name: str
    overrides: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """What a finished run leaves.

    Attributes:
      variant: its name.
      seed: of initial values, clip order and augmentation.
      fold: that it was tested on.
      step: of the checkpoint that its protocol reports.
      config: the common configuration, flat; `data` is which data set it is, not where.
      overrides: the variant's.
      subjects: test subjects.
      counts: per subject, per AU: tp, fp, tn, fn.
      seconds: training and evaluation; None for a run that was interrupted.
      frames: that it was tested on; None: an earlier version did not say.
      seen: who of the subjects was seen in training, in words; empty: likewise.
    """

    variant: str
    seed: int
    fold: int
    step: int
    config: Mapping[str, Any]
    overrides: Mapping[str, Any]
    subjects: Sequence[str]
    counts: Sequence[Sequence[Sequence[int]]]
    seconds: float | None
    frames: int | None = None
    seen: str = ""

    @property
    def count_array(self) -> Int[np.ndarray, "s n 4"]:
        """`counts` as an array."""
        return np.array(self.counts)


@dataclasses.dataclass(frozen=True)
class Grid:
    """Every variant with every seed on every fold.

    Attributes:
      config: common to all runs; its seed and fold are replaced.
      variants: by name.
      seeds: of initial values, clip order and augmentation.
      folds: to test on.
      steps: of every run; the configuration's when None.
    """

    config: ConfigDict
    variants: Sequence[Variant]
    seeds: Sequence[int]
    folds: Sequence[int]
    steps: int | None = None

    def common(self) -> dict[str, Any]:
        """What all runs share."""
        recipe = Recipe.of(self.config)
        shared = recipe.flat()
        for key in ("seed", "fold", *directory.MEANS):
            del shared[key]
        if self.steps is not None:
            shared["steps"], shared["epochs"] = self.steps, 0.0
        metadata = recipe.open_data().metadata
        shared["data"] = f"{metadata.builder}, seed {metadata.seed}, {metadata.index_sha256[:16]}"
        shared["pictures"] = metadata.fingerprint[:16]
        return shared


@dataclasses.dataclass(frozen=True)
class Job:
    """A run to do: its `config` as plain values, and the directory `place`."""

    variant: Variant
    seed: int
    fold: int
    steps: int | None
    config: Mapping[str, Any]
    common: Mapping[str, Any]
    place: pathlib.Path

    def __str__(self) -> str:
        return f"{self.variant.name}, seed {self.seed}, fold {self.fold}"


def complete(
    grid: Grid, *, workdir: pathlib.Path, results: pathlib.Path, processes: int | None = None
) -> Iterator[list[Run]]:
    """Does the runs that are missing; all that are done, at the start and after each new one.

    Args:
      grid: what shall be there in the end.
      workdir: runs go to `<workdir>/<variant>/fold<f>-seed<n>`; the same call resumes them.
      results: directory of `runs.jsonl`, one line per finished run.
      processes: how many at a time: by default one per GPU, or one.

    Raises:
      InputError: a variant's values cannot be, `results` holds runs of another configuration,
        another command is at work in `workdir` or `results`, or a run was refused; the others are
        done first.
      NonFiniteLossError: likewise, a run whose loss was no number. So is what else a run raised,
        such as for want of memory.
    """
    recipes = [Recipe.of(_configured(grid.config, variant)) for variant in grid.variants]
    source = Recipe.of(grid.config).open_data()
    for recipe, fold in itertools.product(recipes, grid.folds):
        seen.check_start(dataclasses.replace(recipe, fold=fold), source)
    with contextlib.ExitStack() as held:
        remedy = "name other directories with --workdir and --results"
        held.enter_context(locks.alone(results, remedy))
        common, done = grid.common(), read_runs(results / RUNS)
        check_same(done, common, grid.variants, results / RUNS)
        jobs = _missing(grid, common, done, workdir)
        yield list(done)
        if jobs:
            if workdir.resolve() != results.resolve():
                held.enter_context(locks.alone(workdir, remedy))
            yield from _work(jobs, done, results / RUNS, workers.slots(processes))


def _work(
    jobs: Sequence[Job], done: list[Run], file: pathlib.Path, where: Sequence[workers.Slot]
) -> Iterator[list[Run]]:
    """Does the jobs and adds a line to the file for each; what is done after each."""
    logs = jobs[0].place.parents[1] / "*/*/log.txt"
    print(f"{len(jobs)} runs, {len(where)} at a time; logs: {logs}", flush=True)
    failures = []
    with Bar(len(jobs), "run") as bar:
        for job, future in workers.run(_run, jobs, where):
            bar.update()
            try:
                done.append(_result(future))
            except Exception as error:  # whatever it is, the others go on
                failures.append(error)
                bar.write(f"{job}: {_said(error)}", file=sys.stderr)
                continue
            with file.open("a") as lines:
                line = json.dumps(dataclasses.asdict(done[-1]), separators=(",", ":"))
                lines.write(f"{line}\n")
            bar.write(f"{job}: done", file=sys.stderr)
            yield list(done)
    if failures and isinstance(failures[0], InputError | NonFiniteLossError):
        raise type(failures[0])(f"{len(failures)} of {len(jobs)} runs failed: {failures[0]}")
    if failures:
        raise failures[0]


def _said(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, InputError | NonFiniteLossError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _result(future: Future) -> Run:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "its process was killed, perhaps for lack of memory; repeat with fewer --processes"
        ) from error


def read_runs(path: pathlib.Path) -> list[Run]:
    """The finished runs in a file; none if it is not there.

    Raises:
      InputError: a line is no run.
    """
    if not path.exists():
        return []
    done = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            done.append(Run(**json.loads(line)))
        except (RecursionError, TypeError, ValueError) as error:
            raise InputError(f"{path}, line {number}: holds no run; delete that line") from error
    return done


def check_same(
    done: Sequence[Run],
    common: Mapping[str, Any],
    variants: Sequence[Variant],
    path: pathlib.Path,
) -> None:
    """Refuses finished runs that cannot stand beside the wanted ones.

    Raises:
      InputError: the common configuration, the data or a variant of the same name differ.
    """
    overrides = {variant.name: config_check.flatten(variant.overrides) for variant in variants}
    for run in done:
        unsaid = directory.ADDED | {"model.kind": "mdhr", "pictures": common["pictures"]}
        said = directory.renamed(run.config)
        own = {key: unsaid[key] for key in unsaid if key in common} | said
        if "pictures" not in run.config:
            notes.once(
                f"{path}: holds runs of an earlier version, which kept no digest of the pictures: "
                "whether they are of this data set cannot be checked"
            )
        keys = common.keys() | own.keys()
        changed = sorted(key for key in keys if own.get(key) != common.get(key))
        if run.overrides != overrides.get(run.variant, run.overrides):
            changed.append(f"variant {run.variant!r}")
        if changed:
            raise InputError(
                f"{path}: holds runs of another configuration or data set (differing: "
                f"{', '.join(changed)}); name another directory"
            )


def _missing(
    grid: Grid, common: Mapping[str, Any], done: Sequence[Run], workdir: pathlib.Path
) -> list[Job]:
    finished = {(run.variant, run.seed, run.fold) for run in done}
    return [
        Job(
            variant,
            seed,
            fold,
            grid.steps,
            grid.config.to_dict(),
            common,
            workdir / _folder(variant.name) / f"fold{fold}-seed{seed}",
        )
        for seed in grid.seeds
        for fold in grid.folds
        for variant in grid.variants
        if (variant.name, seed, fold) not in finished
    ]


def _folder(name: str) -> str:
    return re.sub("[^A-Za-z0-9]+", "-", name).strip("-")


def _configured(config: ConfigDict, variant: Variant) -> ConfigDict:
    config = config.copy_and_resolve_references()
    if kind := variant.overrides.get("model.kind"):
        config.model = ConfigDict(kinds.changed(config.model.to_dict(), kind))
    config.update_from_flattened_dict(dict(variant.overrides))
    return config


def _run(job: Job) -> Run:
    """Trains and evaluates, in a process of its own."""
    notes.mute_libraries()
    resumed, start = directory.config_file(job.place).exists(), time.perf_counter()
    job.place.mkdir(parents=True, exist_ok=True)
    config = _configured(ConfigDict(job.config), job.variant)
    config.seed, config.fold = job.seed, job.fold
    if job.steps is not None:
        config.steps, config.epochs = job.steps, 0.0
    with (
        (job.place / "log.txt").open("a") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        train.train(config, job.place)
        trained = load_trained(job.place)
        scored = evaluate.test(trained)
    subjects, counts = scored.subject_counts(trained.thresholds)
    return Run(
        variant=job.variant.name,
        seed=job.seed,
        fold=job.fold,
        step=int(trained.state["step"]),
        config=job.common,
        overrides=config_check.flatten(job.variant.overrides),
        subjects=subjects,
        counts=counts.tolist(),
        seconds=None if resumed else round(time.perf_counter() - start, 1),
        frames=len(scored.rows),
        seen=str(scored.verdict),
    )
