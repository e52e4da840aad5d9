# SPDX-License-Identifier: Apache-2.0
"""The three nets: proposals (P-Net), refinement (R-Net), output with five points (O-Net).

They take RGB pixels in 0..255 and are built from their weights (`weights.load`): shapes say the
rest.
"""

from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

TILE = 64  # side of what P-Net looks at, pixels
CELL = 12  # side of the square that one of its outputs sees
STRIDE = 2  # between these squares
OUTPUTS = (TILE - CELL) // STRIDE + 1  # rows and columns of outputs of a tile
R_SIDE, O_SIDE = 24, 48  # sides of what the other two look at


def _normalise(pixels: Float[Array, "m h w 3"]) -> Float[Array, "m h w 3"]:
    return (pixels - 127.5) / 128


class _Activated(nnx.Module):
    """A product with weights, a bias, and a slope for negative values of each channel."""

    def __init__(self, weights: Iterator[np.ndarray]):
        self.kernel, self.bias, self.slope = (nnx.Param(jnp.asarray(next(weights))) for _ in "kbs")

    def activate(self, y: Float[Array, "m ... c"]) -> Float[Array, "m ... c"]:
        y = y + self.bias[...]
        return jnp.where(y > 0, y, self.slope[...].reshape(-1) * y)


class _Conv(_Activated):
    """Convolution without padding."""

    def __call__(self, x: Float[Array, "m H W c"]) -> Float[Array, "m h w d"]:
        numbers = ("NHWC", "HWIO", "NHWC")
        return self.activate(
            lax.conv_general_dilated(
                x,
                self.kernel[...],
                (1, 1),
                "VALID",
                dimension_numbers=numbers,
                precision=lax.Precision.HIGHEST,
            )
        )


class _Dense(_Activated):
    """All positions of a picture, column by column, to one vector."""

    def __call__(self, x: Float[Array, "m h w c"]) -> Float[Array, "m d"]:
        flat = rearrange(x, "m h w c -> m (w h c)")
        return self.activate(jnp.dot(flat, self.kernel[...], precision=lax.Precision.HIGHEST))


class _Head(nnx.Module):
    """A linear layer on the channels."""

    def __init__(self, weights: Iterator[np.ndarray]):
        kernel, bias = next(weights), next(weights)
        self.kernel = nnx.Param(jnp.asarray(kernel.reshape(kernel.shape[-2:])))
        self.bias = nnx.Param(jnp.asarray(bias))

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... d"]:
        return jnp.dot(x, self.kernel[...], precision=lax.Precision.HIGHEST) + self.bias[...]


def _face_score(logits: Float[Array, "... 2"]) -> Float[Array, "..."]:
    return jax.nn.softmax(logits)[..., 1]


def _pool(x: Float[Array, "m H W c"], size: int, padding: str) -> Float[Array, "m h w c"]:
    """Maxima of `size` x `size` squares, two pixels apart."""
    window, strides = (1, size, size, 1), (1, 2, 2, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding)


class PNet(nnx.Module):
    """Is there a face in each square of 12 x 12 pixels, and where are its edges?"""

    def __init__(self, arrays: Iterable[np.ndarray]):
        weights = iter(arrays)
        self.conv1, self.conv2, self.conv3 = (_Conv(weights) for _ in range(3))
        self.box, self.face = _Head(weights), _Head(weights)

    def __call__(
        self, tiles: Float[Array, "m s s 3"], inside: Int[Array, "m 2"]
    ) -> tuple[Float[Array, "m o o"], Float[Array, "m o o 4"]]:
        """Scores, and shifts of the squares' edges (left, top, right, bottom) in their sides.

        Args:
          tiles: squares of `TILE` pixels.
          inside: how many rows and columns of each belong to the picture.
        """
        x = self.conv1(_normalise(tiles))
        # A picture may end between the two pixels of a maximum: what lies beyond must not win.
        x = jnp.where(_within(inside - 2, x.shape[1]), x, -jnp.inf)
        x = _pool(x, 2, "VALID")
        x = jnp.where(x == -jnp.inf, 0, x)
        x = self.conv3(self.conv2(x))
        return _face_score(self.face(x)), self.box(x)


def _within(size: Int[Array, "m 2"], side: int) -> Bool[Array, "m s s 1"]:
    row, column = (jnp.arange(side) < size[:, i, None] for i in range(2))
    return row[:, :, None, None] & column[:, None, :, None]


class RNet(nnx.Module):
    """Is this square of 24 x 24 pixels a face, and where are its edges?"""

    def __init__(self, arrays: Iterable[np.ndarray]):
        weights = iter(arrays)
        self.conv1, self.conv2, self.conv3 = (_Conv(weights) for _ in range(3))
        self.dense = _Dense(weights)
        self.box, self.face = _Head(weights), _Head(weights)

    def __call__(
        self, pictures: Float[Array, "m 24 24 3"]
    ) -> tuple[Float[Array, " m"], Float[Array, "m 4"]]:
        """Scores, and shifts of the edges as in `PNet`."""
        x = _pool(self.conv1(_normalise(pictures)), 3, "SAME")
        x = _pool(self.conv2(x), 3, "VALID")
        x = self.dense(self.conv3(x))
        return _face_score(self.face(x)), self.box(x)


class ONet(nnx.Module):
    """Is this square of 48 x 48 pixels a face, where are its edges and five points?"""

    def __init__(self, arrays: Iterable[np.ndarray]):
        weights = iter(arrays)
        self.conv1, self.conv2, self.conv3, self.conv4 = (_Conv(weights) for _ in range(4))
        self.dense = _Dense(weights)
        self.box, self.points, self.face = (_Head(weights) for _ in range(3))

    def __call__(
        self, pictures: Float[Array, "m 48 48 3"]
    ) -> tuple[Float[Array, " m"], Float[Array, "m 4"], Float[Array, "m 5 2"]]:
        """Scores, shifts of the edges, and points (x, y) in the square's sides.

        The points are the eyes, the nose and the corners of the mouth, those on the left of the
        picture first. The score is the mean of two looks, at the picture and at the one with red
        and blue exchanged: a face is one in both, while the package takes an ornament of its own
        example for a face in the first.
        """
        x = self._features(pictures)
        points = rearrange(self.points(x), "m (xy p) -> m p xy", xy=2)
        looks = _face_score(self.face(jnp.stack([x, self._features(pictures[..., ::-1])])))
        return looks.mean(axis=0), self.box(x), points

    def _features(self, pictures: Float[Array, "m 48 48 3"]) -> Float[Array, "m c"]:
        x = _pool(self.conv1(_normalise(pictures)), 3, "SAME")
        x = _pool(self.conv2(x), 3, "VALID")
        x = _pool(self.conv3(x), 2, "SAME")
        return self.dense(self.conv4(x))
