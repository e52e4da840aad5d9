# SPDX-License-Identifier: Apache-2.0
"""Form of the resting face: how high its skin stands towards the camera, and how it folds."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mdhr_jax.synth import brushes, tissue
from mdhr_jax.synth.brushes import Grid, Plane
from mdhr_jax.synth.expression import Folds
from mdhr_jax.synth.people import Identity


def head_radius(grid: Grid, person: Identity) -> Plane:
    """Squared distance from the face's centre, 1 on its outline."""
    centre = 0.47
    below = jnp.maximum(grid.y - centre, 0) / (person.chin_y - centre)
    above = jnp.maximum(centre - grid.y, 0) / 0.56
    width = person.face_width * (1 - person.jaw_taper * below * (0.35 + 0.65 * below))
    width = width * (1 - 0.10 * above * above)
    return jnp.square(grid.u / width) + jnp.square(below) * below + jnp.square(above)


def height(grid: Grid, person: Identity) -> Plane:
    """Height of the resting face towards the camera, in fractions of the picture."""
    uneven = brushes.fractal(grid.x * 9, grid.y * 9, person.texture + 11, 3) - 0.5
    pores = brushes.fractal(grid.x * 90, grid.y * 90, person.texture + 12, 2) - 0.5
    rough = 0.0006 + 0.0006 * person.age
    return (
        _skull(grid, person)
        + _eyes(grid, person)
        + _nose(grid, person)
        + _mouth(grid, person)
        + 0.003 * uneven
        + rough * pores
    )


def _skull(grid: Grid, person: Identity) -> Plane:
    u, y = grid.u, grid.y
    dome = 0.30 * jnp.sqrt(jnp.maximum(1.03 - head_radius(grid, person), 0.0))
    # Bosses of both halves run into one another.
    wide = jnp.sqrt(u * u + 0.06**2)
    ridge = brushes.blob(wide, y, 0.11, person.brow_y + 0.02, 0.17, 0.05)
    ridge = 0.014 * person.brow_ridge * ridge
    forehead = 0.012 * brushes.blob(wide, y, 0.09, 0.15, 0.16, 0.13)
    bones = 0.016 * brushes.blob(u, y, 0.225, 0.50, 0.13, 0.09)
    fat = 0.022 * person.cheeks * brushes.blob(u, y, 0.19, 0.60, 0.15, 0.14)
    hollow = 0.016 * (1 - person.cheeks) * brushes.blob(u, y, 0.25, 0.68, 0.10, 0.14)
    temples = 0.010 * brushes.blob(u, y, 0.31, 0.30, 0.08, 0.14)
    chin_y = person.chin_y - 0.075
    chin = 0.022 * brushes.blob(u, y, 0.0, chin_y, 0.10, 0.06)
    return dome + ridge + forehead + bones + fat - hollow - temples + chin


def _eyes(grid: Grid, person: Identity) -> Plane:
    u, y = grid.u, grid.y
    sockets = 0.034 * brushes.blob(u, y, person.eye_x - 0.02, person.eye_y - 0.008, 0.125, 0.08)
    inner = 0.012 * brushes.blob(u, y, 0.075, person.eye_y - 0.005, 0.05, 0.06)
    ball = 0.020 * brushes.blob(u, y, person.eye_x, person.eye_y - 0.003, 0.09, 0.055)
    return ball - sockets - inner


def _nose(grid: Grid, person: Identity) -> Plane:
    u, y = grid.u, grid.y
    root_y, tip_y = person.eye_y - 0.02, person.nose_y - 0.035
    down = jnp.clip((y - root_y) / (tip_y - root_y), 0, 1)
    # Lowest in the middle, the wings end higher.
    base_y = person.nose_y + 0.006 - 0.020 * jnp.square(u / person.nose_width)
    end = brushes.soft(base_y - y, 0.040, grid)
    start = brushes.soft(y - root_y + 0.02, 0.09, grid)
    profile = (0.016 + (person.nose_height - 0.016) * down * (0.4 + 0.6 * down)) * start * end
    half = person.nose_bridge + (0.55 * person.nose_width - person.nose_bridge) * down * down
    bridge = profile * brushes.bump(jnp.square(u / (half * 1.9)))
    tip = 0.024 * brushes.blob(u, y, 0.0, tip_y + 0.006, 0.052, 0.046)
    wings = 0.030 * brushes.blob(
        u, y, person.nose_width - 0.026, person.nose_y - 0.030, 0.034, 0.036
    )
    groove = 0.007 * brushes.blob(u, y, person.nose_width + 0.012, person.nose_y - 0.02, 0.02, 0.04)
    return bridge + tip + wings - groove


