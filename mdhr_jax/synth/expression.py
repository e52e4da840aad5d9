# SPDX-License-Identifier: Apache-2.0
"""From AU intensities to the shape of the face: the one place where AUs act."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from mdhr_jax import facs
from mdhr_jax.synth.people import Identity

Scalar = Float[Array, ""]


class Shape(NamedTuple):
    """Landmarks and crease depths of a face that shows an expression."""

    brow_inner_y: Scalar
    brow_outer_y: Scalar
    brow_inner_u: Scalar
    upper_lid: Scalar  # height of the lids above and below the eye's centre line
    lower_lid: Scalar
    cheek_y: Scalar
    cheek_bulge: Scalar
    wing_y: Scalar
    nose_width: Scalar
    mouth_y: Scalar
    mouth_width: Scalar
    corner_drop: Scalar  # of the corners against the middle of the mouth
    upper_lip: Scalar
    lower_lip: Scalar
    upper_gap: Scalar  # opening above and below the mouth line
    lower_gap: Scalar
    lip_redness: Scalar
    lip_bulge: Scalar
    chin_y: Scalar
    chin_boss: Scalar
    forehead_central: Scalar  # creases from here on
    forehead_lateral: Scalar
    glabella: Scalar
    crows_feet: Scalar
    eye_bag: Scalar
    nose_root: Scalar
    nasolabial: Scalar
    dimple: Scalar
    corner_fold: Scalar
    chin_pits: Scalar
    lip_lines: Scalar


def shape_of(person: Identity, aus: Float[Array, " a"]) -> Shape:
    """What each AU moves and wrinkles (source: the appearance changes that FACS lists for it)."""
    au = dict(zip(facs.AU_NAMES, aus, strict=True))
    age = person.age
    opening = jnp.maximum(0.030 * au[25], 0.010 * au[26])
    thin = (1 - 0.4 * au[23]) * (1 - 0.6 * au[24]) * (1 - 0.2 * au[12])
    return Shape(
        brow_inner_y=person.brow_y - 0.016 * au[1] + 0.016 * au[4] + 0.004 * au[9],
        brow_outer_y=person.brow_y
        + person.brow_tilt
        - 0.002 * au[1]
        - 0.013 * au[2]
        + 0.009 * au[4],
        brow_inner_u=0.072 - 0.016 * au[4],
        upper_lid=person.eye_opening * (1 - 0.3 * au[7] - 0.12 * au[4] + 0.1 * au[1]),
        lower_lid=person.eye_opening * 0.75 * (1 - 0.65 * au[7] - 0.4 * au[6] - 0.15 * au[9]),
        cheek_y=0.545 - 0.028 * au[6] - 0.006 * au[12],
        cheek_bulge=0.5 * person.cheeks + 0.65 * au[6] + 0.2 * au[12],
        wing_y=person.nose_y - 0.014 * au[9] - 0.004 * au[10],
        nose_width=person.nose_width * (1 + 0.1 * au[9] + 0.04 * au[10] + 0.03 * au[12]),
        mouth_y=person.mouth_y - 0.012 * au[17] + 0.006 * au[12] + 0.004 * au[26],
        mouth_width=person.mouth_width
        + 0.034 * au[12]
        + 0.008 * au[14]
        - 0.016 * au[23]
        - 0.008 * au[26]
        - 0.004 * au[17],
        corner_drop=person.mouth_curve
        - 0.038 * au[12]
        - 0.006 * au[14]
        + 0.026 * au[15]
        + 0.012 * au[17],
        upper_lip=person.upper_lip * thin * (1 - 0.1 * au[10]),
        lower_lip=person.lower_lip * thin * (1 - 0.3 * au[17]),
        upper_gap=0.25 * opening + 0.018 * au[10],
        lower_gap=opening + 0.048 * au[26],
        lip_redness=1 - 0.45 * au[24] - 0.2 * au[23],
        lip_bulge=1 + 0.8 * au[17] - 0.5 * au[24],
        chin_y=person.chin_y + 0.045 * au[26] - 0.008 * au[17],
        chin_boss=1 + 1.3 * au[17],
        forehead_central=0.25 * age + au[1],
        forehead_lateral=0.22 * age + au[2],
        glabella=0.35 * age + au[4] + 0.3 * au[9],
        crows_feet=0.3 * age + au[6] + 0.15 * au[12],
        eye_bag=0.25 + 0.4 * age + 0.8 * au[6] + 0.7 * au[7],
        nose_root=au[9],
        nasolabial=0.3 + 0.6 * age + 0.9 * au[10] + 0.8 * au[12] + 0.2 * au[9] + 0.1 * au[6],
        dimple=au[14],
        corner_fold=0.25 * age + au[15],
        chin_pits=au[17],
        lip_lines=0.15 * age + au[23],
    )
