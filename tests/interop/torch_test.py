# SPDX-License-Identifier: Apache-2.0
"""Files of the real PyTorch, which runs in an environment of its own."""

import ml_dtypes
import numpy as np
import pytest

from mdhr_jax.errors import InputError
from mdhr_jax.interop import files

pytestmark = pytest.mark.long

SAVE = """
import argparse, collections, functools, numpy, pathlib, torch
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
compiled = {f"_orig_mod.{name}": tensor for name, tensor in parallel.items()}
torch.save({"model_state_dict": compiled, "best": numpy.float64(0.6)}, "compiled.pth")
settings = argparse.Namespace(
    folder=pathlib.Path("x"), device=torch.device("cpu"), type=torch.float32, sides={1, 2},
    size=torch.Size([2]), make=functools.partial(torch.optim.AdamW, lr=0.1),
    by_name=collections.defaultdict(list, a=[1]), array=numpy.arange(3), loss=torch.nn.BCELoss(),
)
lightning = {
    "epoch": numpy.int64(3),
    "pytorch-lightning_version": "2.1.0",
    "state_dict": {f"model.{name}": tensor for name, tensor in state.items()},
    "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
    "callbacks": {torch.nn.Linear: {"best_model_score": torch.tensor(0.3), "dirpath": settings}},
    "optimizer_states": [optimizer.state_dict()],
    "hyper_parameters": settings,
}
torch.save(lightning, "lightning.ckpt")
torch.save({name: tensor.half() for name, tensor in state.items()}, "half.pth")
torch.save({name: tensor.bfloat16() for name, tensor in state.items()}, "bfloat16.pth")
torch.save(net, "model.pth")
torch.jit.script(net).save("program.pt")
"""
SAVED = ("alone", "whole", "old", "swin", "parallel", "parameters", "compiled", "lightning")

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
    with np.load(tmp_path / "expected.npz") as arrays:
        expected = dict(arrays)
    for name in SAVED:
        found = files.read(next(tmp_path.glob(f"{name}.*")))
        assert found.keys() == set(expected), name
        for entry, array in expected.items():
            np.testing.assert_array_equal(found[entry], array, strict=True)
    for name, dtype in (("half", np.float16), ("bfloat16", ml_dtypes.bfloat16)):
        found = files.read(tmp_path / f"{name}.pth")
        for entry, array in expected.items():
            narrow = array.astype(dtype).astype(np.float32)
            np.testing.assert_array_equal(found[entry], narrow, strict=True)
    for name, kind in (("model.pth", "a whole model, the name torch"), ("program.pt", "TorchScri")):
        with pytest.raises(InputError, match=kind):
            files.read(tmp_path / name)


def test_a_file_of_torch_that_is_cut_off_is_told_as_such(run_torch, tmp_path):
    run_torch(SAVE)
    for name, whole in (("whole", r"\d+ bytes or more"), ("old", "{} bytes;")):
        data = (tmp_path / f"{name}.pth").read_bytes()
        half = len(data) - 100
        (tmp_path / "half.pth").write_bytes(data[:half])
        with pytest.raises(InputError, match=f"cut off after {half} of {whole.format(len(data))}"):
            files.read(tmp_path / "half.pth")


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
