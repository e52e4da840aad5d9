# SPDX-License-Identifier: Apache-2.0
"""Who the rendered people are: identities drawn at random."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mdhr_jax.synth import seeds

# AUs that rendered faces show, in the order of all intensities.
AUS = (1, 2, 4, 6, 7, 9, 10, 12, 14, 15, 17, 23, 24, 25, 26)

# Of NumPy as they are drawn, of JAX in the renderer.
Scalar = Float[Any, ""]
Colour = Float[Any, " c"]

# RGB tones from light to dark skin, and hair from fair to black, red and grey.
_SKIN = (
    (0.88, 0.71, 0.62),
    (0.83, 0.64, 0.53),
    (0.72, 0.53, 0.41),
    (0.54, 0.37, 0.27),
    (0.35, 0.23, 0.17),
)
_HAIR = (
    (0.62, 0.48, 0.30),
    (0.36, 0.23, 0.13),
    (0.20, 0.13, 0.08),
    (0.08, 0.065, 0.06),
    (0.42, 0.19, 0.09),
    (0.55, 0.53, 0.52),
)
_IRIS = (
    (0.28, 0.16, 0.08),
    (0.18, 0.10, 0.06),
    (0.36, 0.47, 0.57),
    (0.34, 0.41, 0.27),
    (0.42, 0.32, 0.17),
)
# Standard deviation of the resting posture, in full intensities: per AU one person in nine rests
# beyond the threshold of the label (`labels.THRESHOLD`).
_RESTING = 0.25
# But nobody's mouth is open at rest.
_SLACK = np.array([0.2 if au in (25, 26) else 1.0 for au in AUS])


class Identity(NamedTuple):
    """What a person always looks like. Lengths in fractions of the picture, colours 0..1 RGB."""

    resting: Float[Any, " a"]  # posture at rest, as intensities of `AUS`
    lopsided: Scalar  # skin is pulled by this share more on the right of the picture, less left
    asymmetry: Scalar  # height difference between the halves
    face_width: Scalar  # half of it, at the cheek bones
    jaw_taper: Scalar  # 0.1 square to 0.5 pointed
    chin_y: Scalar
    cheeks: Scalar  # 0 hollow to 1 full
    eye_x: Scalar
    eye_y: Scalar
    eye_width: Scalar  # half of it
    upper_lid: Scalar  # height above the eye's centre line
    lower_lid: Scalar  # and below it
    eye_slant: Scalar
    lid_crease: Scalar  # distance from the upper lid
    brow_y: Scalar
    brow_arch: Scalar
    brow_tilt: Scalar  # positive: outer end lower
    brow_thickness: Scalar
    brow_ridge: Scalar  # 0..1
    nose_width: Scalar  # half of it, at the wings
    nose_bridge: Scalar  # half width
    nose_height: Scalar  # of the tip towards the camera
    nose_y: Scalar  # base of the nose
    mouth_y: Scalar
    mouth_width: Scalar  # half of it
    mouth_curve: Scalar  # positive: corners lower than the middle
    upper_lip: Scalar
    lower_lip: Scalar
    age: Scalar  # 0..1: permanent creases
    freckles: Scalar  # 0..1
    hairline_y: Scalar
    hair_length: Scalar  # 0 cropped to 1 beside the chin
    hair_part: Scalar  # x of the parting
    hair_curl: Scalar  # 0 straight to 1
    stubble: Scalar  # 0..1, on jaw and lip
    beard: Scalar  # 0..1
    moustache: Scalar  # 0..1
    glasses: Scalar  # 0 or 1
    glasses_round: Scalar  # 0..1
    glasses_width: Scalar  # of the rim
    brow_colour: Colour
    skin: Colour
    lips: Colour
    hair: Colour
    iris: Colour
    clothes: Colour
    glasses_colour: Colour
    texture: Scalar  # picks the skin's and hair's pattern


def sample_identity(seed: int, subject: str) -> Identity:
    """The person that a subject's name stands for; numpy float32 scalars, vectors and colours."""
    rng = seeds.generator(seed, subject, "identity")
    depth = rng.uniform(0, len(_SKIN) - 1.001)
    skin = _skin_colour(depth)
    age, masculine = rng.beta(1.2, 2.2), rng.uniform() < 0.5
    hair = _hair_colour(rng, depth, age)
    face_hair = rng.choice(("shaven", "shaven", "stubble", "moustache", "goatee", "full"))
    values = Identity(
        resting=np.clip(rng.normal(0, _RESTING * _SLACK), -0.4, 0.6),
        lopsided=rng.uniform(-0.09, 0.09),
        asymmetry=rng.uniform(-0.015, 0.015),
        face_width=rng.uniform(0.345, 0.395),
        jaw_taper=rng.uniform(0.10, 0.32) if masculine else rng.uniform(0.22, 0.44),
        chin_y=rng.uniform(0.925, 0.965),
        cheeks=rng.uniform(0, 1),
        eye_x=rng.uniform(0.150, 0.172),
        eye_y=rng.uniform(0.375, 0.398),
        eye_width=rng.uniform(0.070, 0.083),
        upper_lid=rng.uniform(0.024, 0.034),
        lower_lid=rng.uniform(0.019, 0.025),
        eye_slant=rng.uniform(-0.06, 0.14),
        lid_crease=rng.uniform(0.008, 0.02),
        brow_y=rng.uniform(0.282, 0.312),
        brow_arch=rng.uniform(0.004, 0.02),
        brow_tilt=rng.uniform(-0.014, 0.012),
        brow_thickness=rng.uniform(0.011, 0.018) if masculine else rng.uniform(0.007, 0.013),
        brow_ridge=rng.uniform(0.4, 1) if masculine else rng.uniform(0, 0.4),
        nose_width=rng.uniform(0.070, 0.098),
        nose_bridge=rng.uniform(0.026, 0.042),
        nose_height=rng.uniform(0.050, 0.075),
        nose_y=rng.uniform(0.60, 0.632),
        mouth_y=rng.uniform(0.733, 0.757),
        mouth_width=rng.uniform(0.112, 0.142),
        mouth_curve=rng.uniform(-0.010, 0.010),
        upper_lip=rng.uniform(0.018, 0.036),
        lower_lip=rng.uniform(0.030, 0.050),
        age=age,
        freckles=max(rng.uniform(-1.5, 1), 0) if depth < 2 else 0,
        hairline_y=rng.uniform(0.02, 0.13) - (0.14 * (rng.uniform() < 0.4 * age) * masculine),
        hair_length=rng.uniform(0, 0.2) if masculine else rng.uniform(0.3, 1),
        hair_part=rng.uniform(-0.2, 0.2),
        hair_curl=max(rng.uniform(-0.6, 1), 0) if depth < 2.5 else rng.uniform(0, 1),
        stubble=(rng.uniform(0.15, 0.5) if face_hair != "shaven" else 0.12) * masculine,
        beard={"goatee": 0.5, "full": 0.9}.get(str(face_hair), 0) * masculine,
        moustache=float(face_hair in ("moustache", "goatee", "full")) * 0.9 * masculine,
        glasses=rng.uniform() < 0.15,
        glasses_round=rng.uniform(),
        glasses_width=rng.uniform(0.006, 0.013),
        brow_colour=hair * 0.6 + 0.12 * skin,
        skin=skin,
        lips=skin * (0.83, 0.56, 0.57) + (0.03, 0, 0.01),
        hair=hair,
        iris=_IRIS[rng.choice(len(_IRIS)) if depth < 2 else rng.choice(2)],
        clothes=rng.uniform(0.08, 0.55) + rng.uniform(-0.06, 0.08, size=3),
        glasses_colour=np.array((0.10, 0.09, 0.10))
        + rng.uniform(0, 0.25) * np.array((1, 0.7, 0.5)),
        texture=rng.integers(2**20),
    )
    return Identity(*(np.asarray(value, np.float32) for value in values))


def _skin_colour(depth: float) -> Colour:
    """Between the two tones of `_SKIN` that are nearest."""
    low = int(depth)
    return np.array(_SKIN[low]) + (depth - low) * np.subtract(_SKIN[low + 1], _SKIN[low])


def _hair_colour(rng: np.random.Generator, depth: float, age: float) -> Colour:
    """Fair and red hair go with fair skin, grey hair with age."""
    shade = rng.choice(5) if depth < 1.5 else rng.choice((2, 3))
    grey = np.clip(rng.normal(1.6 * age - 0.6, 0.2), 0, 1)
    hair = np.array(_HAIR[shade]) * (1 - grey) + np.array(_HAIR[5]) * grey
    return hair * rng.uniform(0.85, 1.15)
