# SPDX-License-Identifier: Apache-2.0
"""Faces followed through a video: which face of a frame is which of the frames before.

Every few frames the whole picture is searched; in between, detectors that can look only where the
faces were. A face that is not found in a frame has no entry there: nothing is made up for it.
"""

import collections
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
from jaxtyping import Float

from mdhr_jax.faces import boxes
from mdhr_jax.faces.detect import NO_FACES, Detector, Faces
from mdhr_jax.faces.video import Frame

SEARCH_EVERY = 5  # frames
_SAME_FACE = 0.3  # overlap of a face's boxes in successive frames, at least
REMEMBERED = 25  # frames for which a lost face is searched and keeps its number
_SMOOTHING = np.array([1, 4, 6, 4, 1])  # weights of neighbouring frames
_REACH = len(_SMOOTHING) // 2


class Face(NamedTuple):
    """A face in one frame, as in `detect.Faces`."""

    box: Float[np.ndarray, "4"]
    score: float
    landmarks: Float[np.ndarray, "5 2"]


type Tracked = tuple[Frame, Mapping[int, Face]]
"""A frame and its faces by number; a number belongs to one face of the video."""


def follow(
    frames: Iterable[Frame], detector: Detector, *, every: int = SEARCH_EVERY
) -> Iterator[Tracked]:
    """Each frame with its faces.

    Args:
      frames: of one video, in order; numbers may be left out.
      detector: finds faces.
      every: one in so many frames is searched as a whole; so is every frame without a face, or in
        which a face has been missing for less than a second.
    """
    tracks: dict[int, _Track] = {}
    new_numbers = itertools.count()
    searched = 0
    for frame in frames:
        tracks = {k: track.at_size(_size(frame)) for k, track in tracks.items()}
        seen = [track.box for track in tracks.values() if track.frame == frame.number - 1]
        everywhere = len(seen) < max(1, len(tracks)) or frame.number - searched >= every
        if everywhere:
            searched = frame.number
        detected = _look(frame, detector, seen, everywhere=everywhere)
        numbers = _numbers(detected.boxes, tracks, new_numbers)
        faces = {
            k: Face(*face) for k, face in zip(numbers, zip(*detected, strict=True), strict=True)
        }
        tracks |= {k: _Track(face.box, frame.number, _size(frame)) for k, face in faces.items()}
        tracks = {k: t for k, t in tracks.items() if frame.number - t.frame <= REMEMBERED}
        yield frame, faces


class _Track(NamedTuple):
    """Where a face was when it was last seen, in a picture of a certain size."""

    box: Float[np.ndarray, "4"]
    frame: int
    size: Float[np.ndarray, "4"]

    def at_size(self, size: Float[np.ndarray, "4"]) -> "_Track":
        """The same place in a picture of another size."""
        return self._replace(box=self.box * (size / self.size), size=size)


def _size(frame: Frame) -> Float[np.ndarray, "4"]:
    """What the corners of boxes are measured by: width and height, twice."""
    height, width, _ = frame.picture.shape
    return np.array([width, height, width, height], np.float64)


def _look(
    frame: Frame, detector: Detector, seen: list[Float[np.ndarray, "4"]], *, everywhere: bool
) -> Faces:
    """The faces of a frame: where faces were a moment ago, and everywhere if one is missing."""
    near = detector.detect([frame], [np.array(seen)])[0] if seen else NO_FACES
    if not everywhere and len(near.scores) >= len(seen):
        return near
    (searched,) = detector.detect([frame])
    both = Faces(*(np.concatenate(parts) for parts in zip(near, searched, strict=True)))
    kept = boxes.strongest(both.boxes, both.scores, _SAME_FACE)
    return Faces(*(part[kept] for part in both))


def _numbers(
    detected: boxes.Boxes, tracks: Mapping[int, _Track], new_numbers: Iterator[int]
) -> list[int]:
    """The number of each box: that of the track where it overlaps most, or a new one."""
    known = np.array([track.box for track in tracks.values()]).reshape(-1, 4)
    shared = boxes.overlap(detected, known, of="union")
    rows, columns = scipy.optimize.linear_sum_assignment(shared, maximize=True)
    names = list(tracks)
    of_box = {
        row: names[column]
        for row, column in zip(rows, columns, strict=True)
        if shared[row, column] > _SAME_FACE
    }
    return [of_box[row] if row in of_box else next(new_numbers) for row in range(len(detected))]


def smoothed(tracked: Iterable[Tracked]) -> Iterator[Tracked]:
    """The same with landmarks averaged over five frames, or as many in a row as show the face.

    Frames that do not follow each other, or differ in size, are not in a row.
    """
    nothing: list[Tracked | None] = [None] * _REACH
    window: collections.deque[Tracked | None] = collections.deque(nothing, maxlen=len(_SMOOTHING))
    for item in itertools.chain(tracked, nothing):
        window.append(item)
        if len(window) == window.maxlen and (middle := window[_REACH]):
            frame, faces = middle
            yield frame, {k: _smooth(face, k, frame, window) for k, face in faces.items()}


def _smooth(face: Face, number: int, middle: Frame, window: Sequence[Tracked | None]) -> Face:
    near: list[Any] = [
        item if item and _is_at(place - _REACH, item[0], middle) else None
        for place, item in enumerate(window)
    ]
    shown: list[Any] = [item[1].get(number) if item else None for item in near]
    first = last = _REACH
    while first > 0 and shown[first - 1] and near[first][0].follows:
        first -= 1
    while last + 1 < len(shown) and shown[last + 1] and near[last + 1][0].follows:
        last += 1
    landmarks = np.array([neighbour.landmarks for neighbour in shown[first : last + 1]])
    mean = np.average(landmarks, axis=0, weights=_SMOOTHING[first : last + 1])
    return face._replace(landmarks=mean)


def _is_at(place: int, frame: Frame, middle: Frame) -> bool:
    """Whether a frame comes so many after another, with a picture of the same size."""
    same_size = frame.picture.shape == middle.picture.shape
    return same_size and frame.number - middle.number == place
