# SPDX-License-Identifier: Apache-2.0
"""Weight files of other frameworks as names and arrays: torch's and safetensors."""

import pathlib
from collections.abc import Mapping

import numpy as np
import safetensors
import safetensors.numpy

from mdhr_jax import files
from mdhr_jax.errors import InputError
from mdhr_jax.interop import torch_files

SUFFIXES = (".pth", ".pt", ".safetensors")
_PREFIX = "module."  # DataParallel puts it before every name


def is_weight_file(path: str | pathlib.Path) -> bool:
    """Whether a path names a weight file, rather than a run's directory."""
    return pathlib.Path(path).suffix in SUFFIXES


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Names without `module.` to arrays, from a state_dict that was saved in any of the formats.

    Raises:
      InputError: no such file, one that holds anything else, or numbers that are not finite.
    """
    path = pathlib.Path(path)
    if path.suffix == ".safetensors":
        arrays = _read_safetensors(path)
    else:
        arrays = torch_files.read_state_dict(path)
    wrong = [name for name, array in arrays.items() if not _is_finite(array)]
    if wrong:
        raise InputError(
            f"{path}: {len(wrong)} entries hold numbers that are not finite, such as {wrong[0]}; "
            "take a checkpoint from before the training went wrong"
        )
    if all(name.startswith(_PREFIX) for name in arrays):
        arrays = {name.removeprefix(_PREFIX): array for name, array in arrays.items()}
    return arrays


def write(path: str | pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a file of the format that the suffix names; complete or not at all.

    Raises:
      InputError: it can't be written.
    """
    path = pathlib.Path(path)
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    try:
        with files.replacing(path) as unfinished:
            if path.suffix == ".safetensors":
                safetensors.numpy.save_file(arrays, unfinished, {"format": "pt"})
            else:
                torch_files.write(unfinished, arrays)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: can't be written ({error})") from error


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no readable safetensors file ({error})") from error


def _is_finite(array: np.ndarray) -> bool:
    return np.issubdtype(array.dtype, np.integer) or bool(np.isfinite(array).all())
