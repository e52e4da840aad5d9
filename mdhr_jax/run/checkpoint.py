# SPDX-License-Identifier: Apache-2.0
"""Saving and restoring a run's state; the only module that knows Orbax.

A run keeps two kinds of checkpoint: `last`, from which it resumes, and `best`, the highest mean
F1 on the test fold so far (the release reports that one). A save is complete or absent: a killed
process leaves the previous one. That one stays until the next save begins, for those who read it
meanwhile. `files.json` in a checkpoint holds the SHA-256 of each of its files, so that a damaged
one is refused: Orbax would restore wrong values. `said.json` holds what the run knew of itself. All
is on the disk before a checkpoint counts.
"""

import contextlib
import hashlib
import json
import pathlib
import shutil
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from mdhr_jax.errors import InputError
from mdhr_jax.machine import files, hosts

_SUMS, _FACTS = "files.json", "said.json"
_NOTHING: Mapping[str, Any] = types.MappingProxyType({})
_NEW = "new"  # a checkpoint that does not count yet
_OLD = ".old"  # ends the name of one that another of the same step replaces


def _parts(state: dict) -> dict[str, dict]:
    """What is stored separately, so that prediction does not read the optimizer's state."""
    model = {name: state[name] for name in ("step", "params", "batch_stats")}
    rest = {name: part for name, part in state.items() if name not in model}
    return {"model": model} | ({"optimizer": rest} if rest else {})


class Saver:
    """Saves a run's checkpoints while it trains on; where its `with` ends, all is written.

    A checkpoint counts from when it is wholly written, not from when `save` returns. Several
    processes (`hosts`) do this together, on a file system that all of them see; each writes what
    its devices hold.
    """

    def __init__(self, directory: pathlib.Path):
        self._directory = directory.absolute()
        self._beside = ThreadPoolExecutor(1, "checkpoint")
        self._written: Future[None] | None = None
        self._place = self._directory  # of what is written

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, error: type[BaseException] | None, *more: object) -> None:
        with self._beside:
            if error is None:  # else other processes may not come to wait
                self.wait()
                self._drop_older()

    def save(
        self, kinds: Sequence[str], step: int, state: dict, facts: Mapping[str, Any] = _NOTHING
    ) -> None:
        """Begins to save `state`, which may be given away then, as the run's newest of those kinds.

        The one before it is dropped when the next save begins, or the last one has ended. Waits for
        what is being written before.

        Args:
          kinds: such as `last`.
          step: updates so far.
          state: the run's.
          facts: what the run knows of itself beside its state, as JSON has it.

        Raises:
          InputError: this checkpoint or the one before it cannot be written; older ones are kept.
        """
        self.wait()
        folders, parts = [self._directory / kind for kind in kinds], _parts(state)
        self._place = folders[0] / str(step)
        with _writing(self._place):
            self._drop_older()
            hosts.wait("nothing is left of a killed save")
            response = ocp.save_checkpointables_async(folders[0] / _NEW, parts)
        self._written = self._beside.submit(
            _finish, response.result, folders, step, list(parts), json.dumps(dict(facts))
        )

    def wait(self) -> None:
        """Until what was saved counts, in every process.

        Raises:
          InputError: as `save`.
        """
        written, self._written = self._written, None
        if written:
            with _writing(self._place):
                written.result()
            hosts.wait("the checkpoint counts")

    def _drop_older(self) -> None:
        """Leaves nothing but the newest of each kind, nor what killed commands have left."""
        if hosts.is_first():
            for folder in _folders(self._directory):
                newest = _newest(folder)
                for place in _folders(folder):
                    if place != newest:  # one that is being read may stay until the next save
                        shutil.rmtree(place, ignore_errors=place.name != _NEW)


def save(
    directory: pathlib.Path, kind: str, step: int, state: dict, facts: Mapping[str, Any] = _NOTHING
) -> None:
    """Saves `state` as the run's checkpoint of that kind, then drops the older one.

    Arguments as of `Saver.save`.

    Raises:
      InputError: it cannot be written; the older one is kept.
    """
    with Saver(directory) as saver:
        saver.save([kind], step, state, facts)


def _finish(
    write: Callable[[], None],
    folders: Sequence[pathlib.Path],
    step: int,
    parts: Collection[str],
    facts: str,
) -> None:
    """Puts a checkpoint into its places after `write`: all processes have written their part."""
    write()
    if not hosts.is_first():
        return
    new = folders[0] / _NEW
    files.write(new / _FACTS, facts)
    files.write(new / _SUMS, json.dumps(_sums(new, parts), indent=2) + "\n")
    for folder in folders[1:]:
        shutil.copytree(new, folder / _NEW)
    for folder in folders:
        _sync(folder / _NEW)
        _put_in_place(folder / _NEW, step)
        files.sync_names(folder)
        files.sync_names(folder.parent)


def _sync(checkpoint: pathlib.Path) -> None:
    for path in (checkpoint, *checkpoint.rglob("*")):
        files.sync_names(path) if path.is_dir() else files.sync(path)


def _put_in_place(new: pathlib.Path, step: int) -> None:
    for place in _folders(new.parent):  # the same step, or later ones that a kill has cut off
        if place.name.isdecimal() and int(place.name) >= step:
            place.rename(place.with_name(place.name + _OLD))
    new.rename(new.with_name(str(step)))  # from here on it counts


