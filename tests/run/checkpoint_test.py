# SPDX-License-Identifier: Apache-2.0
import errno
import gc
import pathlib
import resource
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdhr_jax import errors
from mdhr_jax.machine import notes, sharding
from mdhr_jax.run import checkpoint


def _state(value):
    return {
        "step": jnp.int32(value),
        "params": {"stack": {0: jnp.full(3, value, jnp.float32), 1: jnp.ones((2, 2))}},
        "batch_stats": {"mean": jnp.zeros(3)},
        "opt_state": (jnp.full(5, value, jnp.float32),),
    }


def _abstract(make=lambda: _state(0)):
    state = jax.eval_shape(make)
    return checkpoint.abstract(state, sharding.state_shardings(sharding.make_mesh(), state))


def test_the_newest_of_a_kind_comes_back_bit_equal_and_the_older_one_is_dropped(tmp_path):
    for step in (3, 7):
        checkpoint.save(tmp_path, "last", step, _state(step))
    checkpoint.save(tmp_path, "best", 5, _state(5))
    assert checkpoint.latest_step(tmp_path, "last") == 7
    assert [path.name for path in (tmp_path / "last").iterdir()] == ["7"]
    restored = checkpoint.restore(tmp_path, "last", _abstract())
    np.testing.assert_array_equal(restored["params"]["stack"][0], np.full(3, 7))
    np.testing.assert_array_equal(restored["opt_state"][0], np.full(5, 7))
    assert int(checkpoint.restore(tmp_path, "best", _abstract())["step"]) == 5


@pytest.mark.slow
def test_what_is_saved_may_be_given_away_at_once(tmp_path):
    """While it is written, steps take its place in memory."""
    step = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    state = _state(3) | {"opt_state": (jnp.zeros(2**24),)}
    with checkpoint.Saver(tmp_path) as saver:
        saver.save(["last"], 3, state)
        for _ in range(20):
            state = step(state)
        jax.block_until_ready(state)
    restored = checkpoint.restore(tmp_path, "last", _abstract(lambda: state))
    assert int(restored["step"]) == 3
    assert not np.asarray(restored["opt_state"][0]).any()


def test_one_state_is_saved_as_two_kinds(tmp_path):
    with checkpoint.Saver(tmp_path) as saver:
        saver.save(["last"], 3, _state(3))
        saver.save(["best", "last"], 7, _state(7))
        saver.save(["last"], 9, _state(9))
    for kind, step in (("best", 7), ("last", 9)):
        assert [path.name for path in (tmp_path / kind).iterdir()] == [str(step)]
        assert int(checkpoint.restore(tmp_path, kind, _abstract())["opt_state"][0][0]) == step


