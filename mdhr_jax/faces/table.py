# SPDX-License-Identifier: Apache-2.0
"""Faces found by other programs, from a CSV file with a row per face.

Three kinds of columns are known; their order does not matter, other columns are ignored:

    ours       frame, left_eye_x, left_eye_y, right_eye_x, ..., nose_x, ..., mouth_left_x, ...,
               mouth_right_x, mouth_right_y; left means left in the picture
    OpenFace   frame, success, x_0, ..., x_67, y_0, ..., y_67
    py-feat    frame, FaceScore, x_0, ..., x_67, y_0, ..., y_67

Frames count from 1, those of py-feat from 0. A column `video` names the video, or py-feat's `input`
(pictures stand for their folder), with or without ending and some of its folders; without it the
file is about one video. `score` (ours), `confidence` (OpenFace) or `FaceScore` says how sure the
program was. A row whose success is 0 or nothing (0.0, False, nan), or that lacks a number of a face
(empty, nan, -nan(ind)), is a frame without one. The table is read as `csv_files` reads any.
"""

import operator
import pathlib
import unicodedata
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from mdhr_jax import csv_files
from mdhr_jax.errors import InputError
from mdhr_jax.faces import picture_files
from mdhr_jax.faces.boxes import Boxes
from mdhr_jax.faces.detect import NO_FACES, Faces
from mdhr_jax.faces.video import SUFFIXES, Frame

_FIVE = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
_ANY_CASE = {"frame", "video", "success"}  # OpenFace's X_0 is another point than x_0
_SCORES = ("score", "confidence", "FaceScore")
# Of the 68 points: the corners and lids of both eyes, the tip of the nose, the mouth's corners.
_GROUPS = (range(36, 42), range(42, 48), (30,), (48,), (54,))

_FARTHEST = 20_000  # pixels

type Point = Callable[[Mapping[str, str]], Float[np.ndarray, "5 2"]]


class VideoFaces:
    """The faces in one video of a CSV file."""

    def __init__(self, faces: Mapping[int, Faces]):
        self._faces = faces

    def detect(self, frames: Sequence[Frame], near: Sequence[Boxes] | None = None) -> list[Faces]:
        """The faces that the file names for each frame, the surest first."""
        del near
        return [self._faces.get(frame.number, NO_FACES) for frame in frames]


def read(file: str | pathlib.Path) -> Callable[[str], VideoFaces]:
    """What gives the faces of a video by the video's name.

    Raises:
      InputError: the file is no such table, or a row is broken; later, if it has no such video.
    """
    file = pathlib.Path(file)
    rows: dict[str, dict[int, list[tuple]]] = {}
    _, header, below = csv_files.with_header(file)
    columns = [name.lower() if name.lower() in _ANY_CASE else name for name in header]
    landmarks, first = _kind(file, columns)
    score = next((name for name in _SCORES if name in columns), None)
    for place, cells in below:
        row = dict(zip(columns, cells, strict=True))
        frame = csv_files.integer(row["frame"], place, range(first, 10**8), "frame") - first + 1
        frames = rows.setdefault(_video(row), {})
        face = _face(place, row, landmarks, score)
        if face is not None:
            frames.setdefault(frame, []).append(face)
    tables = {
        video: VideoFaces({frame: _faces(rows) for frame, rows in frames.items()})
        for video, frames in rows.items()
    }
    return _Videos(file, tables)


class _Videos:
    """Gives the table of a video by its name.

    Raises:
      InputError: called with a video that the file does not name, or names in two ways; or with
        two that the same rows could be about.
    """

    def __init__(self, file: pathlib.Path, tables: Mapping[str, VideoFaces]):
        self._file, self._tables = file, tables
        self._taken: dict[str, str] = {}  # by which video

    def __call__(self, video: str) -> VideoFaces:
        video = _plain(video)
        name = self._name(video)
        other = self._taken.setdefault(name, video)
        if other != video:
            raise InputError(
                f"{self._file}: the same rows could be about {other!r} and {video!r}; name both, "
                "with their folders, in a column video"
            )
        return self._tables[name]

    def _name(self, video: str) -> str:
        """What the file calls a video."""
        if set(self._tables) == {""}:
            return ""
        matching: list[str] = []
        for alike in (operator.eq, _same_but_for_endings, _one_ends_the_other):
            matching = matching or [name for name in self._tables if name and alike(name, video)]
        if len(matching) != 1:
            listed = ", ".join(matching or list(self._tables)[:3]) or "none"
            raise InputError(
                f"{self._file}: which rows are video {video!r}? It names {listed}; name it so "
                "in a column video, with its folders"
            )
        return matching[0]


