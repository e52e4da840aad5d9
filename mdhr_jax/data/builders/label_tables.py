# SPDX-License-Identifier: Apache-2.0
"""Labels in a table with a row per frame: which of its columns are labels, and what they say.

A column of labels is called AU01 or AU01_c, also AU1, au1, AU_01, AU-1 and the like. OpenFace's
other columns, its intensities (AU01_r) among them, are not read. Whatever else looks like an AU is
refused by name, and any other column is named: none is left out in silence. A label is 1, 0, or
unknown: 9, -1, empty, or what programs write where there is nothing (`csv_files.NOTHING`).
"""

import pathlib
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple, TypeGuard

from mdhr_jax import csv_files, facs
from mdhr_jax.data.builders.recordings import UNKNOWN
from mdhr_jax.errors import InputError

_AU = re.compile(r"AU[ _.-]?0*(?P<number>[1-9][0-9]*)(_(?P<kind>[crp]))?", re.IGNORECASE)
_SIDE = r"(?i:s?[\W_]*([lrb]|left|right|both)?[\W_]*)"
_LIKE_AU = re.compile(
    rf"(AU|(?<![A-Za-z])[Aa][Uu]){_SIDE}\d|\d[\W_]*(?i:aus?)(?![A-Za-z])|(?i:action[\W_]*unit)"
)
_OPENFACE = re.compile(
    r"face_id|timestamp|confidence|gaze_\w+|eye_lmk_\w+|pose_[TR]\w|[xyzXYZ]_\d+|p_\w+|AU\d+_r"
)
_TRUTHS = {"true": 1, "false": 0}


class FrameLabels(NamedTuple):
    """The labels of one frame.

    Attributes:
      place: file and line.
      video: the cell that names film or folder; None without such a column.
      subject: the cell that names the person; None likewise.
      frame: its number.
      labels: one per AU of the table; None of a frame without a face.
    """

    place: str
    video: str | None
    subject: str | None
    frame: int
    labels: list[int] | None


class LabelTable(NamedTuple):
    """A table that was read.

    Attributes:
      aus: numbers of the AUs, increasing; none if it is no table of labels.
      rows: all of them.
      note: what of it is left out, and why.
      unread: its columns that are not read, but for OpenFace's.
    """

    aus: tuple[int, ...]
    rows: list[FrameLabels]
    note: str
    unread: tuple[str, ...] = ()


class _Columns(NamedTuple):
    """Where a table has what."""

    frame: int
    video: int | None
    subject: int | None
    success: int | None
    aus: dict[int, int]


def read(file: pathlib.Path) -> LabelTable:
    """The labels in a file.

    Raises:
      InputError: it is no table, a column could be labels but is not called so, or a cell is wrong.
    """
    place, written, below = csv_files.with_header(file)
    header = [unicodedata.normalize("NFKC", name) for name in written]  # wide letters of Asia
    aus = _au_columns(header)
    if any(match and match["kind"] in ("p", "P") for match in aus.values()):
        return LabelTable(
            (), [], "these are scores that a model gave (AU.._p), no labels; left out"
        )
    if not aus:
        return LabelTable((), [], "")
    columns = _columns(place, header, _labels(place, header, aus))
    rows = [_row(place, row, columns) for place, row in below]
    lost = sum(row.labels is None for row in rows)
    if lost:
        note = f"{lost} of {len(rows)} rows show no face (success 0), left out"
    else:
        note = "" if rows else "labels no frame"
    return LabelTable(tuple(columns.aus), rows, note, _unread(header, columns))


def _unread(header: Sequence[str], columns: _Columns) -> tuple[str, ...]:
    read = {*columns[:-1], *columns.aus.values()}
    return tuple(
        name
        for column, name in enumerate(header)
        if name and column not in read and not _OPENFACE.fullmatch(name)
    )


def _au_columns(header: Sequence[str]) -> dict[int, re.Match | None]:
    """The columns that look like AUs, and how they are called in the usual ways."""
    like = (column for column, name in enumerate(header) if _LIKE_AU.search(name))
    return {column: _AU.fullmatch(header[column]) for column in like}


def _labels(place: str, header: Sequence[str], aus: dict[int, re.Match | None]) -> dict[int, int]:
    """The column of each AU's labels."""
    known = {column: match for column, match in aus.items() if _is_au(match)}
    strange = [header[column] for column in aus if column not in known]
    if strange:
        raise InputError(
            f"{place}: is {', '.join(strange)} the label of an AU? Labels are called AU12 or "
            "AU12_c, with a number of FACS and for both sides at once; rename or remove the column"
        )
    columns: dict[int, int] = {}
    for column, match in known.items():
        if (match["kind"] or "c") in "cC":
            other = columns.setdefault(int(match["number"]), column)
            if other != column:
                raise InputError(
                    f"{place}: two columns for one AU, {header[other]} and {header[column]}; keep "
                    "the one that is the label"
                )
    alone = [header[c] for c, match in known.items() if int(match["number"]) not in columns]
    if alone:
        raise InputError(
            f"{place}: {', '.join(alone)} are intensities without labels; add those, such as "
            f"{alone[0][:-2]}_c, or remove the column"
        )
    return dict(sorted(columns.items()))


def _is_au(match: re.Match | None) -> TypeGuard[re.Match]:
    return match is not None and int(match["number"]) in facs.NUMBERS


def _columns(place: str, header: Sequence[str], aus: dict[int, int]) -> _Columns:
    names = [name.lower() for name in header]
    for name in ("frame", "video", "subject", "success"):
        if names.count(name) > 1:
            raise InputError(f"{place}: two columns {name}; keep the right one")
    if "frame" not in names:
        raise InputError(
            f"{place}: names AUs, but no column frame; name the column of the frames' numbers so, "
            "or keep the file elsewhere if it holds no labels"
        )
    at = {name: column for column, name in enumerate(names)}
    return _Columns(at["frame"], at.get("video"), at.get("subject"), at.get("success"), aus)


def _row(place: str, row: Sequence[str], columns: _Columns) -> FrameLabels:
    return FrameLabels(
        place,
        None if columns.video is None else row[columns.video],
        None if columns.subject is None else row[columns.subject],
        csv_files.integer(row[columns.frame], place, range(10**8), "frame"),
        _labels_of(place, row, columns),
    )


def _labels_of(place: str, row: Sequence[str], columns: _Columns) -> list[int] | None:
    if columns.success is None or csv_files.truth(row[columns.success], place, "success"):
        return [_label(row[c], f"{place}, column {c + 1}") for c in columns.aus.values()]
    return None


def _label(text: str, place: str) -> int:
    known = text.lower()
    if known in csv_files.NOTHING:
        return UNKNOWN
    if known in _TRUTHS:
        return _TRUTHS[known]
    label = csv_files.integer(text, place, (0, 1, 9, UNKNOWN), "label")
    return UNKNOWN if label == 9 else label
