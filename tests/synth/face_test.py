# SPDX-License-Identifier: Apache-2.0
"""What AUs do to faces, measured on what is rendered: twenty people, 224 pixels, head at rest."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdhr_jax import facs
from mdhr_jax.synth import expression, face, people, tissue

SIZE = 224
ALL_AUS = list(people.AUS)
PEOPLE = [f"P{number:02d}" for number in range(20)]
AT_REST = np.zeros(len(ALL_AUS), np.float32)
STILL = tissue.Pose(*jnp.zeros(10))._replace(scale=jnp.ones(()))
LIGHT = face.Light(*map(jnp.asarray, (0.3, 0.5, 0.4, np.ones(3), np.full(3, 0.5))))
# The smallest change of a grey level that counts.
VISIBLE = 4

# How far an AU at its apex moves its landmark, in pixels: docs/rendered-faces.md.
RANGES = {
    1: (2.5, 5.5),
    2: (1, 3),
    4: (3, 5.5),
    6: (2.5, 6.5),
    7: (1.5, 4.5),
    9: (2, 4.5),
    10: (1.5, 5.5),
    12: (6, 15),
    14: (0.7, 4.5),
    15: (2.5, 7.5),
    17: (2.5, 5),
    23: (1.5, 5),
    24: (0.8, 4),
    25: (7, 13),
    26: (10, 14),
}


def rows_of(au):
    """Rows of the regions that the layouts give an AU."""
    regions = [region for layout in facs.LAYOUTS.values() for region in layout.regions]
    (rows,) = {region.rows for region in regions if au in region.aus}
    return slice(*(SIZE * seventh // 7 for seventh in rows))


def apex(au):
    return np.float32([other == au for other in ALL_AUS])


@functools.cache
def person(name):
    return people.sample_identity(0, name)


def _express(who, aus):
    return expression.express(who, aus, jnp.zeros(()))


def _head(who):
    return tissue.head(STILL, who, SIZE)


_paint = jax.jit(functools.partial(face.paint_portrait, size=SIZE))
_render = jax.jit(lambda portrait, who, aus: face.render(portrait, who, aus, STILL, LIGHT)[0])
_locate = jax.jit(lambda who, aus: face.locate_skin(who, aus, STILL, SIZE))
_open = jax.jit(lambda who, aus: tissue.skin(_head(who), who, _express(who, aus))[1])


@functools.cache
def portrait(name):
    return _paint(person(name))


@functools.cache
def rendered(name, au):
    """`(3, h, w)` grey levels with one AU at its apex, or at rest."""
    return np.asarray(255 * _render(portrait(name), person(name), apex(au)))


def changed(name, au):
    """`(h, w)` where an AU changes the picture visibly."""
    return np.abs(rendered(name, au) - rendered(name, None)).max(axis=0) >= VISIBLE


@functools.cache
def skin(name, au):
    grid = _locate(person(name), apex(au))
    return np.asarray(grid.x), np.asarray(grid.y)


def position(name, au, x, y):
    """Column and row, with fractions, of the pixel that shows a point of the skin."""
    grid_x, grid_y = skin(name, au)
    nearest = np.argmin((grid_x - x) ** 2 + (grid_y - y) ** 2)
    row, column = divmod(nearest, SIZE)
    slope = np.array(
        [
            [
                grid[row, column + 1] - grid[row, column - 1],
                grid[row + 1, column] - grid[row - 1, column],
            ]
            for grid in (grid_x, grid_y)
        ]
    )
    offset = np.linalg.solve(slope / 2, [x - grid_x[row, column], y - grid_y[row, column]])
    return np.array([column, row]) + offset


def line(who, u):
    return float(tissue.mouth_line(jnp.array([[u]]), who)[0, 0])


def landmark(who, au):
    """The point of the skin that an AU moves furthest, or nearly."""
    corner = (float(who.mouth_width), line(who, who.mouth_width))
    return {
        1: (0.07, who.brow_y),
        2: (0.215, who.brow_y + 0.8 * who.brow_tilt),
        4: (0.08, who.brow_y),
        6: (0.20, 0.53),
        9: (float(who.nose_width), who.nose_y - 0.02),
        10: (0.03, line(who, 0.03) - 0.8 * who.upper_lip),
        12: corner,
        14: corner,
        15: corner,
        17: (0.02, who.chin_y - 0.085),
        23: corner,
        24: (0.03, line(who, 0.03) - 0.9 * who.upper_lip),
        26: (0.03, who.chin_y - 0.08),
    }[au]


def opening(name, au):
    """Pixels between the lips, in the middle of the mouth."""
    gap = _open(person(name), apex(au))
    return SIZE * float((gap.bottom - gap.top)[SIZE * 3 // 4, SIZE // 2])


def aperture(name, au):
    """Pixels between the lids, through the middle of an eye: where eyes of two colours differ."""
    who = person(name)
    dark, bright = (
        np.asarray(_render(portrait(name), who._replace(iris=np.full(3, level)), apex(au)))
        for level in np.float32([0, 1])
    )
    # A column beside the pupil, where the iris reaches from lid to lid.
    column = round(SIZE * (0.5 + float(who.eye_x) + 0.018))
    return np.abs(bright - dark)[0, :, column].sum() / np.abs(bright - dark)[0, :, column].max()


def displacement(name, au):
    if au == 7:
        return aperture(name, None) - aperture(name, 7)
    if au == 25:
        return opening(name, 25) - opening(name, None)
    point = landmark(person(name), au)
    return np.linalg.norm(position(name, au, *point) - position(name, None, *point))


@pytest.mark.slow
@pytest.mark.parametrize("au", ALL_AUS)
def test_an_au_moves_its_landmark_as_far_as_documented(au):
    low, high = RANGES[au]
    moved = np.array([displacement(name, au) for name in PEOPLE])
    assert low <= moved.min() and moved.max() <= high


def test_what_an_au_changes_lies_in_the_rows_of_its_region_and_off_the_edge():
    for au in ALL_AUS:
        _check_its_rows("P00", au)
        pixels = changed("P00", au)
        assert not pixels[:8].any() and not pixels[:, :8].any() and not pixels[:, -8:].any()


@pytest.mark.slow
@pytest.mark.parametrize("au", ALL_AUS)
def test_an_au_changes_the_rows_of_its_region_in_everybody(au):
    for name in PEOPLE:
        _check_its_rows(name, au)


def _check_its_rows(name, au):
    pixels = changed(name, au)
    assert pixels.sum() > 150, (name, au)
    assert pixels[rows_of(au)].sum() >= 0.8 * pixels.sum(), (name, au)


def test_without_aus_and_posture_every_pixel_shows_its_own_point_of_the_skin():
    for name in PEOPLE:
        relaxed = person(name)._replace(resting=AT_REST)
        found, head = _locate(relaxed, AT_REST), _head(relaxed)
        np.testing.assert_allclose(found.x, head.x, atol=1e-6)
        np.testing.assert_allclose(found.y, head.y, atol=1e-6)


def test_half_an_activation_moves_half_as_far():
    """Along the way, not only at its end."""
    for au in (1, 4, 12, 15, 17, 26):
        grids = [_locate(person("P00"), share * apex(au)).y for share in (0.0, 0.5, 1.0)]
        half, whole = (np.asarray(grid - grids[0]) for grid in grids[1:])
        furthest = np.unravel_index(np.abs(whole).argmax(), whole.shape)
        assert 0.3 < half[furthest] / whole[furthest] < 0.85


def test_every_au_changes_the_face_in_its_own_way():
    changes = np.array([(rendered("P00", au) - rendered("P00", None)).ravel() for au in ALL_AUS])
    likeness = np.corrcoef(changes) - np.eye(len(ALL_AUS))
    assert likeness.max() < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("both", [(6, 12), (1, 4), (15, 17), (23, 24), (12, 15), (24, 25)])
def test_aus_together_do_not_add_up(both):
    """Together they differ from rest by less than the sum of both."""
    shown = np.maximum.reduce([apex(au) for au in both])
    for name in PEOPLE[:5]:
        together = np.asarray(255 * _render(portrait(name), person(name), shown))
        change = np.abs(together - rendered(name, None)).sum()
        parts = [np.abs(rendered(name, au) - rendered(name, None)).sum() for au in both]
        assert 0 < change < sum(parts)


def test_people_differ_more_than_one_person_at_rest_and_smiling():
    between = np.abs(rendered("P00", None) - rendered("P01", None)).mean()
    assert between > 4 * np.abs(rendered("P00", 12) - rendered("P00", None)).mean()


@pytest.mark.slow
def test_one_persons_rest_looks_like_anothers_activation():
    """Some people rest where others with an apex of average strength are."""
    for au in (1, 2, 4, 6, 10, 12, 15, 17):
        rest, act = (
            [position(name, shown, *landmark(person(name), au))[1] for name in PEOPLE]
            for shown in (None, au)
        )
        # Towards the activation, from rest at 0 to the average apex at 1; labelled from 0.3 on.
        towards = (np.array(rest) - np.mean(rest)) / (np.mean(act) - np.mean(rest))
        assert towards.max() > 0.3
    everybody = [people.sample_identity(0, str(number)) for number in range(200)]
    for au, rests in zip(ALL_AUS, np.transpose([who.resting for who in everybody]), strict=True):
        beyond = (rests > 0.3).mean()
        assert beyond < 0.01 if au in (25, 26) else 0.05 < beyond < 0.19
