# SPDX-License-Identifier: Apache-2.0
"""From a pixel to the point of the resting skin that it shows.

Three coordinates: the picture's; the head's, in which its pose is undone; and the skin's, in which
the expression is undone too. Whatever is painted on skin coordinates moves with the skin.
"""

from typing import NamedTuple

import jax.numpy as jnp

from mdhr_jax.synth import brushes
from mdhr_jax.synth.brushes import Grid, Plane, Scalar
from mdhr_jax.synth.expression import Expression, Lips, Pull
from mdhr_jax.synth.people import Identity


class Pose(NamedTuple):
    """Where the head is and what it does without AUs. Angles in radians."""

    shift_x: Scalar
    shift_y: Scalar
    scale: Scalar
    roll: Scalar
    yaw: Scalar
    pitch: Scalar
    gaze_x: Scalar  # -1..1
    gaze_y: Scalar
    blink: Scalar  # 0 open to 1 closed
    pucker: Scalar  # 0..1, rounding of the lips in speech


class Opening(NamedTuple):
    """Between the lips, in coordinates that follow the lips but not their parting."""

    y: Plane  # of the pixel
    top: Plane  # of the upper lip's lower edge
    bottom: Plane
    across: Plane  # distance from the midline in half mouth widths


def head(pose: Pose, person: Identity, size: int) -> Grid:
    """Head coordinates of the pixels; one half of a face stands higher than the other."""
    picture = brushes.canvas(size)
    x, y = picture.x - pose.shift_x, picture.y - 0.5 - pose.shift_y
    cos, sin = jnp.cos(pose.roll) / pose.scale, jnp.sin(pose.roll) / pose.scale
    x, y = cos * x + sin * y, cos * y - sin * x
    # A turned head: what stands nearer to the camera moves further.
    depth = 0.22 * jnp.maximum(1 - 4.5 * x * x - 3 * y * y, 0)
    depth = depth + 0.10 * brushes.bump(jnp.square(x / 0.13) + jnp.square((y - 0.06) / 0.2))
    x, y = x - pose.yaw * depth, y - pose.pitch * depth + 0.5
    return Grid(x, y + person.asymmetry * x * y, brushes.aside(x), picture.pixel)


def skin(grid: Grid, person: Identity, expression: Expression) -> tuple[Grid, Opening]:
    """Skin coordinates of the pixels of a face, and where its lips are apart."""
    # One half of the face moves more than the other.
    more = 1 + person.lopsided * jnp.clip(grid.x / 0.06, -1, 1)
    du, dy = _pulled(grid.u, grid.y, expression.pulls)
    x = grid.x - jnp.sign(grid.x) * du * jnp.minimum(grid.u / 0.05, 1) * more
    u, y = brushes.aside(x), grid.y - dy * more
    y, opening = _part_lips(u, y, person, expression.lips)
    return Grid(x, y, u, grid.pixel), opening


def mouth_line(u: Plane, person: Identity) -> Plane:
    """y of the line on which resting lips meet."""
    arc = jnp.minimum(jnp.square(u / person.mouth_width), 1.5)
    middle = brushes.bump(jnp.square(u / (0.3 * person.mouth_width)))
    return person.mouth_y + person.mouth_curve * arc + 0.003 * middle


def _pulled(u: Plane, y: Plane, pulls: tuple[Pull, ...]) -> tuple[Plane, Plane]:
    moved_u, moved_y = jnp.zeros_like(u), jnp.zeros_like(y)
    for pull in pulls:
        # Skin that has come here was nearer to where the pull began.
        reach = brushes.blob(
            u, y, pull.u + 0.7 * pull.du, pull.y + 0.7 * pull.dy, pull.width, pull.height
        )
        moved_u, moved_y = moved_u + pull.du * reach, moved_y + pull.dy * reach
    return moved_u, moved_y


def _part_lips(u: Plane, y: Plane, person: Identity, lips: Lips) -> tuple[Plane, Opening]:
    """Undo the parting of the lips and the drop of the jaw."""
    line = mouth_line(u, person)
    across = u / person.mouth_width
    open_here = jnp.maximum(1 - across * across, 0)
    open_here = open_here * (1.4 - 0.4 * open_here)
    up, down = lips.up * open_here, lips.down * open_here
    lowered = down + lips.jaw * open_here
    seam = line + (lowered - up) / 2
    top, bottom = jnp.minimum(line - up, seam), jnp.maximum(line + lowered, seam)
    above, below = jnp.maximum(top - y, 0), jnp.maximum(y - bottom, 0)
    raised = y + up * brushes.ramp(1 - above / 0.085)
    # The skin of the cheek follows the jaw bit by bit.
    jaw = lips.jaw * (open_here + (1 - open_here) * brushes.ramp(below / 0.20))
    dropped = y - down * brushes.ramp(1 - below / 0.095) - jaw
    return jnp.where(y < seam, raised, dropped), Opening(y, top, bottom, across)
