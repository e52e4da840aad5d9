# SPDX-License-Identifier: Apache-2.0
"""From pictures to faces: proposals at every size, refined and checked twice.

What varies from picture to picture, sizes and numbers of boxes, is done on the host; the nets see
batches of three fixed shapes, so that nothing is compiled anew for a picture of another size.
Sizes, thresholds and resampling are those of the `mtcnn` package 1.0.0. Its documented example was
made from a picture in BGR; the weights want RGB, as our pictures are: in BGR R-Net loses 11 of the
144 frames of two clips in which RGB finds every face.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
import scipy.sparse
from einops import rearrange
from flax import nnx
from jaxtyping import Float, UInt8

from mdhr_jax.errors import InputError
from mdhr_jax.faces import boxes
from mdhr_jax.faces.detect import Faces
from mdhr_jax.faces.mtcnn import nets, weights
from mdhr_jax.faces.video import Frame
from mdhr_jax.machine import devices

SMALLEST_FACE = 20  # pixels
_SHRINK = 0.709  # from one size of the picture to the next
_P_SCORE, _R_SCORE, _O_SCORE = 0.6, 0.7, 0.8
_SAME_SIZE_OVERLAP, _OVERLAP = 0.5, 0.7
_P_BATCH, _R_BATCH, _O_BATCH = 32, 128, 16

Picture = UInt8[np.ndarray, "_ _ 3"]


class Mtcnn:
    """Finds faces and their eyes, noses and corners of the mouth.

    Args:
      smallest_face: shorter side of the smallest face to look for, pixels; the work grows with
        its inverse square.

    Raises:
      InputError: the `[faces]` extra is not installed, or JAX overlooks this machine's GPU.
    """

    def __init__(self, smallest_face: int = SMALLEST_FACE):
        if smallest_face < nets.CELL:
            raise InputError(
                f"faces of {smallest_face} pixels are too small to be found: look for at least "
                f"{nets.CELL}"
            )
        devices.found()
        self._smallest_face = smallest_face
        arrays = weights.load()
        self._p = _compiled(nets.PNet(arrays["pnet"]), _P_BATCH)
        self._r = _compiled(nets.RNet(arrays["rnet"]), _R_BATCH)
        self._o = _compiled(nets.ONet(arrays["onet"]), _O_BATCH)

    def detect(
        self, frames: Sequence[Frame], near: Sequence[boxes.Boxes] | None = None
    ) -> list[Faces]:
        """The faces in each frame, the surest first; `near` known boxes the last net is enough."""
        pictures = [frame.picture for frame in frames]
        if not pictures:
            return []
        if near is None:
            candidates = self._refine(pictures, self._propose(pictures))
        else:
            candidates = [boxes.squared(known) for known in near]
        return self._output(pictures, candidates)

    def _propose(self, pictures: Sequence[Picture]) -> list[boxes.Boxes]:
        """Squares in each picture that may show a face."""
        levels = [list(_levels(picture, self._smallest_face)) for picture in pictures]
        tiles = [tile for picture in levels for level in picture for tile in level.tiles()]
        if not tiles:
            return [np.empty((0, 4)) for _ in pictures]
        pixels, inside = zip(*tiles, strict=True)
        answers = iter(zip(*self._p(np.stack(pixels), np.stack(inside)), strict=True))
        return [_proposals([level.boxes(answers) for level in picture]) for picture in levels]

    def _refine(
        self, pictures: Sequence[Picture], proposed: Sequence[boxes.Boxes]
    ) -> list[boxes.Boxes]:
        cuts = _cuts(pictures, proposed, nets.R_SIDE)
        scores, shifts = (_by_picture(x, proposed) for x in self._r(cuts))
        return [_refined(*each) for each in zip(proposed, scores, shifts, strict=True)]

    def _output(self, pictures: Sequence[Picture], refined: Sequence[boxes.Boxes]) -> list[Faces]:
        cuts = _cuts(pictures, refined, nets.O_SIDE)
        answers = [_by_picture(x, refined) for x in self._o(cuts)]
        return [_faces(*each) for each in zip(pictures, refined, *answers, strict=True)]


# The picture at several sizes, and squares cut out of it.


class _Level(NamedTuple):
    """A picture made smaller, in tiles that overlap so that their outputs lie side by side."""

    scale: float
    pixels: Float[np.ndarray, "h w 3"]

    @property
    def outputs(self) -> tuple[int, int]:
        """Rows and columns of P-Net's outputs for the whole."""
        height, width, _ = self.pixels.shape
        return (height - 1) // 2 - 4, (width - 1) // 2 - 4

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        rows, columns = self.outputs
        return -(-rows // nets.OUTPUTS), -(-columns // nets.OUTPUTS)

    def tiles(self) -> Iterator[tuple[Float[np.ndarray, "s s 3"], tuple[int, int]]]:
        """Squares of `nets.TILE` pixels, and how many rows and columns of each are the picture."""
        step = nets.OUTPUTS * nets.STRIDE
        for row, column in np.ndindex(*self.grid):
            part = self.pixels[row * step :, column * step :][: nets.TILE, : nets.TILE]
            tile = np.zeros((nets.TILE, nets.TILE, 3), np.float32)
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile, part.shape[:2]

    def boxes(self, answers: Iterator) -> tuple[boxes.Boxes, Float[np.ndarray, " k"]]:
        """Boxes that P-Net takes for faces, in the unshrunk picture's pixels, and their scores."""
        grid_rows, grid_columns = self.grid
        tiles = [next(answers) for _ in range(grid_rows * grid_columns)]
        scores, shifts = (
            rearrange(np.stack(x), "(r c) h w ... -> (r h) (c w) ...", r=grid_rows)
            for x in zip(*tiles, strict=True)
        )
        rows, columns = self.outputs
        y, x = np.nonzero(scores[:rows, :columns] > _P_SCORE)
        # Pixels count from 1 here and the last one belongs to the cell: a trait of the weights.
        corner = np.stack([x, y], axis=1) * nets.STRIDE
        cell = np.hstack([corner + 1, corner + nets.CELL])
        candidates, scores = cell + shifts[y, x] * (nets.CELL - 1), scores[y, x]
        kept = boxes.strongest(candidates, scores, _SAME_SIZE_OVERLAP)
        return candidates[kept] / self.scale, scores[kept]


def _levels(picture: Picture, smallest_face: int) -> Iterator[_Level]:
    """The picture at sizes at which faces from `smallest_face` on are as large as P-Net's cell."""
    height, width, _ = picture.shape
    sizes = max(0, round(-math.log(min(height, width) / nets.CELL) / math.log(_SHRINK) - 1))
    for power in range(sizes):
        scale = nets.CELL / smallest_face * _SHRINK**power
        new = int(height * scale), int(width * scale)
        if min(new) >= nets.CELL:
            yield _Level(scale, _shrunk(picture, *new))


def _shrunk(picture: Picture, height: int, width: int) -> Float[np.ndarray, "h w 3"]:
    """Each new pixel is the mean of the area that it covers."""
    rows, columns, _ = picture.shape
    flat = picture.astype(np.float32).reshape(rows, -1)
    narrow = rearrange(_areas(rows, height) @ flat, "h (w c) -> w (h c)", c=3)
    return rearrange(_areas(columns, width) @ narrow, "w (h c) -> h w c", c=3)


@functools.cache
def _areas(size: int, new: int) -> scipy.sparse.csr_array:
    """`(new, size)` share of each old pixel in each new one, along one side."""
    edges = np.arange(new + 1) * (size / new)
    pixel = np.arange(size)
    covered = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return scipy.sparse.csr_array((np.maximum(covered, 0) * new / size).astype(np.float32))


def _cuts(
    pictures: Sequence[Picture], candidates: Sequence[boxes.Boxes], side: int
) -> Float[np.ndarray, "k s s 3"]:
    cuts = (boxes.cut_out(*pair, side) for pair in zip(pictures, candidates, strict=True))
    return np.concatenate([np.empty((0, side, side, 3), np.float32), *cuts])


# What the nets answer, made boxes.


def _proposals(levels: Sequence[tuple[boxes.Boxes, Float[np.ndarray, " _"]]]) -> boxes.Boxes:
    candidates = np.concatenate([np.empty((0, 4)), *(level for level, _ in levels)])
    scores = np.concatenate([np.empty(0), *(scores for _, scores in levels)])
    return boxes.squared(candidates[boxes.strongest(candidates, scores, _OVERLAP)])


def _refined(
    proposed: boxes.Boxes, scores: Float[np.ndarray, " k"], shifts: boxes.Boxes
) -> boxes.Boxes:
    faces = scores > _R_SCORE
    candidates, scores = _shifted(proposed, shifts)[faces], scores[faces]
    return boxes.squared(candidates[boxes.strongest(candidates, scores, _OVERLAP)])


def _faces(
    picture: Picture,
    refined: boxes.Boxes,
    scores: Float[np.ndarray, " k"],
    shifts: boxes.Boxes,
    points: Float[np.ndarray, "k 5 2"],
) -> Faces:
    landmarks = refined[:, None, :2] - 1 + points * _sides(refined)[:, None]
    faces = scores > _O_SCORE
    candidates, scores, landmarks = (
        x[faces] for x in (_shifted(refined, shifts), scores, landmarks)
    )
    kept = boxes.strongest(candidates, scores, _OVERLAP, of="least")
    return Faces(boxes.within(candidates[kept], picture.shape), scores[kept], landmarks[kept])


def _shifted(candidates: boxes.Boxes, shifts: boxes.Boxes) -> boxes.Boxes:
    return candidates + shifts * np.tile(_sides(candidates), 2)


def _sides(candidates: boxes.Boxes) -> Float[np.ndarray, "k 2"]:
    # The nets were trained on boxes whose last pixel belongs to them.
    return candidates[:, 2:] - candidates[:, :2] + 1


# Batches of one shape.


def _compiled(net: nnx.Module, batch: int) -> Callable[..., list[np.ndarray]]:
    """The net as a function of any number of inputs, computed `batch` at a time."""
    graph, state = nnx.split(net)
    run = jax.jit(lambda state, *inputs: nnx.merge(graph, state)(*inputs))

    def call(*inputs: np.ndarray) -> list[np.ndarray]:
        count = len(inputs[0])
        answers = [
            run(state, *(_filled(x[start : start + batch], batch) for x in inputs))
            for start in range(0, max(count, 1), batch)
        ]
        return [
            np.concatenate(parts)[:count] for parts in zip(*jax.device_get(answers), strict=True)
        ]

    return call


def _filled(x: np.ndarray, batch: int) -> np.ndarray:
    return np.concatenate([x, np.zeros((batch - len(x), *x.shape[1:]), x.dtype)])


def _by_picture(values: np.ndarray, candidates: Sequence[boxes.Boxes]) -> list[np.ndarray]:
    return np.split(values, np.cumsum([len(b) for b in candidates])[:-1])
