# SPDX-License-Identifier: Apache-2.0
import cmath
import math

import numpy as np
import pytest
import skimage.data

from mdhr_jax.errors import InputError
from mdhr_jax.faces import align

TEMPLATE = align.TEMPLATES["bp4d"]


def _as_rows(points):
    return np.stack([points.real, points.imag], axis=1)


def test_template_points():
    points = align.Template(0.4, 0.25).points(100)
    left, right, nose, mouth_left, mouth_right = points + (0.5 + 0.5j)
    assert (left, right) == (30 + 25j, 70 + 25j)
    assert nose == pytest.approx(50 + 48.6j)
    assert mouth_left.imag == mouth_right.imag == pytest.approx(65.2)
    assert mouth_left.real + mouth_right.real == pytest.approx(100)


@pytest.mark.parametrize(("scale", "turn", "shift"), [(1, 0, 0), (0.4, 30, 20 - 7j), (3, -120, 5j)])
def test_a_similar_face_comes_to_lie_on_the_template(scale, turn, shift):
    wanted = TEMPLATE.points(256)
    moved = wanted * cmath.rect(scale, math.radians(turn)) + shift
    found = align.similarity(_as_rows(moved), TEMPLATE, 256)
    np.testing.assert_allclose(found.a * moved + found.b, wanted, atol=1e-9)
    assert abs(found.a) == pytest.approx(1 / scale)


def test_the_fit_is_the_best_one():
    rng = np.random.default_rng(0)
    wanted, weights = TEMPLATE.points(256), align._WEIGHTS
    moved = wanted + rng.normal(scale=9, size=(5, 2)) @ np.array([1, 1j])
    best = align.similarity(_as_rows(moved), TEMPLATE, 256)

    def loss(a, b):
        return weights @ np.abs(a * moved + b - wanted) ** 2

    for step in rng.normal(scale=1e-3, size=(20, 4)):
        a, b = step[0] + 1j * step[1], 100 * (step[2] + 1j * step[3])
        assert loss(best.a + a, best.b + b) > loss(*best)


def test_an_opening_mouth_hardly_moves_the_face():
    still = TEMPLATE.points(256)
    opened = still + np.array([0, 0, 0, 12j, 12j])
    transform = align.similarity(_as_rows(opened), TEMPLATE, 256)
    assert np.abs(transform.a * still + transform.b - still)[:3].max() < 1.5


def _slope(height, width):
    row, column = np.mgrid[:height, :width]
    return np.stack([row, column, 0 * row], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("scale", [0.3, 0.5, 1.0, 2.2])
def test_cut_shows_what_the_transform_says(scale):
    a = cmath.rect(scale, math.radians(10))
    transform = align.Similarity(a, complex(20, 20) - a * complex(100, 90))
    square = align.cut(_slope(200, 220), transform, 40)
    for x, y in [(20, 20), (3, 8), (30, 12)]:
        source = (complex(x, y) - transform.b) / transform.a
        row, column, _ = square[y, x].astype(float)
        assert abs(row - source.imag) < 1.5
        assert abs(column - source.real) < 1.5


def test_the_identity_changes_nothing():
    picture = skimage.data.astronaut()[:64, :64]
    np.testing.assert_array_equal(align.cut(picture, align.Similarity(1, 0), 64), picture)


def test_a_shrunk_picture_is_averaged_not_sampled():
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    square = align.cut(stripes, align.Similarity(0.25, -0.375 - 0.375j), 32)
    assert np.abs(square.astype(int) - 127.5).max() < 2


def test_beyond_the_picture_is_black():
    picture = np.full((20, 20, 3), 200, np.uint8)
    square = align.cut(picture, align.Similarity(1, 10), 20)
    assert (square[:, :9] == 0).all()
    assert (square[:, 11:] == 200).all()


def test_names_and_values():
    assert align.parse("disfa") == align.TEMPLATES["disfa"]
    assert align.parse("0.3,0.35") == align.Template(0.3, 0.35)
    for template in (*align.TEMPLATES.values(), align.Template(0.3, 0.35)):
        assert align.parse(str(template)) == template


@pytest.mark.parametrize("text", ["", "face", "0.3", "0.3,0.3,0.3", "2,0.3", "0.3,nan", "0,0.3"])
def test_other_templates_are_refused(text):
    with pytest.raises(InputError, match="template"):
        align.parse(text)
