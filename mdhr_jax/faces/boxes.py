# SPDX-License-Identifier: Apache-2.0
"""Arithmetic of boxes. A box is left, top, right, bottom in pixels, not rounded."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

Boxes = Float[np.ndarray, "_ 4"]

_OUTSIDE = 127.5  # what a picture shows where it has ended
_BLOCK = 1024  # boxes compared with all others at once: bounds the memory


def overlap(boxes: Boxes, others: Boxes, *, of: str) -> Float[np.ndarray, "k l"]:
    """Common area of each pair as a share of `of`: their "union" or the smaller one ("least")."""
    first = np.maximum(boxes[:, None, :2], others[None, :, :2])
    last = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.prod(np.maximum(last - first, 0), axis=-1)
    mine, theirs = (np.prod(b[:, 2:] - b[:, :2], axis=-1) for b in (boxes, others))
    whole = {
        "union": mine[:, None] + theirs - common,
        "least": np.minimum(mine[:, None], theirs),
    }[of]
    return common / whole


def strongest(
    boxes: Boxes, scores: Float[np.ndarray, " k"], limit: float, *, of: str = "union"
) -> Int[np.ndarray, " l"]:
    """Which boxes overlap with no higher scored one by more than `limit`, best first.

    A box that is itself suppressed still suppresses others, as in the `mtcnn` package.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = boxes[order]
    kept = []
    for start in range(0, len(order), _BLOCK):
        block = ranked[start : start + _BLOCK]
        stop = start + len(block)
        covered = overlap(ranked[:stop], block, of=of) > limit
        better = np.arange(stop)[:, None] < np.arange(start, stop)
        kept.append(order[start:stop][~(covered & better).any(axis=0)])
    return np.concatenate(kept) if kept else order


def squared(boxes: Boxes) -> Boxes:
    """The squares around the boxes' centres whose sides are the boxes' longer ones."""
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.hstack([centre - half, centre + half])


def cut_out(
    picture: UInt8[np.ndarray, "h w 3"], boxes: Boxes, side: int
) -> Float[np.ndarray, "k s s 3"]:
    """What the boxes show, resampled bilinearly to `side` x `side`; grey outside the picture.

    Samples go from edge to edge, in the coordinates of TensorFlow's `crop_and_resize`.
    """
    height, width, _ = picture.shape
    rows = _samples(boxes[:, 1], boxes[:, 3], height, side)
    columns = _samples(boxes[:, 0], boxes[:, 2], width, side)
    y, up, down = _neighbours(rows, height)
    x, left, right = _neighbours(columns, width)
    x, y = x[:, None, :, None], y[:, :, None, None]

    def between(row: Int[np.ndarray, "k s"]) -> Float[np.ndarray, "k s s 3"]:
        ends = (picture[row[:, :, None], c[:, None, :]].astype(np.float32) for c in (left, right))
        first, second = ends
        return first + (second - first) * x

    upper, lower = between(up), between(down)
    values = upper + (lower - upper) * y
    inside = _inside(rows, height)[:, :, None] & _inside(columns, width)[:, None, :]
    return np.where(inside[..., None], values, np.float32(_OUTSIDE))


def _samples(
    first: Float[np.ndarray, " k"], last: Float[np.ndarray, " k"], size: int, count: int
) -> Float[np.ndarray, "k s"]:
    step = (last - first) / (count - 1)
    return (first[:, None] + step[:, None] * np.arange(count)) * (size - 1) / size


def _neighbours(
    samples: Float[np.ndarray, "k s"], size: int
) -> tuple[Float[np.ndarray, "k s"], Int[np.ndarray, "k s"], Int[np.ndarray, "k s"]]:
    """How far each sample is between two pixels, and which these are."""
    floor = np.floor(samples)
    low, high = (np.clip(v, 0, size - 1).astype(np.int64) for v in (floor, np.ceil(samples)))
    return (samples - floor).astype(np.float32), low, high


def _inside(samples: Float[np.ndarray, "k s"], size: int) -> np.ndarray:
    return (samples >= 0) & (samples <= size - 1)


def within(boxes: Boxes, shape: Sequence[int]) -> Boxes:
    """The boxes cut off at the edges of a picture of `shape` (height, width, ...)."""
    height, width = shape[:2]
    return np.clip(boxes, 0, np.array([width, height, width, height]) - 1.0)
