# SPDX-License-Identifier: Apache-2.0
"""Every face upright, of one size and in one place: similarity transforms and the squares they cut.

A point is a complex number x + iy, a similarity transform the pair (a, b) of z -> az + b: |a| is
its scale, the angle of a its rotation. Pixels are squares whose centres have whole numbers.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from mdhr_jax.errors import InputError

# Eyes, nose and corners of the mouth of an upright face, in distances of the eyes from the point
# between them: those of the release's sample pictures, made symmetric.
_SHAPE = np.array([-0.5, 0.5, 0.59j, -0.455 + 1.005j, 0.455 + 1.005j])
# The mouth moves with what it says and shows; the face must not move with it.
_FINEST = 16  # samples per pixel and side, at most: bounds the memory
_WEIGHTS = np.array([1, 1, 1, 0.1, 0.1])


@dataclasses.dataclass(frozen=True)
class Template:
    """Where a face lies in the square cut around it.

    Attributes:
      eye_distance: between the pupils, in sides of the square; a smaller one leaves more margin.
      eye_row: of the pupils below the upper edge, in sides of the square.
    """

    eye_distance: float
    eye_row: float

    def points(self, side: int) -> np.ndarray:
        """`(5,)` complex: where the landmarks belong in a square of `side` pixels."""
        between = complex(0.5, self.eye_row)
        return (between + self.eye_distance * _SHAPE) * side - (0.5 + 0.5j)

    def __str__(self) -> str:
        named = [name for name, known in TEMPLATES.items() if known == self]
        return named[0] if named else f"{self.eye_distance:g},{self.eye_row:g}"


TEMPLATES = {
    # As the pictures are cut with which the release and its forerunner were trained: one sample
    # each.
    "bp4d": Template(0.39, 0.28),
    "disfa": Template(0.285, 0.29),
    # As FFHQ aligns portraits (Karras et al. 2019, appendix A), of the face with the proportions
    # above; OpenGraphAU's examples look so.
    "portrait": Template(0.25, 0.475),
}


def parse(text: str) -> Template:
    """The template with a name in `TEMPLATES`, or of `EYE_DISTANCE,EYE_ROW`.

    Raises:
      InputError: the text is neither, or the face would not lie inside the square.
    """
    if text in TEMPLATES:
        return TEMPLATES[text]
    try:
        distance, row = map(float, text.split(","))
    except ValueError as error:
        raise InputError(
            f"template {text!r} is unknown; use {', '.join(TEMPLATES)} or EYE_DISTANCE,EYE_ROW in "
            "sides of the square, such as 0.39,0.28"
        ) from error
    if not (0.05 <= distance <= 0.9 and 0.05 <= row <= 0.9):
        raise InputError(
            f"template {text!r}: eye distance and row are shares of the square's side, from 0.05 "
            "to 0.9"
        )
    return Template(distance, row)


class Similarity(NamedTuple):
    """The transform z -> az + b from a picture to the square cut out of it."""

    a: complex
    b: complex

    def row(self) -> Float[np.ndarray, "4"]:
        """As stored beside a frame: real and imaginary parts of a and b."""
        return np.array([self.a.real, self.a.imag, self.b.real, self.b.imag], np.float32)


def similarity(landmarks: Float[np.ndarray, "5 2"], template: Template, side: int) -> Similarity:
    """The transform that brings landmarks nearest to where the template wants them.

    Least squares over weighted points (Umeyama 1991 without reflection).
    """
    here, there = landmarks @ np.array([1, 1j]), template.points(side)
    weights = _WEIGHTS / _WEIGHTS.sum()
    centre, target = weights @ here, weights @ there
    spread = weights @ np.abs(here - centre) ** 2
    a = weights @ ((there - target) * np.conj(here - centre)) / spread
    return Similarity(complex(a), complex(target - a * centre))


def cut(
    picture: UInt8[np.ndarray, "h w 3"], transform: Similarity, side: int
) -> UInt8[np.ndarray, "s s 3"]:
    """The square of `side` pixels that the transform cuts out; black beyond the picture.

    Where the picture gets smaller, every pixel is a mean of as many samples as it covers.
    """
    finer = min(max(1, math.ceil(1 / abs(transform.a))), _FINEST)
    # From the fine square's pixels back to the picture's; PIL counts from pixels' corners.
    a = 1 / (transform.a * finer)
    half = 0.5 + 0.5j
    b = -(transform.b + half) / transform.a + half
    fine = Image.fromarray(picture).transform(
        (side * finer, side * finer),
        Image.Transform.AFFINE,
        (a.real, -a.imag, b.real, a.imag, a.real, b.imag),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(fine.reduce(finer))
