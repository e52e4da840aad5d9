# SPDX-License-Identifier: Apache-2.0
"""Action units in every frame of a video, as a CSV file.

    frame,timestamp,AU01_p,AU02_p,...,AU01_c,AU02_c,...
    1,0.000000,0.031250,0.812500,...,0,1,...

One row per decoded frame: `frame` counts from 1, `timestamp` is in seconds, `_p` is the score in
[0, 1], `_c` is 1 where the score reaches the model's threshold. All are empty where no face was
found. The video is cut into clips of the model's `clip_length` frames, as in evaluation; the last
clip is filled up with its last frame. A clip ends where another face comes, or more frames in a row
are missing or show no face than the model's `hold`; up to so many are stood for by the one before
them. No more than one clip is in memory.
"""

import contextlib
import csv
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TextIO, runtime_checkable

import numpy as np
from einops import rearrange
from jaxtyping import Float, UInt8

from mdhr_jax import facs
from mdhr_jax.errors import InputError
from mdhr_jax.faces import video
from mdhr_jax.faces.squares import Cutter, Square
from mdhr_jax.progress import Bar

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
      frames: how many there are, which is the number of rows.
      faces: in how many of them a face was found.
      fps: frames per second, by the median of the times between them; None if they carry none.
    """

    frames: int
    faces: int
    fps: float | None


def predict(
    source: str | pathlib.Path,
    model: Model,
    *,
    cutter: Cutter,
    out: str | pathlib.Path,
    progress: bool,
) -> Done:
    """Write the AUs of a video file or a folder of pictures to the CSV file `out`.

    `out` appears, or replaces an earlier one, when every frame is done; until then and after an
    error it is as before.

    Args:
      source: a video file, or a folder of pictures.
      model: gives the scores.
      cutter: cuts the face out of the frames.
      out: the CSV file, in a folder that exists.
      progress: show a bar with the time left.

    Raises:
      InputError: `out` cannot be written, the source cannot be decoded to its end, a frame
        cannot be cut, or the model's scores are not between 0 and 1.
    """
    source, out = pathlib.Path(source), pathlib.Path(out)
    if out.resolve() == source.resolve():
        raise InputError(f"{out}: is the source itself; name another file for the result")
    with (
        _replacing(out) as file,
        Bar(video.count(source), "frame", show=progress) as bar,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow(_header(model.layout))
        clock = _Clock()
        seen = clock.watched(video.frames(source))
        squares = cutter.squares(seen, video=str(source), side=model.record_size)
        tally = _Tally()
        places = _timeline(tally.watched(squares), model.hold)
        for run, shown in itertools.groupby(places, key=lambda place: place.run):
            without = run is None
            for rows in (
                _without_face(shown, model.layout) if without else _score(shown, model, source)
            ):
                table.writerows(rows)
                bar.update(len(rows))
        return Done(tally.frames, tally.faces, clock.fps)


class _Clock:
    """Reads the frame rate off the frames that pass."""

    def __init__(self):
        self._times: list[float] = []

    def watched(self, frames: Iterable[video.Frame]) -> Iterator[video.Frame]:
        """The same frames."""
        for frame in frames:
            if frame.time is not None:
                self._times.append(frame.time)
            yield frame

    @property
    def fps(self) -> float | None:
        """See `Done`."""
        step = np.median(np.diff(self._times)) if len(self._times) > 1 else 0
        return float(1 / step) if step > 0 else None


class _Tally:
    """Counts the squares that pass; attributes as in `Done`."""

    def __init__(self):
        self.frames = self.faces = 0

    def watched(self, squares: Iterable[Square]) -> Iterator[Square]:
        """The same squares."""
        for square in squares:
            self.frames += 1
            self.faces += square.picture is not None
            yield square


@contextlib.contextmanager
def _replacing(out: pathlib.Path) -> Iterator[TextIO]:
    """A new file beside `out` that takes its place at the end, or vanishes after an error."""
    part = out.parent / f"{out.name}.{os.getpid()}.part"
    try:
        if out.exists() and not out.is_file():
            raise InputError(f"{out}: is no regular file; name a CSV file")
        with part.open("w", newline="") as file:
            yield file
        part.replace(out)
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written ({error.strerror}); name a file in an existing folder with "
            "space, where you may write"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


class _Place(NamedTuple):
    """One place of a clip.

    Attributes:
      run: of the frames in which one face moves; None where no face was found.
      seen: what the model sees.
      frame: the one that is there; None where it is missing.
    """

    run: int | None
    seen: Square | None
    frame: video.Frame | None


def _timeline(squares: Iterable[Square], hold: int) -> Iterator[_Place]:
    """The frames at an even pace, in runs as `data.clips` has them.

    Up to `hold` frames in a row that are missing or show no face are stood for by the one before.
    """
    runs = itertools.count()
    run, before = next(runs), None
    missing, faceless = 0.0, []  # since the one before
    for square in squares:
        missing += square.frame.missing
        if square.picture is None:
            missing += 1
            faceless.append(square.frame)
            if before and missing <= hold:
                continue
            yield from (_Place(None, None, frame) for frame in faceless)
            before, faceless = None, []
            continue
        if before and square.face == before.face and missing <= hold:
            absent = [None] * (int(missing) - len(faceless))
            yield from (_Place(run, before, frame) for frame in (*faceless, *absent))
        else:
            yield from (_Place(None, None, frame) for frame in faceless)
            run = next(runs)
        yield _Place(run, square, square.frame)
        before, missing, faceless = square, 0.0, []
    yield from (_Place(None, None, frame) for frame in faceless)


def _score(
    run: Iterator[_Place], model: Model, source: pathlib.Path
) -> Iterator[list[list[str | int]]]:
    for clip, read in _clips(run, model.clip_length, model.context):
        yield list(_rows(clip, _scores(clip, read, model, source), model))


def _without_face(run: Iterator[_Place], layout: facs.AuLayout) -> Iterator[list[list[str | int]]]:
    for place in run:
        yield [_empty(place.frame, layout)]


def _clips(
    places: Iterator[_Place], length: int, context: int
) -> Iterator[tuple[list[_Place], list[_Place]]]:
    """Clip after clip, and with each what a model reads: the clip between `context` neighbours.

    The first and the last frame stand for those that there are not.
    """
    before: list[_Place] = []
    ahead = list(itertools.islice(places, length + context))
    while ahead:
        clip = ahead[:length]
        first = [*before, *clip][:1] * (context - len(before))
        last = ahead[-1:] * (length + context - len(ahead))
        yield clip, [*first, *before, *ahead, *last]
        before = [*before, *clip][-context:] if context else []
        ahead = [*ahead[length:], *itertools.islice(places, length)]


def _scores(
    clip: Sequence[_Place], read: Sequence[_Place], model: Model, source: pathlib.Path
) -> Float[np.ndarray, "t n"]:
    """Scores of the frames of one clip; `read` has one length, so the model sees one shape."""
    pictures = [place.seen.picture for place in read]
    scores = model.scores(rearrange(pictures, "t h w c -> 1 t h w c"))[0, : len(clip)]
    if not (np.abs(scores - 0.5) < 0.5 + _ROUNDING).all():  # nor is NaN
        first, last = clip[0].seen.frame.number, clip[-1].seen.frame.number
        raise InputError(
            f"{source}, frames {first} to {last}: the model's scores are not between 0 and 1; its "
            "checkpoint is damaged, use another one"
        )
    return np.clip(scores, 0, 1)


def _header(layout: facs.AuLayout) -> list[str]:
    columns = [f"{au}_{kind}" for kind in "pc" for au in layout.au_names]
    return ["frame", "timestamp", *columns]


def _rows(
    clip: Sequence[_Place], scores: Float[np.ndarray, "t n"], model: Model
) -> Iterator[list[str | int]]:
    for (_, seen, frame), values in zip(clip, scores, strict=True):
        if frame is None:
            continue
        if frame is not seen.frame:
            yield _empty(frame, model.layout)
            continue
        decisions = (values >= model.thresholds).astype(int)
        yield [*_when(frame, model.layout), *(f"{value:.6f}" for value in values), *decisions]


def _empty(frame: video.Frame, layout: facs.AuLayout) -> list[str | int]:
    """The row of a frame without a face."""
    return [*_when(frame, layout), *[""] * 2 * len(layout.aus)]


def _when(frame: video.Frame, layout: facs.AuLayout) -> list[str | int]:
    time = (frame.number - 1) / layout.fps if frame.time is None else frame.time
    return [frame.number, f"{time:.6f}"]
