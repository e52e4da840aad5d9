# SPDX-License-Identifier: Apache-2.0
import gc
import json
import resource

import jax.numpy as jnp
import pytest

from mdhr_jax import errors
from mdhr_jax.machine import progress
from mdhr_jax.run import writers


def _train(workdir, steps, start=0):
    """Logs a deterministic loss for steps start + 1 to start + steps."""
    writer = writers.RunWriter(workdir, step=start, total_steps=8)
    for step in range(start + 1, start + steps + 1):
        values = {"loss": 1 / step, "learning_rate": 1e-4}
        writer.train(step, values, frames_per_second=7.5 * step, input_wait=0.004 * step)
    writer.close()


def _lines(workdir):
    return (workdir / "metrics.jsonl").read_text().splitlines()


def test_a_row_holds_step_kind_and_scalars(tmp_path):
    _train(tmp_path, 1)
    assert [json.loads(line) for line in _lines(tmp_path)] == [
        {"step": 1, "kind": "train", "loss": 1.0, "learning_rate": 1e-4}
    ]


def test_scalars_may_be_arrays_of_the_device(tmp_path):
    writer = writers.RunWriter(tmp_path, step=0, total_steps=8)
    writer.train(1, {"loss": jnp.float32(0.5)}, frames_per_second=1.0, input_wait=0.0)
    writer.close()
    assert json.loads(_lines(tmp_path)[0])["loss"] == 0.5


def test_a_row_is_on_disk_before_close(tmp_path):
    writer = writers.RunWriter(tmp_path, step=0, total_steps=8)
    writer.train(1, {"loss": 1.0}, frames_per_second=1.0, input_wait=0.0)
    assert len(_lines(tmp_path)) == 1
    writer.close()


def test_a_resumed_run_leaves_the_rows_of_an_uninterrupted_one(tmp_path):
    _train(tmp_path / "whole", 5)
    _train(tmp_path / "resumed", 4)
    _train(tmp_path / "resumed", 3, start=2)  # the checkpoint was at step 2
    assert _lines(tmp_path / "resumed") == _lines(tmp_path / "whole")


def test_a_row_cut_short_by_a_kill_is_dropped(tmp_path):
    _train(tmp_path, 2)
    path = tmp_path / "metrics.jsonl"
    with path.open("a") as file:
        file.write('{"step": 3, "ki')
    assert [row["step"] for row in writers.read(path)] == [1, 2]
    writers.resume_at(path, 9)
    assert [json.loads(line)["step"] for line in _lines(tmp_path)] == [1, 2]


def test_resume_leaves_no_other_file(tmp_path):
    _train(tmp_path, 2)
    writers.resume_at(tmp_path / "metrics.jsonl", 1)
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl", "tensorboard"}


@pytest.mark.parametrize("line", ["not json", "[1, 2]", "[" * 10**5, '{"loss": 1.0}'])
def test_a_damaged_line_is_refused_with_its_place(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + line + "\n")
    with pytest.raises(errors.InputError, match=r"metrics.jsonl:2: expected"):
        writers.read(path)


def test_values_that_are_not_finite_become_null(tmp_path):
    writer = writers.RunWriter(tmp_path, step=0, total_steps=8)
    writer.evaluation(1, {"accuracy": float("nan")})
    writer.close()
    assert json.loads(_lines(tmp_path)[0])["accuracy"] is None


def test_speed_goes_to_tensorboard_and_terminal_only(tmp_path, capsys):
    _train(tmp_path, 4)
    written = "".join(_lines(tmp_path))
    assert "frames" not in written and "input" not in written
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"speed/frames_per_second" in events.read_bytes()
    assert b"speed/input_wait" in events.read_bytes()
    assert b"train/loss" in events.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("room", [100, 4000])  # for both files in turn
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # unwritten rest
def test_a_full_disk_ends_the_run_and_does_not_stop_it_for_ever(tmp_path, room):
    writer = writers.RunWriter(tmp_path, step=0, total_steps=1000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            for step in range(1, 1000):
                writer.train(step, {"loss": 0.5}, frames_per_second=30.0, input_wait=0.0)
        with pytest.raises(OSError, match="File too large"):
            writer.close()
        assert writer._rows.closed
        del writer
        gc.collect()  # complains of the unwritten rest here, not in another test
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_without_a_terminal_progress_is_whole_lines(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0)
    _train(tmp_path, 4)
    error = capsys.readouterr().err
    assert "\r" not in error
    assert "loss=0.2500, frames/s=30, input=1.6%" in error.splitlines()[-1]


def test_evaluation_shows_means_and_the_f1_of_every_au(tmp_path, capsys):
    writer = writers.RunWriter(tmp_path, step=0, total_steps=8)
    writer.evaluation(2, {"mean_f1": 0.5, "f1/AU01": 0.25})
    writer.close()
    assert "step 2: mean_f1 0.5000\n  F1 in %: AU01 25\n" in capsys.readouterr().err
    assert json.loads(_lines(tmp_path)[0])["f1/AU01"] == 0.25
