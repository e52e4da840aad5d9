# SPDX-License-Identifier: Apache-2.0
"""Who the rendered people are: identities drawn at random."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from mdhr_jax.synth import seeds

Scalar = Float[Array | np.ndarray, ""]
Colour = Float[Array | np.ndarray, " c"]

# RGB tones from light to dark skin, and hair from fair to black, red and grey.
_SKIN = (
    (0.90, 0.73, 0.63),
    (0.87, 0.68, 0.56),
    (0.76, 0.57, 0.44),
    (0.58, 0.40, 0.29),
    (0.38, 0.25, 0.18),
)
_HAIR = (
    (0.72, 0.58, 0.36),
    (0.42, 0.27, 0.15),
    (0.24, 0.15, 0.09),
    (0.10, 0.08, 0.07),
    (0.50, 0.22, 0.10),
    (0.60, 0.58, 0.56),
)
_IRIS = (
    (0.30, 0.18, 0.10),
    (0.22, 0.13, 0.08),
    (0.32, 0.45, 0.58),
    (0.33, 0.42, 0.28),
    (0.42, 0.34, 0.20),
)


class Identity(NamedTuple):
    """What a person always looks like. Lengths in fractions of the picture, colours 0..1 RGB."""

    face_width: Scalar  # half of it, at the cheek bones
    jaw_taper: Scalar  # 0.1 square to 0.35 pointed
    chin_y: Scalar
    cheeks: Scalar  # 0 flat to 1 full
    eye_x: Scalar
    eye_y: Scalar
    eye_width: Scalar  # half of it
    eye_opening: Scalar  # upper lid above the eye's centre line
    eye_slant: Scalar
    brow_y: Scalar
    brow_arch: Scalar
    brow_tilt: Scalar  # positive: outer end lower
    brow_thickness: Scalar
    nose_width: Scalar  # half of it, at the wings
    nose_y: Scalar  # base of the nose
    mouth_y: Scalar
    mouth_width: Scalar  # half of it
    mouth_curve: Scalar  # positive: corners lower than the middle
    upper_lip: Scalar
    lower_lip: Scalar
    asymmetry: Scalar  # height difference between the halves
    age: Scalar  # 0..1: permanent creases
    hairline_y: Scalar
    hair_length: Scalar  # 0 cropped to 1 beside the chin
    hair_part: Scalar  # x of the parting
    beard: Scalar  # 0..1
    glasses: Scalar  # 0 or 1
    brow_colour: Colour
    skin: Colour
    lips: Colour
    hair: Colour
    iris: Colour
    clothes: Colour
    texture: Scalar  # picks the skin's and hair's pattern


def sample_identity(seed: int, subject: str) -> Identity:
    """The person that a subject's name stands for; numpy float32 scalars and RGB colours."""
    rng = seeds.generator(seed, subject, "identity")
    depth = rng.uniform(0, len(_SKIN) - 1.001)
    low = int(depth)
    skin = np.array(_SKIN[low]) + (depth - low) * np.subtract(_SKIN[low + 1], _SKIN[low])
    # Fair and red hair go with fair skin.
    hair = np.array(_HAIR[rng.choice(len(_HAIR)) if depth < 1.5 else rng.choice((2, 3))])
    hair = hair * rng.uniform(0.8, 1.2)
    masculine = rng.uniform() < 0.5
    values = Identity(
        face_width=rng.uniform(0.335, 0.38),
        jaw_taper=rng.uniform(0.12, 0.36) if masculine else rng.uniform(0.25, 0.48),
        chin_y=rng.uniform(0.915, 0.95),
        cheeks=rng.uniform(0, 1),
        eye_x=rng.uniform(0.152, 0.172),
        eye_y=rng.uniform(0.372, 0.395),
        eye_width=rng.uniform(0.066, 0.078),
        eye_opening=rng.uniform(0.021, 0.031),
        eye_slant=rng.uniform(-0.08, 0.12),
        brow_y=rng.uniform(0.288, 0.315),
        brow_arch=rng.uniform(0.002, 0.016),
        brow_tilt=rng.uniform(-0.012, 0.01),
        brow_thickness=rng.uniform(0.009, 0.015) if masculine else rng.uniform(0.007, 0.012),
        nose_width=rng.uniform(0.056, 0.078),
        nose_y=rng.uniform(0.60, 0.63),
        mouth_y=rng.uniform(0.725, 0.752),
        mouth_width=rng.uniform(0.105, 0.135),
        mouth_curve=rng.uniform(-0.012, 0.009),
        upper_lip=rng.uniform(0.014, 0.027),
        lower_lip=rng.uniform(0.022, 0.036),
        asymmetry=rng.uniform(-0.012, 0.012),
        age=rng.beta(1.2, 2.2),
        hairline_y=rng.uniform(0.03, 0.12),
        hair_length=rng.uniform(0, 0.25) if masculine else rng.uniform(0.4, 1),
        hair_part=rng.uniform(-0.2, 0.2),
        beard=rng.choice((0, 0, 0.25, 0.8)) if masculine else 0,
        glasses=rng.uniform() < 0.15,
        brow_colour=hair * 0.55,
        skin=skin,
        lips=skin * (0.88, 0.60, 0.60) + (0.04, 0, 0),
        hair=hair,
        iris=_IRIS[rng.choice(len(_IRIS)) if depth < 2 else rng.choice(2)],
        clothes=rng.uniform(0.1, 0.6) + rng.uniform(-0.08, 0.12, size=3),
        texture=rng.integers(1000),
    )
    return Identity(*(np.asarray(value, np.float32) for value in values))
