# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from mdhr_jax.faces import boxes

UNIT = np.array([[0.0, 0.0, 10.0, 10.0]])


@pytest.mark.parametrize(
    ("other", "of", "expected"),
    [
        ((0, 0, 10, 10), "union", 1),
        ((5, 0, 15, 10), "union", 50 / 150),
        ((5, 5, 7, 9), "union", 8 / 100),
        ((5, 5, 7, 9), "least", 1),
        ((10, 0, 20, 10), "union", 0),
        ((30, 30, 40, 40), "least", 0),
    ],
)
def test_overlap(other, of, expected):
    assert boxes.overlap(UNIT, np.array([other], float), of=of) == pytest.approx(expected)


def test_the_strongest_of_boxes_that_overlap_stays():
    stack = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]], float)
    assert boxes.strongest(stack, np.array([0.6, 0.9, 0.7]), 0.5).tolist() == [1, 2]


def test_a_suppressed_box_still_suppresses():
    row = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], float)
    assert boxes.strongest(row, np.array([0.9, 0.8, 0.7]), 0.3).tolist() == [0]


def test_blocks_do_not_change_what_stays(monkeypatch):
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 100, (300, 2))
    some = np.hstack([corner, corner + rng.uniform(5, 30, (300, 2))])
    scores = rng.uniform(size=300)
    whole = boxes.strongest(some, scores, 0.4)
    monkeypatch.setattr(boxes, "_BLOCK", 7)
    np.testing.assert_array_equal(boxes.strongest(some, scores, 0.4), whole)
    assert 1 < len(whole) < 300


def test_no_boxes():
    none = np.empty((0, 4))
    assert boxes.strongest(none, np.empty(0), 0.5).shape == (0,)
    assert boxes.squared(none).shape == (0, 4)
    assert boxes.cut_out(np.zeros((5, 5, 3), np.uint8), none, 4).shape == (0, 4, 4, 3)


def test_squared_keeps_the_centre():
    square = boxes.squared(np.array([[10.0, 20.0, 14.0, 40.0]]))
    np.testing.assert_array_equal(square, [[2, 20, 22, 40]])


def test_cut_out_samples_a_slope_exactly():
    row, column = np.mgrid[:40, :60]
    picture = np.stack([row, column, row + column], axis=-1).astype(np.uint8)
    box = np.array([[4.5, 10.25, 33.0, 28.0]])
    found = boxes.cut_out(picture, box, 7)[0]
    y = np.linspace(10.25, 28, 7)[:, None] * 39 / 40
    x = np.linspace(4.5, 33, 7)[None] * 59 / 60
    expected = np.stack(np.broadcast_arrays(y, x, x + y), axis=-1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_cut_out_is_grey_outside_the_picture():
    picture = np.full((10, 10, 3), 200, np.uint8)
    found = boxes.cut_out(picture, np.array([[-10.0, 2.0, 5.0, 8.0]]), 4)[0]
    np.testing.assert_array_equal(found[:, :2], 127.5)
    np.testing.assert_array_equal(found[:, 3], 200)


def test_within_cuts_boxes_off():
    cut = boxes.within(np.array([[-3.0, 2.0, 50.0, 9.5]]), (10, 20, 3))
    np.testing.assert_array_equal(cut, [[0, 2, 19, 9]])
