# SPDX-License-Identifier: Apache-2.0
"""The GraphAU family against its golden vectors."""

import pathlib
import shutil

import numpy as np
import pytest

from mdhr_jax.models import graphau as model
from mdhr_jax.verify import cases, golden, graphau, run

GOLDEN = pathlib.Path(__file__).parents[1] / "golden/graphau"
LISTS = pathlib.Path(__file__).parents[3] / "shared/official_lists"
CASES = {case.name: case for case in cases.read(GOLDEN)}
FIRST = {"megraph_bp4d_resnet50_stage2", "opengraph_resnet18_stage1", "opengraph_resnet18_stage2"}


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Not here: full-size models run longer than they compile."""


def _failures(checks):
    checks = list(checks)
    assert checks
    return [str(check) for check in checks if not check.passed]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in FIRST else pytest.mark.long)
        for name in CASES
    ],
)
def test_the_full_model_is_the_official_one(name):
    """Evaluation, and where it is there training, gradients and running statistics."""
    assert _failures(graphau.verify(CASES[name])) == []


@pytest.mark.parametrize(
    "name", ["loss", *(pytest.param(n, marks=pytest.mark.slow) for n in ("units", "preprocess"))]
)
def test_small_files_are_within_tolerance(name, capsys):
    assert run.verify(GOLDEN, only=[name])
    said = capsys.readouterr().out
    assert ("sam" in said) == (name == "loss") and ("jitter" in said) == (name == "preprocess")


def test_path_lists_are_checked_against_official_lists(tmp_path, capsys):
    shutil.copy(GOLDEN / "loss.npz", tmp_path)
    (tmp_path / "lists.json").write_text("{}")
    assert run.verify(tmp_path)
    assert "lists.json\n  not checked: --lists" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.skipif(not LISTS.exists(), reason="the official lists are in ../shared")
def test_the_official_lists_name_the_releases_frames(capsys):
    assert run.verify(GOLDEN, LISTS, only=["lists"])
    assert "DISFA_fold3 class weights" in capsys.readouterr().out


@pytest.mark.slow
def test_other_variants_are_out(monkeypatch):
    """The other release's order of ReLU and sum, sides at home, another graph."""

    def scores(name):
        failures = _failures(graphau.verify(CASES[name], training=False))
        return [line for line in failures if line.split()[1] == "scores"]

    first, second = "opengraph_resnet18_stage1", "opengraph_resnet18_stage2"
    with monkeypatch.context() as patch:
        patch.setitem(graphau.UPDATES, "opengraph", "activated_sum")
        assert scores(second)
    with monkeypatch.context() as patch:
        patch.setitem(model.SIDES, "released", {})
        assert scores(second)
    for fact, other in [("top_k", 5), ("metric", "cosine")]:
        with monkeypatch.context() as patch:
            patch.setitem(CASES[first].facts, fact, other)
            assert scores(first)


# A name and shape for every rule of kind and place that MDHR has not: first value, last value.
WEIGHTS = {
    ("backbone.layer3.7.bn3.weight", (3,)): (0.14734909, 0.13990302),
    ("backbone.layer2.1.bn3.weight", (3,)): (0.65040541, 0.49113688),
    ("global_linear.bn.running_var", (128,)): (36.64360428, 36.07686615),
    ("head.main_class_linears.3.bn.bias", (3,)): (-0.42200047, -0.19453880),
    ("head.class_linears.11.bn.bias", (3,)): (-0.10627860, -0.26885995),
    ("head.edge_extractor.FAM.linear_q.weight", (2, 4)): (0.02615680, -0.17816219),
    ("head.edge_extractor.FAM.linear_q.bias", (3,)): (-0.20630418, 0.15021564),
    ("head.edge_extractor.bn.running_var", (3,)): (5.18622017, 4.56156731),
    ("head.gnn.V2.weight", (2, 4)): (-0.25935897, 1.74167120),
    ("head.gnn.graph_layers.1.V.weight", (2, 4)): (-7.93069553, -10.90144730),
    ("head.gnn.V.weight", (2, 4)): (0.44673234, -0.43727630),
    ("head.gnn.bne1.running_mean", (3,)): (0.03141974, 0.00725104),
    ("head.gnn.graph_layers.0.bnv.weight", (3,)): (1.10129595, 0.96471173),
    ("head.sub_sc", (3, 2)): (-0.07082286, 2.72031069),
    ("backbone.layers.0.blocks.0.mlp.fc1.weight", (2, 5)): (-0.46152240, 0.27715597),
}


@pytest.mark.parametrize(("entry", "expected"), WEIGHTS.items(), ids=lambda x: x[0])
def test_weights_equal_the_recipes(entry, expected):
    weight = golden.weight(*entry, 1)
    np.testing.assert_allclose((weight.flat[0], weight.flat[-1]), expected, rtol=1e-6)
