# SPDX-License-Identifier: Apache-2.0
"""DISFA (Mavadati et al. 2013) as its holders have it on disk.

    Videos_LeftCamera/LeftVideoSN001_comp.avi    also Video_RightCamera/RightVideoSN001_Comp.avi
    ActionUnit_Labels/SN001/SN001_au1.txt        frame,intensity per line, 0 to 5

or pictures already cut, SN001/0.png or SN001/SN001_0.png, numbered from 0. The order of the lines
decides, as in the release's forerunner: line t labels frame t of the video. Frames are numbered
from 0 here, as in the official lists.
"""

import collections
import pathlib
import re

import numpy as np
from jaxtyping import Int

from mdhr_jax import csv_files, facs
from mdhr_jax.data.builders import recordings
from mdhr_jax.data.builders.recordings import UNKNOWN, Film, Pictures, RawSet, Recording, Source
from mdhr_jax.errors import InputError

LAYOUT = facs.DISFA
CAMERAS = ("left", "right")
ACTIVE_FROM = 2  # intensity, in the release and most papers
_NAME = re.compile("SN[0-9]{3}")
_LABELS = re.compile(r"(?P<subject>SN[0-9]{3})_au(?P<au>[0-9]{1,2})\.txt", re.IGNORECASE)
_VIDEO = re.compile(r"(?P<camera>left|right)video(?P<subject>SN[0-9]{3})_comp\.avi", re.IGNORECASE)


def find(
    labels: pathlib.Path,
    pictures: pathlib.Path,
    *,
    camera: str = "left",
    active_from: int = ACTIVE_FROM,
) -> RawSet:
    """The labelled recordings below two folders, which may be the same.

    Args:
      labels: somewhere below it lie the label files.
      pictures: somewhere below it lie the videos, or folders of pictures.
      camera: which of the two, of videos.
      active_from: the intensity from which an AU counts as active.

    Raises:
      InputError: there are no labels, or no pictures, or a label file is broken.
    """
    files = _label_files(labels)
    if not files:
        raise InputError(f"{labels}: no label file such as SN001_au1.txt in it or below it")
    sources = _videos(pictures, camera) or _folders(pictures)
    if not sources:
        raise InputError(
            f"{pictures}: no {camera} video such as {camera.title()}VideoSN001_comp.avi and no "
            "folder of pictures such as SN001 in it or below it"
        )
    both = sorted(files.keys() & sources.keys())
    labelled, notes = [], []
    for subject in both:
        levels, misfits = _levels(subject, files[subject])
        labelled.append(_recording(subject, levels, sources[subject], active_from))
        notes += misfits
        notes += _other_length(subject, len(levels), sources[subject])
    notes += recordings.unmatched(files, sources)
    label_files = tuple(file for columns in files.values() for file in columns.values())
    return RawSet(tuple(labelled), tuple(notes), label_files, (labels, pictures))


def _label_files(root: pathlib.Path) -> dict[str, dict[int, pathlib.Path]]:
    files: dict[str, dict[int, pathlib.Path]] = collections.defaultdict(dict)
    for file, match in recordings.named(root, _LABELS):
        columns = files[match["subject"].upper()]
        au = int(match["au"])
        if au in columns:
            raise InputError(f"{file}: the same labels stand in {columns[au]}, too; remove one")
        columns[au] = file
    return dict(files)


def _videos(root: pathlib.Path, camera: str) -> dict[str, Source]:
    sources: dict[str, Source] = {}
    for file, match in recordings.named(root, _VIDEO):
        if match["camera"].lower() == camera:
            recordings.put(sources, match["subject"].upper(), Film(file, first=0), str(file))
    return sources


def _folders(root: pathlib.Path) -> dict[str, Source]:
    sources: dict[str, Source] = {}
    for folder, files in recordings.walk(root):
        by_number = _NAME.fullmatch(folder.name) and recordings.numbered_pictures(folder, files)
        if by_number:
            recordings.put(sources, folder.name, Pictures(by_number), str(folder))
    return sources


def _levels(
    subject: str, files: dict[int, pathlib.Path]
) -> tuple[Int[np.ndarray, "m n"], list[str]]:
    """Intensities of the layout's AUs, -1 where nobody coded; and what did not fit together.

    There are as many frames as lines for AU1, as for the release.
    """
    notes: list[str] = []
    columns: dict[facs.Au, list[int]] = {
        au: _column(files[au], notes) for au in LAYOUT.aus if au in files
    }
    if not columns:
        folder = next(iter(files.values())).parent
        raise InputError(f"{folder}: no label file of any of the AUs {LAYOUT.aus}")
    length = len(next(iter(columns.values())))
    levels = np.full((length, len(LAYOUT.aus)), UNKNOWN)
    for place, au in enumerate(LAYOUT.aus):
        column = columns.get(au, [])
        levels[: len(column), place] = column[:length]
        if au not in columns:
            notes.append(f"{subject}: no labels of AU{au:02d}, it is unknown there")
        elif len(column) != length:
            notes.append(f"{subject}: {len(column)} lines for AU{au:02d}, {length} are expected")
    return levels, notes


def _other_length(subject: str, labelled: int, source: Source) -> list[str]:
    shown = recordings.count(source)
    if shown in (None, labelled):
        return []
    return [f"{subject}: {labelled} labelled frames, but {shown} pictures; the rest is left out"]


def _column(file: pathlib.Path, notes: list[str]) -> list[int]:
    levels, numbers = [], []
    for place, row in csv_files.rows(file):
        if len(row) != 2:
            raise InputError(f"{place}: expected frame and intensity, got {len(row)} values")
        numbers.append(csv_files.integer(row[0], place, range(10**6), "frame"))
        level = csv_files.integer(row[1], place, (*range(6), 9, UNKNOWN), "intensity")
        levels.append(level if level in range(6) else UNKNOWN)
    if not levels:
        raise InputError(f"{file}: labels no frame; restore the file or remove it")
    jumps = np.flatnonzero(np.diff(numbers) != 1)
    if len(jumps):
        before, after = numbers[jumps[0] : jumps[0] + 2]
        notes.append(f"{file.name}: frame {after} after frame {before}; the order of lines counts")
    return levels


def _recording(
    subject: str, levels: Int[np.ndarray, "m n"], source: Source, active_from: int
) -> Recording:
    return Recording(
        subject=subject,
        name=subject,
        numbers=np.arange(len(levels)),
        labels=np.where(levels == UNKNOWN, UNKNOWN, levels >= active_from).astype(np.int8),
        intensities=levels.astype(np.int8),
        source=source,
    )
