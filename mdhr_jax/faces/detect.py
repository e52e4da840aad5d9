# SPDX-License-Identifier: Apache-2.0
"""Where the faces of a picture are: one kind of detector, one call."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from mdhr_jax.faces.boxes import Boxes
from mdhr_jax.faces.video import Frame


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


NO_FACES = Faces(np.empty((0, 4)), np.empty(0), np.empty((0, 5, 2)))


@runtime_checkable
class Detector(Protocol):
    """Finds faces."""

    def detect(self, frames: Sequence[Frame], near: Sequence[Boxes] | None = None) -> list[Faces]:
        """The faces in each frame.

        Args:
          frames: of one video.
          near: for each frame where a face was a moment ago. A detector that can look there alone
            does, others look everywhere; None: everywhere.
        """
        ...
