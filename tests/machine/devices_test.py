# SPDX-License-Identifier: Apache-2.0
import jax
import pytest

from mdhr_jax import errors
from mdhr_jax.faces import detectors
from mdhr_jax.machine import devices, sharding


@pytest.fixture
def unasked(monkeypatch):
    for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def test_a_machine_without_a_gpu_uses_its_cpu(monkeypatch, unasked, tmp_path):
    monkeypatch.setattr(devices, "GPUS", tmp_path / "none")
    assert devices.found() == jax.devices()


@pytest.mark.parametrize("gpus", [None, "0", "0,1"])
def test_the_cpu_of_a_machine_with_a_gpu_is_not_taken_unasked(monkeypatch, unasked, tmp_path, gpus):
    monkeypatch.setattr(devices, "GPUS", tmp_path)
    if gpus:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    for use in (devices.found, sharding.make_mesh, lambda: detectors.parse("mtcnn")):
        with pytest.raises(errors.InputError, match="a GPU that JAX cannot use: .*PLATFORMS=cpu"):
            use()


@pytest.mark.parametrize(
    ("name", "value"),
    [("JAX_PLATFORMS", "cpu"), ("CUDA_VISIBLE_DEVICES", ""), ("CUDA_VISIBLE_DEVICES", "-1")],
)
def test_the_cpu_may_be_asked_for(monkeypatch, unasked, tmp_path, name, value):
    monkeypatch.setattr(devices, "GPUS", tmp_path)
    monkeypatch.setenv(name, value)
    assert devices.found() == jax.devices()