def test_what_could_not_be_written_is_told_by_the_next_save(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with checkpoint.Saver(tmp_path) as saver:
        saver.save(["last"], 3, _state(3))
        saver.wait()
        monkeypatch.setattr(checkpoint, "_put_in_place", full)
        saver.save(["last"], 4, _state(4))
        with pytest.raises(errors.InputError, match="last/4: .*No space left.* before it is kept"):
            saver.save(["last"], 5, _state(5))
    assert int(checkpoint.restore(tmp_path, "last", _abstract())["step"]) == 3


def test_an_error_in_training_still_leaves_what_was_being_saved(tmp_path):
    with pytest.raises(KeyboardInterrupt), checkpoint.Saver(tmp_path) as saver:
        saver.save(["last"], 3, _state(3))
        raise KeyboardInterrupt
    assert checkpoint.latest_step(tmp_path, "last") == 3


def test_saving_a_step_again_replaces_it(tmp_path):
    checkpoint.save(tmp_path, "last", 3, _state(1))
    checkpoint.save(tmp_path, "last", 3, _state(2))
    assert int(checkpoint.restore(tmp_path, "last", _abstract())["step"]) == 2


def test_the_model_is_read_without_the_optimizer(tmp_path):
    checkpoint.save(tmp_path, "last", 3, _state(3))
    wanted = _abstract()
    del wanted["opt_state"]
    assert checkpoint.restore(tmp_path, "last", wanted).keys() == wanted.keys()


def test_what_is_missing_or_does_not_fit_is_refused(tmp_path):
    with pytest.raises(errors.InputError, match="holds no 'last' checkpoint"):
        checkpoint.restore(tmp_path, "last", _abstract())
    checkpoint.save(tmp_path, "last", 3, _state(3) | {"params": {"other": jnp.ones(4)}})
    with pytest.raises(errors.InputError, match="another model's checkpoint, 3 arrays differ"):
        checkpoint.restore(tmp_path, "last", _abstract())


def _flip(file):
    content = bytearray(file.read_bytes() or b"0")
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _empty(file):
    file.write_bytes(b"")


@pytest.fixture
def files(tmp_path):
    """The files of a checkpoint."""
    checkpoint.save(tmp_path, "last", 3, _state(3))
    return [path for path in (tmp_path / "last/3").rglob("*") if path.is_file()]


@pytest.mark.parametrize("damage", [_flip, _empty, pathlib.Path.unlink])
def test_a_damaged_checkpoint_is_refused_whichever_file_it_is(tmp_path, files, damage):
    for file in files:
        content = file.read_bytes()
        if not content and damage is _empty:  # a mark of Orbax is always so
            continue
        damage(file)
        with pytest.raises(errors.InputError, match="damaged or missing.* bring back a copy") as e:
            checkpoint.restore(tmp_path, "last", _abstract())
        assert str(file) in str(e.value) or file.name == "files.json"
        file.write_bytes(content)
    assert int(checkpoint.restore(tmp_path, "last", _abstract())["step"]) == 3


def test_prediction_does_not_ask_for_the_optimizer(tmp_path, files):
    for file in files:
        if "optimizer" in file.parts:
            file.unlink()
    wanted = _abstract()
    del wanted["opt_state"]
    assert int(checkpoint.restore(tmp_path, "last", wanted)["step"]) == 3


@pytest.mark.parametrize("step", [3, 4])
def test_a_save_that_is_killed_leaves_the_checkpoint_before_it(tmp_path, monkeypatch, step):
    checkpoint.save(tmp_path, "last", 3, _state(3))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_sha256", _killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path, "last", step, _state(7))
    assert len(list((tmp_path / "last").iterdir())) == 2
    assert int(checkpoint.restore(tmp_path, "last", _abstract())["step"]) == 3
    checkpoint.save(tmp_path, "last", step, _state(8))
    assert [path.name for path in (tmp_path / "last").iterdir()] == [str(step)]
    assert int(checkpoint.restore(tmp_path, "last", _abstract())["step"]) == 8


def _killed(*arguments):
    raise KeyboardInterrupt


def test_a_save_that_is_killed_while_it_replaces_its_own_step_leaves_it(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, "best", 3, _state(3))
    rename = pathlib.Path.rename
    with monkeypatch.context() as patch:
        patch.setattr(
            pathlib.Path, "rename", lambda a, b: rename(a, b) if a.name == "3" else _killed()
        )
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path, "best", 3, _state(4))
    assert not (tmp_path / "best/3").exists()
    assert checkpoint.latest_step(tmp_path, "best") == 3
    assert int(checkpoint.restore(tmp_path, "best", _abstract())["step"]) == 3
    checkpoint.save(tmp_path, "best", 3, _state(5))
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["3"]
    assert int(checkpoint.restore(tmp_path, "best", _abstract())["step"]) == 5


def test_the_one_before_stays_for_those_who_read_it_until_the_next_save(tmp_path):
    with checkpoint.Saver(tmp_path) as saver:
        for step in (3, 7, 9):
            saver.save(["last"], step, _state(step))
            saver.wait()
            kept = sorted(int(path.name) for path in (tmp_path / "last").iterdir())
            assert kept == {3: [3], 7: [3, 7], 9: [7, 9]}[step]


