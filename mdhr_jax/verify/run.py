# SPDX-License-Identifier: Apache-2.0
"""`mdhr verify`: every golden file found in a directory, printed stage by stage."""

import pathlib
import zipfile
from collections.abc import Collection, Iterator

import numpy as np

from mdhr_jax.errors import InputError
from mdhr_jax.verify import cases, graphau, graphau_files, network, small_files, verdict
from mdhr_jax.verify.verdict import Check, Unchecked


def verify(
    directory: str | pathlib.Path,
    lists: str | pathlib.Path | None = None,
    *,
    only: Collection[str] | None = None,
    training: bool = True,
) -> bool:
    """Prints the verdict of each stage; True when all are within tolerance.

    Args:
      directory: golden vectors of either family; any seeds, any subset of the files.
      lists: official label lists, for clip index and class weights.
      only: files to check, by name without ending; all by default.
      training: check a configuration's training, gradients and optimisation, too.

    Raises:
      InputError: no such directory or file, nothing to check in it, or an unreadable file.
    """
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise InputError(
            f"{directory}: no such directory; give the directory of the golden vectors"
        )
    _check_names(directory, only or ())
    out: list[str] = []
    files = 0
    for name, checks in _files(directory, lists, only, training):
        files += 1
        print(name, verdict.HEADER, sep="\n", flush=True)
        for check in checks:
            print(check, flush=True)
            if not check.passed:
                out.append(f"{name}: {check.stage}")
    if not files:
        raise InputError(f"{directory}: holds no golden vectors")
    print(f"{files} files checked, {len(out)} stages out of tolerance", *out, sep="\n  ")
    return not out


def _check_names(directory: pathlib.Path, names: Collection[str]) -> None:
    there = sorted({file.stem for file in directory.iterdir() if file.is_file()})
    for name in names:
        if name not in there:
            raise InputError(f"--only: {directory} holds no {name}; choose from {', '.join(there)}")


def _files(
    directory: pathlib.Path,
    lists: str | pathlib.Path | None,
    only: Collection[str] | None,
    training: bool,
) -> Iterator[tuple[str, Iterator[Check | Unchecked]]]:
    def asked(name: str) -> bool:
        return only is None or name in only

    for name in small_files.ARRAY_FILES:
        if (file := directory / f"{name}.npz").exists() and asked(name):
            yield file.name, _array_checks(name, file)
    for name, check_lists in (small_files.LIST_FILES | graphau_files.LIST_FILES).items():
        if (directory / f"{name}.json").exists() and asked(name):
            if lists is None:
                print(f"{name}.json\n  not checked: --lists gives the official label lists")
            else:
                yield f"{name}.json", check_lists(directory, pathlib.Path(lists))
    for case in cases.read(directory):
        if asked(case.name):
            family = graphau if "family" in case.facts else network
            yield case.name, family.verify(case, training=training)


def _array_checks(name: str, file: pathlib.Path) -> Iterator[Check | Unchecked]:
    """Those of the family whose entries the file has."""
    arrays = _load(file)
    if graphau_files.SIGNS.get(name) in arrays:
        return graphau_files.ARRAY_FILES[name](arrays, file.parent)
    return small_files.ARRAY_FILES[name](arrays)


def _load(file: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with file.open("rb") as stream, np.load(stream) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: not a readable npz file ({error})") from error
