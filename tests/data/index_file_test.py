# SPDX-License-Identifier: Apache-2.0
"""An index that is no table of frames is refused before anything is made of it."""

import hashlib
import io
import zipfile

import numpy as np
import pytest

from tests.data.records_test import change_metadata, refused


def test_damaged_index_is_refused(copy):
    with (copy / "index.npz").open("r+b") as file:
        file.seek(500)
        file.write(b"damage")
    refused(copy, "index.npz", "damaged")


def test_the_index_of_an_earlier_version_is_refused(copy):
    with np.load(copy / "index.npz") as arrays:
        earlier = {name: array for name, array in arrays.items() if name != "breaks"}
    np.savez(copy / "index.npz", **earlier)
    digest = hashlib.sha256((copy / "index.npz").read_bytes()).hexdigest()
    change_metadata(copy, index_sha256=digest)
    refused(
        copy, "index.npz: has no breaks, an earlier version made it; prepare the data set again"
    )


def _npz(**changes):
    arrays = {
        "videos": np.array(["a"]),
        "subjects": np.array(["a"]),
        "video": np.zeros(2, int),
        "number": np.arange(2),
        "labels": np.zeros((2, 8), np.int8),
        "breaks": np.zeros(2, bool),
    }
    data = io.BytesIO()
    np.savez(data, **arrays | changes)
    return data.getvalue()


def _huge():
    """A table whose first column claims 2^62 numbers that are not there."""
    header = io.BytesIO()
    description = {"descr": "<i8", "fortran_order": False, "shape": (2**62,)}
    np.lib.format.write_array_header_2_0(header, description)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("videos.npy", header.getvalue())
    return data.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        _huge(),
        _npz()[:-40],
        _npz(number=np.array([{}, {}], object)),
        _npz(number=np.arange(3)),
        _npz(video=np.array([1, 0])),
        _npz(video=np.array([0, 1])),
        _npz(labels=np.zeros((2, 8), np.float32)),
        _npz(videos=np.array([[["a"]]])),
        _npz(labels=np.zeros((2, 5), np.int8)),
        _npz(labels=np.full((2, 8), 7, np.int8)),
        _npz(place=np.array([1, 0])),
        _npz(place=np.array([0, 0])),
        _npz(number=np.array([1, 0])),
        _npz(videos=np.array(["\x1b[2J"])),
        _npz(subjects=np.array(["../../../a"])),  # names a file of `check-data`
        _npz(subjects=np.array(["a\n"])),
        _npz(subjects=np.array([""])),
        _npz(subjects=np.array(["a" * 101])),
    ],
)
def test_an_index_that_is_no_table_is_refused_even_where_its_checksum_is_right(copy, data):
    (copy / "index.npz").write_bytes(data)
    change_metadata(copy, index_sha256=hashlib.sha256(data).hexdigest())
    refused(copy, "index.npz", "prepare the data set again")
