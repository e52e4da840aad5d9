# SPDX-License-Identifier: Apache-2.0
"""A face painted from parameters: a person, their AU intensities, the head's pose and the light.

Everything is a pure function of the parameters, without randomness. AU intensities act through
`expression.express` only; textures and light never see them.

Lengths are fractions of the picture. A resting face has its brows at y = 0.30, its eyes at 0.385,
its mouth at 0.745 and its chin at 0.945, as an aligned crop does. `u` is the distance from the
midline (`brushes.aside`): both halves of the face are painted at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float

from mdhr_jax.synth import brushes, expression, hair, relief, skin, tissue
from mdhr_jax.synth.brushes import Colour, Grid, Picture, Plane, Scalar
from mdhr_jax.synth.expression import Expression
from mdhr_jax.synth.people import Identity
from mdhr_jax.synth.tissue import Opening, Pose

# Light enters skin beside the point where it leaves, red light furthest.
_WRAP = np.array([0.32, 0.20, 0.14], np.float32)[:, None, None]


class Light(NamedTuple):
    """What falls on the face, and what is behind it."""

    direction: Scalar  # radians, positive: from the right of the picture
    height: Scalar  # radians above the camera
    ambient: Scalar  # 0..1 share that has no direction
    tint: Colour  # brightness per channel
    background: Colour


class Portrait(NamedTuple):
    """A person's resting face, painted once for all frames."""

    skin: Float[Array, "h w 4"]  # RGB, height
    folds: Float[Array, "k h w"]  # see `relief.fold_maps`
    behind: Float[Array, "h w 4"]  # RGB, cover
    in_front: Float[Array, "h w 5"]  # RGB, cover, shadow


def paint_portrait(person: Identity, size: int) -> Portrait:
    """What of a person stays the same in every frame, for pictures of `size` pixels."""
    grid = brushes.canvas(size)
    layers = jnp.concatenate([skin.colour(grid, person), relief.height(grid, person)[None]])
    shadow = hair.shadow(grid, person)[..., None]
    return Portrait(
        skin=rearrange(layers, "c h w -> h w c"),
        folds=relief.fold_maps(grid, person),
        behind=hair.behind(grid, person),
        in_front=jnp.concatenate([hair.in_front(grid, person), shadow], axis=-1),
    )


def render(
    portrait: Portrait, person: Identity, aus: Float[Array, " a"], pose: Pose, light: Light
) -> tuple[Picture, Grid]:
    """One frame of the portrait's size.

    Args:
      portrait: of this person.
      person: see `people.Identity`.
      aus: intensities 0..1 in the order of `people.AUS`.
      pose: of the head.
      light: see `Light`.

    Returns:
      `(3, size, size)` RGB in 0..1; and which point of the skin each pixel shows.
    """
    # Layers are computed one by one: without the barriers XLA fuses them into one loop, which
    # computes what layers share anew for each of them and runs several times as long.
    once = jax.lax.optimization_barrier
    shown = expression.express(person, aus, pose.pucker)
    head = once(tissue.head(pose, person, portrait.skin.shape[0]))
    skin_grid, opening = once(tissue.skin(head, person, shown))
    colour, height = once(_fold(portrait, shown, skin_grid))
    front = once(brushes.sample(portrait.in_front, head))
    face = once(_illuminate(colour, height, light, 1 - front[4]))
    face = once(_paint_eyes(face, head, person, shown, pose, light))
    face = once(_paint_mouth(face, skin_grid, head, person, opening, light))
    picture = once(_paint_behind(portrait, head, light))
    outline = brushes.soft((1 - relief.head_radius(skin_grid, person)) * 0.18, 0.010, head)
    picture = once(brushes.over(picture, face, outline))
    picture = brushes.over(picture, front[:3] * light.tint[:, None, None], front[3])
    return jnp.clip(picture, 0, 1), skin_grid


def locate_skin(person: Identity, aus: Float[Array, " a"], pose: Pose, size: int) -> Grid:
    """Which point of the skin each pixel shows."""
    head = tissue.head(pose, person, size)
    return tissue.skin(head, person, expression.express(person, aus, pose.pucker))[0]