@contextlib.contextmanager
def _writing(place: pathlib.Path) -> Iterator[None]:
    """Says in one line why a checkpoint cannot be written.

    Raises:
      InputError: a full disk or the like, for which Orbax raises a ValueError, too.
    """
    remedy = "the checkpoint before it is kept: make room, and the same command goes on from there"
    with files.writing(place, remedy):
        try:
            yield
        except ValueError as error:
            raise OSError(str(error).rpartition(": ")[2]) from error


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    return [place for place in folder.glob("*") if place.is_dir()]


def _newest(folder: pathlib.Path) -> pathlib.Path | None:
    """The complete checkpoint of a kind that was saved last."""
    complete = [place for place in _folders(folder) if _step(place) is not None]
    return max(complete, key=lambda place: (place.suffix != _OLD, _step(place)), default=None)


def _step(place: pathlib.Path) -> int | None:
    """Of a complete checkpoint."""
    name = place.name.removesuffix(_OLD)
    return int(name) if name.isdecimal() else None


def _sums(checkpoint: pathlib.Path, parts: Collection[str]) -> dict[str, str]:
    """SHA-256 of the files that these parts are read from, by name within the checkpoint."""
    paths = [path for path in sorted(checkpoint.rglob("*")) if path.is_file()]
    named = {str(path.relative_to(checkpoint)): path for path in paths}
    return {
        name: _sha256(path)
        for name, path in named.items()
        if name != _SUMS and _belongs(name, parts)
    }


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _belongs(name: str, parts: Collection[str]) -> bool:
    part, within, _ = name.partition("/")
    return not within or part in parts


def latest_step(directory: pathlib.Path, kind: str) -> int | None:
    """Step of the newest complete checkpoint, None when there is none."""
    newest = _newest(directory / kind)
    return _step(newest) if newest else None


def restore(directory: pathlib.Path, kind: str, abstract_state: dict) -> dict:
    """The newest checkpoint of a kind, laid out as `abstract_state` says (shapes, shardings).

    On whichever devices it was saved. Of an `abstract_state` of `step`, `params` and `batch_stats`
    only the model is read. While a training saves, this begins anew if what it reads is replaced.

    Raises:
      InputError: there is none, it is damaged, or it does not fit.
    """
    wanted = _parts(abstract_state)
    while place := _newest(directory.absolute() / kind):
        sums = _read_sums(place)
        try:
            parts = _load(place, wanted)
        except Exception:
            if _newest(place.parent) == place and _read_sums(place) == sums:
                raise
            continue
        if _read_sums(place) == sums:
            return {name: value for part in parts.values() for name, value in part.items()}
    raise InputError(f"{directory}: holds no {kind!r} checkpoint; train first")


def _load(place: pathlib.Path, wanted: dict[str, dict]) -> dict[str, dict]:
    """The wanted parts of a checkpoint; InputError as `restore`."""
    _check_files(place, wanted)
    stored = ocp.checkpointables_metadata(place).metadata
    if not wanted.keys() <= stored.keys():
        raise InputError(
            f"{place}: holds a converted model, which has no state to train on from; start a run "
            "of its own with config.model.init_from"
        )
    differing = _shapes(wanted["model"]) ^ _shapes(stored["model"])
    if differing:
        name, shape = min(differing)
        raise InputError(
            f"{place}: another model's checkpoint, {len(differing)} arrays differ, such as {name} "
            f"{shape}; use the configuration it was made with"
        )
    return ocp.load_checkpointables(place, wanted)


def _read_sums(place: pathlib.Path) -> bytes:
    """The file of sums, empty where it is gone: checkpoints with the same one are the same."""
    with contextlib.suppress(OSError):
        return (place / _SUMS).read_bytes()
    return b""


def facts(directory: pathlib.Path, kind: str, step: int) -> dict[str, Any]:
    """What the run knew of itself at a checkpoint; nothing in those of earlier versions.

    Raises:
      InputError: it cannot be read.
    """
    for name in (str(step), f"{step}{_OLD}"):
        place = directory / kind / name
        try:
            return dict(json.loads((place / _FACTS).read_text()))
        except FileNotFoundError:
            continue
        except (OSError, RecursionError, TypeError, ValueError) as error:
            raise _damaged(place, _FACTS) from error
    return {}


def check(directory: pathlib.Path, kind: str) -> None:
    """Compares the files of the newest checkpoint of a kind with those that were saved.

    Raises:
      InputError: one is damaged or missing.
    """
    place = _newest(directory / kind)
    if place is not None:
        _check_files(place, {name.name for name in _folders(place)})


def _check_files(place: pathlib.Path, parts: Collection[str]) -> None:
    """Refuses a checkpoint whose files are not those that were saved; other parts stay unread."""
    try:
        saved = dict(json.loads(_read_sums(place)))
    except (RecursionError, TypeError, ValueError) as error:
        raise _damaged(place, _SUMS) from error
    expected = {(name, digest) for name, digest in saved.items() if _belongs(name, parts)}
    present = _sums(place, parts)
    differing = expected - present.items()
    if any("/" in name and name not in saved for name in present):
        raise _damaged(place, _SUMS)
    if differing:
        raise _damaged(place, min(name for name, _ in differing))


def _damaged(place: pathlib.Path, name: str) -> InputError:
    return InputError(
        f"{place / name}: is damaged or missing, the checkpoint cannot be used; bring back a copy "
        f"of {place}, or train again in another --workdir"
    )


def _shapes(model: dict) -> set[tuple[str, tuple[int, ...]]]:
    leaves = jax.tree_util.tree_leaves_with_path(model)
    return {
        (jax.tree_util.keystr(path, simple=True, separator="."), tuple(leaf.shape))
        for path, leaf in leaves
    }


def abstract(state: dict, shardings: dict) -> dict:
    """Shapes, types and shardings of a state, as `restore` takes them."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        shardings,
    )
