# SPDX-License-Identifier: Apache-2.0
import gzip
import io
import json
import random
import re
import struct

import ml_dtypes
import numpy as np
import pytest

from mdhr_jax.errors import InputError
from mdhr_jax.interop import files

FORMATS = pytest.mark.parametrize("suffix", files.SUFFIXES)
VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)
ARRAYS = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
    "a.num_batches_tracked": np.array(7, np.int64),
}


@FORMATS
def test_what_is_written_is_read_back(tmp_path, suffix):
    file = tmp_path / "new" / f"weights{suffix}"
    files.write(file, ARRAYS)
    found = files.read(file)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found.pop(name), array, strict=True)
    assert not found
    assert list(file.parent.iterdir()) == [file]


@FORMATS
@pytest.mark.parametrize(
    "wrapped",
    [
        "module.{}",
        "_orig_mod.{}",
        "module._orig_mod.{}",
        "_orig_mod.module.{}",
        "model.{}",
        "model._orig_mod.module.{}",
        "_fsdp_wrapped_module.{}",
    ],
)
def test_what_wrappers_put_before_names_is_dropped(tmp_path, suffix, wrapped):
    file = tmp_path / f"weights{suffix}"
    files.write(file, {wrapped.format(name): array for name, array in ARRAYS.items()})
    found = files.read(file)
    assert found.keys() == ARRAYS.keys()
    np.testing.assert_array_equal(found["a.weight"], ARRAYS["a.weight"])


def test_what_wrappers_put_within_names_is_dropped(tmp_path):
    file = tmp_path / "weights.pth"
    files.write(file, {"a._orig_mod.weight": VALUES, "b.module.c._orig_mod.weight": VALUES})
    assert list(files.read(file)) == ["a.weight", "b.c.weight"]


def test_a_model_that_is_there_twice_is_refused(tmp_path):
    file = tmp_path / "weights.pth"
    files.write(file, {"module.a.weight": VALUES, "a.weight": VALUES})
    with pytest.raises(InputError, match="weights.pth: holds a model twice"):
        files.read(file)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_widened_and_said(tmp_path, capsys, suffix, dtype):
    file = tmp_path / f"weights{suffix}"
    files.write(file, ARRAYS | {"a.weight": VALUES.astype(dtype)})
    found = files.read(file)
    np.testing.assert_array_equal(found["a.weight"], VALUES, strict=True)
    assert found["a.num_batches_tracked"].dtype == np.int64
    said = f"{file}: {np.dtype(dtype).name} is widened to float32\n"
    assert capsys.readouterr().err == said


def _npz():
    data = io.BytesIO()
    np.savez(data, a=VALUES)
    return data.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; copy or download it again"),
        (b"\n<!DOCTYPE html><title>Virus scan warning</title>", "is a web page; download the file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS; run `git lfs pull`"),
        (gzip.compress(b"weights", mtime=0), "is packed; name the file in it"),
        (bytes(257) + b"ustar", "is packed; name the file in it"),
        (b"\x89HDF\r\n\x1a\n", "is HDF5, as Keras writes it"),
        (b"\x93NUMPY\1\0", "is an array of NumPy"),
        (b"\x08\7\x12\7pytorch", "is an ONNX program"),
        (b"neither the one nor the other", "is no weight file that is known here"),
        (_npz(), r"an archive of other files, \['a.npy'\]"),
    ],
)
@pytest.mark.parametrize("name", ["weights.pth", "model.ckpt", "model.safetensors"])
def test_a_file_of_another_kind_is_refused_by_its_kind(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert files.is_weight_file(tmp_path / name)
    with pytest.raises(InputError, match=f"{name}: .*{message}"):
        files.read(tmp_path / name)


@pytest.mark.parametrize("suffix", files.SUFFIXES)
def test_the_content_says_the_format_and_not_the_name(tmp_path, suffix):
    files.write(tmp_path / f"weights{suffix}", ARRAYS)
    (tmp_path / f"weights{suffix}").rename(tmp_path / "last.ckpt")
    assert files.read(tmp_path / "last.ckpt").keys() == ARRAYS.keys()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.03, 0.5, 0.99])
def test_half_a_download_is_told_from_other_damage(tmp_path, suffix, share):
    file = tmp_path / f"weights{suffix}"
    files.write(file, {str(number): np.zeros((64, 64), np.float32) for number in range(4)})
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(
        InputError, match=r"cut off after \d+ of \d+ bytes.*download it again"
    ) as said:
        files.read(file)
    there, whole = map(int, re.search(r"after (\d+) of (\d+)", str(said.value)).groups())
    assert there == int(share * len(data))
    assert there < whole and 0.98 * len(data) < whole <= len(data)


NUMBERS = [0, 1, 2, 3, 6, 24, 25, -1, 2**31, 2**62, 2**63, 2**64 - 1, 2**64, 1.5, True, None, "6"]


@pytest.mark.parametrize("name", ["\x1b[2Jweight", "a\nmdhr: all is well", "\u202eweight"])
def test_names_that_change_the_terminal_are_refused(tmp_path, name):
    files.write(tmp_path / "a.safetensors", {name: np.full(1, np.nan, np.float32)})
    with pytest.raises(InputError, match="an entry is called") as caught:
        files.read(tmp_path / "a.safetensors")
    assert str(caught.value).isprintable()


def _mutated_safetensors(rng):
    """An honest file with another description, or some bytes replaced."""

    def numbers(*usual):
        return rng.choice(
            [list(usual), [rng.choice(NUMBERS) for _ in range(rng.choice([1, 2, 3]))]]
        )

    entry = {
        "dtype": rng.choice(["F32"] * 6 + ["F64", "BF16", "F8_E4M3", "C64", "X", 3]),
        "shape": numbers(2, 3),
        "data_offsets": numbers(0, 24),
    }
    header = bytearray(json.dumps({"a": entry}).encode())
    if rng.random() < 0.3:
        header[rng.randrange(len(header))] = rng.randrange(256)
    length = rng.choice([len(header)] * 9 + [0, 2**31, 2**62, 2**64 - 1, len(header) + 1])
    return struct.pack("<Q", length) + header + VALUES.tobytes()[: rng.choice([24, 24, 24, 10])]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_safetensors_are_read_or_refused_in_one_line(tmp_path, count):
    file, rng, refused = tmp_path / "a.safetensors", random.Random(0), 0
    for _ in range(count):
        file.write_bytes(_mutated_safetensors(rng))
        try:
            (array,) = files.read(file).values()
            assert array.size <= 24
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 500
    assert 0.6 * count < refused < count


@FORMATS
def test_numbers_that_are_not_finite_are_refused(tmp_path, suffix):
    file = tmp_path / f"weights{suffix}"
    files.write(file, ARRAYS | {"b": np.array([1, np.nan], np.float32)})
    with pytest.raises(InputError, match="1 entries hold numbers that are not finite, such as b"):
        files.read(file)


@FORMATS
def test_other_files_and_missing_ones_are_refused(tmp_path, suffix):
    file = tmp_path / f"weights{suffix}"
    with pytest.raises(InputError, match="weights"):
        files.read(file)
    file.write_bytes(b"neither the one nor the other")
    with pytest.raises(InputError, match="weights"):
        files.read(file)


@FORMATS
def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path, suffix):
    (tmp_path / f"taken{suffix}").mkdir()
    with pytest.raises(InputError, match="no regular file"):
        files.write(tmp_path / f"taken{suffix}", ARRAYS)
    assert [path.name for path in tmp_path.iterdir()] == [f"taken{suffix}"]
