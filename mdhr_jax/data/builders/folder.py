# SPDX-License-Identifier: Apache-2.0
"""A user's own videos and labels.

Labels are CSV files, one for all videos or one per video:

    video,frame,subject,AU01,AU12      clips/a.mp4,1,anna,0,1
    frame,subject,AU01,AU12            in a.csv, for a.mp4 or the folder a
    frame,success,AU01_c,AU12_c        the same as OpenFace writes it

A label is 1, 0, or unknown: 9, -1, empty, or nan as tables of numbers write it. Frames count from 1
in a video; in a folder of pictures a frame has the number that ends its picture's name. Without a
column `subject` the person is the folder in which video or CSV file lies.
"""

import collections
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mdhr_jax import facs
from mdhr_jax.data.builders import recordings
from mdhr_jax.data.builders.recordings import UNKNOWN, Film, Found, Pictures, Recording, Source
from mdhr_jax.errors import InputError
from mdhr_jax.faces import picture_files

_AU = re.compile(r"AU0?(?P<number>[1-9][0-9]?)(_c)?", re.IGNORECASE)
_NOT_VIDEOS = {".csv", ".txt", ".json", ".md", *picture_files.SUFFIXES}
_NO_LABEL = {"": UNKNOWN, "nan": UNKNOWN, "9": UNKNOWN, "-1": UNKNOWN}


class _Columns(NamedTuple):
    """Where a CSV file has what."""

    frame: int
    video: int | None
    subject: int | None
    success: int | None
    aus: tuple[int, ...]
    au_columns: tuple[int, ...]


type _Labels = dict[tuple[str, str], dict[int, list[int]]]
"""By subject and video: frame number to labels."""


def find(root: pathlib.Path) -> tuple[Found, facs.AuLayout]:
    """The labelled recordings below a folder, and the layout of their AUs.

    Raises:
      InputError: there are no labels, a label file is broken, files disagree on the AUs, or a
        video is missing or lies elsewhere.
    """
    labels: _Labels = collections.defaultdict(dict)
    files: list[pathlib.Path] = []
    aus: tuple[int, ...] = ()
    for file, _ in recordings.named(root, re.compile(r".*\.csv", re.IGNORECASE)):
        found = _read(root, file, labels)
        if aus and found and found != aus:
            raise InputError(f"{file}: labels AUs {found}, others {aus}; label the same ones")
        aus = aus or found
        files += [file] if found else []
    if not labels:
        raise InputError(f"{root}: no CSV file with the columns frame and AU01, AU02, ... below it")
    names = sorted(labels)
    taken = tuple(_recording(root, *name, labels[name], aus) for name in names)
    return Found(taken, (), tuple(files), (root,)), facs.layout(facs.own_name(aus))


def _read(root: pathlib.Path, file: pathlib.Path, labels: _Labels) -> tuple[int, ...]:
    """Adds the labels of a file; returns its AUs, none if it is no label file."""
    rows = recordings.read_rows(file)
    place, header = next(rows, ("", []))
    columns = _columns(header, place)
    if columns is None:
        return ()
    for place, row in rows:
        if len(row) != len(header):
            raise InputError(f"{place}: {len(row)} values, but line 1 names {len(header)} columns")
        if columns.success is not None and row[columns.success] == "0":
            continue
        video = _video_name(root, file, row, columns, place)
        subject = _subject(video, row, columns, place)
        frame = recordings.integer(row[columns.frame], place, range(10**8), "frame")
        frames = labels[subject, video]
        if frame in frames:
            raise InputError(f"{place}: frame {frame} of {video} has been labelled before")
        frames[frame] = [
            _label(row[column], f"{place}, column {column + 1}") for column in columns.au_columns
        ]
    return columns.aus


def _columns(header: Sequence[str], where: str) -> _Columns | None:
    place = {name.lower(): column for column, name in enumerate(header)}
    matches = ((column, _AU.fullmatch(name)) for column, name in enumerate(header))
    named = [(int(match["number"]), column) for column, match in matches if match]
    aus = dict(named)
    if "frame" not in place or not aus:
        return None
    if len(aus) < len(named):
        raise InputError(f"{where}: two columns for one AU; keep the one that is the label")
    others = (place.get(name) for name in ("video", "subject", "success"))
    return _Columns(
        place["frame"], *others, tuple(sorted(aus)), tuple(aus[au] for au in sorted(aus))
    )


def _video_name(
    root: pathlib.Path, file: pathlib.Path, row: Sequence[str], columns: _Columns, place: str
) -> str:
    if columns.video is None:
        return file.relative_to(root).with_suffix("").as_posix()
    video = row[columns.video]
    name = pathlib.PurePath(video)
    if not video.isprintable() or not name.stem.strip(".") or name.is_absolute():
        raise InputError(f"{place}: {video!r} names no video in {root}")
    return video


def _subject(video: str, row: Sequence[str], columns: _Columns, place: str) -> str:
    subject = (
        row[columns.subject] if columns.subject is not None else pathlib.PurePath(video).parent.name
    )
    if not re.fullmatch("[A-Za-z0-9_]+", subject):
        raise InputError(
            f"{place}: person {subject!r} of {video}; name each person in a column subject, with "
            "letters, digits and _, so that nobody is trained on and tested"
        )
    return subject


def _label(text: str, place: str) -> int:
    if text.lower() in _NO_LABEL:
        return _NO_LABEL[text.lower()]
    label = recordings.integer(text, place, (0, 1, 9, UNKNOWN), "label")
    return _NO_LABEL.get(str(label), label)


def _recording(
    root: pathlib.Path,
    subject: str,
    video: str,
    frames: Mapping[int, list[int]],
    aus: Sequence[int],
) -> Recording:
    numbers = sorted(frames)
    source = _source(root, video)
    if isinstance(source, Film) and numbers[0] == 0:
        raise InputError(f"{video}: frame 0 is labelled, but frames of a video count from 1")
    return Recording(
        subject=subject,
        name=video,
        numbers=np.array(numbers),
        labels=np.array([frames[number] for number in numbers], np.int8),
        intensities=np.full((len(numbers), len(aus)), UNKNOWN, np.int8),
        source=source,
    )


def _source(root: pathlib.Path, video: str) -> Source:
    place = _inside(root, root / video)
    if place.is_dir():
        files = sorted(file.name for file in place.iterdir())
        pictures = recordings.numbered_pictures(place, files)
        for file in pictures.values():
            _inside(root, file)
        return Pictures(pictures)
    if place.is_file():
        return Film(place, first=1)
    others = sorted(place.parent.glob(f"{place.name}.*")) if place.parent.is_dir() else []
    films = [file for file in others if file.suffix.lower() not in _NOT_VIDEOS]
    if len(films) != 1:
        listed = ", ".join(file.name for file in films) or "nothing"
        raise InputError(f"{place}: expected one video or folder of that name, found {listed}")
    return Film(_inside(root, films[0]), first=1)


def _inside(root: pathlib.Path, place: pathlib.Path) -> pathlib.Path:
    if not place.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{place}: lies outside {root}; name videos by their place in it")
    return place
