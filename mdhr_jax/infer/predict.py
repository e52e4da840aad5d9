# SPDX-License-Identifier: Apache-2.0
"""Action units in every frame of a video, as a CSV file.

    frame,timestamp,AU01_p,AU02_p,...,AU01_c,AU02_c,...
    1,0.000000,0.031250,0.812500,...,0,1,...

One row per decoded frame: `frame` counts from 1, or is the number that ends a picture's name,
`timestamp` is in seconds (pictures have the layout's rate), `_p` is the score in [0, 1], `_c` is 1
where the score reaches the model's threshold. Scores are empty where no face was found. The video
is cut into clips of the model's `clip_length` frames, as in evaluation; the last clip is filled up
with its last frame. A clip ends where another face comes, or more frames in a row are missing or
show no face than the model's `hold`; up to so many are stood for by the one before them. No more
than one clip is in memory.

Photos are no film: each stands alone, and each of its faces has a row, the largest first:

    frame,timestamp,picture,face,AU01_p,...
    7,,anna_07.jpg,1,0.031250,...

`frame` is the number that ends the picture's name, if there is one; a photo has no time.
"""

import contextlib
import csv
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TextIO, runtime_checkable

import numpy as np
from einops import rearrange
from jaxtyping import Float, UInt8

from mdhr_jax import facs
from mdhr_jax.errors import InputError
from mdhr_jax.faces import picture_files, squares, video
from mdhr_jax.faces.squares import Cutter, Square
from mdhr_jax.infer.timeline import Place, timeline
from mdhr_jax.machine import files
from mdhr_jax.machine.progress import Bar

_ROUNDING = 1e-4  # by which a cosine may miss its range


@runtime_checkable
class Model(Protocol):
    """What prediction needs of a trained model.

    Attributes:
      layout: the AUs that it scores; its frame rate dates frames that carry no time.
      clip_length: T, frames.
      context: frames before and after them that it reads, too.
      hold: so many frames in a row that are missing or show no face do not end a clip.
      record_size: side of the pictures that it takes, pixels.
      thresholds: each AU is active from its score on.
    """

    layout: facs.AuLayout
    clip_length: int
    record_size: int
    context: int
    hold: int
    thresholds: Float[np.ndarray, " n"]

    def scores(self, frames: UInt8[np.ndarray, "b c s s 3"]) -> Float[np.ndarray, "b t n"]:
        """Scores in [0, 1] of every AU in every frame."""
        ...


class Done(NamedTuple):
    """What was predicted.

    Attributes:
      frames: how many there are; of a film, the number of rows.
      faces: in how many of them a face was found.
      fps: frames per second, by the median of the times between them; None if they carry none.
      photos: whether each stands alone.
      several: how many show more than one face.
      changes: numbers of the frames from which on another face is followed.
      gaps: before how many more frames are missing than the model bridges.
    """

    frames: int
    faces: int
    fps: float | None
    photos: bool
    several: int
    changes: Sequence[int]
    gaps: int


