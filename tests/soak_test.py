# SPDX-License-Identifier: Apache-2.0
"""Trainings that are killed again and again, and long ones. `bash launch/soak.sh` runs them."""

import hashlib
import os
import pathlib
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mdhr_jax.machine import sharding
from mdhr_jax.run import checkpoint, directory, inputs, writers
from mdhr_jax.run.programs import programs_for
from mdhr_jax.run.recipe import Recipe

pytestmark = [pytest.mark.soak, pytest.mark.usefixtures("quick_compilation_elsewhere")]
REPOSITORY = pathlib.Path(__file__).parents[1]
KILLS, STEPS = int(os.environ.get("KILLS", "50")), int(os.environ.get("STEPS", "5000"))


@pytest.fixture
def start(config_file, tmp_path):
    """Starts `mdhr train` with `tiny_config` in a process of its own."""

    def begin(workdir):
        command = [sys.executable, "-m", "mdhr_jax.cli", "train", f"--config={config_file()}"]
        with (tmp_path / "log.txt").open("a") as log:
            return subprocess.Popen(
                [*command, f"--workdir={workdir}"], cwd=REPOSITORY, stdout=log, stderr=log
            )

    return begin


def _sum(state):
    """SHA-256 of every array of a state, in the order of the tree."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _left(workdir, config):
    """What a finished run leaves: its figures, the sums of its checkpoints, and nothing else."""
    saved, recipe, mesh = directory.checkpoints(workdir), Recipe.of(config), sharding.make_mesh()
    source = recipe.open_data()
    total = inputs.count_steps(recipe, source)
    abstract = programs_for(recipe, source, mesh, total).abstract
    return {
        "metrics": (workdir / "metrics.jsonl").read_text(),
        "checkpoints": sorted(str(place.relative_to(saved)) for place in saved.glob("*/*")),
        **{kind: _sum(checkpoint.restore(saved, kind, abstract)) for kind in ("last", "best")},
    }


def test_killed_at_random_moments_a_training_ends_with_the_same_bits(
    tiny_config, tmp_path, start, one_device
):
    tiny_config.epochs = 60.0
    begun = time.monotonic()
    assert start(tmp_path / "whole").wait() == 0
    needed = time.monotonic() - begun
    whole = _left(tmp_path / "whole", tiny_config)

    moments, kills, finished, workdir = random.Random(0), 0, 0, tmp_path / "killed"
    steps_at_kills = []
    while kills < KILLS or not finished:
        process = start(workdir)
        wait = moments.uniform(0, needed) if kills < KILLS else None
        try:
            assert process.wait(wait) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            steps_at_kills.append(len(writers.read(workdir / "metrics.jsonl")))
            continue
        assert _left(workdir, tiny_config) == whole
        shutil.rmtree(workdir)
        finished += 1
    print(f"\n{kills} kills, {finished} runs finished; lines at kills: {steps_at_kills}")


def _resident_mib(process):
    pages = pathlib.Path(f"/proc/{process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize() / 2**20


def test_the_memory_of_a_long_training_stays_flat(tiny_config, tmp_path, start, one_device):
    tiny_config.batch_size, tiny_config.epochs = 1, STEPS / 8
    tiny_config.eval_every = tiny_config.checkpoint_every = STEPS // 20
    recipe = Recipe.of(tiny_config)
    assert inputs.count_steps(recipe, recipe.open_data()) == STEPS
    process, samples = start(tmp_path / "run"), []
    while process.poll() is None:
        time.sleep(0.5)
        rows = writers.read(tmp_path / "run" / "metrics.jsonl")
        if rows:
            samples.append((rows[-1]["step"], _resident_mib(process)))
    assert process.returncode == 0
    tenths = [
        statistics.median(mib for step, mib in samples if step * 10 // STEPS == tenth)
        for tenth in range(10)
    ]
    shown = " ".join(f"{mib:.0f}" for mib in tenths)
    print(f"\n{STEPS} steps, 20 evaluations, memory in each tenth of them, MiB: {shown}")
    assert tenths[9] < 1.02 * tenths[5]  # allocators settle in the first half
