# SPDX-License-Identifier: Apache-2.0
"""The programs of a run, jitted and laid out on a mesh."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt32

from mdhr_jax.data import records
from mdhr_jax.errors import InputError
from mdhr_jax.machine import sharding
from mdhr_jax.models import views
from mdhr_jax.numerics import optim, steps
from mdhr_jax.run import checkpoint, inputs
from mdhr_jax.run.recipe import Recipe, chosen
from mdhr_jax.run.scoring import Scores, score_split, whole_batches

# Nothing, or the insides of the backbone's blocks: slower by up to a third, in less memory.
REMAT = {"none": False, "blocks": True}


def build_scoring(recipe: Recipe, mesh: Mesh) -> steps.Scoring:
    """How the recipe's model scores clips that are split over the devices."""
    tested, dtype = recipe.tested, recipe.dtype
    graph, *_ = steps.split(tested)

    def prepare(params: dict, batch_stats: dict) -> tuple[dict, dict]:
        model = nnx.merge(graph, params, batch_stats)
        return steps.split(views.folded_view(model, dtype=dtype))[1:]

    folded = nnx.eval_shape(functools.partial(views.folded_view, dtype=dtype), tested)
    step = steps.make_eval_step(steps.split(folded)[0], transform=recipe.transform)
    options = recipe.compiler_options
    return steps.Scoring(
        jax.jit(prepare, out_shardings=sharding.replicated(mesh), compiler_options=options),
        jax.jit(step, out_shardings=sharding.batched(mesh), compiler_options=options),
    )


def peak_learning_rate(recipe: Recipe) -> float:
    """`recipe.learning_rate` scaled to the batch size.

    Raises:
      InputError: no such scaling.
    """
    scaling = chosen("learning_rate_scaling", optim.SCALINGS, recipe.learning_rate_scaling)
    return recipe.learning_rate * scaling(recipe.batch_size / recipe.learning_rate_batch)


class Schedule(NamedTuple):
    """What differs between a configuration's folds and seeds: these share their programs.

    Attributes:
      class_weights: of the AUs, from the fold's training labels.
      key: data of the random key of initial values and drop-path.
      learning_rate, total_steps, warmup_steps: as of `optim.cosine`.
    """

    class_weights: Float[Any, " n"]
    key: UInt32[Any, " words"]
    learning_rate: float | Array
    total_steps: int | Array
    warmup_steps: int | Array

    def placed(self, mesh: Mesh) -> "Schedule":
        """The same on every device, of several processes too."""
        return jax.tree.map(lambda x: sharding.put_everywhere(mesh, np.asarray(x)), self)

    def learning_rates(self) -> optax.Schedule:
        """The learning rate of every step."""
        return optim.cosine(
            self.learning_rate, total_steps=self.total_steps, warmup_steps=self.warmup_steps
        )


@dataclasses.dataclass(frozen=True)
class Programs:
    """What a run executes.

    `init(schedule)` makes the first state, `train(state, batch, schedule)` takes a step,
    `score(state, source, put)` tests.
    """

    init: Callable[[Schedule], steps.State]
    train: jax.stages.Wrapped
    score: Callable[[steps.State, records.FrameSource, inputs.Put], Scores]
    abstract: steps.State
    schedule: Schedule


def programs_for(
    recipe: Recipe, source: records.FrameSource, mesh: Mesh, total_steps: int
) -> Programs:
    """The programs of a run on a data set."""
    return build_programs(recipe, schedule_of(recipe, source, total_steps), mesh)


