# SPDX-License-Identifier: Apache-2.0
"""What is fixed to the head without moving with the skin: hair, ears, neck, clothes, glasses."""

import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from mdhr_jax.synth import brushes
from mdhr_jax.synth.brushes import Grid, Picture, Plane
from mdhr_jax.synth.people import Identity

Layer = Float[Array, "h w 4"]  # RGB and the share of it that covers what lies behind


def behind(grid: Grid, person: Identity) -> Layer:
    """Hair behind the face, ears, neck and clothes."""
    strands, outline = _hair(grid, person)
    ends = 0.05 * brushes.fractal(grid.x * 25, grid.y * 2, person.texture + 21, 2)
    long = brushes.soft(0.32 + 0.85 * person.hair_length + ends - grid.y, 0.06, grid)
    picture, covered = strands * 0.75, outline * long
    picture, covered = _paint_neck(picture, covered, grid, person)
    ears = brushes.blob(grid.u, grid.y, person.face_width + 0.004, 0.47, 0.040, 0.095)
    rim = brushes.blob(grid.u, grid.y, person.face_width + 0.010, 0.47, 0.022, 0.06)
    ear_colour = (person.skin * jnp.float32([0.90, 0.76, 0.74]))[:, None, None] * (1 - 0.35 * rim)
    shown = brushes.ramp(4 * ears)
    return _layer(brushes.over(picture, ear_colour, shown), jnp.maximum(covered, shown))


def in_front(grid: Grid, person: Identity) -> Layer:
    """Hair over forehead and temples, and glasses."""
    strands, outline = _hair(grid, person)
    ragged = 0.03 * (brushes.fractal(grid.x * 45, grid.y * 4, person.texture + 22, 2) - 0.4)
    temples = 4.0 * jnp.square(jnp.maximum(grid.u - 0.16, 0))
    parting = 0.12 * jnp.abs(grid.x - person.hair_part)
    curtain = (person.hair_length > 0.25) * 1.6 * jnp.maximum(grid.u - 0.26, 0)
    edge = person.hairline_y + temples + ragged + parting + curtain - grid.y
    end = brushes.soft(0.40 + 0.8 * person.hair_length - grid.y, 0.08, grid)
    hair = brushes.soft(edge, 0.028, grid) * outline * end
    # Some strands part from the rest.
    fine = brushes.fractal(grid.x * 160, grid.y * 7, person.texture + 23, 2)
    hair = brushes.ramp(hair * (0.7 + 0.8 * fine))
    frame, glare = _glasses(grid, person)
    rim = person.glasses_colour[:, None, None] * (0.7 + 0.6 * brushes.wave(3 * grid.y))
    picture = brushes.over(rim, strands, hair * (1 - frame))
    picture = brushes.over(picture, jnp.ones(3), glare * (1 - jnp.maximum(hair, frame)))
    covered = jnp.maximum(jnp.maximum(hair, frame), glare)
    return _layer(picture, covered)


def shadow(grid: Grid, person: Identity) -> Plane:
    """Which share of the light glasses and fringe keep from the skin below them."""
    frame, _ = _glasses(grid._replace(y=grid.y - 0.012), person)
    fringe = person.hairline_y + 4.0 * jnp.square(jnp.maximum(grid.u - 0.16, 0)) + 0.03 - grid.y
    return 0.25 * frame + 0.25 * brushes.soft(fringe, 0.09, grid)


def _layer(picture: Picture, covered: Plane) -> Layer:
    return rearrange(jnp.concatenate([picture, covered[None]]), "c h w -> h w c")


def _hair(grid: Grid, person: Identity) -> tuple[Picture, Plane]:
    """Strands that run down from the parting, and 1 within the hair's outer edge."""
    curl = (
        0.05
        * person.hair_curl
        * (brushes.fractal(grid.x * 9, grid.y * 14, person.texture + 24, 3) - 0.5)
    )
    x = grid.x + curl
    across = (x - person.hair_part) / (0.30 + jnp.maximum(grid.y + 0.1, 0))
    fine = brushes.fractal(across * 90, grid.y * 4 + 40 * curl, person.texture + 25, 3)
    coarse = brushes.fractal(across * 14, grid.y * 2 + 20 * curl, person.texture + 26, 2)
    sheen = brushes.blob(grid.u, grid.y, 0.1, 0.02, 0.3, 0.09)
    strands = 0.35 + 0.75 * fine + 0.55 * coarse + 0.5 * sheen * fine
    above = jnp.minimum(grid.y - 0.45, 0) / (0.55 + 0.03 * person.hair_curl)
    rough = 0.02 * (0.4 + person.hair_curl) * (fine - 0.5)
    width = person.face_width + 0.030 + 0.03 * person.hair_curl + 0.02 * person.hair_length
    radius = jnp.square(grid.u / width) + jnp.square(above)
    outline = brushes.soft((1 - radius) * 0.2 + rough, 0.02, grid)
    return person.hair[:, None, None] * strands, outline


def _paint_neck(
    picture: Picture, covered: Plane, grid: Grid, person: Identity
) -> tuple[Picture, Plane]:
    u, y = grid.u, grid.y
    shade = 0.32 + 0.5 * jnp.clip((u + y - 0.98) * 3.0, 0, 1)
    skin = (person.skin * jnp.float32([1.0, 0.9, 0.88]))[:, None, None] * shade
    neck = brushes.soft(0.235 + 0.3 * jnp.square(y - 0.95) - u, 0.03, grid)
    neck = neck * brushes.soft(y - 0.6, 0.1, grid)
    picture = brushes.over(picture, skin, neck)
    collar = brushes.soft(y - 1.0 + 0.45 * (u - 0.16), 0.015, grid)
    folds = 0.8 + 0.4 * brushes.fractal(grid.x * 10, y * 10, person.texture + 27, 2)
    picture = brushes.over(picture, person.clothes[:, None, None] * folds, collar)
    return picture, jnp.maximum(covered, jnp.maximum(neck, collar))


def _glasses(grid: Grid, person: Identity) -> tuple[Plane, Plane]:
    """The frame, and the glare on its lenses."""
    dx = jnp.abs(grid.u - person.eye_x - 0.005) / 0.112
    dy = jnp.abs(grid.y - person.eye_y - 0.022) / (0.072 + 0.025 * person.glasses_round)
    power = 4 - 2 * person.glasses_round
    radius = (jnp.maximum(dx, 1e-4) ** power + jnp.maximum(dy, 1e-4) ** power) ** (1 / power)
    rim = brushes.line((radius - 1) * 0.09, person.glasses_width, grid)
    bridge_y = person.eye_y - 0.004 - 0.4 * jnp.square(grid.u)
    bridge = brushes.line(grid.y - bridge_y, 0.8 * person.glasses_width, grid)
    bridge = bridge * brushes.soft(person.eye_x - 0.100 - grid.u, 0.01, grid)
    temple = brushes.line(grid.y - person.eye_y + 0.012, 0.8 * person.glasses_width, grid)
    temple = temple * brushes.soft(grid.u - person.eye_x - 0.112, 0.01, grid)
    temple = temple * brushes.soft(person.face_width + 0.01 - grid.u, 0.02, grid)
    frame = brushes.ramp(1.6 * jnp.maximum(jnp.maximum(rim, bridge), temple))
    streak = brushes.bump(jnp.square((grid.x + 0.6 * grid.y - 0.6 * person.eye_y) * 12 % 2 - 1) * 4)
    glare = 0.05 * brushes.ramp((0.95 - radius) * 8) * (1 + streak)
    return person.glasses * frame, person.glasses * glare
