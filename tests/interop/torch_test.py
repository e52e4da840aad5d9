# SPDX-License-Identifier: Apache-2.0
"""Files of the real PyTorch, which runs in an environment of its own."""

import numpy as np
import pytest

from mdhr_jax.interop import files

pytestmark = pytest.mark.slow

SAVE = """
import numpy, torch
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
net[0].to(memory_format=torch.channels_last)
optimizer = torch.optim.AdamW(net.parameters())
for _ in range(3):
    net(torch.randn(2, 3, 5, 5)).square().sum().backward()
    optimizer.step()
state = net.state_dict()
numpy.savez("expected.npz", **{name: tensor.numpy() for name, tensor in state.items()})
whole = {"epoch": 3, "state_dict": state, "optimizer": optimizer.state_dict()}
torch.save(state, "alone.pth")
torch.save(whole, "whole.pth")
torch.save(whole, "old.pth", _use_new_zipfile_serialization=False)
torch.save({"model": state}, "swin.pth")
parallel = {f"module.{name}": tensor for name, tensor in state.items()}
torch.save(whole | {"state_dict": parallel}, "parallel.pth")
parameters = dict(net.named_parameters()) | dict(net.named_buffers())
torch.save({"state_dict": parameters}, "parameters.pth")
"""
SAVED = ("alone", "whole", "old", "swin", "parallel", "parameters")

LOAD = """
import numpy, sys, torch
expected = numpy.load("expected.npz")
for safely in (True, False):
    found = torch.load(sys.argv[1], weights_only=safely)
    assert found["epoch"] == 0
    state = found["state_dict"]
    assert list(state) == list(expected)
    for name in expected:
        assert state[name].numpy().dtype == expected[name].dtype
        numpy.testing.assert_array_equal(state[name].numpy(), expected[name])
"""


def test_what_torch_saves_is_read_bit_for_bit(run_torch, tmp_path):
    run_torch(SAVE)
    with np.load(tmp_path / "expected.npz") as expected:
        for name in SAVED:
            found = files.read(tmp_path / f"{name}.pth")
            assert found.keys() == set(expected), name
            for entry, array in expected.items():
                np.testing.assert_array_equal(found[entry], array, strict=True)


def test_what_is_written_torch_reads_bit_for_bit(run_torch, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "b.weight": rng.normal(size=(2, 3, 4)).astype(np.float32).transpose(2, 0, 1),
        "a.num_batches_tracked": np.array(2**40, np.int64),
        "a.empty": np.zeros((0, 3), np.float32),
        "a.half": rng.normal(size=5).astype(np.float16),
    }
    np.savez(tmp_path / "expected.npz", **arrays)
    files.write(tmp_path / "ours.pth", arrays)
    run_torch(LOAD, "ours.pth")