def _fold(portrait: Portrait, shown: Expression, grid: Grid) -> tuple[Picture, Plane]:
    """Colour and height of the skin at every pixel, with the creases of the expression."""
    # At full precision on every device: a GPU would round the products to 10 bits.
    folds = jnp.einsum(
        "k,khw->hw", jnp.stack(shown.folds), portrait.folds, precision=jax.lax.Precision.HIGHEST
    )
    occluded = 1 - jnp.clip(-22 * folds, 0, 0.5)
    colour = portrait.skin[..., :3] * occluded[..., None] ** jnp.float32([0.7, 1.0, 1.05])
    height = portrait.skin[..., 3] + folds
    layers = brushes.sample(jnp.concatenate([colour, height[..., None]], axis=-1), grid)
    return layers[:3], layers[3]


def _illuminate(colour: Picture, height: Plane, light: Light, open_sky: Plane) -> Picture:
    """Soft skin under a lamp and a sky, with a sheen where it mirrors the lamp."""
    size = height.shape[0]
    padded = jnp.pad(height, 1, mode="edge")
    slope_x = (padded[1:-1, 2:] - padded[1:-1, :-2]) * (size / 2)
    slope_y = (padded[2:, 1:-1] - padded[:-2, 1:-1]) * (size / 2)
    steep = jax.lax.rsqrt(1 + slope_x * slope_x + slope_y * slope_y)
    lamp_x = jnp.sin(light.direction) * jnp.cos(light.height)
    lamp_y = -jnp.sin(light.height)
    lamp_z = jnp.cos(light.direction) * jnp.cos(light.height)
    cosine = (lamp_z - lamp_x * slope_x - lamp_y * slope_y) * steep * open_sky
    diffuse = jnp.maximum((cosine + _WRAP) / (1 + _WRAP), 0)
    sky = light.ambient * (0.8 + 0.25 * slope_y * steep)
    # Halfway between lamp and camera.
    length = jax.lax.rsqrt(2 + 2 * lamp_z)
    mirror = ((1 + lamp_z) - lamp_x * slope_x - lamp_y * slope_y) * steep * length
    gloss = jnp.maximum(mirror, 0) ** 16 * 0.10 * open_sky
    # Colours are stored as the eye sees them; light adds up in their squares.
    linear = jnp.square(colour) * (sky + (1 - light.ambient) * diffuse) * 1.25 + gloss * 0.6
    return jnp.sqrt(jnp.maximum(linear, 0)) * light.tint[:, None, None]


def _paint_behind(portrait: Portrait, head: Grid, light: Light) -> Picture:
    falloff = 1.06 - 0.25 * jnp.square(head.x) - 0.18 * head.y
    layers = brushes.sample(portrait.behind, head)
    background = light.background[:, None, None] * falloff
    return brushes.over(background, layers[:3] * light.tint[:, None, None], layers[3])


