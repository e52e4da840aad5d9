# SPDX-License-Identifier: Apache-2.0
"""A face painted from parameters: a person, their AU intensities, the head's pose and the light.

Everything is a pure function of the parameters, without randomness. AU intensities act through
`expression.shape_of` only; textures and light never see them.

Coordinates are fractions of the picture: x from -0.5 (left) to 0.5, y from 0 (top) to 1. `u` is
|x|, the distance from the midline, so that both halves of the face are painted at once. A
neutral face has its brows at y = 0.30, its eyes at 0.38, its mouth at 0.74 and its chin at 0.93, as
an aligned crop does.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from mdhr_jax.synth import brushes, expression, relief
from mdhr_jax.synth.brushes import Colour, Grid, Picture, Plane, Scalar
from mdhr_jax.synth.expression import Shape
from mdhr_jax.synth.people import Identity
from mdhr_jax.synth.relief import Mouth


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


class Light(NamedTuple):
    """What falls on the face, and what is behind it."""

    direction: Scalar  # radians, positive: from the right of the picture
    height: Scalar  # radians above the camera
    ambient: Scalar  # 0..1 share that has no direction
    tint: Colour  # brightness per channel
    background: Colour


class FaceParameters(NamedTuple):
    """All that `render` needs."""

    identity: Identity
    aus: Float[Array, " a"]  # intensities 0..1 in the order of facs.AU_NAMES
    pose: Pose
    light: Light


def render(face: FaceParameters, size: int) -> Float[Array, "h w c"]:
    """One frame, `(size, size, 3)` RGB in 0..1. Pure; map it over frames with `jax.lax.map`."""
    # Layers are computed one by one: without the barriers XLA fuses them into one loop, which
    # computes what layers share anew for each of them and runs three times as long.
    once = jax.lax.optimization_barrier
    person, pose, light = face.identity, face.pose, face.light
    shape = expression.shape_of(person, face.aus)
    x, y = once(_head_coordinates(person, pose, size))
    grid = Grid(x, y, jnp.abs(x), 1 / size)
    mouth = once(relief.mouth_curves(grid, shape))

    skin = once(_paint_skin(grid, person, shape))
    skin = once(_paint_beard(skin, grid, person, mouth))
    skin = once(_paint_mouth(skin, grid, person, shape, mouth))
    skin = once(_paint_eyes(skin, grid, person, shape, pose))
    skin = once(_paint_brows(skin, grid, person, shape))
    height = once(relief.height(grid, person, shape, mouth))
    skin = once(_illuminate(skin, height, light, size))
    skin = once(_paint_glasses(skin, grid, person))

    hair = once(_hair(grid, person, light))
    picture = once(_paint_surroundings(grid, person, light, hair))
    picture = once(brushes.over(picture, skin, _head_mask(grid, person, shape)))
    picture = once(_paint_fringe(picture, grid, person, hair))
    return rearrange(jnp.clip(picture, 0, 1), "c h w -> h w c")


def _head_coordinates(person: Identity, pose: Pose, size: int) -> tuple[Plane, Plane]:
    """Head coordinates of the pixels: pose undone, the face's own asymmetry left in."""
    centres = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
    x = (centres - 0.5)[None, :] - pose.shift_x
    y = centres[:, None] - 0.5 - pose.shift_y
    cos, sin = jnp.cos(pose.roll) / pose.scale, jnp.sin(pose.roll) / pose.scale
    x, y = cos * x + sin * y, cos * y - sin * x
    # A turned head: what stands nearer to the camera moves further.
    depth = jnp.maximum(1 - 4.5 * x * x - 3 * y * y, 0)
    depth = 0.22 * depth + 0.10 * brushes.bump(jnp.square(x / 0.13) + jnp.square((y - 0.06) / 0.2))
    x, y = x - pose.yaw * depth, y - pose.pitch * depth
    return x, y + 0.5 + person.asymmetry * x * (0.5 + y)


def _illuminate(skin: Picture, height: Plane, light: Light, size: int) -> Picture:
    """Lambertian light and a broad highlight; shadows are warmer than lit skin."""
    padded = jnp.pad(height, 1, mode="edge")
    slope_x = (padded[1:-1, 2:] - padded[1:-1, :-2]) * (size / 2)
    slope_y = (padded[2:, 1:-1] - padded[:-2, 1:-1]) * (size / 2)
    level = jnp.cos(light.height)
    towards_x = jnp.sin(light.direction) * level
    towards_z = jnp.cos(light.direction) * level
    cosine = towards_z - towards_x * slope_x + jnp.sin(light.height) * slope_y
    cosine = cosine * jax.lax.rsqrt(1 + slope_x * slope_x + slope_y * slope_y)
    lit = jnp.maximum(cosine, 0)
    shade = light.ambient + (1 - light.ambient) * lit
    gloss = 0.10 * jnp.square(jnp.square(jnp.square(lit)))
    warmth = jnp.array([0.04, 0.0, -0.03])[:, None, None] * (1 - shade)
    return skin * (shade + warmth) * 1.08 * light.tint[:, None, None] + gloss * skin


