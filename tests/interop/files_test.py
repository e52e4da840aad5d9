# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from mdhr_jax.errors import InputError
from mdhr_jax.interop import files

FORMATS = pytest.mark.parametrize("suffix", files.SUFFIXES)
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
def test_the_prefix_of_several_gpus_is_dropped(tmp_path, suffix):
    file = tmp_path / f"weights{suffix}"
    files.write(file, {f"module.{name}": array for name, array in ARRAYS.items()})
    assert files.read(file).keys() == ARRAYS.keys()


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
