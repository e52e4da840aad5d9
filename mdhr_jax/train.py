# SPDX-License-Identifier: Apache-2.0
"""A run, top to bottom: `mdhr train` starts it, and the same command resumes it exactly."""

import contextlib
import dataclasses
import functools
import itertools
import pathlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt32
from ml_collections import ConfigDict

from mdhr_jax import (
    checkpoint,
    evaluate,
    facs,
    hosts,
    locks,
    metrics,
    optim,
    preprocess,
    provenance,
    runs,
    seen,
    sharding,
    steps,
    writers,
)
from mdhr_jax.data import decoded, pipeline, records
from mdhr_jax.errors import InputError, NonFiniteLossError
from mdhr_jax.models import mdhr
from mdhr_jax.run.recipe import Recipe, chosen

type Put = Callable[[pipeline.Batch], steps.Batch]
type Fed = tuple[pipeline.Batch, steps.Batch]


def train(config: ConfigDict, workdir: str | pathlib.Path) -> None:
    """Trains as configured; goes on where an earlier call with the same `workdir` stopped.

    Leaves `config.json`, `data.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/last`, and
    `checkpoints/best` if its protocol chooses among the evaluations. Of several processes
    (`hosts`), each reads its part of every batch, the first one writes, and all write checkpoints.

    Raises:
      InputError: wrong input, a run of another configuration or data set in `workdir`, or another
        command at work there; a `workdir` that cannot be written, in which the last checkpoint is
        kept.
      NonFiniteLossError: the loss was no number in several steps, see `_LateLog`; the last
        checkpoint is kept.
    """
    workdir = pathlib.Path(workdir)
    recipe = Recipe.of(config)
    chosen("input", INPUTS, recipe.input)
    source, mesh = recipe.open_data(), sharding.make_mesh(recipe.fsdp)
    seen.check_start(recipe, source)
    compiled = compile_programs(recipe, source, mesh, count_steps(recipe, source))
    # After what may refuse the configuration, before anything takes time.
    with _alone(workdir), _writing(workdir):
        _train(recipe, workdir, source, mesh, compiled)


