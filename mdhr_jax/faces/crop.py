# SPDX-License-Identifier: Apache-2.0
"""The square of a picture that shows the face, as a user states it.

Pixels count from the upper left corner of the upright picture.
"""

import dataclasses
import re
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from mdhr_jax.errors import InputError
from mdhr_jax.faces import detectors

type Crop = Callable[[UInt8[np.ndarray, "h w 3"]], UInt8[np.ndarray, "s s 3"]]
"""From a picture to the square that shows the face, in the picture's own pixels."""


def parse(text: str) -> Crop:
    """The crop that `none`, `center` or `X,Y,W,H` (pixels, W = H) stands for.

    Raises:
      InputError: the text is none of these, or the rectangle is empty or no square.
    """
    if text in _NAMED:
        return _NAMED[text]
    if not re.fullmatch("[0-9]{1,6}(,[0-9]{1,6}){3}", text):
        raise InputError(
            f"crop {text!r} is unknown; use {', '.join(_NAMED)}, X,Y,W,H in whole pixels, or a "
            f"detector: {detectors.NAMES}"
        )
    left, top, width, height = map(int, text.split(","))
    if width != height or width == 0:
        raise InputError(
            f"crop {text!r} is {width}x{height} pixels, expected a square; use the same W and H"
        )
    return Box(left, top, width)


def whole(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "s s 3"]:
    """The picture itself.

    Raises:
      InputError: the picture is not square.
    """
    height, width, _ = picture.shape
    if height != width:
        raise InputError(
            f"the picture is {width}x{height} pixels, not square; use crop center or X,Y,W,H"
        )
    return picture


def center(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "s s 3"]:
    """The largest centred square."""
    height, width, _ = picture.shape
    side = min(height, width)
    return Box((width - side) // 2, (height - side) // 2, side)(picture)


@dataclasses.dataclass(frozen=True)
class Box:
    """The square of `side` pixels whose upper left pixel is `(left, top)`.

    Raises:
      InputError: called with a picture that does not contain the square.
    """

    left: int
    top: int
    side: int

    def __call__(self, picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "s s 3"]:
        height, width, _ = picture.shape
        right, bottom = self.left + self.side, self.top + self.side
        if right > width or bottom > height:
            raise InputError(
                f"the crop ends at pixel ({right}, {bottom}), outside the picture of "
                f"{width}x{height} pixels; use a crop that lies inside"
            )
        return picture[self.top : bottom, self.left : right]


_NAMED = {"none": whole, "center": center}
