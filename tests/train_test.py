# SPDX-License-Identifier: Apache-2.0
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdhr_jax import checkpoint, errors, evaluate, runs, sharding, steps, train, writers

REPOSITORY = pathlib.Path(__file__).parents[1]


def _final_state(workdir, config):
    programs = train.compile_programs(
        config, runs.open_data(config), sharding.make_mesh(), total_steps=8
    )
    return checkpoint.restore(runs.checkpoints(workdir), "last", programs.abstract)


def _assert_equal_runs(one, other, config):
    assert (one / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()
    jax.tree.map(
        np.testing.assert_array_equal, _final_state(one, config), _final_state(other, config)
    )


@pytest.fixture
def stop_at_step(monkeypatch):
    """Makes the run stop, as by Ctrl-C, before a step."""
    put_batch = sharding.put_batch

    def arrange(step):
        steps_before = iter(range(1, step))

        def put(mesh, batch):
            if "augment" in batch and next(steps_before, None) is None:
                monkeypatch.setattr(sharding, "put_batch", put_batch)
                raise KeyboardInterrupt
            return put_batch(mesh, batch)

        monkeypatch.setattr(sharding, "put_batch", put)

    return arrange


@pytest.mark.slow
def test_an_interrupted_run_ends_bit_equal_to_one_that_was_not(
    tiny_config, tmp_path, stop_at_step, one_device
):
    train.train(tiny_config, tmp_path / "whole")
    stop_at_step(6)
    with pytest.raises(KeyboardInterrupt):
        train.train(tiny_config, tmp_path / "stopped")
    assert checkpoint.latest_step(runs.checkpoints(tmp_path / "stopped"), "last") == 3
    train.train(tiny_config, tmp_path / "stopped")
    _assert_equal_runs(tmp_path / "whole", tmp_path / "stopped", tiny_config)

    rows = writers.read(tmp_path / "whole" / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 9))
    assert [row["step"] for row in rows if row["kind"] == "eval"] == [4, 8]
    best = max((row for row in rows if row["kind"] == "eval"), key=lambda row: row["mean_f1"])
    saved = runs.checkpoints(tmp_path / "whole")
    assert checkpoint.latest_step(saved, "best") == best["step"]
    assert checkpoint.latest_step(saved, "last") == 8

    result, scored = evaluate.evaluate(tmp_path / "whole")
    assert result.rows[0].values[-1] == pytest.approx(rows[-1]["mean_f1"], abs=1e-12)
    assert np.isfinite(scored.scores).all()


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(
    tiny_config, tmp_path, monkeypatch, one_device
):
    make_train_step = steps.make_train_step

    def poisoned(*arguments, **keywords):
        train_step = make_train_step(*arguments, **keywords)

        def step(state, batch):
            state, scalars = train_step(state, batch)
            return state, scalars | {
                "loss": jnp.where(state["step"] == 5, jnp.nan, scalars["loss"])
            }

        return step

    monkeypatch.setattr(steps, "make_train_step", poisoned)
    with pytest.raises(errors.NonFiniteLossError, match="step 5: the loss is nan"):
        train.train(tiny_config, tmp_path)
    assert checkpoint.latest_step(runs.checkpoints(tmp_path), "last") == 3


@pytest.mark.slow
def test_a_killed_process_resumes_bit_equal(tiny_config, config_file, tmp_path):
    """kill -9 three times at different moments, then the same command to the end."""
    tiny_config.epochs, tiny_config.batch_size = 5.0, 1  # forty steps
    file = config_file()
    command = [sys.executable, "-m", "mdhr_jax.cli", "train", f"--config={file}"]

    def start(workdir):
        return subprocess.Popen(
            [*command, f"--workdir={workdir}"], cwd=REPOSITORY, stderr=subprocess.PIPE
        )

    def finish(workdir):
        process = start(workdir)
        _, stderr = process.communicate(timeout=400)
        assert process.returncode == 0, stderr.decode()

    finish(tmp_path / "whole")
    for rows in (5, 14, 30):
        process = start(tmp_path / "killed")
        while len(writers.read(tmp_path / "killed" / "metrics.jsonl")) < rows:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(tmp_path / "killed")

    one, other = (tmp_path / name / "metrics.jsonl" for name in ("whole", "killed"))
    assert one.read_text() == other.read_text()
    for name in ("last", "best"):
        states = [
            runs.restore_model(tmp_path / run, tiny_config, name) for run in ("whole", "killed")
        ]
        jax.tree.map(np.testing.assert_array_equal, *states)
