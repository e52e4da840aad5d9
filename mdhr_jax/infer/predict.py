# SPDX-License-Identifier: Apache-2.0
"""Action units in every frame of a video, as a CSV file.

    frame,timestamp,AU01_p,AU02_p,...,AU01_c,AU02_c,...
    1,0.000000,0.031250,0.812500,...,0,1,...

One row per decoded frame: `frame` counts from 1, `timestamp` is in seconds, `_p` is the score in
[0, 1], `_c` is 1 where the score reaches the model's threshold. The video is cut into clips of the
model's `clip_length` frames, as in evaluation; the last clip is filled up with its last frame. No
more than one clip is in memory.
"""

import contextlib
import csv
import itertools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Protocol, TextIO, runtime_checkable

import numpy as np
from einops import rearrange
from jaxtyping import Float, UInt8

from mdhr_jax import facs, preprocess
from mdhr_jax.errors import InputError
from mdhr_jax.faces import crop as crops
from mdhr_jax.faces import video
from mdhr_jax.progress import Bar


@runtime_checkable
class Model(Protocol):
    """What prediction needs of a trained model.

    Attributes:
      layout: the AUs that it scores; its frame rate dates frames that carry no time.
      clip_length: T, frames.
      context: frames before and after them that it reads, too.
      record_size: side of the pictures that it takes, pixels.
      thresholds: each AU is active from its score on.
    """

    layout: facs.AuLayout
    clip_length: int
    record_size: int
    context: int
    thresholds: Float[np.ndarray, " n"]

    def scores(self, frames: UInt8[np.ndarray, "b c s s 3"]) -> Float[np.ndarray, "b t n"]:
        """Scores in [0, 1] of every AU in every frame."""
        ...


def predict(
    source: str | pathlib.Path,
    model: Model,
    *,
    crop: crops.Crop,
    out: str | pathlib.Path,
    progress: bool,
) -> int:
    """Write the AUs of a video file or a folder of pictures to the CSV file `out`.

    `out` appears, or replaces an earlier one, when every frame is done; until then and after an
    error it is as before.

    Args:
      source: a video file, or a folder of pictures.
      model: gives the scores.
      crop: cuts the face out of a frame.
      out: the CSV file, in a folder that exists.
      progress: show a bar with the time left.

    Returns:
      The number of frames, which is the number of rows.

    Raises:
      InputError: `out` cannot be written, the source cannot be decoded to its end, the crop does
        not fit a frame, or the model's scores are not finite.
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
        frames = _cropped(source, crop, model.record_size)
        for clip, read in _clips(frames, model.clip_length, model.context):
            table.writerows(_rows(clip, _scores(clip, read, model, source), model))
            bar.update(len(clip))
        return clip[-1].number


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


def _cropped(source: pathlib.Path, crop: crops.Crop, size: int) -> Iterator[video.Frame]:
    for frame in video.frames(source):
        try:
            face = preprocess.to_record_size(crop(frame.picture), size)
        except InputError as error:
            raise InputError(f"{source}, frame {frame.number}: {error}") from error
        yield frame._replace(picture=face)


def _clips(
    frames: Iterator[video.Frame], length: int, context: int
) -> Iterator[tuple[list[video.Frame], list[video.Frame]]]:
    """Clip after clip, and with each what a model reads: the clip between `context` neighbours.

    The first and the last frame of the video stand for frames that it does not have.
    """
    before: list[video.Frame] = []
    ahead = list(itertools.islice(frames, length + context))
    while ahead:
        clip = ahead[:length]
        first = [*before, *clip][:1] * (context - len(before))
        last = ahead[-1:] * (length + context - len(ahead))
        yield clip, [*first, *before, *ahead, *last]
        before = [*before, *clip][-context:] if context else []
        ahead = [*ahead[length:], *itertools.islice(frames, length)]


def _scores(
    clip: Sequence[video.Frame], read: Sequence[video.Frame], model: Model, source: pathlib.Path
) -> Float[np.ndarray, "t n"]:
    """Scores of the frames of one clip; `read` has one length, so the model sees one shape."""
    pictures = [frame.picture for frame in read]
    scores = model.scores(rearrange(pictures, "t h w c -> 1 t h w c"))[0, : len(clip)]
    if not np.isfinite(scores).all():
        raise InputError(
            f"{source}, frames {clip[0].number} to {clip[-1].number}: the model's scores are not "
            "finite; its checkpoint is damaged, use another one"
        )
    return scores


def _header(layout: facs.AuLayout) -> list[str]:
    columns = [f"{au}_{kind}" for kind in "pc" for au in layout.au_names]
    return ["frame", "timestamp", *columns]


def _rows(
    clip: Sequence[video.Frame], scores: Float[np.ndarray, "t n"], model: Model
) -> Iterator[list[str | int]]:
    for frame, values in zip(clip, scores, strict=True):
        time = (frame.number - 1) / model.layout.fps if frame.time is None else frame.time
        decisions = (values >= model.thresholds).astype(int)
        yield [frame.number, f"{time:.6f}", *(f"{value:.6f}" for value in values), *decisions]
