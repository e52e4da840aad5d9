# SPDX-License-Identifier: Apache-2.0
"""Labels and pictures that are numbered in two ways."""

import pathlib

import numpy as np
import pytest

from mdhr_jax.data.builders import recordings
from mdhr_jax.errors import InputError


def _recording(labels, pictures):
    unknown = np.full((len(labels), 1), -1, np.int8)
    source = recordings.Pictures({number: pathlib.Path(f"{number}.png") for number in pictures})
    return recordings.Recording("anna", "a", np.array(labels), unknown, unknown, source)


@pytest.mark.parametrize(
    ("labels", "pictures"),
    [
        (range(1, 3), range(2440, 2442)),
        (range(1, 100), range(2440, 2500)),
        (range(3), range(1, 4)),  # ffmpeg counts from 1
        (range(9), range(1, 12)),
        (range(9), [1, 2, 4, 5, 6, 7, 9]),
        (range(1, 10), range(9)),
        (range(1, 10), range(8)),
        (range(2440, 2449), range(2441, 2450)),
        (range(4), range(1, 4)),
    ],
)
def test_numbers_that_do_not_meet_are_refused(labels, pictures):
    ends = f"frames {labels[0]} to {labels[-1]}, .* end in {pictures[0]} to {pictures[-1]} "
    with pytest.raises(InputError, match=ends):
        recordings.check_numbers([_recording(labels, pictures)])


@pytest.mark.parametrize(
    ("labels", "pictures"),
    [
        (range(9), range(8)),  # one less or more at the end is no hint
        (range(9), range(10)),
        (range(9), [0, 1, 2, 5, 6, 7, 8, 9]),
        (range(1, 10), range(12)),
        (range(20, 30), range(100)),
        (range(20, 30), range(10, 29)),
        (range(9), []),
    ],
)
def test_numbers_that_meet(labels, pictures):
    recordings.check_numbers([_recording(labels, pictures)])


def test_the_first_picture_may_be_missing_where_others_begin_as_their_labels():
    good, doubtful = _recording(range(9), range(9)), _recording(range(9), [1, 2, 4, 5, 6, 7, 8])
    recordings.check_numbers([good, doubtful])
    with pytest.raises(InputError, match="end in 1 to 9"):
        recordings.check_numbers([good, _recording(range(9), range(1, 10))])