def build_programs(recipe: Recipe, schedule: Schedule, mesh: Mesh) -> Programs:
    """The jitted programs of a run, its state laid out on the mesh.

    Raises:
      InputError: the batch does not divide over the devices or the groups of BatchNorm, or there
        is no such optimizer or model.
    """
    _check_batch_size(recipe, mesh)
    make_optimizer = functools.partial(
        chosen("optimizer", optim.OPTIMIZERS, recipe.optimizer),
        betas=recipe.betas,
        epsilon=recipe.epsilon,
        weight_decay=recipe.weight_decay,
    )
    graph, layout, reduction = _train_graph(recipe), recipe.layout, recipe.reduction
    weight, transform = recipe.auxiliary_loss_weight, recipe.augmented

    def init(schedule: Schedule) -> steps.State:
        key = jax.random.wrap_key_data(schedule.key)
        optimizer = make_optimizer(schedule.learning_rates())
        return steps.init_state(recipe.create, optimizer, key, averages=recipe.ema > 0)

    def train_step(
        state: steps.State, batch: steps.Batch, schedule: Schedule
    ) -> tuple[steps.State, dict[str, Array]]:
        rates, weights = schedule.learning_rates(), schedule.class_weights
        step = steps.make_train_step(
            graph,
            steps.Objective(layout, weights, weight, reduction, recipe.kind.auxiliary),
            make_optimizer(rates),
            rates,
            transform=transform,
            key=jax.random.wrap_key_data(schedule.key),
            accumulate=recipe.accumulate,
            ema=recipe.ema,
            gather=functools.partial(sharding.gathered, mesh),
        )
        return step(state, batch)

    def started(schedule: Schedule, params: dict, batch_stats: dict) -> steps.State:
        """`init` without another trace of the model's constructor."""
        optimizer = make_optimizer(schedule.learning_rates())
        return steps.new_state(params, batch_stats, optimizer, averages=recipe.ema > 0)

    shapes = jax.eval_shape(started, schedule, *steps.split(recipe.outline)[1:])
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
        schedule=schedule,
    )


def _check_batch_size(recipe: Recipe, mesh: Mesh) -> None:
    multiple = mesh.size * recipe.accumulate
    if recipe.batch_size % multiple:
        parts = f" in {recipe.accumulate} micro-batches" if recipe.accumulate > 1 else ""
        raise InputError(
            f"config.batch_size={recipe.batch_size} clips{parts} do not divide over {mesh.size} "
            f"devices; use a multiple of {multiple}"
        )


def _scorer(
    recipe: Recipe, mesh: Mesh
) -> Callable[[steps.State, records.FrameSource, inputs.Put], Scores]:
    """Scores the frames on which the protocol looks during training."""
    batch_size = whole_batches(recipe.eval_batch_size, mesh)
    return functools.partial(
        score_split,
        build_scoring(recipe, mesh),
        fold=recipe.fold,
        split=recipe.protocol.split,
        clip_length=recipe.clip_length,
        context=recipe.context,
        batch_size=batch_size,
        part=sharding.own_part(mesh, batch_size),
    )


def schedule_of(recipe: Recipe, source: records.FrameSource, total_steps: int) -> Schedule:
    """The schedule of a run on a data set.

    Raises:
      InputError: the warm-up is as long as the run, there is no such scaling, or no AU is ever
        active in training.
    """
    epochs = recipe.warmup_epochs * inputs.steps_per_epoch(recipe, source)
    warmup_steps = recipe.warmup_steps or round(epochs)
    if warmup_steps >= total_steps:
        raise InputError(
            f"config.warmup_steps or warmup_epochs: {warmup_steps} steps of warm-up leave none of "
            f"the run's {total_steps}; shorten it or train longer"
        )
    return Schedule(
        inputs.class_weights(recipe, source),
        key_data(recipe.seed),
        peak_learning_rate(recipe),
        total_steps,
        warmup_steps,
    )


def key_data(seed: int) -> UInt32[np.ndarray, " words"]:
    """Data of a seed's random key."""
    return np.asarray(jax.random.key_data(jax.random.key(seed)))


def _train_graph(recipe: Recipe) -> nnx.GraphDef:
    model, dtype, groups = recipe.outline, recipe.dtype, recipe.batch_norm_groups
    micro_batch = recipe.batch_size // recipe.accumulate
    if micro_batch % groups:
        raise InputError(
            f"config.batch_norm_groups={groups} does not divide a (micro-)batch of {micro_batch}"
        )
    remat = chosen("remat", REMAT, recipe.remat)
    return steps.split(views.train_view(model, dtype=dtype, groups=groups, remat=remat))[0]
