# SPDX-License-Identifier: Apache-2.0
"""One recording becomes one file: the face is cut out of its labelled frames.

These files are what a killed preparation goes on with, and what its processes hand to the one that
writes the records.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mdhr_jax.data import codecs
from mdhr_jax.data.builders import recordings
from mdhr_jax.data.builders.recordings import Recording
from mdhr_jax.errors import InputError
from mdhr_jax.faces import align, squares, video
from mdhr_jax.machine import files

_VERSION = 4  # raise it when the same recording gives another file
_QUALITY = 95  # of JPEG
_SAME_FORMAT = {"jpeg": {".jpg", ".jpeg"}, "png": {".png"}}
_SETTINGS = "settings.json"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How frames become the pictures in records.

    Attributes:
      crop: where the face is, as in `squares.parse`.
      template: how a found face lies in its square.
      size: of the square, pixels.
      image_format: key of `codecs.CODECS`.
      smallest_face: as in `squares.parse`.
    """

    crop: str = "mtcnn"
    template: align.Template = align.TEMPLATES["bp4d"]
    size: int = 256
    image_format: str = "jpeg"
    smallest_face: int | None = None


@dataclasses.dataclass(frozen=True)
class VideoReport:
    """What became of the labelled frames of one recording.

    Attributes:
      kept: how many are records.
      missing: numbers of those without a picture.
      lost: numbers of those in which no face was found.
      breaks: numbers of those at which another face is followed, or the film's clock jumped.
      several: numbers of those that show more than one face; the largest is followed.
      unreadable: a line for every picture that does not decode, or for a film's early end.
      unread: how many frames that costs.
    """

    kept: int
    missing: list[int]
    lost: list[int]
    breaks: list[int]
    several: list[int]
    unreadable: list[str]
    unread: int

    @property
    def labelled(self) -> int:
        """All labelled frames."""
        return self.kept + len(self.missing) + len(self.lost)


class Part(NamedTuple):
    """A finished recording, but for its pictures (`images`).

    Attributes:
      file: that holds it.
      number: of the frames with a picture.
      place: their numbers if a film had lost no frame.
      breaks: as in `clips.FrameTable`.
      time: of these, seconds; NaN where unknown.
      transform: from frame to picture, as in `align.Similarity.row`; NaN where there is none.
      source: SHA-256 of the files that the frames are in.
      size: of all pictures, bytes.
      report: what became of the rest.
      files: size and SHA-256 of every file that was read.
    """

    file: pathlib.Path
    number: Int[np.ndarray, " m"]
    place: Int[np.ndarray, " m"]
    breaks: Bool[np.ndarray, " m"]
    time: Float[np.ndarray, " m"]
    transform: Float[np.ndarray, "m 4"]
    source: list[str]
    size: int
    report: VideoReport
    files: Mapping[str, tuple[int, str]]


@functools.cache
def cutter(settings: Settings) -> squares.Cutter:
    """The finder of faces that these settings name; a process has one of a kind."""
    return squares.parse(settings.crop, settings.template, settings.smallest_face)


def claim(folder: pathlib.Path, settings: Settings) -> None:
    """Keeps a folder for files that are cut in one way.

    Raises:
      InputError: those in it were cut in another.
    """
    crop = squares.describe(settings.crop, settings.template)
    how = crop, settings.size, settings.image_format, settings.smallest_face
    expected = json.dumps([_VERSION, *how])
    file = folder / _SETTINGS
    if not file.exists():
        files.write(file, expected)
    elif file.read_text() != expected:
        raise InputError(
            f"{folder}: was begun with other settings; use those again, or delete this folder to "
            "begin anew"
        )


def place(folder: pathlib.Path, recording: Recording) -> pathlib.Path:
    """A file for the recording as it is now: other labels or files make another one."""
    identity = hashlib.sha256(recording.numbers.astype("<i8").tobytes())
    identity.update(os.fsencode(recording.name))
    for file in recording.source.files:
        with contextlib.suppress(OSError):  # what cannot be read is told when it is read
            state = file.stat()
            identity.update(os.fsencode(file) + b"%d %d" % (state.st_size, state.st_mtime_ns))
    return folder / f"{identity.hexdigest()[:32]}.npz"


class _Reader:
    """Reads the labelled frames of a recording; remembers their files, and what does not decode."""

    def __init__(self, recording: Recording):
        self._recording = recording
        self.origin: dict[int, tuple[int, pathlib.Path]] = {}  # by place: number and file
        self.unreadable: list[tuple[str, int]] = []  # why, and how many frames
        self.checksum = functools.cache(recordings.sha256)

    def frames(self) -> Iterator[video.Frame]:
        """The frames that there are, by their place in the source."""
        source = self._recording.source
        for frame, number, file in source.frames(self._recording.numbers, self._on_bad):
            self.origin[frame.number] = number, file
            yield frame

    def _on_bad(self, error: InputError, count: int) -> None:
        self.unreadable.append((str(error), count))

    def files(self) -> dict[str, tuple[int, str]]:
        """As in `Part`."""
        read = {file for _, file in self.origin.values()}
        return {str(file): (file.stat().st_size, self.checksum(file)) for file in read}


