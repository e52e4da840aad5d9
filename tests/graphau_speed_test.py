# SPDX-License-Identifier: Apache-2.0
"""GraphAU's speed beside PyTorch: nothing is timed before both agree."""

import importlib
import pathlib
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
MODULES = ("answers", "sides", "graphau_speed")


@pytest.fixture
def graphau_speed(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)  # it imports its neighbours
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("graphau_speed")
    for name in MODULES:
        sys.modules.pop(name, None)


def test_a_model_that_there_is_not_is_one_line(graphau_speed, capsys):
    assert graphau_speed.main(["opengraph_vgg_stage2"]) == 2
    assert capsys.readouterr().err == (
        "graphau_speed: 'opengraph_vgg_stage2' is none; name one like opengraph_resnet50_stage2\n"
    )


@pytest.mark.long
@pytest.mark.usefixtures("torch_python")
def test_both_sides_are_timed_after_they_agreed(graphau_speed, monkeypatch, capsys):
    once = ["--variant=released", "--frames=2", "--rounds=1", "--windows=1", "--seconds=0.1"]
    assert graphau_speed.main(["megraph_bp4d_resnet18_stage2", *once]) == 0
    *_, row, _ = capsys.readouterr().out.split("\n")
    variant, _, ours, theirs, ratio, apart = (cell.strip() for cell in row.split("|")[1:-1])
    assert variant == "released" and float(apart) <= 1e-5
    assert min(map(float, (ours, theirs, ratio))) > 0
    monkeypatch.setattr(graphau_speed, "PICTURE_SEED", 1)
    assert graphau_speed.main(["megraph_bp4d_resnet18_stage2", *once]) == 2
    assert "apart: the two do not compute the same" in capsys.readouterr().err
