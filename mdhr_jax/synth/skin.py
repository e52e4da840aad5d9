# SPDX-License-Identifier: Apache-2.0
"""Colour of the resting face's skin, with what grows on it: brows, beard, lips."""

import jax.numpy as jnp

from mdhr_jax.synth import brushes, relief, tissue
from mdhr_jax.synth.brushes import Grid, Picture, Plane
from mdhr_jax.synth.people import Identity


def colour(grid: Grid, person: Identity) -> Picture:
    """Colour of the skin without light, 0..1 RGB."""
    skin = _complexion(grid, person)
    skin = _paint_eyelids(skin, grid, person)
    skin = _paint_nose(skin, grid, person)
    skin = _paint_lips(skin, grid, person)
    skin = _paint_beard(skin, grid, person)
    return _paint_brows(skin, grid, person)


def _tone(person: Identity, red: float, green: float, blue: float) -> brushes.Colour:
    return person.skin * jnp.float32([red, green, blue])


def _complexion(grid: Grid, person: Identity) -> Picture:
    x, y, seed = grid.x, grid.y, person.texture
    blotches = brushes.fractal(x * 11, y * 11, seed, 4) - 0.5
    pores = brushes.fractal(x * 80, y * 80, seed + 1, 2) - 0.5
    skin = person.skin[:, None, None] * (1 + 0.10 * blotches + 0.10 * pores)
    flush = 0.40 * brushes.blob(grid.u, y, 0.205, 0.57, 0.15, 0.13)
    flush = flush + 0.45 * brushes.blob(grid.u, y, 0.0, person.nose_y - 0.035, 0.08, 0.07)
    flush = flush + 0.25 * brushes.blob(grid.u, y, 0.0, person.chin_y - 0.07, 0.11, 0.07)
    uneven = 0.6 + 0.8 * brushes.fractal(x * 20, y * 20, seed + 2, 3)
    skin = brushes.over(skin, _tone(person, 0.98, 0.78, 0.76), flush * uneven)
    sallow = 0.35 * brushes.blob(grid.u, y, 0.0, 0.18, 0.30, 0.16)
    skin = brushes.over(skin, _tone(person, 1.02, 1.0, 0.93), sallow)
    freckles = brushes.spots(x * 42, y * 42, seed + 3, 0.45, 0.32)
    freckles = freckles * brushes.blob(grid.u, y, 0.10, 0.50, 0.24, 0.16)
    skin = brushes.over(skin, _tone(person, 0.72, 0.58, 0.50), 0.55 * person.freckles * freckles)
    moles = brushes.spots(x * 6 + 0.3, y * 6, seed + 5, 0.05, 0.045)
    return brushes.over(skin, _tone(person, 0.40, 0.28, 0.24), 0.8 * brushes.ramp(2 * moles))


def _paint_eyelids(skin: Picture, grid: Grid, person: Identity) -> Picture:
    u, y = grid.u, grid.y
    dx = u - person.eye_x
    socket = brushes.blob(u, y, person.eye_x - 0.01, person.eye_y, 0.125, 0.075)
    skin = brushes.over(skin, _tone(person, 0.80, 0.68, 0.69), 0.55 * socket)
    tired = brushes.blob(u, y, person.eye_x - 0.02, person.eye_y + 0.045, 0.09, 0.04)
    skin = brushes.over(skin, _tone(person, 0.72, 0.62, 0.66), 0.35 * tired)
    almond = jnp.maximum(1 - jnp.square(dx / (1.12 * person.eye_width)), 0)
    crease_y = person.eye_y - person.eye_slant * dx - person.lid_crease
    crease_y = crease_y - (person.upper_lid + 0.002) * jnp.sqrt(almond)
    crease = brushes.line(y - crease_y, 0.0065, grid) * brushes.ramp(3 * almond)
    return brushes.over(skin, _tone(person, 0.52, 0.40, 0.38), 0.55 * crease)


def _paint_nose(skin: Picture, grid: Grid, person: Identity) -> Picture:
    u, y, width = grid.u, grid.y, person.nose_width
    shadow = brushes.blob(u, y + 0.25 * u, 0.0, person.nose_y + 0.012, width + 0.02, 0.022)
    skin = brushes.over(skin, _tone(person, 0.66, 0.54, 0.52), 0.55 * shadow)
    nostril = brushes.blob(
        u, y + 0.30 * (u - 0.5 * width), 0.48 * width, person.nose_y - 0.009, 0.022, 0.012
    )
    skin = brushes.over(skin, _tone(person, 0.22, 0.14, 0.13), 0.92 * brushes.ramp(1.7 * nostril))
    dx, dy = (u - width + 0.027) / 0.032, (y - person.nose_y + 0.032) / 0.038
    rim = brushes.bump(jnp.square((jnp.sqrt(dx * dx + dy * dy) - 1) * 3.2))
    rim = rim * brushes.ramp(dx + 0.4)
    return brushes.over(skin, _tone(person, 0.58, 0.44, 0.42), 0.40 * rim)