def _video(row: Mapping[str, str]) -> str:
    """The name of a row's video; nothing if it has none."""
    named, read = (_plain(row.get(column, "")) for column in ("video", "input"))
    path = pathlib.PurePosixPath(read)
    one_picture = path.suffix.lower() in picture_files.SUFFIXES
    return named or (str(path.parent) if one_picture else read)


def _plain(video: str) -> str:
    """The same for all ways to write a name: Macs part letters from their marks, Windows has \\."""
    return unicodedata.normalize("NFC", video).replace("\\", "/")


def _same_but_for_endings(one: str, other: str) -> bool:
    return _parts(one) == _parts(other)


def _one_ends_the_other(one: str, other: str) -> bool:
    """Of clips/anna/a.mp4 do anna/a and a, not ben/a."""
    short, long = sorted((_parts(one), _parts(other)), key=len)
    return bool(short) and long[-len(short) :] == short


def _parts(video: str) -> Sequence[str]:
    """Folders and name, without the ending of a film or picture."""
    path = pathlib.PurePosixPath(video)
    if path.suffix.lower() in SUFFIXES | picture_files.SUFFIXES:
        path = path.with_suffix("")
    return [part for part in path.parts if part not in ("/", "..")]


def _kind(file: pathlib.Path, columns: Sequence[str]) -> tuple[Point, int]:
    """How to get a row's landmarks, and the number of the first frame."""
    five = [f"{point}_{axis}" for point in _FIVE for axis in "xy"]
    all_points = [f"{axis}_{k}" for k in range(68) for axis in "xy"]
    if {"frame", *five}.issubset(columns):
        return lambda row: np.array([_number(row[name]) for name in five]).reshape(5, 2), 1
    if {"frame", *all_points}.issubset(columns):
        first = 0 if "FaceScore" in columns else 1
        return lambda row: _five_of([_number(row[name]) for name in all_points]), first
    raise InputError(
        f"{file}: needs the column frame, and either {five[0]}, {five[1]}, ... or x_0, y_0, ... "
        "to x_67, y_67 (OpenFace, py-feat)"
    )


def _number(text: str) -> float:
    return float("nan" if text.lower() in csv_files.NOTHING else text)


def _five_of(values: Sequence[float]) -> Float[np.ndarray, "5 2"]:
    if not np.isfinite(values).all():  # nor are the five to be trusted
        return np.full((5, 2), np.nan)
    points = np.array(values).reshape(68, 2)
    return np.array([points[list(group)].mean(axis=0) for group in _GROUPS])


def _face(
    place: str, row: Mapping[str, str], landmarks: Point, score: str | None
) -> tuple[Float[np.ndarray, "5 2"], float] | None:
    """Landmarks and score of a row; None if it has no face."""
    if not csv_files.truth(row.get("success", "1"), place, "success"):
        return None
    try:
        sure = 1.0 if score is None else _number(row[score])
        points = landmarks(row)
    except ValueError as error:
        raise InputError(f"{place}: a number is broken ({error})") from error
    if not np.isfinite([sure, *points.flat]).all():
        return None
    if np.linalg.norm(points[1] - points[0]) < 1 or np.abs(points).max() > _FARTHEST:
        if sure == 0:
            return None
        raise InputError(f"{place}: the landmarks are no face (eyes at {points[:2].tolist()})")
    return points, sure


def _faces(rows: Sequence[tuple[Float[np.ndarray, "5 2"], float]]) -> Faces:
    landmarks, scores = (np.array(part) for part in zip(*rows, strict=True))
    order = np.argsort(-scores, kind="stable")
    landmarks, scores = landmarks[order], scores[order]
    # As large as detectors draw them: about twice the span of the five points.
    low, high = landmarks.min(axis=1), landmarks.max(axis=1)
    margin = (high - low) / 2
    return Faces(np.hstack([low - margin, high + margin]), scores, landmarks)