def _paint_eyes(
    face: Picture, head: Grid, person: Identity, shown: Expression, pose: Pose, light: Light
) -> Picture:
    dx, side = head.u - person.eye_x, jnp.sign(head.x)
    across = dx / person.eye_width
    dy = head.y - person.eye_y + person.eye_slant * dx
    almond = jnp.maximum(1 - across * across, 0)
    # The upper lid is highest towards the nose, the lower one lowest towards the temple.
    open_lid = -shown.upper_lid * jnp.sqrt(almond) * (0.55 + 0.45 * almond) * (1 - 0.12 * across)
    lower = shown.lower_lid * almond * (1 + 0.15 * across)
    upper = open_lid + (lower - open_lid) * pose.blink
    inside = brushes.soft(dy - upper, 0.006, head) * brushes.soft(lower - dy, 0.006, head)
    inside = inside * brushes.soft((1 - jnp.abs(across)) * person.eye_width, 0.006, head)

    tint = light.tint
    shade = 0.50 + 0.50 * jnp.clip((dy - upper) / 0.022, 0, 1) - 0.12 * across * across
    white = jnp.float32([0.80, 0.76, 0.74])[:, None, None] * shade
    pink = brushes.blob(across, dy, -0.92, 0.002, 0.22, 0.02)
    eye = brushes.over(white, jnp.float32([0.66, 0.42, 0.40]), 0.8 * pink)
    gaze_x = dx - 0.016 * pose.gaze_x * side
    gaze_y = dy + 0.003 - 0.008 * pose.gaze_y
    radius = jnp.sqrt(gaze_x * gaze_x + gaze_y * gaze_y)
    angle_x, angle_y = gaze_x / (radius + 0.004), gaze_y / (radius + 0.004)
    spokes = brushes.fractal(angle_x * 5 + 9, angle_y * 5 + radius * 40, person.texture + 31, 2)
    ring = 1 - 0.55 * brushes.ramp((radius - 0.024) / 0.007)
    iris = person.iris[:, None, None] * (0.45 + 0.9 * spokes + 8 * gaze_y) * ring * shade
    eye = brushes.over(eye, iris, brushes.soft(0.031 - radius, 0.004, head))
    eye = brushes.over(eye, jnp.full(3, 0.03), brushes.soft(0.0125 - radius, 0.004, head))
    glint_x = head.x - side * person.eye_x - 0.010 * jnp.sin(light.direction) - 0.006
    glint = brushes.bump((jnp.square(glint_x) + jnp.square(dy + 0.011)) / 0.0065**2)
    eye = brushes.over(eye, jnp.full(3, 0.96), 0.85 * glint)
    face = brushes.over(face, eye * tint[:, None, None], inside)

    ends = brushes.soft((1.06 - jnp.abs(across)) * person.eye_width, 0.012, head)
    rim = brushes.line(dy - lower - 0.001, 0.006, head) * ends
    face = brushes.over(face, person.skin * tint * jnp.float32([0.62, 0.44, 0.43]), 0.55 * rim)
    lashes = brushes.line(dy - upper + 0.002, 0.0085 + 0.0025 * across, head) * ends
    return brushes.over(face, person.brow_colour * 0.35 * tint, 0.85 * lashes)


def _paint_mouth(
    face: Picture, grid: Grid, head: Grid, person: Identity, opening: Opening, light: Light
) -> Picture:
    """The cavity between parted lips, and the shade in which closed lips meet."""
    y = opening.y
    apart = opening.bottom - opening.top
    ends = brushes.ramp((1 - opening.across) * 5)
    inside = brushes.soft(y - opening.top, 0.004, head) * brushes.soft(
        opening.bottom - y, 0.004, head
    )
    inside = inside * brushes.ramp((apart - 0.002) / 0.006) * ends
    depth = (y - opening.top) / jnp.maximum(apart, 0.004)
    cavity = jnp.broadcast_to(jnp.float32([0.16, 0.05, 0.05])[:, None, None], face.shape)
    tongue = brushes.blob(opening.across, y, 0.0, person.mouth_y + 0.055, 0.75, 0.035)
    cavity = brushes.over(cavity, jnp.float32([0.62, 0.30, 0.29]), 0.75 * brushes.ramp(2 * tongue))
    teeth = 0.88 + 0.12 * jnp.sqrt(brushes.wave(grid.x / 0.027))
    round_arch = 1 - 0.35 * jnp.square(opening.across)
    white = jnp.float32([0.86, 0.82, 0.74])[:, None, None] * teeth * round_arch
    arch = person.mouth_y + 0.014 - 0.010 * jnp.square(opening.across)
    upper_teeth = brushes.soft(arch - y, 0.005, head) * brushes.ramp((0.86 - opening.across) * 8)
    cavity = brushes.over(cavity, white, upper_teeth)
    lower_arch = opening.bottom - 0.006
    lower_teeth = brushes.soft(y - lower_arch, 0.006, head) * brushes.ramp(
        (0.7 - opening.across) * 8
    )
    cavity = brushes.over(cavity, white * 0.8, 0.8 * lower_teeth * brushes.ramp(apart * 30 - 0.5))
    shaded = 0.55 + 0.45 * brushes.ramp(depth * 2.5)
    face = brushes.over(face, cavity * shaded * light.tint[:, None, None], inside)
    seam = jnp.minimum(jnp.abs(y - opening.top), jnp.abs(y - opening.bottom))
    seam = brushes.line(seam, 0.007, head) * brushes.ramp((1.03 - opening.across) * 9)
    return brushes.over(face, person.lips * 0.30 * light.tint, 0.70 * seam)
