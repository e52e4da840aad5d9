# SPDX-License-Identifier: Apache-2.0
"""Everything in one command (launch/measure.sh): its lines, its tables, and a tiny run of it."""

import json
import pathlib

import pytest

REPOSITORY = pathlib.Path(__file__).parents[1]
BENCHMARKS = REPOSITORY / "benchmarks"


@pytest.fixture
def part(benchmark, tmp_path, monkeypatch):
    """A part that is a few lines of Python; what it has found is in `file`, a name of its own."""
    plan = benchmark("plan")
    monkeypatch.setattr(plan, "HERE", tmp_path)

    def make(name, program, least=0.0, **more):
        (tmp_path / f"{name}.py").write_text(f"import sys\nfile = sys.argv[1]\n{program}")
        words = (f"{name}.py", f"WORK/{name}.json")
        return plan.Part(name, words, least, {}, plan._json(name), **more)

    return make


FINDS = 'open(file, \'w\').write(\'{"seconds": {"median": 0.5}, "frames_per_second": 3}\')\n'


@pytest.fixture
def lines(benchmark, part, tmp_path, monkeypatch, capsys):
    """Lines of a measurement of some parts."""
    measure, plan = benchmark("measure"), benchmark("plan")

    def run(*parts, budget=60.0):
        monkeypatch.setattr(plan, "parts", lambda size, torch: list(parts))
        monkeypatch.setattr(measure, "_LOOK", 0.05)
        out = tmp_path / "out"
        assert measure.main([f"--out={out}", f"--budget={budget}"]) == 0
        found = [json.loads(line) for line in (out / measure.LINES).read_text().splitlines()]
        assert all(line["command"] and line["device"] and line["versions"] for line in found)
        assert all(line["date"] and line["clocks"] is not None for line in found)
        return found

    return run


def test_a_part_that_fails_is_a_line_and_the_next_one_goes_on(lines, part):
    fails, finds = part("bad", "print('out of memory')\nsys.exit(3)"), part("good", FINDS)
    bad, good = lines(fails, finds)
    assert (bad["end"], bad["said"], bad["result"]) == ("exit code 3", ["out of memory"], None)
    assert good["end"] == "done" and good["result"]["frames_per_second"] == 3
    assert good["command"] == "python benchmarks/good.py WORK/good.json"


def test_the_budget_ends_a_part_and_what_was_found_stays(lines, part):
    waits = f"{FINDS}import time\ntime.sleep(60)"
    early, late, never = lines(
        part("long", waits, grows=True), part("next", FINDS, least=100.0), budget=2.0
    )
    assert early["end"] == "so far" and early["result"]["frames_per_second"] == 3
    assert late["end"].startswith("stopped: the budget ended after 2 s")
    assert late["result"] == early["result"] and late["seconds"] < 20
    assert never["end"].startswith("not begun: takes 100 s, ") and never["result"] is None


def test_what_this_python_lacks_is_one_line(benchmark, lines, part, monkeypatch, capsys):
    measure = benchmark("measure")
    monkeypatch.setattr(measure, "_version", lambda name: "" if name in ("grain", "av") else "1")
    monkeypatch.setattr(measure, "_torch", lambda python: "")
    lines(part("good", FINDS))
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "missing here: av, grain, torch; what needs them fails, the rest goes on"
    assert shown[-1] == "good: done"


def test_parts_stand_in_the_order_of_importance(benchmark):
    plan = benchmark("plan")
    for size in plan.SIZES:
        parts = plan.parts(size)
        assert len({part.name for part in parts}) == len(parts)
        assert all(
            (BENCHMARKS / part.words[0]).exists() or part.words[0] == "mdhr" for part in parts
        )
    names = [part.name for part in plan.parts("full")]
    in_order = ["device", "train-resnet50", "beside-resnet50", "train-swin_b", "inputs", "fold"]
    assert sorted(in_order, key=names.index) == in_order
    measured = {target.part for target in benchmark("targets").TARGETS}
    assert measured <= set(names)
    chosen = benchmark("measure").chosen(plan.parts("full"), "inputs,fold")
    assert [part.name for part in chosen] == ["inputs-set", "inputs", "fold-set", "fold"]


