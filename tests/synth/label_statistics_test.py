# SPDX-License-Identifier: Apache-2.0
import dataclasses
import pathlib

import numpy as np
import pytest

from mdhr_jax import errors, facs
from mdhr_jax.data import lists
from mdhr_jax.synth import label_statistics

OFFICIAL_LISTS = pathlib.Path(__file__).parents[3] / "shared" / "official_lists"
OWN = facs.AuLayout(
    name="own",
    aus=(12, 9, 1),
    regions=(facs.Region("all", (0, 7), (12, 9, 1)),),
    region_blocks=False,
    fps=30.0,
)


def test_statistics_of_a_layout_without_a_table_are_means_over_the_tables():
    own, bp4d, disfa = label_statistics.of_layout(OWN), *label_statistics.tables().values()
    au12 = (bp4d.rates[bp4d.aus.index(12)] + disfa.rates[disfa.aus.index(12)]) / 2
    np.testing.assert_allclose(own.rates[0], au12)
    np.testing.assert_allclose(own.rates[1], disfa.rates[disfa.aus.index(9)])
    np.testing.assert_allclose(np.diag(own.correlation), 1)


def test_a_pair_of_aus_that_no_table_holds_is_uncorrelated():
    layout = dataclasses.replace(OWN, aus=(9, 10), regions=(facs.Region("all", (0, 7), (9, 10)),))
    np.testing.assert_array_equal(label_statistics.of_layout(layout).correlation, np.eye(2))


def test_measured_statistics_match_hand_counted_ones():
    first = np.array([[0, 1, 1, 0, 0, 1, 1, 1, 0]]).T
    second = np.array([[0, 1, -1]]).T
    measured = label_statistics.measure((12,), [("a", first), ("b", second)])
    rate = 6 / 11  # active frames of known ones
    assert measured.rates == (round(rate, 4),)
    # Three onsets in nine pairs of neighbours whose labels are known.
    assert measured.activation_lengths == (round(rate * 9 / 3, 4),)
    assert measured.pause_lengths == (round((1 - rate) * 9 / 3, 4),)
    assert measured.subject_spread == (round(abs(5 / 9 - 1 / 2) / 2, 4),)


def test_an_au_that_never_begins_is_refused():
    with pytest.raises(errors.InputError, match="AU6 never begins"):
        label_statistics.measure((6,), [("a", np.ones((4, 1), int))])


@pytest.mark.slow
@pytest.mark.skipif(not OFFICIAL_LISTS.exists(), reason="no official lists (../shared) here")
@pytest.mark.parametrize("layout", [facs.BP4D, facs.DISFA], ids=lambda layout: layout.name)
def test_the_table_is_what_the_official_lists_give(layout):
    tests, _ = lists.read_test_sets(OFFICIAL_LISTS, layout)
    videos = [(v.subject, v.labels) for test in tests for v in test.frames.to_videos()]
    assert label_statistics.measure(layout.aus, videos) == label_statistics.tables()[layout.name]
