# SPDX-License-Identifier: Apache-2.0
"""Soft strokes on a grid of pixels.

All are compact polynomials, no exponentials: a frame has some fifty of them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Scalar = Float[Array, ""]
Number = float | Scalar
Colour = Float[Array, " c"]
Plane = Float[Array, "h w"]
Picture = Float[Array, "c h w"]


class Grid(NamedTuple):
    """Head coordinates of every pixel."""

    x: Plane
    y: Plane
    u: Plane  # |x|
    pixel: float  # length of one


def bump(squared_distance: Plane) -> Plane:
    """1 at distance 0, 0 beyond 1, smooth."""
    return jnp.square(jnp.maximum(1 - squared_distance, 0))


def blob(
    a: Plane, b: Plane, centre_a: Number, centre_b: Number, width: Number, height: Number
) -> Plane:
    """A soft ellipse: 1 in its centre, 0 on its rim and beyond."""
    return bump(jnp.square((a - centre_a) / width) + jnp.square((b - centre_b) / height))


def soft(distance: Plane, blur: Number, grid: Grid) -> Plane:
    """0 to 1 where a distance passes 0, over a length of `blur` (a pixel and a half at least)."""
    ramp = jnp.clip(distance / jnp.maximum(blur, 1.5 * grid.pixel) + 0.5, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def line(distance: Plane, width: Number | Plane, grid: Grid) -> Plane:
    """1 on a curve, 0 from `width` on; thinner than a pixel, it fades instead of flickering."""
    drawn = jnp.maximum(width, 1.5 * grid.pixel)
    return bump(jnp.square(distance / drawn)) * width / drawn


def wave(cycles: Plane) -> Plane:
    """Smooth periodic lines, 0 at whole numbers of cycles and 1 between them."""
    phase = cycles - jnp.floor(cycles)
    return jnp.square(4 * phase * (1 - phase))


def over(picture: Picture, colour: Picture | Colour, alpha: Plane) -> Picture:
    """The picture with a colour, or another picture, painted over it."""
    colour = colour if colour.ndim == 3 else colour[:, None, None]
    # Without the barrier XLA computes alpha anew for each channel.
    return picture + (colour - picture) * jax.lax.optimization_barrier(alpha)


def noise(a: Plane, b: Plane, seed: Scalar) -> Plane:
    """Smooth value noise in 0..1 with one grain per unit of `a` and `b`."""
    cell_a, cell_b = jnp.floor(a), jnp.floor(b)
    fade_a, fade_b = (t * t * (3 - 2 * t) for t in (a - cell_a, b - cell_b))
    left = _hash(cell_a, cell_b, seed), _hash(cell_a, cell_b + 1, seed)
    right = _hash(cell_a + 1, cell_b, seed), _hash(cell_a + 1, cell_b + 1, seed)
    first, second = (p + (q - p) * fade_a for p, q in zip(left, right, strict=True))
    return first + (second - first) * fade_b


def _hash(a: Plane, b: Plane, seed: Scalar) -> Plane:
    word = a.astype(jnp.int32) * 374761393 + b.astype(jnp.int32) * 668265263
    word = word + seed.astype(jnp.int32) * 974711
    word = (word ^ (word >> 13)) * 1274126177
    return ((word ^ (word >> 16)) & 0xFFFF).astype(jnp.float32) / 0xFFFF