def _head_mask(grid: Grid, person: Identity, shape: Shape) -> Plane:
    return brushes.soft((1 - relief.head_radius(grid, person, shape)) * 0.18, 0.012, grid)


# Layers, from the skin to what lies over it.


def _paint_skin(grid: Grid, person: Identity, shape: Shape) -> Picture:
    mottle = brushes.noise(grid.x * 14, grid.y * 14, person.texture) - 0.5
    pores = brushes.noise(grid.x * 110, grid.y * 110, person.texture + 1) - 0.5
    tone = 1 + 0.05 * mottle + 0.05 * pores
    skin = person.skin[:, None, None] * tone
    flush = 0.45 * brushes.blob(grid.u, grid.y, 0.21, shape.cheek_y + 0.015, 0.13, 0.11)
    flush = flush + 0.5 * brushes.blob(grid.u, grid.y, 0.0, person.nose_y - 0.03, 0.07, 0.06)
    skin = brushes.over(skin, person.skin * jnp.array([1.0, 0.82, 0.80]), flush)
    socket = brushes.blob(grid.u, grid.y, person.eye_x, person.eye_y + 0.008, 0.11, 0.07)
    skin = brushes.over(skin, person.skin * jnp.array([0.78, 0.70, 0.70]), 0.5 * socket)
    return _paint_nose(skin, grid, person, shape)


def _paint_nose(skin: Picture, grid: Grid, person: Identity, shape: Shape) -> Picture:
    shadow = brushes.blob(
        grid.u, grid.y, 0.0, person.nose_y + 0.008, shape.nose_width + 0.02, 0.024
    )
    skin = brushes.over(skin, person.skin * jnp.array([0.62, 0.52, 0.50]), 0.6 * shadow)
    nostril = brushes.blob(
        grid.u, grid.y - 0.15 * grid.u, 0.5 * shape.nose_width, shape.wing_y - 0.012, 0.019, 0.011
    )
    skin = brushes.over(skin, person.skin * 0.18, 0.9 * brushes.soft(nostril - 0.35, 0.7, grid))
    dx = (grid.u - shape.nose_width + 0.018) / 0.026
    dy = (grid.y - shape.wing_y + 0.024) / 0.034
    rim = brushes.bump(jnp.square((jnp.sqrt(dx * dx + dy * dy) - 1) * 3)) * brushes.soft(
        dx - 0.1, 1.0, grid
    )
    return brushes.over(skin, person.skin * jnp.array([0.55, 0.45, 0.43]), 0.32 * rim)


def _paint_beard(skin: Picture, grid: Grid, person: Identity, mouth: Mouth) -> Picture:
    jaw = brushes.soft(grid.y - 0.62 - 0.9 * jnp.maximum(0.27 - grid.u, 0), 0.14, grid)
    droop = grid.y - person.nose_y - 0.022 - 1.5 * jnp.square(grid.u)
    moustache = brushes.soft(droop, 0.03, grid) * brushes.soft(0.155 - grid.u, 0.08, grid)
    around = jnp.maximum(jaw, moustache * brushes.soft(mouth.line - grid.y + 0.03, 0.05, grid))
    grain = brushes.noise(grid.x * 200, grid.y * 110, person.texture + 2)
    return brushes.over(skin, person.hair * 0.6, person.beard * around * (0.62 + 0.33 * grain))


