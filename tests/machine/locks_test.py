# SPDX-License-Identifier: Apache-2.0
import errno
import fcntl
import os
import shutil
import threading

import pytest

from mdhr_jax import errors
from mdhr_jax.machine import locks


def test_one_command_at_a_time_and_nothing_stays(tmp_path):
    folder = tmp_path / "a/b"
    with locks.alone(folder, "name another --out"):
        with pytest.raises(errors.InputError, match="b: another command .* or name another --out"):
            with locks.alone(folder, "name another --out"):
                pass
    assert not list(folder.iterdir())
    with locks.alone(folder, ""), pytest.raises(KeyError):
        raise KeyError
    assert not list(folder.iterdir())


def test_commands_that_wait_come_one_after_the_other(tmp_path):
    """The next one must not hold a file that the one before has taken away."""
    inside, most = [], []

    def work():
        for _ in range(50):
            with locks.in_turn(tmp_path) as known:
                assert known
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 200 and max(most) == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_may_be_removed_by_who_holds_it(tmp_path):
    with locks.alone(tmp_path / "a", ""):
        shutil.rmtree(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_file_system_without_locks_lets_everybody_in(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locks.alone(tmp_path, ""), locks.in_turn(tmp_path) as known:
        assert not known
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(errors.InputError, match="file/a: cannot be written .Not a directory"):
        with locks.alone(tmp_path / "file/a", ""):
            pass