def predict(
    source: str | pathlib.Path,
    model: Model,
    *,
    cutter: Cutter,
    out: str | pathlib.Path,
    progress: bool,
    photos: bool | None = None,
) -> Done:
    """Write the AUs of a video file, a picture or a folder of pictures to the CSV file `out`.

    `out` appears, or replaces an earlier one, when every frame is done; until then and after an
    error it is as before.

    Args:
      source: a video file, a picture, or a folder of them.
      model: gives the scores.
      cutter: cuts the face out of the frames.
      out: the CSV file, in a folder that exists.
      progress: show a bar with the time left.
      photos: the pictures stand alone, and are no film's frames; None: unless they lie in a folder,
        their names differ in the number alone, and they have one size.

    Raises:
      InputError: `out` cannot be written, the source cannot be decoded to its end, a frame
        cannot be cut, or the model's scores are not between 0 and 1.
    """
    source, out = pathlib.Path(source), pathlib.Path(out)
    if out.resolve() == source.resolve():
        raise InputError(f"{out}: is the source itself; name another file for the result")
    pictures = picture_files.of(source)
    alone = photos if photos is not None else _stand_alone(pictures, source)
    if alone and not pictures:
        raise InputError(f"{source}: is no picture, its frames are no photos; leave out --photos")
    with (
        _replacing(out) as file,
        Bar(video.count(source), "frame", show=progress) as bar,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow(_header(model.layout, alone))
        tally = _Tally(model.hold)
        rows = (
            _of_photos(pictures, model, cutter, source, tally)
            if alone
            else _of_film(video.frames(source), model, cutter, source, tally)
        )
        for count, some in rows:
            table.writerows(some)
            bar.update(count)
        return tally.done(alone)


def _stand_alone(pictures: Sequence[pathlib.Path], source: pathlib.Path) -> bool:
    """Whether pictures are no film's frames."""
    film = source.is_dir() and picture_files.numbers(pictures)
    return bool(pictures) and (not film or len(set(map(picture_files.size, pictures))) > 1)


class _Tally:
    """Counts what passes; attributes as in `Done`."""

    def __init__(self, hold: int):
        self.frames = self.faces = self.several = self.gaps = 0
        self.changes: list[int] = []
        self._times: list[float] = []
        self._face: int | None = None
        self._hold = hold

    def watched(self, frames: Iterable[video.Frame]) -> Iterator[video.Frame]:
        """The same frames."""
        for frame in frames:
            self.frames += 1
            self.gaps += frame.missing > self._hold
            if frame.time is not None:
                self._times.append(frame.time)
            yield frame

    def followed(self, squares: Iterable[Square]) -> Iterator[Square]:
        """The same squares."""
        for square in squares:
            if square.picture is not None:
                self.add(square)
                if self.faces > 1 and square.face != self._face:
                    self.changes.append(square.frame.known_as)
                self._face = square.face
            yield square

    def add(self, square: Square) -> None:
        """Counts a frame with a face."""
        self.faces += 1
        self.several += square.others > 0

    def done(self, photos: bool) -> Done:
        """All of it."""
        step = np.median(np.diff(self._times)) if len(self._times) > 1 else 0
        fps = float(1 / step) if step > 0 else None
        changes = tuple(self.changes)
        return Done(self.frames, self.faces, fps, photos, self.several, changes, self.gaps)


@contextlib.contextmanager
def _replacing(out: pathlib.Path) -> Iterator[TextIO]:
    """A new file beside `out` that takes its place at the end, or vanishes after an error."""
    how: dict[str, Any] = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
    remedy = "name a file where there is space and where you may write"
    with files.writing(out, remedy), files.replacing(out) as part, part.open("w", **how) as file:
        yield file


type _Rows = list[list[str | int]]


def _of_film(
    frames: Iterable[video.Frame],
    model: Model,
    cutter: Cutter,
    source: pathlib.Path,
    tally: _Tally,
) -> Iterator[tuple[int, _Rows]]:
    """Rows of the frames of a film, some at a time, and of how many frames."""
    dated = _dated(tally.watched(frames), model.layout.fps)
    cut = cutter.squares(dated, video=str(source), side=model.record_size)
    places = timeline(tally.followed(cut), model.hold)
    for run, shown in itertools.groupby(places, key=lambda place: place.run):
        if run is None:
            yield from ((1, [_empty(place.frame, model.layout)]) for place in shown if place.frame)
            continue
        for clip, read in _clips(shown, model.clip_length, model.context):
            rows = list(_rows(clip, _scores(clip, read, model, source), model))
            yield len(rows), rows


def _dated(frames: Iterable[video.Frame], fps: float) -> Iterator[video.Frame]:
    """The same frames; those that carry no time have that of their numbers from the first on."""
    first = None
    for frame in frames:
        first = frame.known_as if first is None else first
        time = (frame.known_as - first) / fps if frame.time is None else frame.time
        yield frame._replace(time=time)


def _of_photos(
    pictures: Sequence[pathlib.Path],
    model: Model,
    cutter: Cutter,
    source: pathlib.Path,
    tally: _Tally,
) -> Iterator[tuple[int, _Rows]]:
    """Rows of one photo after the other."""
    for place, file in enumerate(pictures, start=1):
        number = picture_files.number(file)
        photo = video.Frame(place, None, picture_files.read(file), named=number)
        (frame,) = tally.watched([photo])
        named = ["" if number is None else number, "", file.name]
        found = squares.photo(cutter, frame, video=str(source), side=model.record_size)
        shown = [square for square in found if square.picture is not None]
        rows = [[*named, "", *_unknown(model.layout)]] if not shown else []
        for face, square in enumerate(shown, start=1):
            alone = iter([Place(0, square, frame)])
            clip, read = next(_clips(alone, model.clip_length, model.context))
            rows.append([*named, face, *_cells(_scores(clip, read, model, source)[0], model)])
        for square in shown[:1]:
            tally.add(square)
        yield 1, rows


def _clips(
    places: Iterator[Place], length: int, context: int
) -> Iterator[tuple[list[Place], list[Place]]]:
    """Clip after clip, and with each what a model reads: the clip between `context` neighbours.

    The first and the last frame stand for those that there are not.
    """
    before: list[Place] = []
    ahead = list(itertools.islice(places, length + context))
    while ahead:
        clip = ahead[:length]
        first = [*before, *clip][:1] * (context - len(before))
        last = ahead[-1:] * (length + context - len(ahead))
        yield clip, [*first, *before, *ahead, *last]
        before = [*before, *clip][-context:] if context else []
        ahead = [*ahead[length:], *itertools.islice(places, length)]


def _scores(
    clip: Sequence[Place], read: Sequence[Place], model: Model, source: pathlib.Path
) -> Float[np.ndarray, "t n"]:
    """Scores of the frames of one clip; `read` has one length, so the model sees one shape."""
    pictures = [place.seen.picture for place in read]
    scores = model.scores(rearrange(pictures, "t h w c -> 1 t h w c"))[0, : len(clip)]
    if not (np.abs(scores - 0.5) < 0.5 + _ROUNDING).all():  # nor is NaN
        first, last = clip[0].seen.frame.known_as, clip[-1].seen.frame.known_as
        raise InputError(
            f"{source}, frames {first} to {last}: the model's scores are not between 0 and 1; its "
            "checkpoint is damaged, use another one"
        )
    return np.clip(scores, 0, 1)


def _header(layout: facs.AuLayout, photos: bool) -> list[str]:
    columns = [f"{au}_{kind}" for kind in "pc" for au in layout.au_names]
    return ["frame", "timestamp", *(("picture", "face") if photos else ()), *columns]


def _rows(
    clip: Sequence[Place], scores: Float[np.ndarray, "t n"], model: Model
) -> Iterator[list[str | int]]:
    for (_, seen, frame), values in zip(clip, scores, strict=True):
        if frame is None:
            continue
        if frame is not seen.frame:
            yield _empty(frame, model.layout)
            continue
        yield [*_when(frame), *_cells(values, model)]


def _cells(values: Float[np.ndarray, " n"], model: Model) -> list[str | int]:
    """Scores and decisions."""
    decisions = (values >= model.thresholds).astype(int)
    return [*(f"{value:.6f}" for value in values), *decisions.tolist()]


def _unknown(layout: facs.AuLayout) -> list[str]:
    """The same without a face."""
    return [""] * 2 * len(layout.aus)


def _empty(frame: video.Frame, layout: facs.AuLayout) -> list[str | int]:
    """The row of a frame without a face."""
    return [*_when(frame), *_unknown(layout)]


def _when(frame: video.Frame) -> list[str | int]:
    return [frame.known_as, f"{frame.time:.6f}"]
