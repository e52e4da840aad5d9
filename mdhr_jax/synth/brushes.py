# SPDX-License-Identifier: Apache-2.0
"""Soft strokes on a grid of pixels: compact polynomials, no exponentials."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Of NumPy as they are drawn, of JAX in the renderer.
Scalar = Float[Any, ""]
Number = int | float | Scalar | Float[Array, "h w"]
Colour = Float[Any, " c"]
Plane = Float[Array, "h w"]
Picture = Float[Array, "c h w"]


class Grid(NamedTuple):
    """Coordinates of every pixel, of the head or of the skin."""

    x: Plane  # from the midline, positive to the right of the picture
    y: Plane  # from the top
    u: Plane  # see `aside`
    pixel: float  # length of one


def canvas(size: int) -> Grid:
    """The picture's own coordinates: x in -0.5..0.5, y in 0..1."""
    centres = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
    x = jnp.broadcast_to(centres[None, :] - 0.5, (size, size))
    return Grid(x, jnp.broadcast_to(centres[:, None], (size, size)), aside(x), 1 / size)


def aside(x: Plane) -> Plane:
    """Distance from the midline, rounded there: |x| would leave a ridge along the face."""
    return jnp.sqrt(x * x + 0.008**2)


def bump(squared_distance: Plane) -> Plane:
    """1 at distance 0, 0 beyond 1, smooth."""
    return jnp.square(jnp.maximum(1 - squared_distance, 0))


def blob(
    a: Plane, b: Plane, centre_a: Number, centre_b: Number, width: Number, height: Number
) -> Plane:
    """A soft ellipse: 1 in its centre, 0 on its rim and beyond."""
    return bump(jnp.square((a - centre_a) / width) + jnp.square((b - centre_b) / height))


def ramp(value: Number) -> Float[Array, "..."]:
    """0 up to 0, 1 from 1 on, smooth between."""
    clipped = jnp.clip(value, 0, 1)
    return clipped * clipped * (3 - 2 * clipped)


def soft(distance: Plane, blur: Number, grid: Grid) -> Plane:
    """0 to 1 where a distance passes 0, over a length of `blur` (a pixel and a half at least)."""
    return ramp(distance / jnp.maximum(blur, 1.5 * grid.pixel) + 0.5)


def line(distance: Plane, width: Number, grid: Grid) -> Plane:
    """1 on a curve, 0 from `width` on; thinner than a pixel, it fades instead of flickering."""
    drawn = jnp.maximum(width, 1.5 * grid.pixel)
    return bump(jnp.square(distance / drawn)) * width / drawn


def groove(distance: Plane, width: Number, grid: Grid) -> Plane:
    """A crease 1 deep on a curve, with the swollen shoulders of pressed skin (negative depth)."""
    return line(distance, width, grid) - 0.35 * bump(jnp.square(distance / (2.6 * width)))


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
    fade_a, fade_b = ramp(a - cell_a), ramp(b - cell_b)
    left = _hash(cell_a, cell_b, seed), _hash(cell_a, cell_b + 1, seed)
    right = _hash(cell_a + 1, cell_b, seed), _hash(cell_a + 1, cell_b + 1, seed)
    first, second = (p + (q - p) * fade_a for p, q in zip(left, right, strict=True))
    return first + (second - first) * fade_b


def fractal(a: Plane, b: Plane, seed: Scalar, octaves: int = 4) -> Plane:
    """Noise in 0..1 with grains of one unit, a half, a quarter, ..., the finer the fainter."""
    layers = [0.5**k * noise(a * 2**k, b * 2**k, seed + 31 * k) for k in range(octaves)]
    return jnp.asarray(sum(layers)) / (2 - 0.5 ** (octaves - 1))


def spots(a: Plane, b: Plane, seed: Scalar, share: Number, radius: float = 0.3) -> Plane:
    """Round spots, at most one per unit square, in about this share of the squares."""
    cell_a, cell_b = jnp.floor(a), jnp.floor(b)
    centre_a = radius + (1 - 2 * radius) * _hash(cell_a, cell_b, seed + 1)
    centre_b = radius + (1 - 2 * radius) * _hash(cell_a, cell_b, seed + 2)
    spot = blob(a - cell_a, b - cell_b, centre_a, centre_b, radius, radius)
    return spot * (_hash(cell_a, cell_b, seed) < share)


def sample(layers: Float[Array, "h w c"], grid: Grid) -> Picture:
    """What a canvas shows at these coordinates; beyond its edge, what is there."""
    height, width, channels = layers.shape
    column = jnp.clip((grid.x + 0.5) * width - 0.5, 0, width - 1.001)
    row = jnp.clip(grid.y * height - 0.5, 0, height - 1.001)
    left, top = column.astype(jnp.int32), row.astype(jnp.int32)
    across, down = (column - left)[..., None], (row - top)[..., None]
    flat = layers.reshape(-1, channels)
    first = top * width + left

    def corner(offset: int) -> Float[Array, "h w c"]:
        return flat.at[first + offset].get(mode="promise_in_bounds")

    upper = corner(0) * (1 - across) + corner(1) * across
    lower = corner(width) * (1 - across) + corner(width + 1) * across
    return jnp.moveaxis(upper * (1 - down) + lower * down, -1, 0)


def _hash(a: Plane, b: Plane, seed: Scalar) -> Plane:
    word = a.astype(jnp.int32) * 374761393 + b.astype(jnp.int32) * 668265263
    word = word + jnp.asarray(seed).astype(jnp.int32) * 974711
    word = (word ^ (word >> 13)) * 1274126177
    return ((word ^ (word >> 16)) & 0xFFFF).astype(jnp.float32) / 0xFFFF
