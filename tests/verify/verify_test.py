# SPDX-License-Identifier: Apache-2.0
import dataclasses
import pathlib
import shutil

import numpy as np
import pytest
from flax import nnx

from mdhr_jax import errors
from mdhr_jax.verify import cases, network, run, small_files, verdict

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
CASES = sorted(file.stem for file in GOLDEN.glob("*_b*t*k*.json"))


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Not here: full-size models run longer than they compile."""


def _case(name):
    (case,) = [case for case in cases.read(GOLDEN) if case.name == name]
    return case


def _arrays(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def _failures(checks):
    checks = list(checks)
    assert checks
    return [str(check) for check in checks if not check.passed]


@pytest.mark.parametrize(
    "name", ["loss", "metric", "lr", pytest.param("units", marks=pytest.mark.slow)]
)
def test_small_files_are_within_tolerance(name):
    assert _failures(small_files.ARRAY_FILES[name](_arrays(name))) == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=pytest.mark.slow if name == "BP4D_resnet_b1t8k2" else pytest.mark.long
        )
        for name in CASES
    ],
)
def test_the_full_model_is_the_official_one(name):
    """Evaluation, training, gradients and running statistics of all four models."""
    assert _failures(network.verify(_case(name))) == []


@pytest.mark.slow
def test_a_wrong_stage_is_reported_out(monkeypatch):
    case = _case("BP4D_resnet_b1t8k2")
    case.arrays["eval.scores"] = case.arrays["eval.scores"] + np.float32(3e-5)
    case.arrays["eval.mask"][0, 0] = 1 - case.arrays["eval.mask"][0, 0]
    monkeypatch.setattr(network, "_training", lambda *_: iter(()))
    failures = _failures(network.verify(case))
    assert [line.split()[1] for line in failures] == ["mask", "scores"]


@pytest.mark.long
def test_a_gradient_out_in_float32_is_judged_in_float64():
    """A wrong golden stays out; a float32 difference that float64 does not confirm is noise."""
    case = _case("BP4D_resnet_b1t8k2")
    model = nnx.eval_shape(lambda: network._model(case.layout, case.backbone, case.facts["k"]))
    params, batch_stats = network.weights(case)
    case.facts["train_global_grad_norm"] *= 1.01
    in_float32 = [
        dataclasses.replace(check, difference=0.5)
        for check in network.gradient_checks(case, network.official_arrays(case, params))
    ]
    settled = list(network._settled(case, model, params, batch_stats, in_float32))
    assert [c.stage for c in settled if not c.passed] == ["train global gradient norm"]
    assert all("in float64; 5.00e-01 in float32" in c.note for c in settled)


def test_a_directory_is_judged_as_a_whole(tmp_path, capsys):
    shutil.copy(GOLDEN / "metric.npz", tmp_path)
    assert run.verify(tmp_path)
    arrays = _arrays("metric")
    arrays["a.TP"][3] += 1
    np.savez(tmp_path / "metric.npz", **arrays)
    assert not run.verify(tmp_path)
    assert "metric.npz: a tp" in capsys.readouterr().out


def test_list_files_are_not_checked_without_lists(tmp_path, capsys):
    shutil.copy(GOLDEN / "metric.npz", tmp_path)
    (tmp_path / "class_weights.json").write_text("{}")
    assert run.verify(tmp_path)
    assert "not checked: --lists" in capsys.readouterr().out


def test_files_may_be_chosen_and_their_training_left_out(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(network, "_evaluation", lambda *_: [verdict.exact("eval", [1], [1])])
    only = ["metric", "BP4D_resnet_b1t8k2"]
    assert run.verify(GOLDEN, only=only, training=False)
    assert "2 files checked, 0 stages out" in capsys.readouterr().out
    with pytest.raises(errors.InputError, match="--only: .* holds no metrics; choose from .*loss"):
        run.verify(GOLDEN, only=["metrics"])


def test_a_damaged_file_is_refused_by_name(tmp_path):
    (tmp_path / "loss.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(errors.InputError, match=r"loss\.npz: not a readable npz file"):
        run.verify(tmp_path)


def test_nan_and_a_wrong_shape_are_out():
    assert not verdict.absolute("nan", [np.nan], [1.0], 1.0).passed
    assert not verdict.absolute("shape", np.zeros(2), np.zeros(3), 1.0).passed
    assert not verdict.exact("count", [1, 0], [1, 1]).passed
    assert verdict.relative("zero", [0.0, 2.0], [0.0, 2.0], 1e-6).passed
    assert not verdict.relative("zero", [1e-30], [0.0], 1e-6).passed
