# SPDX-License-Identifier: Apache-2.0
"""From frames to squares of one face: cut at a stated place, or found, followed and aligned."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from mdhr_jax import preprocess
from mdhr_jax.errors import InputError
from mdhr_jax.faces import align, detectors, track
from mdhr_jax.faces import crop as crops
from mdhr_jax.faces.video import Frame


class Square(NamedTuple):
    """The face of one frame.

    Attributes:
      frame: where it comes from.
      picture: RGB; None if no face was found.
      face: which one, if they are told apart: from one face to another there is no movement.
      transform: how it was cut out; None at a stated place, and without a face.
      others: how many more faces the frame shows.
    """

    frame: Frame
    picture: UInt8[np.ndarray, "s s 3"] | None
    face: int | None = None
    transform: align.Similarity | None = None
    others: int = 0


@runtime_checkable
class Cutter(Protocol):
    """Cuts a face out of the frames of a video."""

    def squares(self, frames: Iterable[Frame], *, video: str, side: int) -> Iterator[Square]:
        """One square of `side` pixels for each frame of the video, in order.

        Raises:
          InputError: a frame cannot be cut; it is named.
        """
        ...


def parse(text: str, template: align.Template) -> Cutter:
    """What `none`, `center`, `X,Y,W,H` (`crop`) or a detector's name (`detectors`) stands for.

    Raises:
      InputError: the text is none of these, or what the detector needs is missing.
    """
    if text.partition(":")[0] in detectors.KINDS:
        return Found(detectors.parse(text), template)
    return Stated(crops.parse(text))


def describe(text: str, template: align.Template) -> str:
    """What data sets and checkpoints say of a cutter; pictures of others are not comparable."""
    if text.partition(":")[0] not in detectors.KINDS:
        return text
    return f"{detectors.describe(text)}, template {template}"


@dataclasses.dataclass(frozen=True)
class Stated:
    """Cuts every frame at the same place."""

    crop: crops.Crop

    def squares(self, frames: Iterable[Frame], *, video: str, side: int) -> Iterator[Square]:
        """See `Cutter`."""
        size = None
        for frame in frames:
            try:
                picture = preprocess.to_record_size(self.crop(frame.picture), side)
                size = self._same_size(frame, size)
            except InputError as error:
                raise InputError(f"{video}, frame {frame.number}: {error}") from error
            yield Square(frame, picture)

    def _same_size(self, frame: Frame, before: tuple[int, int] | None) -> tuple[int, int]:
        """Refuses a stated rectangle where pictures begin in which it shows something else."""
        height, width, _ = frame.picture.shape
        if isinstance(self.crop, crops.Box) and before not in (None, (width, height)):
            raise InputError(
                f"the picture is {width}x{height} pixels, before it was {before[0]}x{before[1]}: "
                "one crop in pixels does not fit both; use crop center, or a detector"
            )
        return width, height


@dataclasses.dataclass(frozen=True)
class Found:
    """Finds, follows and aligns one face: at first the largest.

    Another one takes its place when it has been gone for a second, or is missing where pictures of
    another size begin, or while one is there that has been seen in twice as many frames, as after
    an error in the first frames.

    Attributes:
      detectors: gives the detector for a video's name.
      template: where the face lies in the square.
    """

    detectors: detectors.Detectors
    template: align.Template

    def squares(self, frames: Iterable[Frame], *, video: str, side: int) -> Iterator[Square]:
        """See `Cutter`."""
        chosen, seen = None, collections.Counter()
        last, size = 0, None  # frame in which the chosen face was seen, and its picture's size
        for frame, faces in track.smoothed(track.follow(frames, self.detectors(video))):
            seen.update(list(faces))
            rival = _largest(faces)
            gone = frame.number - last > track.REMEMBERED or frame.picture.shape != size
            if chosen is None or (chosen not in faces and (gone or seen[rival] > 2 * seen[chosen])):
                chosen = rival
            if chosen in faces:
                last, size = frame.number, frame.picture.shape
            yield self._square(frame, faces, chosen, side)

    def _square(
        self, frame: Frame, faces: Mapping[int, track.Face], chosen: int | None, side: int
    ) -> Square:
        if chosen not in faces:
            return Square(frame, None)
        transform = align.similarity(faces[chosen].landmarks, self.template, side)
        picture = align.cut(frame.picture, transform, side)
        return Square(frame, picture, chosen, transform, len(faces) - 1)


def _largest(faces: Mapping[int, track.Face]) -> int | None:
    def area(number: int) -> float:
        left, top, right, bottom = faces[number].box
        return (right - left) * (bottom - top)

    return max(faces, key=area, default=None)
