# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

from mdhr_jax import errors, facs
from mdhr_jax.synth import label_statistics, labels, people

RENDERED = {n: layout for n, layout in facs.LAYOUTS.items() if {*layout.aus} <= {*people.AUS}}
LAYOUTS = pytest.mark.parametrize("layout", RENDERED.values(), ids=RENDERED)
NAME = {"seed": 0, "subject": "F001", "video": "T1"}
OWN = facs.AuLayout(
    name="own",
    aus=(12, 9, 1),
    regions=(facs.Region("all", (0, 7), (12, 9, 1)),),
    region_blocks=False,
    fps=30.0,
)


def sampled_videos(layout, subjects):
    return [
        (
            subject,
            labels.sample_labels(layout, seed=1, subject=subject, video=video, num_frames=500),
        )
        for subject in map(str, range(subjects))
        for video in ("T1", "T2", "T3")
    ]


@pytest.mark.slow
@LAYOUTS
def test_sampled_labels_have_the_rates_correlations_and_lengths_of_the_table(layout):
    # Rates of 400 subjects differ with a standard deviation of 0.2 at most: 0.01 for their mean.
    expected = label_statistics.of_layout(layout)
    measured = label_statistics.measure(layout.aus, sampled_videos(layout, 400))
    np.testing.assert_allclose(measured.rates, expected.rates, atol=0.03)
    np.testing.assert_allclose(measured.correlation, expected.correlation, atol=0.1)
    np.testing.assert_allclose(measured.activation_lengths, expected.activation_lengths, rtol=0.15)
    np.testing.assert_allclose(measured.pause_lengths, expected.pause_lengths, rtol=0.3)
    np.testing.assert_allclose(measured.subject_spread, expected.subject_spread, atol=0.06)


def test_labels_depend_on_every_part_of_the_name():
    first = labels.sample_labels(facs.BP4D, **NAME, num_frames=200)
    assert (first == labels.sample_labels(facs.BP4D, **NAME, num_frames=200)).all()
    for part in ({"seed": 1}, {"subject": "F002"}, {"video": "T2"}):
        other = labels.sample_labels(facs.BP4D, **(NAME | part), num_frames=200)
        assert (first != other).any(), part


def test_a_longer_video_begins_with_the_shorter_one():
    short = labels.sample_labels(facs.DISFA, **NAME, num_frames=40)
    long = labels.sample_labels(facs.DISFA, **NAME, num_frames=90)
    np.testing.assert_array_equal(long[:40], short)


def test_labels_of_a_layout_without_a_table_are_sampled():
    assert labels.sample_labels(OWN, **NAME, num_frames=5).shape == (5, 3)


def test_an_au_that_cannot_be_rendered_is_refused():
    layout = dataclasses.replace(OWN, aus=(5,), regions=(facs.Region("all", (0, 7), (5,)),))
    with pytest.raises(errors.InputError, match=r"'own': AUs \[5\] cannot be rendered"):
        labels.sample_labels(layout, **NAME, num_frames=5)


@LAYOUTS
def test_labels_are_intensities_at_or_above_the_threshold(layout):
    shown = labels.sample_labels(layout, **NAME, num_frames=1500)
    values = labels.intensities(layout, shown, **NAME)
    columns = [list(people.AUS).index(au) for au in layout.aus]
    np.testing.assert_array_equal(values[:, columns] >= labels.THRESHOLD, shown == 1)
    assert values.dtype == np.float32
    assert values.min() >= 0 and values.max() <= 1


def test_intensities_ramp_across_both_edges_of_an_activation():
    shown = np.zeros((100, 12), np.int8)
    shown[40:70, facs.BP4D.aus.index(12)] = 1
    au12 = labels.intensities(facs.BP4D, shown, **NAME)[:, list(people.AUS).index(12)]
    assert np.abs(np.diff(au12)).max() < 0.4
    assert (au12[50:60] >= labels.APEX[0]).all()
    assert (au12[:30] <= labels.FLICKER).all()
    assert au12[39] > labels.FLICKER and au12[40] < labels.APEX[0]


def test_active_aus_move_and_inactive_ones_twitch_at_times():
    """What a still picture cannot tell: who rests in a posture is still, who acts is not."""
    columns = [list(people.AUS).index(au) for au in facs.BP4D.aus]
    moves = {}
    for active in (0, 1):
        shown = np.full((1000, 12), active, np.int8)
        values = labels.intensities(facs.BP4D, shown, **NAME)[:, columns]
        moves[active] = np.abs(np.diff(values, axis=0))
    assert moves[1].mean() > 5 * moves[0].mean() > 0
    assert (moves[0] == 0).mean() > 0.7


def test_aus_outside_the_layout_are_active_too_but_weaker():
    shown = np.zeros((3000, 8), np.int8)
    values = labels.intensities(facs.DISFA, shown, **NAME)
    others = [i for i, au in enumerate(people.AUS) if au not in facs.DISFA.aus]
    strongest = values[:, others].max(axis=0)
    assert strongest.max() <= labels.UNLABELLED and (strongest > labels.FLICKER).sum() >= 4


@pytest.mark.slow
def test_unlabelled_aus_know_nothing_of_the_labels():
    """Their subjects' rates do not follow the labelled ones', whatever pair of AUs."""
    hidden = labels._unlabelled(facs.DISFA)
    rates = []
    for number in range(300):
        name = NAME | {"subject": str(number)}
        shown = labels.sample_labels(facs.DISFA, **name, num_frames=60)
        intensity = labels.intensities(facs.DISFA, shown, **name)
        columns = [list(people.AUS).index(au) for au in hidden.aus]
        active = intensity[:, columns] > labels.UNLABELLED * labels.THRESHOLD
        rates.append(np.concatenate([shown.mean(axis=0), active.mean(axis=0)]))
    between = np.corrcoef(np.transpose(rates))[: len(facs.DISFA.aus), len(facs.DISFA.aus) :]
    assert np.abs(between).max() < 0.22  # chance: 0.06 times 3.7


def test_nobody_talks_through_pressed_lips():
    shown = np.zeros((3000, 12), np.int8)
    shown[:, facs.BP4D.aus.index(24)] = 1
    values = labels.intensities(facs.BP4D, shown, **NAME)
    hidden = values[20:, [list(people.AUS).index(au) for au in (25, 26)]]
    assert hidden.max() <= labels.UNLABELLED


def test_speech_opens_the_mouth_and_labels_overrule_it():
    silent = np.zeros((3000, 12), np.int8)
    talking = labels.intensities(facs.BP4D, silent, **NAME)[:, list(people.AUS).index(25)]
    assert talking.max() > 0.6
    # Syllables: the mouth opens and closes within a quarter of a second.
    assert np.abs(np.diff(talking)).max() > 0.1
    shut = np.zeros((3000, 8), np.int8)
    annotated = labels.intensities(facs.DISFA, shut, **NAME)[:, list(people.AUS).index(25)]
    assert annotated.max() < labels.THRESHOLD


def test_unknown_labels_count_as_inactive():
    shown = labels.sample_labels(facs.BP4D, **NAME, num_frames=60)
    np.testing.assert_array_equal(
        labels.intensities(facs.BP4D, np.where(shown == 0, -1, 1), **NAME),
        labels.intensities(facs.BP4D, shown, **NAME),
    )


@pytest.mark.parametrize("wrong", [np.zeros((5, 3), int), np.full((5, 12), 9)])
def test_labels_that_do_not_fit_the_layout_are_refused(wrong):
    with pytest.raises(errors.InputError, match="'F001', video 'T1': expected .frames, 12."):
        labels.intensities(facs.BP4D, wrong, **NAME)
