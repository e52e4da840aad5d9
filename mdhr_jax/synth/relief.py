# SPDX-License-Identifier: Apache-2.0
"""Form of the face: where its curves run and how high it stands towards the camera."""

from typing import NamedTuple

import jax.numpy as jnp

from mdhr_jax.synth import brushes
from mdhr_jax.synth.brushes import Grid, Plane
from mdhr_jax.synth.expression import Shape
from mdhr_jax.synth.people import Identity


class Mouth(NamedTuple):
    """Curves across the mouth, as heights y for each pixel's x."""

    line: Plane  # where closed lips meet
    across: Plane  # u in half mouth widths
    within: Plane  # 1 between the corners, soft edges
    top: Plane  # upper edge of the upper lip
    upper: Plane  # its lower edge
    lower: Plane  # upper edge of the lower lip
    bottom: Plane


def head_radius(grid: Grid, person: Identity, shape: Shape) -> Plane:
    """Squared distance from the face's centre, 1 on its outline."""
    centre = 0.46
    below = jnp.maximum(grid.y - centre, 0) / (shape.chin_y - centre)
    above = jnp.maximum(centre - grid.y, 0) / 0.5
    width = person.face_width * (1 - person.jaw_taper * below * (0.5 + 0.5 * below))
    return jnp.square(grid.u / width) + jnp.square(below) * below + jnp.square(above)


def mouth_curves(grid: Grid, shape: Shape) -> Mouth:
    """Where the lips of this expression run."""
    across = grid.u / shape.mouth_width
    arc = jnp.minimum(across * across, 1.5)
    belly = jnp.maximum(1 - arc, 0)
    opening = jnp.maximum(1 - arc / 0.85, 0)
    cupid = (
        1
        + 0.14 * brushes.bump(jnp.square((across - 0.24) / 0.22))
        - 0.16 * brushes.bump(jnp.square(across / 0.18))
    )
    line = shape.mouth_y + shape.corner_drop * arc + 0.003 * brushes.bump(jnp.square(across / 0.3))
    upper = line - shape.upper_gap * opening
    lower = line + shape.lower_gap * opening * (1.5 - 0.5 * opening)
    full = belly * (1.5 - 0.5 * belly)
    return Mouth(
        line=line,
        across=across,
        within=brushes.soft((1 - across) * shape.mouth_width, 0.02, grid),
        top=upper - shape.upper_lip * full * cupid,
        upper=upper,
        lower=lower,
        bottom=lower + shape.lower_lip * full,
    )


def _fold(grid: Grid, shape: Shape) -> tuple[Plane, Plane]:
    """Distance to the nasolabial fold and its strength along the way from wing to mouth corner."""
    top, bottom = shape.wing_y - 0.03, shape.mouth_y + 0.01
    along = (grid.y - top) / (bottom - top)
    start, end = shape.nose_width + 0.012, shape.mouth_width + 0.045
    bend = along * (1.35 - 0.35 * along)
    return grid.u - start - (end - start) * bend, brushes.bump(jnp.square(along * 1.6 - 0.75))


def height(grid: Grid, person: Identity, shape: Shape, mouth: Mouth) -> Plane:
    """Height of the face towards the camera, in fractions of the picture."""
    return (
        _skull(grid, person, shape)
        + _nose(grid, person, shape)
        + _soft_parts(grid, shape, mouth)
        - _creases(grid, person, shape, mouth)
    )


def _skull(grid: Grid, person: Identity, shape: Shape) -> Plane:
    round_head = 0.30 * jnp.sqrt(jnp.maximum(1.04 - head_radius(grid, person, shape), 0.0))
    sockets = 0.034 * brushes.blob(
        grid.u, grid.y, person.eye_x - 0.015, person.eye_y - 0.005, 0.12, 0.085
    )
    ridge = 0.012 * brushes.blob(grid.u, grid.y, 0.15, shape.brow_outer_y, 0.16, 0.05)
    return round_head - sockets + ridge


def _nose(grid: Grid, person: Identity, shape: Shape) -> Plane:
    tip_y = person.nose_y - 0.035
    down = jnp.clip((grid.y - person.eye_y + 0.03) / (tip_y - person.eye_y + 0.03), 0, 1)
    end = brushes.soft(person.nose_y + 0.003 - grid.y, 0.05, grid)
    bridge = (0.012 + 0.05 * down * down) * end
    bridge = bridge * brushes.bump(jnp.square(grid.u / (0.062 + 0.5 * shape.nose_width * down)))
    tip = 0.028 * brushes.blob(grid.u, grid.y, 0.0, tip_y, 0.055, 0.045)
    wings = 0.022 * brushes.blob(
        grid.u, grid.y, shape.nose_width - 0.016, shape.wing_y - 0.022, 0.03, 0.032
    )
    return bridge * brushes.soft(grid.y - person.eye_y + 0.05, 0.1, grid) + tip + wings


