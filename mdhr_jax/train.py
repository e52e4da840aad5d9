# SPDX-License-Identifier: Apache-2.0
"""A run, top to bottom: `mdhr train` starts it, and the same command resumes it exactly."""

import contextlib
import itertools
import pathlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mdhr_jax.data import pipeline, records
from mdhr_jax.errors import InputError
from mdhr_jax.machine import files, hosts, locks, sharding
from mdhr_jax.numerics import metrics, steps
from mdhr_jax.run import checkpoint, directory, inputs, provenance, seen, writers
from mdhr_jax.run.programs import Programs, Schedule, peak_learning_rate, programs_for
from mdhr_jax.run.recipe import Recipe, chosen
from mdhr_jax.run.scoring import Scores
from mdhr_jax.run.step_log import LateLog
from mdhr_jax.run.trained import initial_values, with_values

_REMEDY = "the last checkpoint is kept: mend that, and the same command goes on from it"


def train(config: ConfigDict, workdir: str | pathlib.Path) -> None:
    """Trains as configured; goes on where an earlier call with the same `workdir` stopped.

    Leaves `config.json`, `data.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/last`, and
    `checkpoints/best` if its protocol chooses among the evaluations. Of several processes
    (`hosts`), each reads its part of every batch, the first one writes, and all write checkpoints.

    Raises:
      InputError: wrong input, a run of another configuration or data set in `workdir`, or another
        command at work there; a `workdir` that cannot be written, in which the last checkpoint is
        kept.
      NonFiniteLossError: the loss was no number in several steps, see `step_log.LateLog`; the last
        checkpoint is kept.
    """
    workdir = pathlib.Path(workdir)
    recipe = Recipe.of(config)
    chosen("input", inputs.INPUTS, recipe.input)  # refused before a data set is opened
    source, mesh = recipe.open_data(), sharding.make_mesh(recipe.fsdp)
    seen.check_start(recipe, source)
    programs = programs_for(recipe, source, mesh, inputs.count_steps(recipe, source))
    # After what may refuse the configuration, before anything takes time.
    with _alone(workdir), files.writing(workdir, _REMEDY):
        _train(recipe, workdir, source, mesh, programs)


