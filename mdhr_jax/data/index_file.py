# SPDX-License-Identifier: Apache-2.0
"""`index.npz` of a prepared data set: the `FrameTable` of its records."""

import dataclasses
import hashlib
import io
import pathlib

import numpy as np

from mdhr_jax.data import clips, naming
from mdhr_jax.errors import InputError

NAME = "index.npz"
_COLUMNS = tuple(field.name for field in dataclasses.fields(clips.FrameTable))


def to_bytes(table: clips.FrameTable) -> bytes:
    """What is stored of a table; the same table gives the same bytes."""
    columns = {name: getattr(table, name) for name in _COLUMNS}
    counted = table.by_number()
    if all(np.array_equal(columns[name], getattr(counted, name)) for name in ("breaks", "place")):
        del columns["place"]  # the frames' numbers tell it
    data = io.BytesIO()
    np.savez(data, **columns)
    return data.getvalue()


def read(file: pathlib.Path, sha256: str, num_aus: int) -> clips.FrameTable:
    """The table in a file of this checksum, with labels of so many AUs.

    Raises:
      InputError: it is another file, or holds no such table.
    """
    data = file.read_bytes() if file.exists() else b""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InputError(f"{file}: missing or damaged, prepare the data set again")
    try:
        with np.load(io.BytesIO(data)) as arrays:
            columns = {name: arrays[name] for name in _COLUMNS if name in arrays}
    except Exception as error:  # NumPy documents no set of exceptions
        raise InputError(f"{file}: is no table of frames, prepare the data set again") from error
    placed = "place" in columns
    if not placed and "number" in columns:
        columns["place"] = columns["number"]
    if missing := [name for name in _COLUMNS if name not in columns]:
        raise InputError(
            f"{file}: has no {', '.join(missing)}, an earlier version made it; prepare the data "
            "set again"
        )
    if not _is_table(**columns, num_aus=num_aus):
        raise InputError(f"{file}: its columns do not go together, prepare the data set again")
    names = {name: tuple(columns[name].tolist()) for name in ("videos", "subjects")}
    table = clips.FrameTable(**columns | names)
    return table if placed else table.by_number()


def _is_table(
    videos: np.ndarray,
    subjects: np.ndarray,
    video: np.ndarray,
    number: np.ndarray,
    labels: np.ndarray,
    breaks: np.ndarray,
    place: np.ndarray,
    num_aus: int,
) -> bool:
    """Whether columns of a file are those of a `FrameTable` of so many AUs."""
    kinds = "".join(c.dtype.kind for c in (videos, subjects, video, number, labels, breaks, place))
    return (
        kinds == "UUiiibi"
        and videos.ndim == video.ndim == 1
        and labels.shape[1:] == (num_aus,)
        and subjects.shape == videos.shape
        and video.shape == number.shape == breaks.shape == place.shape == labels.shape[:1]
        and bool(np.all((video >= 0) & (video < len(videos))))
        and bool(np.all(np.diff(video) >= 0))
        and bool(np.all((np.diff(place) > 0) | (np.diff(video) > 0)))
        and bool(np.all((labels >= -1) & (labels <= 1)))
        and all(map(naming.is_person, subjects.tolist()))
        and all(map(naming.is_name, videos.tolist()))
    )
