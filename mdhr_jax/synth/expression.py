# SPDX-License-Identifier: Apache-2.0
"""From AU intensities to what the face does: the one place where AUs act."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from mdhr_jax.synth import people
from mdhr_jax.synth.brushes import Scalar
from mdhr_jax.synth.people import Identity


class Pull(NamedTuple):
    """A muscle's pull on the skin around a point of each half of the face.

    It moves the point by `(du, dy)`, du away from the midline, and the skin around it less and
    less, down to nothing at the distances `width` and `height`.
    """

    u: Scalar
    y: Scalar
    width: float
    height: float
    du: Scalar | float
    dy: Scalar | float


class Lips(NamedTuple):
    """How far the lips leave the line on which they meet; negative: rolled in."""

    up: Scalar
    down: Scalar
    jaw: Scalar  # drop of the chin, which takes the lower lip along


class Folds(NamedTuple):
    """Depth of creases and height of bulges; see `relief.fold_maps`.

    1 is the apex of a young person's AU; age and a resting posture add to it. Negative: flatter.
    """

    forehead_central: Scalar
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
    brow_bulge: Scalar
    cheek_bulge: Scalar
    smile_bulge: Scalar
    chin_boss: Scalar
    lip_bulge: Scalar


class Expression(NamedTuple):
    """What a face does."""

    pulls: tuple[Pull, ...]
    lips: Lips
    upper_lid: Scalar  # height of the lids above and below the eye's centre line
    lower_lid: Scalar
    folds: Folds


def express(person: Identity, aus: Float[Array, " a"], pucker: Scalar) -> Expression:
    """What each AU moves and wrinkles (source: the appearance changes that FACS lists for it).

    Args:
      person: where the AUs act, and the posture from which they start.
      aus: intensities 0..1 in the order of `people.AUS`.
      pucker: rounding of the lips in speech, 0..1; no AU of ours.
    """
    # Who rests in an AU's posture has less of it left to show.
    shown = person.resting + aus * (1 - 0.5 * jnp.maximum(person.resting, 0))
    au = dict(zip(people.AUS, shown, strict=True))
    tense = {number: jnp.maximum(value, 0) for number, value in au.items()}
    smile = au[12] * (1 - 0.4 * tense[15])
    # Lips that part let go of the posture in which they rest; lips that press do not part.
    acting = dict(zip(people.AUS, aus, strict=True))
    apart = _either(acting[25], acting[26])
    pressed = _either(tense[24], 0.5 * tense[23]) * (1 - apart)
    closing = 1 - 0.8 * acting[24]
    return Expression(
        pulls=_brow_pulls(person, au, tense)
        + _cheek_pulls(person, au, tense)
        + _mouth_pulls(person, au, smile, pucker)
        + _chin_pulls(person, au),
        lips=Lips(
            up=closing * (0.011 * tense[25] + 0.004 * tense[26] + 0.003 * tense[10])
            - person.upper_lip * (0.45 * pressed + 0.15 * tense[12]),
            down=closing * (0.037 + 0.006 * pucker) * tense[25]
            - person.lower_lip * (0.42 * pressed + 0.10 * tense[12]),
            jaw=0.054 * tense[26] * (1 - 0.5 * acting[24]),
        ),
        upper_lid=person.upper_lid * (1 - 0.26 * au[7] - 0.12 * tense[4] + 0.08 * au[1]),
        lower_lid=person.lower_lid * (1 - 0.55 * au[7] - 0.45 * tense[6] - 0.15 * tense[9]),
        folds=_folds(person, tense),
    )


def _either(a: Scalar, b: Scalar) -> Scalar:
    """Two ways to the same posture: together they do not go twice as far."""
    return a + b - a * b


def _brow_pulls(person: Identity, au: dict, tense: dict) -> tuple[Pull, ...]:
    raised = au[1] * (1 - 0.3 * tense[4])
    lowered = au[4] * (1 - 0.45 * tense[1])
    outer_y = person.brow_y + person.brow_tilt
    return (
        Pull(0.070, person.brow_y - 0.006, 0.13, 0.11, 0.0, -0.019 * raised),
        Pull(0.225, outer_y - 0.004, 0.12, 0.11, 0.0, -0.0095 * au[2]),
        Pull(0.070, person.brow_y + 0.006, 0.12, 0.10, -0.012 * au[4], 0.014 * lowered),
        Pull(0.190, outer_y + 0.004, 0.13, 0.10, -0.004 * au[4], 0.009 * lowered),
    )


def _cheek_pulls(person: Identity, au: dict, tense: dict) -> tuple[Pull, ...]:
    lifted = _either(tense[6], 0.35 * tense[12])
    wing_y = person.nose_y - 0.02
    return (
        Pull(0.200, 0.525, 0.15, 0.11, 0.0, -0.024 * lifted),
        Pull(person.eye_x + 0.10, person.eye_y + 0.01, 0.07, 0.07, -0.007 * au[6], 0.0),
        Pull(person.eye_x, person.eye_y + 0.038, 0.09, 0.030, 0.0, -0.006 * au[7]),
        Pull(0.045, 0.485, 0.09, 0.10, 0.0, -0.016 * au[9]),
        Pull(person.nose_width, wing_y, 0.06, 0.06, 0.004 * au[9], -0.013 * au[9]),
        Pull(0.050, person.brow_y + 0.01, 0.10, 0.07, -0.004 * au[9], 0.006 * tense[9]),
    )


def _mouth_pulls(person: Identity, au: dict, smile: Scalar, pucker: Scalar) -> tuple[Pull, ...]:
    corner, y = person.mouth_width, person.mouth_y
    inward = 0.017 * au[23] + 0.005 * au[24] + 0.006 * au[26] + 0.022 * pucker
    sunk = au[15] * (1 - 0.35 * jnp.maximum(au[12], 0))
    return (
        Pull(0.065, y - 0.050, 0.14, 0.08, 0.002 * au[10], -0.021 * au[10]),
        Pull(corner + 0.015, y - 0.015, 0.16, 0.13, 0.036 * smile, -0.034 * smile),
        Pull(corner, y, 0.07, 0.06, 0.012 * au[14], -0.003 * au[14]),
        Pull(corner + 0.07, y, 0.06, 0.08, -0.012 * au[14], 0.0),
        Pull(corner + 0.005, y + 0.018, 0.09, 0.09, 0.003 * au[15], 0.026 * sunk),
        Pull(corner - 0.010, y, 0.11, 0.07, -inward, 0.0),
    )


def _chin_pulls(person: Identity, au: dict) -> tuple[Pull, ...]:
    y = person.mouth_y
    return (
        Pull(0.0, person.chin_y - 0.085, 0.14, 0.09, 0.0, -0.018 * au[17]),
        Pull(0.0, y + 0.020, 0.14, 0.07, 0.0, -0.012 * au[17]),
        Pull(person.mouth_width, y + 0.01, 0.06, 0.06, 0.0, 0.006 * au[17]),
    )


def _folds(person: Identity, tense: dict) -> Folds:
    age = person.age
    return Folds(
        forehead_central=0.25 * age + tense[1],
        forehead_lateral=0.22 * age + tense[2],
        glabella=0.3 * age + tense[4] + 0.3 * tense[9],
        crows_feet=0.3 * age + tense[6] + 0.15 * tense[12],
        eye_bag=0.15 + 0.4 * age + _either(0.8 * tense[6], 0.3 * tense[7]),
        nose_root=0.1 * age + tense[9],
        nasolabial=0.15
        + 0.5 * age
        + _either(0.8 * tense[10], 0.8 * tense[12])
        + 0.25 * _either(tense[9], tense[6]),
        dimple=tense[14],
        corner_fold=0.3 * age + tense[15],
        chin_pits=tense[17],
        lip_lines=0.15 * age + tense[23],
        brow_bulge=tense[4],
        cheek_bulge=tense[6],
        smile_bulge=tense[12],
        chin_boss=tense[17],
        lip_bulge=tense[17] - 0.6 * tense[24],
    )
