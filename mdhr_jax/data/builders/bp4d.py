# SPDX-License-Identifier: Apache-2.0
"""BP4D (Zhang et al. 2014) as its holders have it on disk.

    Sequences(2D+3D)/F001/T1/2440.jpg    pictures, numbers with any padding
    2F01_01.avi                          or videos: 2, sex and number, code of the task or T1
    AUCoding/AU_OCC/F001_T1.csv          0, 1, 9 = unknown per frame and AU; older: AUCoding/
    AUCoding/AU_INT/AU06/F001_T1_AU06.csv    intensities 0 to 5, 9 = unknown; optional

A frame's number in the labels is the one of its picture; a video's first frame has number 1. Only
labelled frames are taken. Folders may lie deeper or be called otherwise, file names decide.
"""

import pathlib
import re
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int8

from mdhr_jax import csv_files, facs
from mdhr_jax.data.builders import recordings
from mdhr_jax.data.builders.recordings import UNKNOWN, Film, Pictures, RawSet, Recording, Source
from mdhr_jax.errors import InputError

LAYOUT = facs.BP4D
_TASK_OF_CODE = {
    "01": "T1",
    "03": "T2",
    "07": "T3",
    "08": "T4",
    "09": "T5",
    "10": "T6",
    "11": "T7",
    "13": "T8",
}
_NAME = re.compile("[FM][0-9]{3}/T[0-9]")
_OCCURRENCE = re.compile(r"(?P<subject>[FM][0-9]{3})_(?P<task>T[0-9])\.csv")
_INTENSITY = re.compile(r"(?P<subject>[FM][0-9]{3})_(?P<task>T[0-9])_AU(?P<au>[0-9]{2})\.csv")
_VIDEO = re.compile(
    r"2(?P<sex>[FM])(?P<number>[0-9]{2})_((?P<code>[0-9]{2})|(?P<task>T[1-8]))\.avi", re.IGNORECASE
)
_UNKNOWN_CODE = 9


def find(labels: pathlib.Path, pictures: pathlib.Path) -> RawSet:
    """The labelled recordings below two folders, which may be the same.

    Args:
      labels: somewhere below it lie the CSV files of AU occurrence.
      pictures: somewhere below it lie the folders of pictures, or the videos.

    Raises:
      InputError: there are no labels, or no pictures, or a label file is broken.
    """
    coded = _occurrence_files(labels)
    if not coded:
        raise InputError(f"{labels}: no label file such as F001_T1.csv in it or below it")
    sources = _folders(pictures) or _videos(pictures)
    if not sources:
        raise InputError(
            f"{pictures}: no folder of pictures such as F001/T1 and no video such as 2F01_01.avi "
            "in it or below it"
        )
    intensities = _intensity_files(labels)
    both = tuple(
        _recording(name, coded[name], intensities.get(name, {}), sources[name])
        for name in sorted(coded)
        if name in sources
    )
    levels = (file for files in intensities.values() for file in files.values())
    label_files = *coded.values(), *levels
    notes = recordings.unmatched(coded, sources)
    return RawSet(both, notes, label_files, (labels, pictures))


def _occurrence_files(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """The label file of each recording; those in AU_OCC took the place of older ones."""
    new: dict[str, pathlib.Path] = {}
    old: dict[str, pathlib.Path] = {}
    for file, match in recordings.named(root, _OCCURRENCE):
        files = new if file.parent.name == "AU_OCC" else old
        recordings.put(files, f"{match['subject']}/{match['task']}", file, str(file))
    return old | new


def _folders(root: pathlib.Path) -> dict[str, Source]:
    sources: dict[str, Source] = {}
    for folder, files in recordings.walk(root):
        name = f"{folder.parent.name}/{folder.name}"
        by_number = _NAME.fullmatch(name) and recordings.numbered_pictures(folder, files)
        if by_number:
            recordings.put(sources, name, Pictures(by_number), str(folder))
    return sources


def _videos(root: pathlib.Path) -> dict[str, Source]:
    sources: dict[str, Source] = {}
    for file, match in recordings.named(root, _VIDEO):
        task = match["task"] or _TASK_OF_CODE.get(match["code"])
        if task:
            name = f"{match['sex']}0{match['number']}/{task}".upper()
            recordings.put(sources, name, Film(file, first=1), str(file))
    return sources


def _intensity_files(root: pathlib.Path) -> dict[str, dict[int, pathlib.Path]]:
    files: dict[str, dict[int, pathlib.Path]] = {}
    for file, match in recordings.named(root, _INTENSITY):
        files.setdefault(f"{match['subject']}/{match['task']}", {})[int(match["au"])] = file
    return files


def _recording(
    name: str,
    occurrence: pathlib.Path,
    intensities: Mapping[int, pathlib.Path],
    source: Source,
) -> Recording:
    by_number = _occurrence(occurrence)
    numbers = sorted(by_number)
    labels = np.array([by_number[number] for number in numbers], np.int8)
    return Recording(
        subject=name.partition("/")[0],
        name=name,
        numbers=np.array(numbers),
        labels=labels,
        intensities=_intensities(intensities, numbers),
        source=source,
    )


def _occurrence(file: pathlib.Path) -> dict[int, list[int]]:
    """Labels of each frame, columns found by the AU numbers in the first line."""
    place, header, rows = csv_files.with_header(file)
    missing = [au for au in LAYOUT.aus if str(au) not in header]
    if missing or header[:1] != ["0"]:
        raise InputError(
            f"{place}: expected a line of AU numbers, 0 for the frame first; missing: "
            f"{', '.join(map(str, missing)) or 0}"
        )
    columns = [header.index(str(au)) for au in LAYOUT.aus]
    labels: dict[int, list[int]] = {}
    for place, row in rows:
        number = csv_files.integer(row[0], place, range(10**6), "frame")
        if number in labels:
            raise InputError(f"{place}: frame {number} has been labelled before; keep one line")
        labels[number] = [
            _occurs(row[column], f"{place}, column {column + 1}") for column in columns
        ]
    if not labels:
        raise InputError(f"{file}: labels no frame; restore the file or remove it")
    return labels


def _occurs(text: str, place: str) -> int:
    value = csv_files.integer(text, place, (0, 1, _UNKNOWN_CODE, UNKNOWN), "label")
    return UNKNOWN if value == _UNKNOWN_CODE else value


def _intensities(files: Mapping[int, pathlib.Path], numbers: list[int]) -> Int8[np.ndarray, "m n"]:
    intensities = np.full((len(numbers), len(LAYOUT.aus)), UNKNOWN, np.int8)
    row_of = {number: row for row, number in enumerate(numbers)}
    for au, file in files.items():
        if au not in LAYOUT.aus:
            continue
        for place, row in csv_files.rows(file):
            if len(row) != 2:
                raise InputError(f"{place}: expected frame and intensity, got {len(row)} values")
            number = csv_files.integer(row[0], place, range(10**6), "frame")
            levels = (*range(6), _UNKNOWN_CODE)
            level = csv_files.integer(row[1], place, levels, "intensity")
            if number in row_of and level != _UNKNOWN_CODE:
                intensities[row_of[number], LAYOUT.aus.index(au)] = level
    return intensities