def _paint_mouth(
    skin: Picture, grid: Grid, person: Identity, shape: Shape, mouth: Mouth
) -> Picture:
    edge = 0.009
    upper = brushes.soft(grid.y - mouth.top, edge, grid) * brushes.soft(
        mouth.upper - grid.y, edge, grid
    )
    lower = brushes.soft(grid.y - mouth.lower, edge, grid) * brushes.soft(
        mouth.bottom - grid.y, 0.014, grid
    )
    red = 0.85 * shape.lip_redness * mouth.within
    skin = brushes.over(skin, person.lips * 0.86, upper * red)
    skin = brushes.over(skin, person.lips * 1.06, lower * red)
    inside = brushes.soft(grid.y - mouth.upper, edge, grid) * brushes.soft(
        mouth.lower - grid.y, edge, grid
    )
    wide = brushes.soft(mouth.lower - mouth.upper - 0.006, 0.008, grid) * mouth.within
    inside = inside * wide
    skin = brushes.over(skin, jnp.array([0.20, 0.05, 0.05]), inside)
    tongue = brushes.bump(jnp.square(mouth.across / 0.75)) * brushes.soft(
        grid.y - mouth.lower + 0.35 * (mouth.lower - mouth.upper), 0.03, grid
    )
    skin = brushes.over(skin, jnp.array([0.60, 0.24, 0.24]), 0.8 * inside * tongue)
    gaps = 0.86 + 0.14 * jnp.sqrt(brushes.wave(grid.x / 0.03))
    teeth = brushes.soft(mouth.upper + 0.021 - grid.y, 0.006, grid) * brushes.soft(
        0.8 - mouth.across, 0.3, grid
    )
    white = jnp.array([0.82, 0.79, 0.72])[:, None, None] * gaps
    skin = brushes.over(skin, white, inside * teeth)
    seam = brushes.line(grid.y - mouth.line, 0.008, grid) * (1 - wide)
    seam = seam * brushes.soft((1.03 - mouth.across) * shape.mouth_width, 0.02, grid)
    corner = brushes.blob(
        grid.u, grid.y, shape.mouth_width, shape.mouth_y + shape.corner_drop, 0.018, 0.013
    )
    dark = person.lips * 0.32
    return brushes.over(brushes.over(skin, dark, 0.85 * seam), dark, 0.5 * corner)


def _paint_eyes(skin: Picture, grid: Grid, person: Identity, shape: Shape, pose: Pose) -> Picture:
    dx = grid.u - person.eye_x
    across = dx / person.eye_width
    dy = grid.y - person.eye_y + person.eye_slant * dx
    almond = jnp.maximum(1 - across * across, 0) * (1 - 0.15 * across)
    lower = shape.lower_lid * almond
    open_lid = -shape.upper_lid * almond
    upper = open_lid + (lower - open_lid) * pose.blink
    inside = brushes.soft(dy - upper, 0.006, grid) * brushes.soft(lower - dy, 0.006, grid)
    inside = inside * brushes.soft((1 - jnp.abs(across)) * person.eye_width, 0.008, grid)

    white = jnp.array([0.80, 0.78, 0.77])[:, None, None]
    shadow = 0.5 + 0.5 * jnp.clip((dy - upper) / 0.022, 0, 1)
    eye = brushes.over(skin, white * shadow, inside)
    side = jnp.sign(grid.x)
    gaze = jnp.square(dx - 0.016 * pose.gaze_x * side) + jnp.square(
        dy + 0.003 - 0.008 * pose.gaze_y
    )
    radius = jnp.sqrt(gaze)
    iris = person.iris[:, None, None] * (0.55 + 18 * radius) * shadow
    eye = brushes.over(eye, iris, inside * brushes.soft(0.026 - radius, 0.005, grid))
    eye = brushes.over(eye, jnp.full(3, 0.04), inside * brushes.soft(0.010 - radius, 0.004, grid))
    glint = brushes.blob(grid.x - side * person.eye_x, dy, 0.006, -0.010, 0.007, 0.007)
    eye = brushes.over(eye, jnp.full(3, 0.97), 0.9 * inside * glint)

    ends = brushes.soft((1.05 - jnp.abs(across)) * person.eye_width, 0.015, grid)
    lashes = brushes.line(dy - upper + 0.002, 0.0085 + 0.003 * across, grid) * ends
    eye = brushes.over(eye, person.brow_colour * 0.4, 0.9 * lashes)
    rim = brushes.line(dy - lower, 0.006, grid) * ends
    eye = brushes.over(eye, person.skin * jnp.array([0.6, 0.42, 0.40]), 0.55 * rim)
    crease = brushes.line(dy - open_lid + 0.013, 0.007, grid) * ends
    return brushes.over(eye, person.skin * jnp.array([0.5, 0.40, 0.38]), 0.6 * crease)