def _line(part, result, end="done", size="full", **more):
    return {
        **{"part": part, "end": end, "command": f"mdhr {part}", "size": size, "said": []},
        **{"date": "2026-11-30T00:00:00", "device": "NVIDIA H200", "clocks": {}, "seconds": 1.0},
        **{"versions": {"jax": "0.11.2"}, "result": result, **more},
    }


def _rows(*times):
    return {
        "place": None,
        "rows": [
            {
                **{"backbone": "resnet50", "variant": variant, "program": program, "frames": 128},
                **{"ours": [ours] * 5, "theirs": [theirs] * 5, "missing": ""},
            }
            for variant, program, ours, theirs in times
        ],
    }


@pytest.fixture
def shown(benchmark, tmp_path):
    """The table of targets of some lines: cells after the first two, by what they are about."""

    def show(*lines):
        file = tmp_path / "lines.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        text = benchmark("measured").tables(file)
        rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines()]
        return text, {row[0]: row[2:] for row in rows if len(row) == 7}

    return show


def test_targets_stand_beside_what_was_measured(shown):
    step = {"seconds": {"median": 0.017}, "frames_per_second": 7500.0}
    beside = _rows(("released", "train_step", 0.02, 0.08), ("tuned", "train_step", 0.02, 0.02))
    text, rows = shown(
        _line("train-resnet50", step),
        _line("beside-resnet50", beside, end="so far"),
        _line("train-swin_b", None, end="exit code 1", said=["InputError: no memory"]),
        _line("fold", {"fold_seconds": 300.0} | dict.fromkeys(_FOLD, 1.0)),
    )
    assert rows["ResNet-50, training step"] == ["13.4", "18", "26", "17", "goal reached"]
    of_release = rows["ResNet-50, training, PyTorch as released / ours"]
    assert of_release == ["", "4.5", "3.5", "4", "must reached"]
    assert rows["ResNet-50, training, tuned PyTorch / ours"][-2:] == ["1", "missed"]
    assert rows["Swin-B, training step"][-2:] == ["", "not measured: train-swin_b"]
    assert rows["ResNet-50, a fold of BP4D (717k frames), cold"][-2:] == ["5", "must reached"]
    assert "- train-swin_b: exit code 1 (InputError: no memory): `mdhr train-swin_b`" in text


_FOLD = (
    "steps",
    "evaluations",
    "seconds",
    "until_first_step",
    "step_seconds",
    "evaluation_seconds",
)


def test_another_call_adds_what_was_missing_and_takes_nothing_away(shown):
    step = {"seconds": {"median": 0.03}, "frames_per_second": 4000.0}
    text, rows = shown(
        _line("train-resnet50", None, end="not begun: takes 45 s, 0 s are left"),
        _line("train-resnet50", step, size="small"),
        _line("train-resnet50", None, end="exit code 1"),
    )
    assert rows["ResNet-50, training step"][-2:] == ["30", "other sizes"]
    assert "not begun" not in text and "exit code" not in text


def test_a_table_of_nothing_is_refused(benchmark, tmp_path, capsys):
    assert benchmark("measure").main([f"--table={tmp_path}"]) == 2
    assert "lines.jsonl" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.usefixtures("quick_compilation_elsewhere")
def test_every_part_is_measured_at_tiny_size(benchmark, run_torch, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # as the script says
    out, measure, plan = tmp_path / "out", benchmark("measure"), benchmark("plan")
    assert measure.main([f"--out={out}", "--size=tiny", "--budget=600"]) == 0
    lines = [json.loads(line) for line in (out / measure.LINES).read_text().splitlines()]
    ends = {line["part"]: line["end"] for line in lines}
    assert ends == {part.name: "done" for part in plan.parts("tiny")}, (out / "log.txt").read_text()
    assert len(list(out.iterdir())) <= 8
    capsys.readouterr()
    assert measure.main([f"--table={out}"]) == 0
    shown = capsys.readouterr().out
    for text in ("a copy", "one H200", "training with it", "checkpoint is written", "time in"):
        assert text in shown
    assert "ours / PyTorch" in shown and "a fold of BP4D" in shown and "0 stages out" in shown
