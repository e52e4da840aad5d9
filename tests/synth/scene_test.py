# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np

from mdhr_jax.synth import course, scene

NAME = (0, "F001", "T1")


def test_a_moment_does_not_depend_on_the_other_moments_asked_for():
    whole = scene.pose(*NAME, np.arange(300)), scene.light(*NAME, np.arange(300))
    late = scene.pose(*NAME, np.array([299, 17])), scene.light(*NAME, np.array([299, 17]))
    picked = jax.tree.map(lambda leaf: leaf[[299, 17]], whole)
    jax.tree.map(np.testing.assert_array_equal, late, picked)


def test_a_person_blinks_and_opens_the_eyes_again():
    blink = scene.pose(*NAME, np.arange(3000)).blink
    assert blink[0] == 0 and blink.max() == 1
    assert 0.01 < (blink > 0.5).mean() < 0.1
    closings = ((blink[1:] == 1) & (blink[:-1] < 1)).sum()
    assert 3000 / 150 - 1 <= closings <= 3000 / 50 + 1


def test_gaze_rests_and_jumps():
    """Most steps are only what makes up for the head's slow turn."""
    steps = np.abs(np.diff(scene.pose(*NAME, np.arange(1000)).gaze_x))
    assert (steps < 0.02).mean() > 0.9 and steps.max() > 0.2


def test_people_talk_in_spells():
    openness, roundness = course.speech(*NAME, np.arange(5000)).T
    assert 0 <= openness.min() and openness.max() <= 1
    assert roundness.max() > 0.3
    assert 0.1 < (openness > 0.05).mean() < 0.8


def test_the_head_keeps_its_place_in_the_crop():
    for subject in map(str, range(20)):
        pose = scene.pose(0, subject, "T1", np.arange(500))
        assert np.abs([pose.shift_x, pose.shift_y]).max() < 0.03
        assert np.abs(pose.roll).max() < 0.08


def test_cameras_differ():
    cameras = np.array([scene.camera(0, "F001", str(number), 256) for number in range(50)])
    assert (np.ptp(cameras, axis=0) > [0.3, 0.15, 1.2, 15]).all()
    _, _, _, quality = cameras.T
    assert quality.min() >= 75 and quality.max() <= 95


def test_small_pictures_are_large_ones_made_smaller():
    large, small = (scene.camera(0, "F001", "T1", size) for size in (256, 128))
    assert small.shutter == large.shutter
    np.testing.assert_allclose(small.noise, large.noise / 2, rtol=1e-6)
    assert small.softness < large.softness and small.quality > large.quality
