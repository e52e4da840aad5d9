# SPDX-License-Identifier: Apache-2.0
"""The frames of a film at an even pace, and the runs of them in which a face moves."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from mdhr_jax.faces import video
from mdhr_jax.faces.squares import Square


class Place(NamedTuple):
    """One place of a clip.

    Attributes:
      run: of the frames in which one face moves; None where no face was found.
      seen: what the model sees, a `Square`; None where no face was found.
      frame: the one that is there; None where it is missing.
    """

    run: int | None
    seen: Any
    frame: video.Frame | None


def timeline(squares: Iterable[Square], hold: int) -> Iterator[Place]:
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
            yield from (Place(None, None, frame) for frame in faceless)
            before, faceless = None, []
            continue
        if before and square.face == before.face and missing <= hold:
            absent = [None] * (int(missing) - len(faceless))
            yield from (Place(run, before, frame) for frame in (*faceless, *absent))
        else:
            yield from (Place(None, None, frame) for frame in faceless)
            run = next(runs)
        yield Place(run, square, square.frame)
        before, missing, faceless = square, 0.0, []
    yield from (Place(None, None, frame) for frame in faceless)
