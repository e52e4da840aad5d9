# SPDX-License-Identifier: Apache-2.0
"""`mdhr verify`: every golden file found in a directory, printed stage by stage."""

import pathlib
import zipfile
from collections.abc import Iterator

import numpy as np

from mdhr_jax.errors import InputError
from mdhr_jax.verify import cases, network, small_files, verdict
from mdhr_jax.verify.verdict import Check


def verify(directory: str | pathlib.Path, lists: str | pathlib.Path | None = None) -> bool:
    """Prints the verdict of each stage; True when all are within tolerance.

    Args:
      directory: golden vectors; any seeds, any subset of the files.
      lists: official label lists, for clip index and class weights.

    Raises:
      InputError: no such directory, nothing to check in it, or an unreadable file.
    """
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise InputError(
            f"{directory}: no such directory; give the directory of the golden vectors"
        )
    out: list[str] = []
    files = 0
    for name, checks in _files(directory, lists):
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


def _files(
    directory: pathlib.Path, lists: str | pathlib.Path | None
) -> Iterator[tuple[str, Iterator[Check]]]:
    for name, check in small_files.ARRAY_FILES.items():
        if (file := directory / f"{name}.npz").exists():
            yield file.name, check(_load(file))
    for name, check_lists in small_files.LIST_FILES.items():
        if (directory / f"{name}.json").exists():
            if lists is None:
                print(f"{name}.json\n  not checked: --lists gives the official label lists")
            else:
                yield f"{name}.json", check_lists(directory, pathlib.Path(lists))
    for case in cases.read(directory):
        yield case.name, network.verify(case)


def _load(file: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with file.open("rb") as stream, np.load(stream) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: not a readable npz file ({error})") from error
