# SPDX-License-Identifier: Apache-2.0
"""The PyTorch twin agrees with the golden vectors, so that others may be compared with it."""

import pathlib

import numpy as np
import pytest
from einops import rearrange

from mdhr_jax.interop import files, names, official
from mdhr_jax.verify import cases, network

pytestmark = pytest.mark.long
ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = ROOT / "tests/golden"

# Weights and clips in, every stage, losses, gradients and running statistics out.
SCRIPT = """
import sys
import numpy, torch
sys.path.insert(0, sys.argv[1])
import torch_mdhr
layout, backbone, k = sys.argv[2], sys.argv[3], int(sys.argv[4])
given = {name: torch.from_numpy(array) for name, array in numpy.load("given.npz").items()}
model = torch_mdhr.build(layout, backbone, k=k)
model.load_state_dict(torch.load("model.pth")["state_dict"], strict=True)
for module in model.modules():
    if isinstance(module, torch_mdhr.DropPath):
        module.rate = 0.0
with torch.no_grad():
    outputs = model.eval()(given["clips"])
    numpy.savez("eval.npz", **{name: x.numpy() for name, x in outputs.items()})
outputs = model.train()(given["train_clips"])
losses = torch_mdhr.loss(outputs, given["labels"], given["weights"], torch_mdhr.LAYOUTS[layout])
losses["loss"].backward()
numpy.savez("train.npz", **{name: x.detach().numpy() for name, x in outputs.items()})
numpy.savez("losses.npz", **{name: x.detach().numpy() for name, x in losses.items()})
numpy.savez("gradients.npz", **{n: p.grad.numpy() for n, p in model.named_parameters()})
running = {n: b.numpy() for n, b in model.named_buffers() if "running" in n}
numpy.savez("running.npz", **running)
"""


@pytest.mark.parametrize("case", cases.read(GOLDEN), ids=lambda case: case.name)
def test_the_twin_passes_the_golden_vectors(run_torch, tmp_path, case):
    params, batch_stats = network.weights(case)
    state = {"step": 0, "params": params, "batch_stats": batch_stats}
    arrays = official.export(state, names.table(case.layout, network.BACKBONES[case.backbone]))
    files.write(tmp_path / "model.pth", arrays)
    clips, labels, _ = network.train_batch(case)
    np.savez(
        tmp_path / "given.npz",
        clips=rearrange(case.clips, "b t h w c -> b t c h w"),
        train_clips=rearrange(clips, "b t h w c -> b t c h w"),
        labels=rearrange(labels, "b t n -> (b t) n"),
        weights=case.arrays["class_weight"],
    )
    run_torch(SCRIPT, ROOT / "benchmarks", case.layout.name, case.backbone, case.facts["k"])

    def out(name):
        return dict(np.load(tmp_path / f"{name}.npz"))

    losses = out("losses")
    checks = [
        *network.forward_checks(case, "eval", out("eval")),
        *network.forward_checks(case, "train", out("train")),
        *network.loss_checks(case, losses["loss"], losses["wa"], losses["ce"]),
        *network.gradient_checks(case, out("gradients")),
        *network.running_checks(case, out("running")),
    ]
    failed = [str(check) for check in checks if not check.passed]
    assert not failed, "\n".join(failed)