def _soft_parts(grid: Grid, shape: Shape, mouth: Mouth) -> Plane:
    """Cheeks, lips, the muzzle around the mouth and the chin."""
    cheeks = (
        0.022 * shape.cheek_bulge * brushes.blob(grid.u, grid.y, 0.2, shape.cheek_y, 0.12, 0.085)
    )
    muzzle = 0.02 * brushes.blob(grid.u, grid.y, 0.0, shape.mouth_y, 0.22, 0.13)
    upper = (grid.y - mouth.top) / jnp.maximum(mouth.upper - mouth.top, 1e-3)
    lower = (grid.y - mouth.lower) / jnp.maximum(mouth.bottom - mouth.lower, 1e-3)
    lips = 0.007 * brushes.bump(
        jnp.square(2 * upper - 1.1)
    ) + 0.010 * shape.lip_bulge * brushes.bump(jnp.square(1.6 * lower - 0.8))
    philtrum = 0.006 * brushes.blob(grid.u, grid.y, 0.0, shape.mouth_y - 0.055, 0.018, 0.045)
    chin_y = shape.chin_y - 0.065
    chin = 0.016 * shape.chin_boss * brushes.blob(grid.u, grid.y, 0.0, chin_y, 0.085, 0.055)
    return cheeks + muzzle + lips * mouth.within - philtrum + chin


def _creases(grid: Grid, person: Identity, shape: Shape, mouth: Mouth) -> Plane:
    """Depth of wrinkles and folds."""
    return (
        _forehead_creases(grid, person, shape)
        + _eye_creases(grid, person, shape)
        + _mouth_creases(grid, person, shape, mouth)
    )


def _forehead_creases(grid: Grid, person: Identity, shape: Shape) -> Plane:
    middle_y = person.brow_y - 0.10
    waves = brushes.wave((grid.y - middle_y + 0.25 * jnp.square(grid.u - 0.13)) / 0.030)
    central = brushes.blob(grid.u, grid.y, 0.0, middle_y, 0.15, 0.08)
    lateral = brushes.blob(grid.u, grid.y, 0.2, middle_y + 0.03, 0.11, 0.065)
    lines = waves * (shape.forehead_central * central + shape.forehead_lateral * lateral)
    frown = brushes.line(grid.u - 0.024 + 0.12 * (grid.y - person.brow_y), 0.013, grid)
    frown = frown * brushes.blob(grid.u, grid.y, 0.02, shape.brow_inner_y - 0.005, 0.05, 0.05)
    return 0.0045 * lines + 0.012 * shape.glabella * frown


def _eye_creases(grid: Grid, person: Identity, shape: Shape) -> Plane:
    dx, dy = grid.u - person.eye_x, grid.y - person.eye_y
    bag = brushes.line(dy - 0.045 + 1.6 * dx * dx, 0.012, grid) * brushes.bump(
        jnp.square(dx / 0.085)
    )
    corner = dx - person.eye_width
    fan = brushes.wave(1.6 * jnp.clip(dy / jnp.maximum(corner + 0.02, 0.015), -2, 2) + 0.3)
    feet = fan * brushes.blob(corner, dy, 0.032, 0.005, 0.04, 0.045)
    root_y = person.eye_y + 0.05
    root = brushes.wave((grid.y + 0.4 * grid.u - root_y) / 0.024)
    root = root * brushes.blob(grid.u, grid.y, 0.02, root_y, 0.06, 0.06)
    return (
        0.005 * shape.eye_bag * bag
        + 0.008 * shape.crows_feet * feet
        + 0.006 * shape.nose_root * root
    )


def _mouth_creases(grid: Grid, person: Identity, shape: Shape, mouth: Mouth) -> Plane:
    distance, strength = _fold(grid, shape)
    fold = brushes.line(distance, 0.028, grid) * strength
    corner_y = shape.mouth_y + shape.corner_drop
    beside = grid.u - shape.mouth_width - 0.024
    dimple = brushes.blob(
        beside + 2.5 * jnp.square(grid.y - corner_y), grid.y, 0.0, corner_y, 0.024, 0.055
    )
    below = brushes.line(
        grid.u - shape.mouth_width - 0.004 - 0.3 * (grid.y - corner_y), 0.016, grid
    )
    below = below * brushes.blob(
        grid.u, grid.y, shape.mouth_width + 0.01, corner_y + 0.035, 0.05, 0.04
    )
    under_lip = brushes.line(grid.y - mouth.bottom - 0.016, 0.022, grid) * brushes.bump(
        jnp.square(mouth.across / 0.8)
    )
    pits = brushes.noise(grid.x * 70, grid.y * 70, person.texture)
    pits = pits * brushes.blob(grid.u, grid.y, 0.0, shape.chin_y - 0.065, 0.08, 0.05)
    lines = brushes.wave(grid.x / 0.019)
    ring = brushes.blob(grid.u, grid.y, 0.0, shape.mouth_y, shape.mouth_width * 1.1, 0.06)
    return (
        0.009 * shape.nasolabial * fold
        + 0.014 * shape.dimple * dimple
        + 0.010 * shape.corner_fold * below
        + 0.007 * under_lip
        + 0.007 * shape.chin_pits * pits
        + 0.0028 * shape.lip_lines * lines * ring
    )
