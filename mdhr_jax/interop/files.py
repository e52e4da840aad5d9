# SPDX-License-Identifier: Apache-2.0
"""Weight files of other frameworks as names and arrays: torch's and safetensors."""

import pathlib
import re
import sys
from collections.abc import Mapping

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from mdhr_jax.errors import InputError
from mdhr_jax.interop import torch_files
from mdhr_jax.machine import files

SUFFIXES = (".pth", ".pt", ".safetensors")
# Parts of names that wrappers add: DataParallel, torch.compile, FSDP, Lightning modules, averages.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "model", "net"}
_NARROW = (np.float16, ml_dtypes.bfloat16)
_SAFETENSORS = {
    "BF16": ml_dtypes.bfloat16,
    "BOOL": np.bool_,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
    "I8": np.int8,
    "U8": np.uint8,
}
# What files begin with that are taken for weights, what they are, and what to do.
_OTHERS = (
    (rb"$", "empty; copy or download it again"),
    (rb"\s*<", "a web page; download the file itself"),
    (rb"version https://git-lfs", "a pointer of Git LFS; run `git lfs pull`"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|.{257}ustar", "packed; name the file in it"),
    (rb"\x89HDF", "HDF5, as Keras writes it; name PyTorch's file"),
    (rb"\x93NUMPY", "an array of NumPy; name PyTorch's file"),
    (rb"\x08.[\x12\x1a]", "an ONNX program; name PyTorch's file"),
    (rb"", "no weight file that is known here; name PyTorch's or a .safetensors"),
)


def is_weight_file(path: str | pathlib.Path) -> bool:
    """Whether a path names a weight file, rather than a run's directory."""
    path = pathlib.Path(path)
    return path.suffix in SUFFIXES or path.is_file()


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Names without `_WRAPPERS` to arrays, from a state_dict that was saved in any of the formats.

    Half precision is widened to float32; a line says so.

    Raises:
      InputError: no such file, one that holds anything else, or numbers that are not finite.
    """
    path = pathlib.Path(path)
    arrays = _read(path)
    wrong = [name for name, array in arrays.items() if not _is_finite(array)]
    if wrong:
        raise InputError(
            f"{path}: {len(wrong)} entries hold numbers that are not finite, such as {wrong[0]}; "
            "take a checkpoint from before the training went wrong"
        )
    unwrapped = {_unwrapped(name): _widened(array) for name, array in arrays.items()}
    if len(unwrapped) < len(arrays):
        raise InputError(
            f"{path}: holds a model twice, with and without {', '.join(sorted(_WRAPPERS))} in its "
            "names; give a file with one of them"
        )
    for narrow in sorted({str(array.dtype) for array in arrays.values() if array.dtype in _NARROW}):
        print(f"{path}: {narrow} is widened to float32", file=sys.stderr)
    return unwrapped


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype in _NARROW else array


def write(path: str | pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a file of the format that the suffix names; complete or not at all.

    Raises:
      InputError: it cannot be written.
    """
    path = pathlib.Path(path)
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with files.writing(path), files.replacing(path) as unfinished:
        if path.suffix == ".safetensors":
            unfinished.write_bytes(safetensors.numpy.save(arrays, {"format": "pt"}))
        else:
            torch_files.write(unfinished, arrays)


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a file, whose first bytes tell what it is."""
    with files.reading(path), path.open("rb") as stream:
        head = stream.read(512)
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if head.startswith((b"PK\3\4", b"\x80")):
        return torch_files.read_state_dict(path)
    what = next(what for start, what in _OTHERS if re.match(start, head, re.DOTALL))
    raise InputError(f"{path}: is {what}")


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    data = path.read_bytes()
    try:
        arrays = {
            name: np.frombuffer(entry["data"], _SAFETENSORS[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in safetensors.deserialize(data)
        }
    except KeyError as error:
        raise InputError(f"{path}: holds numbers of the type {error}; give float32") from error
    except (ValueError, OverflowError, safetensors.SafetensorError) as error:
        raise InputError(
            f"{path}: no readable safetensors file ({_missing(data) or ascii(str(error))[:200]}); "
            "copy or download it again"
        ) from error
    if strange := [name for name in arrays if not name.isprintable()]:  # it would be shown
        raise InputError(f"{path}: no state_dict, an entry is called {ascii(strange[0])[:200]}")
    return arrays


def _missing(data: bytes) -> str:
    """How much is there of a file that is cut off; empty where that is not what is wrong."""
    size = 8 + int.from_bytes(data[:8], "little")
    ends = re.findall(rb'"data_offsets":\s*\[\s*\d+\s*,\s*(\d{1,18})\s*\]', data[8:size])
    size += max(map(int, ends), default=0)
    return f"cut off after {len(data)} of {size} bytes" if size > len(data) else ""


def _is_finite(array: np.ndarray) -> bool:
    return np.issubdtype(array.dtype, np.integer) or bool(np.isfinite(array).all())