def _alone(workdir: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    """Keeps other commands out of the run."""
    if hosts.is_first():
        return locks.alone(workdir, "name another --workdir")
    return contextlib.nullcontext()


@contextlib.contextmanager
def _writing(workdir: pathlib.Path) -> Iterator[None]:
    """Says in one line why a run cannot be written.

    Raises:
      InputError: a full disk or the like.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or workdir}: {error.strerror}; the last checkpoint is kept: mend "
            "that, and the same command goes on from it"
        ) from error


def _train(
    recipe: Recipe,
    workdir: pathlib.Path,
    source: records.FrameSource,
    mesh: Mesh,
    compiled: "Programs",
) -> None:
    saved, total_steps = runs.checkpoints(workdir), count_steps(recipe, source)
    start = checkpoint.latest_step(saved, "last") or 0
    hosts.agree(
        {
            "configuration": recipe.flat(),
            "data set": source.metadata.fingerprint,
            "checkpoint to go on from": start,
        }
    )
    backbone = {} if start else runs.initial_backbone(recipe, compiled.abstract)
    learned = provenance.Learned.of(source, seen.in_training(recipe, source))
    if hosts.is_first():
        runs.claim(workdir, recipe, learned)  # a backbone that does not fit leaves no run
    restored = checkpoint.restore(saved, "last", compiled.abstract) if start else None
    if hosts.is_first():
        print(
            f"{workdir}: step {start} of {total_steps} on {_said_of(mesh)}, learning rate up to "
            f"{peak_learning_rate(recipe):.3g}",
            flush=True,
        )
    if start == total_steps:
        return

    def first_state() -> steps.State:
        return restored or runs.with_backbone(compiled.init(compiled.plan), backbone)

    plan = compiled.plan.placed(mesh)
    with ThreadPoolExecutor(1) as beside:
        # XLA compiles the initial values for as long as the step, and either on few cores.
        making = beside.submit(first_state)
        source, put = reading(recipe, source, mesh)
        part = sharding.own_part(mesh, recipe.batch_size)
        batches = training_batches(recipe, source, start, part)
        feed = pipeline.ahead(itertools.islice(batches, total_steps - start), put)
        take_step, feed = _compiled_step(compiled, feed, plan)
    state = making.result()

    chooses = recipe.protocol.chooses
    known = _known(workdir, start, chooses)
    make_writer = writers.RunWriter if hosts.is_first() else writers.Silence
    writer = make_writer(workdir, step=start, total_steps=total_steps)
    best, evaluation = hosts.as_first(known["best_mean_f1"]), known.get("evaluation")
    log = _LateLog(workdir, writer, recipe.batch_size * recipe.clip_length)
    with checkpoint.Saver(saved) as saver, contextlib.closing(writer):
        for step in range(start + 1, total_steps + 1):
            batch, placed = log.take(feed)
            state, scalars = take_step(state, placed, plan)
            log.add(step, scalars, batch)
            kinds = ["last"] if is_due(step, total_steps, recipe.checkpoint_every) else []
            if is_due(step, total_steps, recipe.eval_every):
                log.flush()
                result = evaluation_scalars(compiled.score(state, source, put), recipe)
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


def _compiled_step(
    compiled: "Programs", feed: Iterator[Fed], plan: "Plan"
) -> tuple[Callable, Iterator[Fed]]:
    """The training step for such batches as `feed` has, and these, the first one included."""
    first = next(feed)
    step = compiled.train.lower(compiled.abstract, first[1], plan).compile()
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
    said = checkpoint.said(runs.checkpoints(workdir), "last", start)
    if said:
        return said
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


def is_due(step: int, total_steps: int, interval: int) -> bool:
    """Every `interval` steps, and at the end."""
    return step % interval == 0 or step == total_steps


def steps_per_epoch(recipe: Recipe, source: records.FrameSource) -> int:
    """Training steps that an epoch has, the last one counted whole."""
    return pipeline.steps_per_epoch(
        source,
        fold=recipe.fold,
        clips_per_video=recipe.clips_per_video,
        batch_size=recipe.batch_size,
    )


def count_steps(recipe: Recipe, source: records.FrameSource) -> int:
    """Steps of the whole run; at least one."""
    return recipe.steps or max(1, round(recipe.epochs * steps_per_epoch(recipe, source)))


def peak_learning_rate(recipe: Recipe) -> float:
    """`recipe.learning_rate` scaled to the batch size.

    Raises:
      InputError: no such scaling.
    """
    scaling = chosen("learning_rate_scaling", optim.SCALINGS, recipe.learning_rate_scaling)
    return recipe.learning_rate * scaling(recipe.batch_size / recipe.learning_rate_batch)


def evaluation_scalars(scored: evaluate.Scores, recipe: Recipe) -> dict[str, float]:
    """Mean F1, its always-positive baseline, the F1 of every AU, and thresholds chosen here."""
    layout, tuned = recipe.layout, {}
    thresholds = np.full(len(layout.aus), recipe.threshold)
    if recipe.tune_thresholds:
        thresholds = scored.best_thresholds(recipe.threshold)
        tuned = runs.threshold_scalars(layout, thresholds)
    counts = scored.counts(thresholds)
    f1 = metrics.f1(counts)
    baseline = metrics.f1(metrics.always_positive(counts))
    return {
        "mean_f1": float(f1.mean()),
        "always_positive_mean_f1": float(baseline.mean()),
        **{f"f1/{name}": float(x) for name, x in zip(layout.au_names, f1, strict=True)},
        **tuned,
    }


class Plan(NamedTuple):
    """What differs between a configuration's folds and seeds: these share their programs.

    Attributes:
      class_weights: of the AUs, from the fold's training labels.
      key: data of the random key of initial values and drop-path.
      learning_rate, total_steps, warmup_steps: as of `optim.cosine`.
    """

    class_weights: Float[Array | np.ndarray, " n"]
    key: UInt32[Array | np.ndarray, " words"]
    learning_rate: float | Array
    total_steps: int | Array
    warmup_steps: int | Array

    def placed(self, mesh: Mesh) -> "Plan":
        """The same on every device, of several processes too."""
        return jax.tree.map(lambda x: sharding.put_everywhere(mesh, np.asarray(x)), self)

    def schedule(self) -> optax.Schedule:
        """The learning rate of every step."""
        return optim.cosine(
            self.learning_rate, total_steps=self.total_steps, warmup_steps=self.warmup_steps
        )


@dataclasses.dataclass(frozen=True)
class Programs:
    """What a run executes.

    `init(plan)` makes the first state, `train(state, batch, plan)` takes a step,
    `score(state, source, put)` tests.
    """

    init: Callable[[Plan], steps.State]
    train: Callable[[steps.State, steps.Batch, Plan], tuple[steps.State, dict]]
    score: Callable[[steps.State, records.FrameSource, Put], evaluate.Scores]
    abstract: steps.State
    plan: Plan


def compile_programs(
    recipe: Recipe, source: records.FrameSource, mesh: Mesh, total_steps: int
) -> Programs:
    """The programs of a run on a data set."""
    return programs(recipe, plan(recipe, source, total_steps), mesh)


def programs(recipe: Recipe, plan: Plan, mesh: Mesh) -> Programs:
    """The jitted programs of a run, its state laid out on the mesh.

    Raises:
      InputError: the batch does not divide over the devices or the groups of BatchNorm, or there
        is no such optimizer or model.
    """
    if recipe.batch_size % (mesh.size * recipe.accumulate):
        parts = f" in {recipe.accumulate} micro-batches" if recipe.accumulate > 1 else ""
        raise InputError(
            f"config.batch_size={recipe.batch_size} clips{parts} do not divide over {mesh.size} "
            f"devices; use a multiple of {mesh.size * recipe.accumulate}"
        )
    make_optimizer = functools.partial(
        chosen("optimizer", optim.OPTIMIZERS, recipe.optimizer),
        betas=recipe.betas,
        epsilon=recipe.epsilon,
        weight_decay=recipe.weight_decay,
    )
    graph, layout, reduction = _train_graph(recipe), recipe.layout, recipe.reduction

    def init(plan: Plan) -> steps.State:
        optimizer, key = make_optimizer(plan.schedule()), jax.random.wrap_key_data(plan.key)
        return steps.init_state(recipe.create, optimizer, key, averages=recipe.ema > 0)

    def train_step(
        state: steps.State, batch: steps.Batch, plan: Plan
    ) -> tuple[steps.State, dict[str, Array]]:
        step = steps.make_train_step(
            graph,
            steps.Objective(layout, plan.class_weights, recipe.region_loss_weight, reduction),
            make_optimizer(plan.schedule()),
            plan.schedule(),
            image_size=recipe.image_size,
            key=jax.random.wrap_key_data(plan.key),
            accumulate=recipe.accumulate,
            ema=recipe.ema,
            gather=functools.partial(sharding.gathered, mesh),
        )
        return step(state, batch)

    def outline(plan: Plan, params: dict, batch_stats: dict) -> steps.State:
        """`init` without another trace of the model's constructor."""
        optimizer = make_optimizer(plan.schedule())
        return steps.new_state(params, batch_stats, optimizer, averages=recipe.ema > 0)

    shapes = jax.eval_shape(outline, plan, *steps.split(recipe.outline)[1:])
    shardings = sharding.state_shardings(mesh, shapes)
    return Programs(
        init=jax.jit(init, out_shardings=shardings),
        train=jax.jit(
            train_step,
            donate_argnums=0,
            out_shardings=(shardings, sharding.replicated(mesh)),
            compiler_options=sharding.OVERLAPPED | recipe.compiler_options,
        ),
        score=_scorer(recipe, mesh),
        abstract=checkpoint.abstract(shapes, shardings),
        plan=plan,
    )


def _scorer(
    recipe: Recipe, mesh: Mesh
) -> Callable[[steps.State, records.FrameSource, Put], evaluate.Scores]:
    """Scores the frames on which the protocol looks during training."""
    batch_size = evaluate.batch_size(recipe.eval_batch_size, mesh)
    return functools.partial(
        evaluate.score,
        runs.scoring(recipe, mesh),
        fold=recipe.fold,
        split=recipe.protocol.split,
        clip_length=recipe.clip_length,
        context=recipe.context,
        batch_size=batch_size,
        part=sharding.own_part(mesh, batch_size),
    )


def plan(recipe: Recipe, source: records.FrameSource, total_steps: int) -> Plan:
    """That of a run on a data set.

    Raises:
      InputError: the warm-up is as long as the run, there is no such scaling, or no AU is ever
        active in training.
    """
    epochs = recipe.warmup_epochs * steps_per_epoch(recipe, source)
    warmup_steps = recipe.warmup_steps or round(epochs)
    if warmup_steps >= total_steps:
        raise InputError(
            f"config.warmup_steps or warmup_epochs: {warmup_steps} steps of warm-up leave none of "
            f"the run's {total_steps}; shorten it or train longer"
        )
    return Plan(
        class_weights(recipe, source),
        key_data(recipe.seed),
        peak_learning_rate(recipe),
        total_steps,
        warmup_steps,
    )


def key_data(seed: int) -> UInt32[np.ndarray, " words"]:
    """Data of a seed's random key."""
    return np.asarray(jax.random.key_data(jax.random.key(seed)))


# Nothing, or the insides of the backbone's blocks: slower by up to a third, in less memory.
REMAT = {"none": False, "blocks": True}


def _train_graph(recipe: Recipe) -> nnx.GraphDef:
    model, dtype, groups = recipe.outline, recipe.dtype, recipe.batch_norm_groups
    micro_batch = recipe.batch_size // recipe.accumulate
    if micro_batch % groups:
        raise InputError(
            f"config.batch_norm_groups={groups} does not divide a (micro-)batch of {micro_batch}"
        )
    remat = chosen("remat", REMAT, recipe.remat)
    return steps.split(mdhr.train_view(model, dtype=dtype, groups=groups, remat=remat))[0]


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


class _LateLog:
    """Logs a step's scalars when the next step is under way, so that the device never waits.

    A step whose loss or gradient is not finite has changed nothing (`steps`); it is told of, and
    after `PATIENCE` of them in a row the run stops.
    """

    PATIENCE = 3

    def __init__(self, workdir: pathlib.Path, writer: writers.RunWriter, frames_per_step: int):
        self._workdir, self._writer, self._frames = workdir, writer, frames_per_step
        self._waiting, self._wasted = None, 0  # steps in a row
        self.restart_clock()

    def take[Fed](self, feed: Iterator[Fed]) -> Fed:
        """The next of `feed`; the time that it takes is one of waiting for input."""
        start = time.perf_counter()
        fed = next(feed)
        self._waited += time.perf_counter() - start
        return fed

    def add(self, step: int, scalars: dict[str, jax.Array], batch: pipeline.Batch) -> None:
        """Takes a step's scalars, and what it learned from; logs those of the step before."""
        self.flush()
        self._waiting = step, scalars, batch

    def flush(self) -> None:
        """Logs what waits; NonFiniteLossError after too many steps in vain."""
        if self._waiting is None:
            return
        (step, scalars, batch), self._waiting = self._waiting, None
        values = {name: float(value) for name, value in scalars.items()}
        seconds = time.perf_counter() - self._since
        self._writer.train(
            step,
            values,
            frames_per_second=self._frames / seconds,
            input_wait=self._waited / seconds,
        )
        bad = [name for name in ("loss", "gradient_norm") if not np.isfinite(values[name])]
        self._wasted = self._wasted + 1 if bad else 0
        if bad:
            self._tell(step, f"the {bad[0].replace('_', ' ')} is {values[bad[0]]}", batch)
        self.restart_clock()

    def _tell(self, step: int, what: str, batch: pipeline.Batch) -> None:
        if self._wasted < self.PATIENCE:
            self._writer.say(f"step {step}: {what}; the step is left out")
            return
        own = f"-{jax.process_index()}" if jax.process_count() > 1 else ""
        file = self._workdir / f"nonfinite{own}.npz"
        np.savez(file, **batch)
        raise NonFiniteLossError(
            f"steps {step - self.PATIENCE + 1} to {step}: {what}; the last checkpoint is kept, and "
            f"{file} holds the batch: resume with a lower config.learning_rate in another --workdir"
        )

    def restart_clock(self) -> None:
        """Leaves what came between two steps out of the frames per second and the waiting."""
        self._since, self._waited = time.perf_counter(), 0.0
