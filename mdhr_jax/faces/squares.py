# SPDX-License-Identifier: Apache-2.0
"""From frames to squares of one face: cut at a stated place, or found, followed and aligned."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from mdhr_jax.errors import InputError
from mdhr_jax.faces import align, detectors, track
from mdhr_jax.faces import crop as crops
from mdhr_jax.faces.video import Frame
from mdhr_jax.numerics import preprocess


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


def parse(text: str, template: align.Template, smallest_face: int | None = None) -> Cutter:
    """What `none`, `center`, `X,Y,W,H` (`crop`) or a detector's name (`detectors`) stands for.

    Args:
      text: that.
      template: how a found face lies in its square.
      smallest_face: as in `detectors.parse`.

    Raises:
      InputError: the text is none of these, or what the detector needs is missing.
    """
    if smallest_face is not None or text.partition(":")[0] in detectors.KINDS:
        return Found(detectors.parse(text, smallest_face), template)
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
                raise InputError(f"{video}, frame {frame.known_as}: {error}") from error
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

    Another one takes its place at once where it is missing and that one has not been seen beside
    it, as after a cut, or where pictures of another size begin; one that has been, a bystander,
    when it has been gone for a second, or has been seen in less than half as many frames, as after
    an error in the first ones.

    Attributes:
      detectors: gives the detector for a video's name.
      template: where the face lies in the square.
    """

    detectors: detectors.Detectors
    template: align.Template

    def squares(self, frames: Iterable[Frame], *, video: str, side: int) -> Iterator[Square]:
        """See `Cutter`."""
        chosen: int | None = None
        seen: collections.Counter[int | None] = collections.Counter()
        beside: set[int] = set()  # faces seen together with the chosen one
        last = 0  # frame in which that was seen
        size: tuple[int, ...] | None = None  # of its picture
        for frame, faces in track.smoothed(track.follow(frames, self.detectors(video))):
            seen.update(list(faces))
            rival = _largest(faces)
            gone = frame.number - last > track.REMEMBERED or frame.picture.shape != size
            longer = seen[rival] > 2 * seen[chosen]
            if faces and chosen not in faces and (gone or rival not in beside or longer):
                chosen, beside = rival, set()
            if chosen in faces:
                last, size = frame.number, frame.picture.shape
                beside |= faces.keys()
            yield self._square(frame, faces, chosen, side)

    def photo(self, frame: Frame, *, video: str, side: int) -> list[Square]:
        """Every face of a picture that stands alone, the largest first."""
        (detected,) = self.detectors(video).detect([frame])
        faces = dict(enumerate(track.Face(*face) for face in zip(*detected, strict=True)))
        by_size = sorted(faces, key=lambda number: _area(faces[number]), reverse=True)
        return [self._square(frame, faces, number, side) for number in by_size]

    def _square(
        self, frame: Frame, faces: Mapping[int, track.Face], chosen: int | None, side: int
    ) -> Square:
        if chosen is None or chosen not in faces:
            return Square(frame, None)
        transform = align.similarity(faces[chosen].landmarks, self.template, side)
        picture = align.cut(frame.picture, transform, side)
        return Square(frame, picture, chosen, transform, len(faces) - 1)


def photo(cutter: Cutter, frame: Frame, *, video: str, side: int) -> list[Square]:
    """The faces of a picture that stands alone; at a stated place there is one.

    Raises:
      InputError: the frame cannot be cut; it is named.
    """
    if isinstance(cutter, Found):
        return cutter.photo(frame, video=video, side=side)
    return list(cutter.squares([frame], video=video, side=side))


def _largest(faces: Mapping[int, track.Face]) -> int | None:
    return max(faces, key=lambda number: _area(faces[number]), default=None)


def _area(face: track.Face) -> float:
    left, top, right, bottom = face.box
    return (right - left) * (bottom - top)
