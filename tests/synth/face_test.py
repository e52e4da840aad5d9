# SPDX-License-Identifier: Apache-2.0
import functools

import numpy as np
import pytest

from mdhr_jax import facs
from mdhr_jax.synth import video

SIZE = 64
ALL_AUS = list(facs.AU_NAMES)


@functools.cache
def rows_of(au):
    """Rows of the regions that the layouts give an AU."""
    regions = [region for layout in facs.LAYOUTS.values() for region in layout.regions]
    (rows,) = {region.rows for region in regions if au in region.aus}
    return slice(*(round(SIZE * seventh / 7) for seventh in rows))


def apex(au):
    return np.array([[float(other == au) for other in ALL_AUS]])


@functools.cache
def rendered(subject, au):
    """A frame with one AU at its apex, or at rest; int so that frames can be subtracted."""
    frames = video.render_intensities(apex(au), seed=0, subject=subject, video="T1", size=SIZE)
    return frames[0].astype(int)


def change(subject, au):
    """`(h, w)` mean absolute change of the grey levels from rest to the apex of an AU."""
    return np.abs(rendered(subject, au) - rendered(subject, None)).mean(axis=-1)


@pytest.mark.parametrize("au", ALL_AUS)
@pytest.mark.parametrize("subject", ["F001", "M001", "M002"])
def test_an_au_changes_the_rows_of_its_region_visibly(au, subject):
    changed = change(subject, au)
    assert changed[rows_of(au)].sum() >= 0.7 * changed.sum()
    assert np.sort(changed.ravel())[-8:].min() > 5  # eight pixels by five grey levels


@pytest.mark.parametrize("au", ALL_AUS)
def test_an_au_leaves_the_edge_of_the_picture_alone(au):
    changed = change("F001", au)
    assert not changed[:4].any() and not changed[:, :3].any() and not changed[:, -3:].any()


def test_every_au_changes_the_face_in_its_own_way():
    changes = np.array([(rendered("F001", au) - rendered("F001", None)).ravel() for au in ALL_AUS])
    likeness = np.corrcoef(changes) - np.eye(len(ALL_AUS))
    assert likeness.max() < 0.9


def test_people_differ_more_than_one_person_at_rest_and_smiling():
    between = np.abs(rendered("F001", None) - rendered("M001", None)).mean()
    assert between > 4 * change("F001", 12).mean()
