# SPDX-License-Identifier: Apache-2.0
"""The comparison with PyTorch: what it refuses, what it says, and one run of it."""

import dataclasses
import json
import pathlib
import sys

import pytest

from mdhr_jax import errors

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"


def _about(device="cpu"):
    return {
        "device": device,
        "kind": "cpu" if device == "cpu" else "gpu",
        "versions": "some 1.0",
        "flops": 2e12,
        "bandwidth": 3e9,
    }


@pytest.fixture
def place(benchmark):
    """Where rows were measured: on a CPU, or with the goals' batch on a device."""

    def make(device="cpu", standard=False):
        apart = benchmark("sides").Apart(1e-6, 2e-6, 3e-6)
        about = _about(device)
        return benchmark("side_table").Place("8 clips", about, about, 2, 0.5, apart, standard)

    return make


def test_each_ablation_leaves_one_thing_out(benchmark):
    variants = benchmark("variants")
    tuned = dataclasses.asdict(variants.VARIANTS["tuned"])
    for name in variants.ABLATED:
        without = dataclasses.asdict(variants.VARIANTS[f"tuned-without-{name}"])
        assert [key for key in tuned if tuned[key] != without[key]] == [name]
    assert not any(dataclasses.asdict(variants.VARIANTS["released"]).values())


def test_windows_hold_as_many_calls_as_fit(benchmark, monkeypatch):
    answers = benchmark("answers")
    clock = iter(range(10**6))
    monkeypatch.setattr(answers.time, "perf_counter", lambda: next(clock) * 0.25)
    calls, waits = [], []
    seconds = answers.seconds_per_call(lambda: calls.append(1), waits.append, 3, 1.0)
    # Each window takes 0.25 s of this clock, so the trial call says that four fit in one second.
    assert seconds == [0.25 / 4] * 3 and len(calls) == 1 + 1 + 3 * 4
    assert len(waits) == 5  # once a window


def test_the_table_has_medians_ratios_and_what_is_missing(benchmark, place):
    side_table = benchmark("side_table")
    rows = [
        side_table.Row("resnet50", "tuned", "train_step", 128, [0.1, 0.2, 0.9], [0.4, 0.3, 0.5]),
        side_table.Row("resnet50", "tuned", "clips", 512, missing="out of memory"),
    ]
    line, *others = side_table.table(rows, place()).splitlines()[2:]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [
        *("resnet50", "train step", "128", "tuned", "200.00", "400.00", "640.0", "320.0"),
        *("0.50", "1.00"),
    ]
    text = "\n".join(others)
    assert "not measured: resnet50, scores of many clips, tuned: out of memory" in text
    assert "not measured: the goals for one H200" in text
    assert "1.0e-06 in float32" in text and "500 ms" in text


def test_goals_of_an_h200_are_said_for_its_batch_only(benchmark, place):
    side_table = benchmark("side_table")
    rows = [side_table.Row("resnet50", "released", "train_step", 128, [0.02], [0.1])]
    assert "0.22, 18 ms" in side_table.table(rows, place("NVIDIA H200", standard=True))
    other = side_table.table(rows, place("NVIDIA H200"))
    assert "0.22" not in other and "not measured: the goals" in other


@pytest.mark.parametrize(
    ("changed", "by"), [("scores", 1e-3), ("timed", 0.1), ("loss", 1e-3), ("scores", float("nan"))]
)
def test_sides_that_differ_are_not_timed(benchmark, changed, by):
    sides = benchmark("sides")
    ours = {"scores": [0.5, 0.25], "timed": [0.5, 0.25], "loss": 1.0}
    assert sides.apart(ours, ours) == (0, 0, 0)
    theirs = ours | {changed: 1.0 + by if changed == "loss" else [0.5, 0.25 + by]}
    with pytest.raises(errors.InputError, match="they do not compute the same"):
        sides.apart(ours, theirs)


def test_a_side_that_stops_is_a_reason(benchmark, tmp_path):
    sides, script = benchmark("sides"), tmp_path / "dies.py"
    script.write_text("")
    with sides.Side(sys.executable, script) as side:
        with pytest.raises(sides.Failed, match="dies.py stopped, its message is above"):
            side.ask("about")


def test_a_gpu_is_not_compared_with_a_cpu(benchmark):
    with pytest.raises(errors.InputError, match="JAX runs on cpu, PyTorch on NVIDIA H200"):
        benchmark("sides").same_device(_about(), _about("NVIDIA H200"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--variants", "fast"], "--variants: 'fast' is none; choose from released, tuned"),
        (["--backbones", "vgg"], "--backbones: no twin of 'vgg'; choose from resnet50"),
        (["--clips", "0"], "--clips=0: give at least 1"),
        (["--precision", "float16"], "precision='float16' is unknown"),
        (["--torch", "nowhere/python"], "--torch=nowhere/python: no such file"),
        (
            ["--torch", sys.executable, "--out", "nowhere/f"],
            "--out: nowhere/f: No such file or dir",
        ),
    ],
)
def test_wrong_arguments_are_one_line(benchmark, capsys, arguments, said):
    assert benchmark("side_by_side").main(arguments) == 2
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1


def test_a_measurement_that_is_ended_keeps_its_rows(benchmark, monkeypatch, tmp_path):
    side_by_side, file = benchmark("side_by_side"), tmp_path / "out.json"
    row = benchmark("side_table").Row("resnet50", "tuned", "clips", 512, [0.5], [0.25])

    def rows(bench):
        bench.ours = bench.theirs = _about()
        yield row
        raise KeyboardInterrupt

    monkeypatch.setattr(side_by_side.Bench, "rows", rows)
    with pytest.raises(KeyboardInterrupt):
        side_by_side.main(["--torch", sys.executable, "--out", str(file)])
    said = json.loads(file.read_text())
    assert said["rows"] == [row._asdict()] and said["place"]["ours"] == _about()


NARROW = [
    *("--backbones", "resnet_narrow", "--features", "16", "--image_size", "64"),
    *("--clips", "1", "--frames", "4", "--eval_clips", "2", "--rounds", "1"),
    *("--seconds", "0.1"),
]


@pytest.mark.long
def test_both_sides_are_timed_after_they_agreed(run_torch, benchmark, tmp_path, capsys):
    file = tmp_path / "out.json"
    variants = "released,tuned-without-compiled,tuned-without-autocast"
    arguments = [*NARROW, "--variants", variants, "--precision", "float32", "--out", str(file)]
    assert benchmark("side_by_side").main(arguments) == 0
    said = json.loads(file.read_text())
    timed = [row for row in said["rows"] if not row["missing"]]
    assert len(timed) == 2 * 4 and len(said["rows"]) == 3 * 4
    assert all(len(row[side]) == 5 for row in timed for side in ("ours", "theirs"))
    assert all(seconds > 0 for row in timed for seconds in row["ours"] + row["theirs"])
    assert max(said["place"]["apart"]) < 1e-4
    assert "in float32 no variant has it" in capsys.readouterr().out