def _mouth(grid: Grid, person: Identity) -> Plane:
    u, y = grid.u, grid.y
    line = tissue.mouth_line(u, person)
    muzzle = 0.022 * brushes.blob(u, y, 0.0, person.mouth_y, 0.21, 0.14)
    top, bottom = lip_edges(u, person)
    within = _between_corners(grid, person)
    upper = (y - top) / jnp.maximum(line - top, 1e-3)
    upper_lip = 0.009 * brushes.bump(jnp.square(1.5 * upper - 0.9)) * (upper < 1.4) * within
    seam = 0.006 * brushes.bump(jnp.square((y - line) / 0.010))
    corner = 0.008 * brushes.blob(u, y, person.mouth_width + 0.004, line, 0.022, 0.022)
    philtrum = 0.006 * brushes.blob(u, y, 0.0, person.mouth_y - 0.06, 0.017, 0.05)
    under = 0.010 * brushes.bump(jnp.square((y - bottom - 0.02) / 0.03))
    under = under * brushes.bump(jnp.square(u / (0.9 * person.mouth_width)))
    lips = upper_lip + 0.013 * _lower_lip(grid, person) - seam * within
    return muzzle + lips - corner - philtrum - under


def lip_edges(u: Plane, person: Identity) -> tuple[Plane, Plane]:
    """y of the upper lip's upper edge, with its Cupid's bow, and of the lower lip's lower edge."""
    line = tissue.mouth_line(u, person)
    across = u / person.mouth_width
    belly = jnp.maximum(1 - across * across, 0)
    bow = 0.12 * brushes.bump(jnp.square((across - 0.22) / 0.22))
    dip = 0.20 * brushes.bump(jnp.square(across / 0.16))
    top = line - person.upper_lip * (belly * (1.25 - 0.25 * belly) + bow - dip)
    full = jnp.sqrt(jnp.maximum(belly - 0.02, 0)) * belly**0.3
    return top, line + person.lower_lip * full


def fold_maps(grid: Grid, person: Identity) -> Float[Array, "k h w"]:
    """What each of the `Folds` adds to the height when it is fully shown, in their order."""
    # Nobody's creases are straight.
    wobble = 0.012 * (brushes.fractal(grid.x * 14, grid.y * 14, person.texture + 13, 2) - 0.5)
    bent = Grid(grid.x + wobble, grid.y + wobble, brushes.aside(grid.x + wobble), grid.pixel)
    maps = Folds(
        forehead_central=-0.0050 * _forehead_lines(bent, person, 0.0, 0.17, 0.0),
        forehead_lateral=-0.0050 * _forehead_lines(bent, person, 0.215, 0.12, 0.03),
        glabella=-0.011 * _frown(bent, person),
        crows_feet=-0.006 * _crows_feet(bent, person),
        eye_bag=-0.006 * _eye_bag(bent, person),
        nose_root=-0.006 * _nose_root(bent, person),
        nasolabial=-0.010 * _nasolabial(bent, person),
        dimple=-0.016 * _dimple(grid, person),
        corner_fold=-0.007 * _corner_fold(bent, person),
        chin_pits=-0.006 * _chin_pits(grid, person),
        lip_lines=-0.0028 * _lip_lines(bent, person),
        brow_bulge=0.008 * brushes.blob(grid.u, grid.y, 0.05, person.brow_y - 0.005, 0.06, 0.05),
        cheek_bulge=0.016 * brushes.blob(grid.u, grid.y, 0.2, 0.525, 0.12, 0.075),
        smile_bulge=0.012 * brushes.blob(grid.u, grid.y, 0.2, 0.60, 0.11, 0.07),
        chin_boss=0.020 * brushes.blob(grid.u, grid.y, 0.0, person.chin_y - 0.08, 0.10, 0.06),
        lip_bulge=0.009 * _lower_lip(grid, person),
    )
    return jnp.stack(maps)


def _forehead_lines(
    grid: Grid, person: Identity, centre: float, width: float, lower: float
) -> Plane:
    middle_y = 0.6 * person.brow_y - 0.005 + lower
    curved = grid.y - middle_y + 0.25 * jnp.square(grid.u - 0.13)
    lines = brushes.wave(curved / 0.030)
    lines = lines * lines
    return lines * brushes.blob(grid.u, grid.y, centre, middle_y, width, 0.075)


