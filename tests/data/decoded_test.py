# SPDX-License-Identifier: Apache-2.0
import dataclasses
import errno
import fcntl
import functools
import os
import resource
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mdhr_jax import errors
from mdhr_jax.data import decoded, records


@pytest.fixture
def data(rendered_set, tmp_path):
    """A copy of the data set, which may get a file."""
    shutil.copytree(rendered_set.path, tmp_path / "set")
    return records.open_dataset(tmp_path / "set")


def test_row_i_is_the_picture_of_record_i(data, capsys):
    found = decoded.pictures(data, progress=True)
    np.testing.assert_array_equal(found, data.pictures(np.arange(len(data.table))))
    assert f"{len(data.table)}/{len(data.table)}" in capsys.readouterr().err
    np.testing.assert_array_equal(np.load(data.path / "decoded.npy"), found)


def test_pictures_are_decoded_once(data, monkeypatch):
    first = decoded.pictures(data, progress=False)
    monkeypatch.setattr(records.FrameSource, "decode", lambda *_: pytest.fail("decoded again"))
    np.testing.assert_array_equal(decoded.pictures(data, progress=False), first)


@pytest.mark.parametrize(
    "rows", [[7], [7, 3, 3], [*range(40, 60), 2, 431], [[5, 6, 6], [430, 431, 431]]]
)
def test_decoded_pictures_are_those_of_the_records(data, rows):
    read = functools.partial(decoded.read, decoded.pictures(data, progress=False))
    rows = np.array(rows)
    found = dataclasses.replace(data, decoded=read, images=[]).pictures(rows)
    np.testing.assert_array_equal(found, data.pictures(rows))


def test_a_file_that_is_cut_off_meanwhile_is_refused(data):
    pictures = decoded.pictures(data, progress=False)
    out = np.empty((2, 64, 64, 3), np.uint8)
    with (data.path / "decoded.npy").open("r+b") as file:
        file.truncate(pictures.offset + 431 * out[0].nbytes)
    with pytest.raises(errors.InputError, match="decoded.npy: was cut off; delete it"):
        decoded.read(pictures, np.array([430, 431]), out)
    (data.path / "decoded.npy").unlink()
    with pytest.raises(errors.InputError, match=r"decoded.npy: cannot be read \(No such file"):
        decoded.read(pictures, np.array([430, 431]), out)


def test_nothing_is_decoded_to_see_whether_it_was(data):
    assert decoded.existing(data) is None
    first = decoded.pictures(data, progress=False)
    np.testing.assert_array_equal(decoded.existing(data), first)


def test_what_a_killed_run_left_is_done_anew(data):
    (data.path / "decoded.npy.unfinished").write_bytes(b"half" * 10**6)
    found = decoded.pictures(data, progress=False)
    np.testing.assert_array_equal(found, data.pictures(np.arange(len(data.table))))
    assert not (data.path / "decoded.npy.unfinished").exists()


def test_two_runs_decode_one_file(data):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(decoded.pictures(data, progress=False)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = data.pictures(np.arange(len(data.table)))
    for pictures in found:
        np.testing.assert_array_equal(pictures, expected)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (b"no array", "decoded.npy: is damaged .* delete it"),
        (b"", "decoded.npy: is damaged .* delete it"),
        (np.zeros((3, 64, 64, 3), np.uint8), r"holds uint8 \(3, 64, 64, 3\), not \(432,.*delete"),
        (np.zeros((432, 64, 64, 3), np.int8), "holds int8 .* delete it"),
    ],
)
def test_a_file_that_is_not_the_data_set_s_is_refused(data, broken, message):
    file = data.path / "decoded.npy"
    if isinstance(broken, bytes):
        file.write_bytes(broken)
    else:
        np.save(file, broken)
    with pytest.raises(errors.InputError, match=message):
        decoded.pictures(data, progress=False)


def test_a_file_that_was_cut_off_is_refused(data):
    decoded.pictures(data, progress=False)
    file = data.path / "decoded.npy"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(errors.InputError, match=r"decoded\.npy: is damaged .* delete it"):
        decoded.pictures(data, progress=False)


def test_a_full_disk_leaves_no_file(data):
    # A limit on the size of files stands in for the full disk.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(
            errors.InputError, match="cannot be written.*it takes 0.0 GB: make space, or"
        ):
            decoded.pictures(data, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (data.path / "decoded.npy").exists()
    assert not (data.path / "decoded.npy.unfinished").exists()


def test_without_locks_each_run_decodes_its_own(data, monkeypatch):
    """As on Lustre or some NFS; several processes of a training may all do."""

    def flock(file, how):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    expected, before = data.pictures(np.arange(len(data.table))), set(data.path.iterdir())
    threads = threading.Barrier(2)
    decode = decoded._decode
    monkeypatch.setattr(decoded, "_decode", lambda *some: (threads.wait(30), decode(*some)))
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda _: decoded.pictures(data, progress=False), range(2)):
            np.testing.assert_array_equal(found, expected)
    assert set(data.path.iterdir()) - before == {data.path / "decoded.npy"}


def test_a_damaged_record_is_refused_by_name(data, monkeypatch):
    def broken(self, row, image, out):
        raise errors.InputError(f"record {row}: the picture does not decode")

    monkeypatch.setattr(records.FrameSource, "decode", broken)
    with pytest.raises(errors.InputError, match="record .* does not decode"):
        decoded.pictures(data, progress=False)
    assert not (data.path / "decoded.npy").exists()