def _alone(workdir: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    """Keeps other commands out of the run."""
    if hosts.is_first():
        return locks.alone(workdir, "name another --workdir")
    return contextlib.nullcontext()


def _train(
    recipe: Recipe,
    workdir: pathlib.Path,
    source: records.FrameSource,
    mesh: Mesh,
    programs: Programs,
) -> None:
    saved, total_steps = directory.checkpoints(workdir), inputs.count_steps(recipe, source)
    start = checkpoint.latest_step(saved, "last") or 0
    values = _claimed(recipe, workdir, source, programs, start)
    restored = checkpoint.restore(saved, "last", programs.abstract) if start else None
    if hosts.is_first():
        print(
            f"{workdir}: step {start} of {total_steps} on {_said_of(mesh)}, learning rate up to "
            f"{peak_learning_rate(recipe):.3g}",
            flush=True,
        )
    if start == total_steps:
        return

    def first_state() -> steps.State:
        return restored or with_values(programs.init(programs.schedule), values)

    schedule = programs.schedule.placed(mesh)
    with ThreadPoolExecutor(1) as beside:
        # XLA compiles the initial values for as long as the step, and either on few cores.
        making = beside.submit(first_state)
        source, put = inputs.reading(recipe, source, mesh)
        part = sharding.own_part(mesh, recipe.batch_size)
        batches = inputs.training_batches(recipe, source, start, part)
        feed = pipeline.ahead(itertools.islice(batches, total_steps - start), put)
        take_step, feed = _compile_step(programs, feed, schedule)
    state = making.result()

    chooses = recipe.protocol.chooses
    known = _known(workdir, start, chooses)
    make_writer = writers.RunWriter if hosts.is_first() else writers.Silence
    writer = make_writer(workdir, step=start, total_steps=total_steps)
    best, evaluation = hosts.as_first(known["best_mean_f1"]), known.get("evaluation")
    log = LateLog(workdir, writer, recipe.batch_size * recipe.clip_length)
    with checkpoint.Saver(saved) as saver, contextlib.closing(writer):
        for step in range(start + 1, total_steps + 1):
            batch, placed = log.take(feed)
            state, scalars = take_step(state, placed, schedule)
            log.add(step, scalars, batch)
            kinds = ["last"] if is_due(step, total_steps, recipe.checkpoint_every) else []
            if is_due(step, total_steps, recipe.eval_every):
                log.flush()
                result = evaluation_scalars(programs.score(state, source, put), recipe)
                writer.evaluation(step, result)
                evaluation = {"step": step, **result}
                if chooses and result["mean_f1"] > best:
                    best = result["mean_f1"]
                    kinds = ["best", "last"]  # together: a resumed run knows its best
                log.restart_clock()
            if kinds:
                log.flush()
                writer.sync()  # a checkpoint never knows more than the metrics
                saver.save(kinds, step, state, {"best_mean_f1": best, "evaluation": evaluation})
                log.restart_clock()


def _claimed(
    recipe: Recipe,
    workdir: pathlib.Path,
    source: records.FrameSource,
    programs: Programs,
    start: int,
) -> dict:
    """Takes the directory, with all processes; returns the values to start from."""
    hosts.agree(
        {
            "configuration": recipe.flat(),
            "data set": source.metadata.fingerprint,
            "checkpoint to go on from": start,
        }
    )
    values = {} if start else initial_values(recipe, programs.abstract)
    learned = provenance.Learned.of(source, seen.in_training(recipe, source))
    if hosts.is_first():
        directory.claim(workdir, recipe, learned)  # values that do not fit leave no run
    return values


def _compile_step(
    programs: Programs, feed: Iterator[inputs.Fed], schedule: Schedule
) -> tuple[Callable, Iterator[inputs.Fed]]:
    """The training step for such batches as `feed` has, and these, the first one included."""
    first = next(feed)
    step = programs.train.lower(programs.abstract, first[1], schedule).compile()
    return step, itertools.chain([first], feed)


def _said_of(mesh: Mesh) -> str:
    """The devices in words."""
    kinds = ", ".join(sorted({device.device_kind for device in mesh.devices.flat}))
    processes = jax.process_count()
    return f"{mesh.size} x {kinds}" + (f" in {processes} processes" if processes > 1 else "")


def _known(workdir: pathlib.Path, start: int, chooses: bool) -> dict[str, Any]:
    """What a run knew of itself at step `start`: its best F1 and its last evaluation.

    Raises:
      InputError: of a run of an earlier version only the metrics know the best, and they are lost.
    """
    facts = checkpoint.facts(directory.checkpoints(workdir), "last", start)
    if facts:
        return facts
    file = workdir / "metrics.jsonl"
    rows = [row for row in writers.read(file) if row["step"] <= start]
    if chooses and max((row["step"] for row in rows), default=0) < start:
        raise InputError(
            f"{file}: ends before the checkpoint's step {start}, and nothing else holds the best "
            "F1 of this run, which an earlier version began; bring the file back, or train in "
            "another --workdir"
        )
    scores = [row["mean_f1"] for row in rows if row["kind"] == "eval"]
    return {"best_mean_f1": max(scores, default=-1.0)}


def is_due(step: int, total_steps: int, interval: int) -> bool:
    """Every `interval` steps, and at the end."""
    return step % interval == 0 or step == total_steps


def evaluation_scalars(scored: Scores, recipe: Recipe) -> dict[str, float]:
    """Mean F1, its always-positive baseline, the F1 of every AU, and thresholds chosen here."""
    layout, tuned = recipe.layout, {}
    thresholds = np.full(len(layout.aus), recipe.threshold)
    if recipe.tune_thresholds:
        thresholds = scored.best_thresholds(recipe.threshold)
        tuned = directory.threshold_scalars(layout, thresholds)
    counts = scored.counts(thresholds)
    f1 = metrics.f1(counts)
    baseline = metrics.f1(metrics.always_positive(counts))
    return {
        "mean_f1": float(f1.mean()),
        "always_positive_mean_f1": float(baseline.mean()),
        **{f"f1/{name}": float(x) for name, x in zip(layout.au_names, f1, strict=True)},
        **tuned,
    }