def _frown(grid: Grid, person: Identity) -> Plane:
    distance = grid.u - 0.022 + 0.12 * (grid.y - person.brow_y)
    return brushes.groove(distance, 0.010, grid) * brushes.blob(
        grid.u, grid.y, 0.02, person.brow_y, 0.06, 0.055
    )


def _crows_feet(grid: Grid, person: Identity) -> Plane:
    beside = grid.u - person.eye_x - person.eye_width
    dy = grid.y - person.eye_y
    fan = brushes.wave(1.6 * jnp.clip(dy / jnp.maximum(beside + 0.03, 0.02), -2, 2) + 0.3)
    return fan * fan * brushes.blob(beside, dy, 0.036, 0.006, 0.045, 0.05)


def _eye_bag(grid: Grid, person: Identity) -> Plane:
    dx, dy = grid.u - person.eye_x + 0.01, grid.y - person.eye_y
    first = brushes.groove(dy - 0.047 + 1.8 * dx * dx, 0.009, grid)
    second = brushes.groove(dy - 0.068 + 0.3 * dx + 1.2 * dx * dx, 0.011, grid)
    return first * brushes.bump(jnp.square(dx / 0.09)) + 0.6 * second * brushes.bump(
        jnp.square((dx + 0.02) / 0.085)
    )


def _nose_root(grid: Grid, person: Identity) -> Plane:
    root_y = person.eye_y + 0.035
    lines = brushes.wave((grid.y + 0.45 * grid.u - root_y) / 0.022)
    return lines * lines * brushes.blob(grid.u, grid.y, 0.025, root_y, 0.065, 0.06)


def _nasolabial(grid: Grid, person: Identity) -> Plane:
    top, bottom = person.nose_y - 0.045, person.mouth_y + 0.02
    along = (grid.y - top) / (bottom - top)
    start, end = person.nose_width + 0.008, person.mouth_width + 0.050
    bend = along * (1.35 - 0.35 * along)
    distance = grid.u - start - (end - start) * bend
    # Steep towards the mouth, a cushion of cheek on the other side.
    cushion = brushes.bump(jnp.square((distance - 0.030) / 0.045))
    fold = brushes.line(distance, 0.020, grid) - 0.5 * cushion
    return fold * brushes.bump(jnp.square(1.5 * along - 0.75))


def _dimple(grid: Grid, person: Identity) -> Plane:
    y = person.mouth_y + person.mouth_curve
    beside = grid.u - person.mouth_width - 0.022 + 2.5 * jnp.square(grid.y - y)
    return brushes.blob(beside, grid.y, 0.0, y, 0.020, 0.05)


def _corner_fold(grid: Grid, person: Identity) -> Plane:
    y = person.mouth_y + person.mouth_curve
    distance = grid.u - person.mouth_width - 0.006 - 0.3 * (grid.y - y)
    where = brushes.blob(grid.u, grid.y, person.mouth_width + 0.01, y + 0.04, 0.06, 0.05)
    return brushes.groove(distance, 0.016, grid) * where


def _chin_pits(grid: Grid, person: Identity) -> Plane:
    pits = brushes.fractal(grid.x * 60 + grid.y * 13, grid.y * 60, person.texture + 14, 2)
    pits = brushes.ramp(2.5 * pits - 0.8)
    return pits * brushes.blob(grid.u, grid.y, 0.0, person.chin_y - 0.075, 0.09, 0.055)


def _lip_lines(grid: Grid, person: Identity) -> Plane:
    ring = brushes.blob(grid.u, grid.y, 0.0, person.mouth_y, person.mouth_width * 1.1, 0.075)
    return brushes.wave(grid.x / 0.019) * ring


def _lower_lip(grid: Grid, person: Identity) -> Plane:
    line = tissue.mouth_line(grid.u, person)
    _, bottom = lip_edges(grid.u, person)
    lower = (grid.y - line) / jnp.maximum(bottom - line, 1e-3)
    return brushes.bump(jnp.square(1.35 * lower - 0.75)) * _between_corners(grid, person)


def _between_corners(grid: Grid, person: Identity) -> Plane:
    return brushes.ramp((person.mouth_width - grid.u) / 0.03)