SAVES = """
import itertools, pathlib, sys
import jax.numpy as jnp
from mdhr_jax.run import checkpoint

with checkpoint.Saver(pathlib.Path(sys.argv[1])) as saver:
    for value in itertools.count():
        params = {"stack": {0: jnp.full(3, value, jnp.float32), 1: jnp.ones((2, 2))}}
        state = {"step": jnp.int32(value), "params": params, "batch_stats": {"mean": jnp.zeros(3)}}
        state["opt_state"] = (jnp.full(5, value, jnp.float32),)
        saver.save(["best", "last"], value // 2, state)  # every step twice
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax' threads
def test_what_is_loaded_beside_a_training_that_saves_is_one_of_its_states(tmp_path):
    model = _abstract()
    del model["opt_state"]
    for kind in ("best", "last"):
        checkpoint.save(tmp_path, kind, 0, _state(0))
    newest = 0
    training = subprocess.Popen([sys.executable, "-c", SAVES, str(tmp_path)])
    try:
        while newest < 20:
            assert training.poll() is None
            for kind, wanted in (("best", model), ("last", model), ("last", _abstract())):
                state = checkpoint.restore(tmp_path, kind, wanted)
                newest = int(state["step"])
                for value in (state["params"]["stack"][0], *state.get("opt_state", ())):
                    assert (np.asarray(value) == newest).all()
        gc.collect()  # complains of closed loops here, not in another test
    finally:
        training.kill()
        training.wait()


@pytest.mark.slow
@pytest.mark.parametrize("limit", [10, 200])  # the first file fails, or arrays within Orbax do
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax' threads
def test_a_full_disk_is_refused_and_keeps_the_checkpoint_before(tmp_path, caplog, limit):
    notes.mute_libraries()
    # A limit on the size of files stands in for the full disk.
    checkpoint.save(tmp_path, "last", 3, _state(3))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(errors.InputError, match="last/4: .*too large.* before it is kept"):
            checkpoint.save(tmp_path, "last", 4, _state(4))
        gc.collect()  # complains of closed loops here, not in another test
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not caplog.records  # Orbax logs what it raises, with its traceback
    assert int(checkpoint.restore(tmp_path, "last", _abstract())["step"]) == 3


def test_what_a_killed_run_had_saved_later_gives_way_to_what_is_saved_now(tmp_path):
    checkpoint.save(tmp_path, "best", 300, _state(3))
    checkpoint.save(tmp_path, "best", 100, _state(1))
    assert int(checkpoint.restore(tmp_path, "best", _abstract())["step"]) == 1
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["100"]


def test_a_disk_that_cannot_sync_folders_takes_checkpoints(tmp_path, monkeypatch):
    sync = checkpoint.files.sync

    def no_folders(path):
        if path.is_dir():
            raise OSError(22, "Invalid argument")
        sync(path)

    monkeypatch.setattr(checkpoint.files, "sync", no_folders)
    checkpoint.save(tmp_path, "last", 3, _state(3), {"best_mean_f1": 0.5})
    assert checkpoint.facts(tmp_path, "last", 3) == {"best_mean_f1": 0.5}


def test_the_copy_for_another_kind_is_on_the_disk_too(tmp_path, monkeypatch):
    synced, sync = set(), checkpoint.files.sync
    monkeypatch.setattr(checkpoint.files, "sync", lambda path: (synced.add(path), sync(path)))
    with checkpoint.Saver(tmp_path) as saver:
        saver.save(["best", "last"], 3, _state(3))
    for kind in ("best", "last"):
        placed = {
            path.relative_to(tmp_path / kind / "3") for path in (tmp_path / kind / "3").rglob("*")
        }
        new = tmp_path / kind / "new"
        assert {new / path for path in placed} | {new, tmp_path / kind, tmp_path} <= synced


@pytest.mark.parametrize("name", ["said.json", "files.json"])
@pytest.mark.parametrize("text", ["", "[1]", "[" * 10**5])
def test_damaged_notes_are_refused(tmp_path, name, text):
    checkpoint.save(tmp_path, "last", 3, _state(3))
    (tmp_path / "last/3" / name).write_text(text)
    with pytest.raises(errors.InputError, match=f"{name}: is damaged or missing"):
        if name == "said.json":
            checkpoint.facts(tmp_path, "last", 3)
        else:
            checkpoint.restore(tmp_path, "last", _abstract())
