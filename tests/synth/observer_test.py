# SPDX-License-Identifier: Apache-2.0
"""What could be told from rendered faces by somebody who sees how far every AU is shown."""

import numpy as np
import pytest

from mdhr_jax import facs
from mdhr_jax.synth import labels, people

COLUMNS = [list(people.AUS).index(au) for au in facs.BP4D.aus]
SUBJECTS, FRAMES = 150, 64


def seen(subject):
    """Labels, and postures as `(t, 12)`: what the AUs add to how the person rests."""
    name = {"seed": 0, "subject": subject, "video": "T1"}
    shown = labels.sample_labels(facs.BP4D, **name, num_frames=FRAMES)
    rest = people.sample_identity(0, subject).resting[COLUMNS]
    return shown, rest + labels.intensities(facs.BP4D, shown, **name)[:, COLUMNS]


def area_under_curve(scores, truth):
    """Chance that an active frame scores above an inactive one."""
    ranks = np.argsort(np.argsort(scores))
    active = truth.sum()
    above = ranks[truth == 1].sum() - active * (active - 1) / 2
    return above / (active * (len(truth) - active))


def discriminate(features, truth, training):
    """Area under curve on other people of a linear discriminant with squares and products."""
    features = (features - features.mean(0)) / features.std(0)
    products = features[:, :, None] * features[:, None, :]
    above = np.triu_indices(features.shape[1])
    inputs = np.concatenate([np.ones((len(features), 1)), features, products[:, *above]], axis=1)
    weights, *_ = np.linalg.lstsq(inputs[training], truth[training], rcond=None)
    return area_under_curve(inputs[~training] @ weights, truth[~training])


@pytest.fixture(scope="module")
def recordings():
    both = [seen(f"P{number:03d}") for number in range(SUBJECTS)]
    return (np.stack(x) for x in zip(*both, strict=True))


@pytest.mark.slow
def test_movement_tells_what_a_still_picture_does_not(recordings):
    """A resting posture looks like an activation, but does not move like one."""
    shown, posture = recordings
    moved = np.abs(np.diff(posture, axis=1))
    window = [moved[:, t - 8 : t + 8].mean(1) for t in range(8, FRAMES - 8)]
    movement = np.log(np.stack(window, axis=1) + 1e-3)
    posture, shown = posture[:, 8:-8], shown[:, 8:-8]
    training = np.repeat(np.arange(SUBJECTS) % 3 > 0, shown.shape[1])
    still, clip = [], []
    for au in range(len(COLUMNS)):
        one, more, truth = (x[:, :, au].reshape(-1) for x in (posture, movement, shown))
        still.append(discriminate(one[:, None], truth, training))
        clip.append(discriminate(np.stack([one, more], axis=1), truth, training))
    assert np.mean(still) < 0.95
    assert np.mean(clip) > np.mean(still) + 0.02
