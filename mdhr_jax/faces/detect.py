# SPDX-License-Identifier: Apache-2.0
"""Where the faces of a picture are: one kind of detector, one call."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, UInt8


class Faces(NamedTuple):
    """The faces of one picture, the surest first, in its pixels from the upper left corner.

    Attributes:
      boxes: left, top, right, bottom.
      scores: how sure, 0 to 1.
      landmarks: (x, y) of the eyes, the nose and the corners of the mouth, those on the left of
        the picture first.
    """

    boxes: Float[np.ndarray, "k 4"]
    scores: Float[np.ndarray, " k"]
    landmarks: Float[np.ndarray, "k 5 2"]


class Detector(Protocol):
    """Finds faces."""

    def detect(self, pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Faces]:
        """The faces in each picture (RGB)."""
        ...
