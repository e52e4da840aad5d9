# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

from mdhr_jax import facs
from mdhr_jax.errors import InputError
from mdhr_jax.studies import selection


@pytest.fixture
def fold(rendered_set):
    """Two people with two videos of 36 frames each, in clips of 8 frames."""
    return selection.open_fold(rendered_set, 1, clip_length=8, context=2)


def _with_labels(fold, labels):
    return dataclasses.replace(fold, table=dataclasses.replace(fold.table, labels=labels))


def test_every_frame_is_found_by_its_name_and_in_its_clip(fold):
    for row in (0, 35, 36, len(fold.rows) - 1):
        assert fold.find(fold.name(row)) == row
        clip, place = fold.clip(row)
        assert fold.index.rows[clip, place + 2] == row


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nobody:3", "has no video 'nobody'; write VIDEO:NUMBER with one of its 4 videos, S001/T1"),
        ("S001/T1", "has no video ''"),
        ("S001/T1:36", "has no frame '36'; its 36 frames have numbers from 0 to 35"),
        ("S001/T1:x", "has no frame 'x'"),
    ],
)
def test_unknown_frames_are_refused_with_what_exists(fold, name, expected):
    with pytest.raises(InputError, match=expected):
        fold.find(name)


def test_choice_takes_each_person_once_and_prefers_what_was_not_shown():
    interest = np.array([[3, 0], [2, 0], [0, 1.5], [2.9, 0]])
    assert selection.choose(interest, ["a", "b", "c", "a"], 2) == [0, 2]
    assert selection.choose(interest, ["a", "b", "c", "a"], 9) == [0, 2, 1]


def test_frames_next_to_a_change_of_labels_are_the_most_interesting(fold):
    labels = np.zeros_like(fold.table.labels)
    labels[12:, 3] = 1  # between frames 11 and 12, inside the clip of frames 8 to 15
    interest = selection.label_changes(_with_labels(fold, labels))
    assert set(np.flatnonzero(interest[:, 3])) == set(range(8, 16))
    assert set(np.flatnonzero(interest[:, 3] == interest.max())) == {11, 12}
    assert not np.delete(interest, 3, axis=1).any()


def test_a_change_between_two_clips_is_none(fold):
    labels = np.zeros_like(fold.table.labels)
    labels[8:36] = 1
    assert not selection.label_changes(_with_labels(fold, labels)).any()


def test_interest_in_regions_counts_those_with_active_aus(fold):
    labels = np.full_like(fold.table.labels, -1)
    labels[0, [facs.BP4D.aus.index(au) for au in (1, 2, 6)]] = 1  # upper, upper, middle
    interest = selection.active_regions(_with_labels(fold, labels))
    assert interest[0].sum() == 2
    assert interest[0].max() == interest[0, facs.BP4D.aus.index(6)] == 1
    assert not interest[1:].any()
