# SPDX-License-Identifier: Apache-2.0
import os

import pytest

from mdhr_jax import errors
from mdhr_jax.machine import files


def test_a_file_is_replaced_wholly_and_brought_to_the_disk_first(tmp_path, monkeypatch):
    done = []
    sync, replace = files.sync, type(tmp_path).replace
    monkeypatch.setattr(files, "sync", lambda path: (done.append(path.is_dir()), sync(path)))
    monkeypatch.setattr(
        type(tmp_path), "replace", lambda self, to: (done.append("renamed"), replace(self, to))
    )
    files.write(tmp_path / "new" / "a.txt", "é\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"\xc3\xa9\n"
    assert done == [False, "renamed", True]  # content, name, folder
    assert os.listdir(tmp_path / "new") == ["a.txt"]


@pytest.mark.parametrize(
    "error, line",
    [
        (OSError(28, "No space left"), "run: cannot be read (No space left); mend it"),
        (OSError(13, "Denied", "run/a"), "run/a: cannot be read (Denied); mend it"),
        (OSError(13, "Denied", "a.unfinished"), "a: cannot be read (Denied); mend it"),
        (OSError("full"), "run: cannot be read (full); mend it"),
    ],
)
def test_what_cannot_be_read_or_written_is_said_in_one_line(error, line):
    """Of the file that the error names, where it names one."""
    with pytest.raises(errors.InputError) as caught, files.reading("run", "mend it"):
        raise error
    assert str(caught.value) == line
    with pytest.raises(errors.InputError) as caught, files.writing("run"):
        raise error
    assert str(caught.value) == line.replace("read", "written").removesuffix("; mend it")
    with pytest.raises(errors.InputError, match="^another$"), files.writing("run"):
        raise errors.InputError("another")


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_an_error_leaves_what_was_there(tmp_path, error):
    files.write(tmp_path / "a", "old")
    with pytest.raises(type(error)), files.replacing(tmp_path / "a") as unfinished:
        unfinished.write_text("ne")
        raise error
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_the_file_behind_a_link_is_replaced_and_what_is_no_file_is_kept(tmp_path):
    files.write(tmp_path / "a", "old")
    (tmp_path / "link").symlink_to("a")
    files.write(tmp_path / "link", "new")
    assert (tmp_path / "a").read_text() == "new" and (tmp_path / "link").is_symlink()
    for taken in (tmp_path, "/dev/null"):
        with pytest.raises(errors.InputError, match="is no regular file; name another one"):
            files.write(type(tmp_path)(taken), "x")


def test_two_commands_do_not_write_the_same_file(tmp_path):
    with files.replacing(tmp_path / "a") as unfinished:
        unfinished.write_text("first")
        with pytest.raises(errors.InputError, match="a: another command is writing it; wait"):
            files.write(tmp_path / "a", "second")
    assert (tmp_path / "a").read_text() == "first"


def test_without_locks_each_command_has_its_own_unfinished_file(tmp_path, monkeypatch):
    def unknown(*arguments):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(files.fcntl, "flock", unknown)
    with files.replacing(tmp_path / "a") as unfinished:
        unfinished.write_text("first")
        files.write(tmp_path / "a", "second")
    assert (tmp_path / "a").read_text() == "first"
    assert os.listdir(tmp_path) == ["a"]
