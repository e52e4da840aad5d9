# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as the release saves them: in, evaluated, out, and into PyTorch's model again."""

import pathlib

import numpy as np
import pytest
from einops import rearrange

from mdhr_jax import cli
from mdhr_jax.verify import cases

pytestmark = pytest.mark.long
ROOT = pathlib.Path(__file__).parents[2]
CASES = [  # in CI each layout and each backbone once
    pytest.param(
        case,
        id=case.name,
        marks=()
        if (case.layout.name == "bp4d") == case.backbone.startswith("resnet")
        else pytest.mark.soak,
    )
    for case in cases.read(ROOT / "tests/golden")
]

# The official names and shapes from the twin, the values from the recipe.
SAVE = """
import sys, torch
sys.path[:0] = sys.argv[1:3]
import torch_mdhr
from mdhr_jax.verify import golden
layout, backbone, seed = *sys.argv[3:5], int(sys.argv[5])
model = torch_mdhr.build(layout, backbone)
tables = ("relative_position_index", "attn_mask")
for name, tensor in model.state_dict().items():
    if name.endswith("num_batches_tracked"):
        tensor.fill_(5600)
    elif not name.endswith(tables):
        tensor.copy_(torch.from_numpy(golden.weight(name, tuple(tensor.shape), seed)))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
model.node_classifier.sc.grad = torch.ones_like(model.node_classifier.sc)
optimizer.step()  # moments of one parameter: those of all would make the file three times as long
whole = {"epoch": 200, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
torch.save(whole, "plain.pth")
parallel = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
torch.save(whole | {"state_dict": parallel}, "parallel.pth")
"""
LOAD = """
import sys, torch
sys.path.insert(0, sys.argv[1])
import torch_mdhr
model = torch_mdhr.build(*sys.argv[2:])
official = torch.load("plain.pth", weights_only=True)["state_dict"]
for file in ("plain-exported.pth", "parallel-exported.pth"):
    found = torch.load(file, weights_only=True)["state_dict"]
    assert list(found) == list(official) == list(model.state_dict())
    model.load_state_dict(found, strict=True)
    for name, tensor in model.state_dict().items():
        expected = official[name]
        assert (tensor.dtype, tensor.shape) == (expected.dtype, expected.shape), name
        assert tensor.numpy().tobytes() == expected.numpy().tobytes(), name
"""


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Not here: full-size models run longer than they compile."""


def convert(*arguments):
    assert cli.main(["convert", *map(str, arguments)]) == 0


@pytest.mark.parametrize("case", CASES)
def test_official_checkpoints_come_back_as_they_were(run_torch, folder, one_device, evaluate, case):
    """Without and with DataParallel's prefix; the bits are the same, so one is evaluated."""
    model = case.layout.name, case.backbone
    run_torch(SAVE, ROOT, ROOT / "benchmarks", *model, case.facts["base_seed"])
    clip = f"--clip_length={case.facts['T']}", f"--k={case.facts['k']}"
    for name in ("plain", "parallel"):
        convert(folder / f"{name}.pth", folder / name, *clip)
        convert(folder / name, folder / f"{name}-exported.pth")
    scores = rearrange(evaluate(folder / "plain", case.clips), "b t n -> (b t) n")
    difference = np.abs(scores - case.arrays["eval.scores"]).max()
    print(f"{case.name}: scores differ by at most {difference:.1e}")  # pytest -rP shows it
    assert difference <= 1e-5
    run_torch(LOAD, ROOT / "benchmarks", *model)
