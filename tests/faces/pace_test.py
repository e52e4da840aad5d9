# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest

from mdhr_jax.faces import pace


@pytest.mark.parametrize(
    ("seconds", "rate", "missing"),
    [
        (0.04, 25.0, 0),
        (0.0, 25.0, 0),  # two frames of one time
        (0.08, 25.0, 0),  # times are rounded, and one frame may be lost
        (0.12, 25.0, 2),
        (0.1235, 25.0, 2),
        (0.1, 25.0, math.inf),  # no whole number of frames
        (4.0, 25.0, 99),
        (-0.04, 25.0, math.inf),
        (0.04, None, math.inf),
    ],
)
def test_missing_frames_are_counted_by_the_clock(seconds, rate, missing):
    assert pace.missing_by_clock(seconds, rate) == missing


@pytest.mark.parametrize(
    ("numbers", "step"),
    [
        ([], 1),
        ([7], 1),
        ([3, 90], 1),
        ([1, 900, 901, 902], 1),
        ([10, 20, 30, 44, 54], 10),
        ([10, 20, 30, 31], 1),
        ([1, 3, 5, 9, 20, 40, 70], 1),  # what is left of a film
        ([5, 4, 3], 1),
    ],
)
def test_a_step_is_the_smallest_that_most_keep(numbers, step):
    assert pace.step(np.array(numbers, int)) == step


def test_frames_have_places_between_which_the_missing_ones_fit():
    place, breaks = pace.places(np.array([10, 20, 40, 45, 55, 54]), every=10)
    assert place.tolist() == [1, 2, 4, 5, 6, 7]
    assert breaks.tolist() == [False, False, False, True, False, True]
