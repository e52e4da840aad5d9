# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from mdhr_jax import errors
from mdhr_jax.faces import crop

# Each pixel holds its own row and column.
WIDE = np.stack([*np.indices((48, 64)), np.zeros((48, 64))], axis=-1).astype(np.uint8)


def bounds(picture):
    """First row, first column, last row, last column."""
    return (*picture[0, 0, :2].tolist(), *picture[-1, -1, :2].tolist())


def test_center_is_the_largest_centred_square():
    assert bounds(crop.parse("center")(WIDE)) == (0, 8, 47, 55)
    assert bounds(crop.parse("center")(WIDE[:, :30])) == (9, 0, 38, 29)


def test_a_rectangle_is_x_y_width_height():
    assert bounds(crop.parse("10,5,20,20")(WIDE)) == (5, 10, 24, 29)


def test_a_rectangle_may_touch_every_edge():
    assert bounds(crop.parse("16,0,48,48")(WIDE)) == (0, 16, 47, 63)


def test_none_keeps_a_square_picture():
    square = WIDE[:, :48]
    assert crop.parse("none")(square) is square


def test_none_refuses_a_picture_that_is_not_square():
    with pytest.raises(errors.InputError, match="64x48 pixels, not square; use crop center"):
        crop.parse("none")(WIDE)


@pytest.mark.parametrize("text", ["17,0,48,48", "0,1,48,48"])
def test_a_rectangle_outside_the_picture_is_refused(text):
    with pytest.raises(errors.InputError, match="outside the picture of 64x48 pixels"):
        crop.parse(text)(WIDE)


@pytest.mark.parametrize("text", ["1,2,30,40", "1,2,0,0"])
def test_a_rectangle_that_is_no_square_is_refused(text):
    with pytest.raises(errors.InputError, match="expected a square"):
        crop.parse(text)


@pytest.mark.parametrize("text", ["", "face", "1,2,3", "1,2,3,3,5", "-1,2,3,3", "1.5,2,3,3"])
def test_an_unknown_crop_is_refused_with_the_choices(text):
    with pytest.raises(errors.InputError, match="use none, center, X,Y,W,H"):
        crop.parse(text)
