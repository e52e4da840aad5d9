# SPDX-License-Identifier: Apache-2.0
import os
import pathlib
import subprocess
import sys
import warnings

import pytest

from mdhr_jax.machine import compile_cache


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(compile_cache.VARIABLE, "")
    monkeypatch.delenv(compile_cache.VARIABLE)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    return tmp_path


def test_programs_are_kept_where_nobody_else_can_write(home):
    old = os.umask(0)
    try:
        compile_cache.keep()
    finally:
        os.umask(old)
    folder = pathlib.Path(os.environ[compile_cache.VARIABLE])
    assert folder.is_relative_to(home)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_is_named_already_is_taken(home, monkeypatch):
    monkeypatch.setenv(compile_cache.VARIABLE, "/elsewhere")
    compile_cache.keep()
    assert os.environ[compile_cache.VARIABLE] == "/elsewhere"


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o755])
def test_a_directory_that_others_may_enter_is_not_taken(home, monkeypatch, mode):
    compile_cache.keep()
    folder = pathlib.Path(os.environ[compile_cache.VARIABLE])
    folder.chmod(mode)
    monkeypatch.delenv(compile_cache.VARIABLE)
    compile_cache.keep()
    assert compile_cache.VARIABLE not in os.environ


def test_a_link_to_elsewhere_is_not_taken(home, monkeypatch):
    compile_cache.keep()
    folder = pathlib.Path(os.environ[compile_cache.VARIABLE])
    folder.rmdir()
    folder.symlink_to(home / "elsewhere")
    (home / "elsewhere").mkdir(mode=0o700)
    monkeypatch.delenv(compile_cache.VARIABLE)
    compile_cache.keep()
    assert compile_cache.VARIABLE not in os.environ


def test_where_nothing_can_be_written_commands_work_without(home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    compile_cache.keep()
    assert compile_cache.VARIABLE not in os.environ


def test_what_was_not_used_for_longest_makes_room(home, monkeypatch):
    compile_cache.keep()
    folder = pathlib.Path(os.environ[compile_cache.VARIABLE])
    for day, name in enumerate("abcd"):
        (folder / f"{name}-cache").write_bytes(bytes(100))
        os.utime(folder / f"{name}-cache", (day, 0))
    os.utime(folder / "a-cache", (9, 0))  # read again
    monkeypatch.setattr(compile_cache, "_MOST_BYTES", 250)
    monkeypatch.delenv(compile_cache.VARIABLE)
    compile_cache.keep()
    assert sorted(file.name for file in folder.iterdir()) == ["a-cache", "d-cache"]


@pytest.mark.long
def test_a_second_command_finds_what_the_first_has_compiled(home, config_file, monkeypatch):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    command = [sys.executable, "-m", "mdhr_jax.cli", "bench", "infer", "--windows=1"]
    found = []
    for _ in range(2):
        subprocess.run([*command, f"--config={config_file()}"], check=True, capture_output=True)
        found.append(_kept(home))
    assert found[0] and found[0] == found[1]


COMPILES = """
from mdhr_jax.machine import compile_cache
compile_cache.keep()
import jax
jax.jit(lambda x: x + 1)(1)
jax.jit(lambda x: x * 2)(1)
"""


@pytest.mark.slow
def test_what_was_cut_short_is_compiled_and_kept_anew(home):
    _run()
    first = _kept(home)
    cut, whole = first
    os.truncate(cut, cut.stat().st_size // 2)  # by a kill, or a full disk
    assert "cache" not in _run()
    mended = _kept(home)
    assert mended[whole] == first[whole] and mended[cut] > first[cut]
    assert "cache" not in _run()
    assert _kept(home) == mended


@pytest.mark.slow
def test_a_directory_of_the_users_own_is_left_alone(tmp_path, monkeypatch):
    own = tmp_path / "own"
    monkeypatch.setenv(compile_cache.VARIABLE, str(own))
    _run()
    first = next(iter(_kept(own)))
    os.truncate(first, 10)
    assert "Error reading persistent compilation cache" in _run()
    assert first.stat().st_size == 10


def _run():
    """What a process that compiles two programs and keeps both says."""
    command = [sys.executable, "-c", COMPILES]
    variables = os.environ | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=variables)
    return done.stderr


def _kept(home):
    return {file: file.stat().st_mtime_ns for file in home.rglob("*-cache")}