def _paint_lips(skin: Picture, grid: Grid, person: Identity) -> Picture:
    x, y = grid.x, grid.y
    top, bottom = relief.lip_edges(grid.u, person)
    line = tissue.mouth_line(grid.u, person)
    ends = brushes.ramp((person.mouth_width - grid.u) / 0.022)
    streaks = brushes.fractal(x * 90, y * 14, person.texture + 6, 2)
    upper = brushes.soft(y - top, 0.011, grid) * brushes.soft(line - y, 0.004, grid)
    lower = brushes.soft(y - line, 0.004, grid) * brushes.soft(bottom - y, 0.017, grid)
    red = person.lips[:, None, None] * (0.86 + 0.28 * streaks)
    skin = brushes.over(skin, red * 0.84, 0.85 * upper * ends)
    skin = brushes.over(skin, red * 1.02, 0.80 * lower * ends)
    # The edge of the red is a shade lighter than the skin around it.
    border = brushes.line(y - top + 0.006, 0.007, grid) * ends
    return brushes.over(skin, jnp.minimum(person.skin * 1.1, 1), 0.25 * border)


def _hairs(grid: Grid, person: Identity, seed: int) -> Plane:
    return brushes.fractal(grid.x * 130, grid.y * 75, person.texture + seed, 2)


def _paint_beard(skin: Picture, grid: Grid, person: Identity) -> Picture:
    u, y = grid.u, grid.y
    top, bottom = relief.lip_edges(u, person)
    # Down from the ears along the jaw; free of the lower lip.
    jaw = brushes.soft(y - 0.70 + 0.45 * jnp.maximum(u - 0.20, 0), 0.16, grid)
    jaw = jnp.maximum(jaw, brushes.soft(u - 0.31, 0.05, grid) * brushes.ramp((y - 0.40) / 0.2))
    chin = brushes.ramp((0.19 - u) / 0.06) * brushes.ramp((y - person.mouth_y) / 0.05)
    whole = jaw * jnp.maximum(
        brushes.ramp((y - bottom - 0.004) / 0.03), brushes.ramp((u - 0.15) / 0.05)
    )
    lip = brushes.soft(y - person.nose_y - 0.018 - 2.0 * u * u, 0.03, grid)
    lip = (
        lip
        * brushes.ramp((top - y + 0.004) / 0.012 + 0.5)
        * brushes.ramp((person.mouth_width + 0.025 - u) / 0.05)
    )
    grow = 0.75 + 0.5 * _hairs(grid, person, 7)
    shadow = jnp.maximum(whole, lip) * person.stubble
    skin = brushes.over(skin, 0.55 * person.hair + 0.3 * person.skin, 0.75 * shadow * grow)
    full = jnp.where(person.beard > 0.7, whole, whole * chin) * (person.beard > 0)
    dense = jnp.maximum(full, lip * person.moustache)
    strands = person.hair[:, None, None] * (0.45 + 0.75 * _hairs(grid, person, 8))
    return brushes.over(skin, strands, 0.95 * brushes.ramp(dense * grow))


def _paint_brows(skin: Picture, grid: Grid, person: Identity) -> Picture:
    inner = 0.066
    along = (grid.u - inner) / 0.185
    clipped = jnp.clip(along, 0, 1)
    arch = person.brow_arch * 6.75 * clipped * clipped * (1 - clipped)
    curve = person.brow_y + person.brow_tilt * clipped - arch
    thickness = person.brow_thickness * (0.85 + 0.3 * clipped) * (1 - clipped**4 * 0.75)
    slanted = grid.u * 150 + grid.y * 110, grid.y * 60 - grid.u * 30
    hairs = brushes.fractal(*slanted, person.texture + 9, 2)
    body = brushes.soft(thickness - jnp.abs(grid.y - curve), 0.013, grid)
    ends = brushes.soft(along - 0.02, 0.20, grid) * brushes.soft(0.98 - along, 0.16, grid)
    alpha = brushes.ramp(body * ends * (0.45 + 0.85 * hairs))
    return brushes.over(skin, person.brow_colour, 0.92 * alpha)
