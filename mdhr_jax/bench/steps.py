# SPDX-License-Identifier: Apache-2.0
"""Training steps and scoring on random pictures that are on the devices already."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from mdhr_jax.bench import collectives, roofline, timing
from mdhr_jax.machine import sharding
from mdhr_jax.numerics import preprocess, steps
from mdhr_jax.run.programs import Programs, Schedule, build_programs, build_scoring, key_data
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.run.scoring import whole_batches


class Measured(NamedTuple):
    """A program's speed, and what bounds it.

    Attributes:
      frames: of one call.
      compilation: seconds until the program could be called.
      timing: seconds of a call.
      flops: operations of its products, on all devices.
      floor: seconds that a call takes at least (`roofline`).
      machine: what the floor is reckoned with, of each device.
      memory: bytes that the program holds on a device.
      peak: most bytes that the process has held on the first device; None where it is not told.
      exchanged: what a call makes the devices exchange, by kind; micro-batches count once.
      devices: how many there are.
      program: its compiled text.
    """

    frames: int
    compilation: float
    timing: timing.Timing
    flops: int
    floor: float
    machine: roofline.Machine
    memory: int
    peak: int | None
    exchanged: dict[str, collectives.Volume]
    devices: int
    program: str


class Training:
    """A training that takes the steps it is called for.

    Attributes:
      programs: those of the run.
      state: that of the run.
      schedule: of its learning rate, on the devices.
      step: the program, which may be replaced by a compiled one.

    Raises:
      InputError: the configuration is wrong.
    """

    def __init__(self, recipe: Recipe, mesh: Mesh):
        self.programs = made = training_programs(recipe, mesh)
        self.step: Any = made.train  # jitted, or compiled
        self.state = made.init(made.schedule)
        self.schedule = made.schedule.placed(mesh)

    def __call__(self, batch: steps.Batch) -> dict[str, jax.Array]:
        """Takes a step; its scalars, which nobody has waited for."""
        self.state, scalars = self.step(self.state, batch, self.schedule)
        return scalars


def training(recipe: Recipe, windows: int) -> Measured:
    """Steps as `mdhr train` takes them.

    Raises:
      InputError: the configuration is wrong.
    """
    mesh = sharding.make_mesh(recipe.fsdp)
    run, batch = Training(recipe, mesh), random_batch(recipe, recipe.batch_size, mesh)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(run.state["params"]))
    run.step, compilation = _compiled(run.step, run.state, batch, run.schedule)
    made = run.programs
    return _measured(
        lambda: run(batch),
        run.step,
        roofline.products(made.train, made.abstract, batch, run.schedule),
        recipe,
        mesh,
        frames=recipe.batch_size * recipe.clip_length,
        compilation=compilation,
        parameters=parameters,
        windows=windows,
    )


def training_programs(recipe: Recipe, mesh: Mesh) -> Programs:
    """The programs of a run, without a data set: all AUs weigh the same, the run is a long one.

    Raises:
      InputError: the configuration is wrong.
    """
    weights, key = np.ones(len(recipe.layout.aus)), key_data(recipe.seed)
    return build_programs(recipe, Schedule(weights, key, recipe.learning_rate, 10**6, 0), mesh)


def scoring(recipe: Recipe, windows: int) -> Measured:
    """Scores of clips, as `mdhr evaluate` and `mdhr predict` ask for them.

    Raises:
      InputError: the configuration is wrong.
    """
    mesh = sharding.make_mesh()
    clips = whole_batches(recipe.eval_batch_size, mesh)
    program = build_scoring(recipe, mesh)
    values = program.prepare(*steps.split(recipe.create(nnx.Rngs(0)))[1:])
    batch = {"frames": random_batch(recipe, clips, mesh)["frames"]}
    step, compilation = _compiled(program.step, *values, batch)
    return _measured(
        lambda: step(*values, batch),
        step,
        roofline.products(program.step, *values, batch),
        recipe,
        mesh,
        frames=clips * recipe.clip_length,
        compilation=compilation,
        parameters=0,
        windows=windows,
    )


def random_batch(recipe: Recipe, clips: int, mesh: Mesh) -> steps.Batch:
    """Noise with labels, as a batch of the pipeline."""
    rng = np.random.default_rng(0)
    side, length = preprocess.resized(recipe.image_size), recipe.clip_length
    seen = length + 2 * recipe.context
    labels = rng.integers(0, 2, (clips, length, len(recipe.layout.aus)), np.int32)
    augment = np.ones((clips, 7), np.float32)
    augment[:, :2] = preprocess.crop_offsets(recipe.image_size, recipe.augmentation).start
    return sharding.put_batch(
        mesh,
        {
            "frames": rng.integers(0, 256, (clips, seen, side, side, 3), np.uint8),
            "labels": labels,
            "mask": np.ones(labels.shape, bool),
            "augment": augment,
        },
    )


def _compiled(function: jax.stages.Wrapped, *arguments: Any) -> tuple[Callable, float]:
    """The program for these arguments, and the seconds that it took to make it."""
    start = time.perf_counter()
    program = function.lower(*arguments).compile()
    return program, time.perf_counter() - start


def _measured(
    run: Callable[[], Any],
    program: Any,
    work: list[roofline.Product],
    recipe: Recipe,
    mesh: Mesh,
    *,
    frames: int,
    compilation: float,
    parameters: int,
    windows: int,
) -> Measured:
    held, text = program.memory_analysis(), program.as_text()
    timed = timing.measure(run, windows)
    peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    machine = roofline.machine(recipe.dtype)  # holds more than some programs
    return Measured(
        frames=frames,
        compilation=compilation,
        timing=timed,
        flops=sum(product.flops * product.times for product in work),
        floor=roofline.floor(work, machine, parameters) / mesh.size,
        machine=machine,
        memory=held.argument_size_in_bytes
        + held.temp_size_in_bytes
        + held.output_size_in_bytes
        - held.alias_size_in_bytes,
        peak=peak,
        exchanged=collectives.volumes(text),
        devices=mesh.size,
        program=text,
    )
