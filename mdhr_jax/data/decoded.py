# SPDX-License-Identifier: Apache-2.0
"""All pictures of a data set, decoded once into one file.

`DIR/decoded.npy` is a NumPy array `(m, h, w, 3)` of uint8 whose row i is the picture of record i.
It goes with its data set: a set that is made anew has none.
"""

import io
import math
import os
import pathlib

import numpy as np
from jaxtyping import Int, UInt8

from mdhr_jax.data import records
from mdhr_jax.errors import InputError
from mdhr_jax.machine import files, locks
from mdhr_jax.machine.progress import Bar

_FILE = "decoded.npy"
_CHUNK = 1024  # frames decoded at a time: 200 MB of 256 x 256 pixels


def pictures(source: records.FrameSource, *, progress: bool) -> UInt8[np.memmap, "m h w 3"]:
    """The pictures of a data set, mapped into memory; decodes them where nobody has.

    Raises:
      InputError: the file cannot be written or is another set's; a picture that does not decode.
    """
    file, shape = source.path / _FILE, _shape(source)
    size = f"it takes {math.prod(shape) / 1e9:.1f} GB"
    with files.writing(file, f"{size}: make space, or use config.input=encoded"):
        _write(file, shape, source, progress)
    return _mapped(file, shape)


def existing(source: records.FrameSource) -> UInt8[np.memmap, "m h w 3"] | None:
    """The pictures of a data set, mapped into memory, if somebody has decoded them.

    Raises:
      InputError: the file is damaged or another set's.
    """
    file = source.path / _FILE
    return _mapped(file, _shape(source)) if file.exists() else None


def read(
    pictures: UInt8[np.memmap, "m h w 3"],
    rows: Int[np.ndarray, " t"],
    out: UInt8[np.ndarray, "t h w 3"],
) -> None:
    """Copies pictures into an array; successive rows in one piece.

    Not through the mapping, which would bring them into memory page by page.

    Raises:
      InputError: the file cannot be read, or is shorter than it was.
    """
    edges = np.flatnonzero(np.diff(rows) != 1) + 1
    name = str(pictures.filename)
    with files.reading(name), open(name, "rb", buffering=0) as file:
        for run, place in zip(np.split(rows, edges), np.split(out, edges), strict=True):
            start = pictures.offset + int(run[0]) * place[0].nbytes
            if os.preadv(file.fileno(), [place], start) < place.nbytes:
                raise InputError(f"{name}: was cut off; delete it")


def _shape(source: records.FrameSource) -> tuple[int, int, int, int]:
    return len(source.table), source.image_size, source.image_size, 3


def _mapped(file: pathlib.Path, shape: tuple[int, ...]) -> UInt8[np.memmap, "m h w 3"]:
    with files.reading(file):
        try:
            array = np.load(file, mmap_mode="r")
        except (ValueError, EOFError) as error:
            raise InputError(f"{file}: is damaged ({error}); delete it") from error
    if array.shape != shape or array.dtype != np.uint8:
        raise InputError(f"{file}: holds {array.dtype} {array.shape}, not {shape}; delete it")
    return array


def _write(
    file: pathlib.Path, shape: tuple[int, ...], source: records.FrameSource, progress: bool
) -> None:
    """Decodes everything, where nobody has; the file appears when it is whole."""
    if file.exists():
        return
    with locks.in_turn(file.parent):  # waits for another run that does the same
        if file.exists():
            return
        with files.replacing(file) as part, part.open("wb") as out:
            _decode(out, shape, source, progress)


def _decode(
    out: io.BufferedWriter, shape: tuple[int, ...], source: records.FrameSource, progress: bool
) -> None:
    np.lib.format.write_array_header_2_0(
        out, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    with Bar(len(source.table), "frame", about="decode", show=progress) as bar:
        for start in range(0, len(source.table), _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, len(source.table)))
            out.write(source.pictures(rows).data)
            bar.update(len(rows))