def _paint_brows(skin: Picture, grid: Grid, person: Identity, shape: Shape) -> Picture:
    along = (grid.u - shape.brow_inner_u) / 0.195
    slope = shape.brow_outer_y - shape.brow_inner_y
    clipped = jnp.clip(along, 0, 1)
    arch = person.brow_arch * 4 * clipped * (1 - clipped) * (0.5 + clipped)
    curve = shape.brow_inner_y + slope * clipped - arch
    thickness = person.brow_thickness * (1 - 0.7 * clipped * clipped)
    hairs = brushes.noise(grid.u * 150 + grid.y * 90, grid.y * 60 - grid.u * 25, person.texture + 3)
    body = brushes.soft(thickness - jnp.abs(grid.y - curve), 0.014, grid)
    ends = brushes.soft(along, 0.16, grid) * brushes.soft(1 - along, 0.12, grid)
    return brushes.over(skin, person.brow_colour, body * ends * (0.55 + 0.4 * hairs))


def _paint_glasses(skin: Picture, grid: Grid, person: Identity) -> Picture:
    dx = (grid.u - person.eye_x) / 0.118
    dy = (grid.y - person.eye_y - 0.02) / 0.088
    round_square = jnp.sqrt(jnp.sqrt(jnp.square(jnp.square(dx)) + jnp.square(jnp.square(dy))))
    frame = brushes.line((round_square - 1) * 0.1, 0.011, grid)
    bridge = brushes.line(grid.y - person.eye_y - 0.002, 0.010, grid) * brushes.soft(
        0.075 - grid.u, 0.01, grid
    )
    temple = brushes.line(grid.y - person.eye_y + 0.015, 0.011, grid) * brushes.soft(
        grid.u - 0.295, 0.01, grid
    )
    frame = jnp.maximum(jnp.maximum(frame, bridge), temple)
    return brushes.over(skin, jnp.array([0.10, 0.09, 0.10]), 0.9 * person.glasses * frame)


# Around the face.


class _Hair(NamedTuple):
    """Hair wherever it may be."""

    colour: Picture
    outline: Plane  # 1 within the hair's outer edge


def _hair(grid: Grid, person: Identity, light: Light) -> _Hair:
    """Fine strands that run down from the parting."""
    across = (grid.x - person.hair_part) / (0.25 + jnp.maximum(grid.y + 0.1, 0))
    fine = brushes.noise(across * 60, grid.y * 5, person.texture + 4)
    coarse = brushes.noise(across * 12, grid.y * 3, person.texture + 5)
    strands = 0.55 + 0.5 * fine + 0.5 * coarse
    above = jnp.minimum(grid.y - 0.42, 0) / 0.47
    radius = jnp.square(grid.u / (person.face_width + 0.05)) + jnp.square(above)
    outline = brushes.soft((1 - radius) * 0.2 + 0.01 * fine, 0.02, grid)
    return _Hair((person.hair * light.tint)[:, None, None] * strands, outline)


def _paint_surroundings(grid: Grid, person: Identity, light: Light, hair: _Hair) -> Picture:
    """Background, clothes, neck, ears and the hair behind the face."""
    falloff = 1.08 - 0.25 * jnp.square(grid.x) - 0.2 * grid.y
    picture = light.background[:, None, None] * falloff
    length = 0.35 + 0.8 * person.hair_length
    picture = brushes.over(
        picture, hair.colour, hair.outline * brushes.soft(length - grid.y, 0.1, grid)
    )
    under_chin = 0.35 + 0.5 * jnp.clip((grid.u + grid.y - 0.98) * 3.5, 0, 1)
    neck_colour = (person.skin * light.tint)[:, None, None] * under_chin
    neck = brushes.soft(0.22 - grid.u, 0.03, grid) * brushes.soft(grid.y - 0.6, 0.1, grid)
    picture = brushes.over(picture, neck_colour, neck)
    collar = brushes.soft(grid.y - 0.99 + 0.5 * (grid.u - 0.2), 0.015, grid)
    picture = brushes.over(picture, person.clothes * light.tint, collar)
    ears = brushes.blob(grid.u, grid.y, person.face_width + 0.002, 0.46, 0.036, 0.085)
    return brushes.over(
        picture, person.skin * light.tint * 0.7, brushes.soft(ears - 0.15, 0.2, grid)
    )


def _paint_fringe(picture: Picture, grid: Grid, person: Identity, hair: _Hair) -> Picture:
    """Hair over the forehead and temples, with a ragged edge."""
    ragged = 0.02 * brushes.noise(grid.x * 40, grid.y * 6, person.texture + 6)
    sides = 3.2 * jnp.square(jnp.maximum(grid.u - 0.12, 0))
    parting = 0.15 * jnp.abs(grid.x - person.hair_part)
    edge = brushes.soft(person.hairline_y + sides + ragged + parting - grid.y, 0.03, grid)
    return brushes.over(
        picture, hair.colour, edge * hair.outline * brushes.soft(0.45 - grid.y, 0.12, grid)
    )
