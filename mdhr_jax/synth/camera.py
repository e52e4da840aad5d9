# SPDX-License-Identifier: Apache-2.0
"""From a painted frame to the bytes that a camera would give."""

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, UInt8

from mdhr_jax.synth import brushes
from mdhr_jax.synth.brushes import Grid, Picture, Scalar


def blur_motion(picture: Picture, skin: Grid, closed: Grid) -> Picture:
    """The picture smeared along the way that each point moves while the shutter is open.

    Args:
      picture: taken halfway.
      skin: the skin coordinates that it shows.
      closed: those when the shutter closes.
    """
    still = brushes.canvas(picture.shape[1])
    # Three exposures: a third of the way apart, the outer ones two thirds of the half way out.
    third_x, third_y = (closed.x - skin.x) * (2 / 3), (closed.y - skin.y) * (2 / 3)
    layers = rearrange(picture, "c h w -> h w c")

    def moved(sign: int) -> Picture:
        x, y = still.x + sign * third_x, still.y + sign * third_y
        return brushes.sample(layers, still._replace(x=x, y=y))

    return (moved(-1) + picture + moved(1)) / 3


def soften(picture: Picture, softness: Scalar) -> Picture:
    """Blur of a lens: each pixel gives this share to each neighbour, along rows and columns."""
    for axis in (1, 2):
        padded = jnp.pad(picture, [(int(axis == a),) * 2 for a in range(3)], mode="edge")
        before = jax.lax.slice_in_dim(padded, 0, picture.shape[axis], axis=axis)
        after = jax.lax.slice_in_dim(padded, 2, None, axis=axis)
        picture = picture + softness * (before - 2 * picture + after)
    return picture


def digitise(picture: Picture, noise: Scalar, key: Array) -> UInt8[Array, "h w c"]:
    """Grey levels with the noise of a sensor, of this standard deviation."""
    size = picture.shape[1]
    words = jax.random.bits(key, (1, size, size))
    channels = (words >> jnp.array([0, 8, 16], jnp.uint32)[:, None, None]) & 0xFF
    grain = (channels.astype(jnp.float32) / 255 - 0.5) * (noise * 12**0.5)
    levels = jnp.round(jnp.clip(picture * 255 + grain, 0, 255)).astype(jnp.uint8)
    return rearrange(levels, "c h w -> h w c")