class _CutFrame(NamedTuple):
    """A frame that has become a picture; fields as in `Part`."""

    number: int
    place: int
    breaks: bool
    image: bytes
    time: float
    transform: Float[np.ndarray, "4"]
    source: str


def cut(recording: Recording, settings: Settings, part: pathlib.Path) -> None:
    """Cuts the face out of the labelled frames of a recording and writes the file `part`."""
    reader = _Reader(recording)
    frames: list[_CutFrame] = []
    several: list[int] = []
    face, missing = None, 0.0  # of the frame before, and since it
    shown = cutter(settings).squares(reader.frames(), video=recording.name, side=settings.size)
    for square in shown:
        number, file = reader.origin[square.frame.number]
        several += [number] if square.others else []
        missing += square.frame.missing
        if square.picture is None:
            continue
        breaks = bool(frames) and (square.face != face or math.isinf(missing))
        face, missing = square.face, 0.0
        image = _encoded(square.picture, file, settings)
        frames.append(_cut_frame(number, breaks, image, square, reader.checksum(file)))
    kept = {frame.number for frame in frames}
    read = {number for number, _ in reader.origin.values()}
    report = VideoReport(
        kept=len(frames),
        missing=sorted(set(recording.numbers.tolist()) - read),
        lost=sorted(read - kept),
        breaks=[
            frame.number
            for before, frame in itertools.pairwise(frames)
            if frame.breaks or frame.place - before.place > frame.number - before.number
        ],
        several=several,
        unreadable=[line for line, _ in reader.unreadable],
        unread=sum(count for _, count in reader.unreadable),
    )
    _write(part, frames, report, reader.files())


def _cut_frame(
    number: int, breaks: bool, image: bytes, square: squares.Square, source: str
) -> _CutFrame:
    time, transform = square.frame.time, square.transform
    return _CutFrame(
        number,
        number + square.frame.lost,
        breaks,
        image,
        np.nan if time is None else time,
        np.full(4, np.nan, np.float32) if transform is None else transform.row(),
        source,
    )


def _encoded(picture: codecs.Picture, file: pathlib.Path, settings: Settings) -> bytes:
    """The picture as a record keeps it: the file itself, where that shows nothing else."""
    codec = codecs.CODECS[settings.image_format]
    if settings.crop == "none" and file.suffix.lower() in _SAME_FORMAT[settings.image_format]:
        data = file.read_bytes()
        with contextlib.suppress(ValueError):  # a colour mode that records do not have
            if np.array_equal(codec.decode(data), picture):
                return data
    return codec.encode(picture, _QUALITY)


def _write(
    part: pathlib.Path,
    frames: Sequence[_CutFrame],
    report: VideoReport,
    sources: Mapping[str, tuple[int, str]],
) -> None:
    with files.replacing(part) as unfinished, unfinished.open("wb") as file:
        np.savez(
            file,
            images=np.frombuffer(b"".join(frame.image for frame in frames), np.uint8),
            ends=np.cumsum([len(frame.image) for frame in frames], dtype=np.int64),
            number=np.array([frame.number for frame in frames], np.int64),
            place=np.array([frame.place for frame in frames], np.int64),
            breaks=np.array([frame.breaks for frame in frames], bool),
            time=np.array([frame.time for frame in frames], np.float64),
            transform=np.array([frame.transform for frame in frames], np.float32).reshape(-1, 4),
            source=np.array([frame.source for frame in frames], "U64"),
            report=np.array(json.dumps(dataclasses.asdict(report))),
            files=np.array(json.dumps(sources)),
        )


def read(part: pathlib.Path) -> Part:
    """What `cut` has written, without the pictures."""
    with np.load(part) as arrays:
        return Part(
            file=part,
            number=arrays["number"],
            place=arrays["place"],
            breaks=arrays["breaks"],
            time=arrays["time"],
            transform=arrays["transform"],
            source=arrays["source"].tolist(),
            size=sum(arrays["ends"][-1:].tolist()),
            report=VideoReport(**json.loads(str(arrays["report"]))),
            files={name: tuple(state) for name, state in json.loads(str(arrays["files"])).items()},
        )


def images(part: Part) -> Iterator[bytes]:
    """Its encoded pictures."""
    with np.load(part.file) as arrays:
        data, stops = arrays["images"].tobytes(), arrays["ends"].tolist()
    for start, stop in zip([0, *stops], stops, strict=False):
        yield data[start:stop]
