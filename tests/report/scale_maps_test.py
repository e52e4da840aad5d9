# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from PIL import Image

from mdhr_jax.report import scale_maps

WHITE = np.full((24, 24, 3), 255, np.uint8)
FROM_0_TO_1 = ScalarMappable(Normalize(0, 1), scale_maps.COLOURS)


def _colour(share):
    return np.array(scale_maps.COLOURS(share)[:3])


def test_equal_weights_give_a_flat_map_of_their_colour():
    shown = scale_maps.overlay(WHITE, np.full((7, 7), 0.25), FROM_0_TO_1)
    np.testing.assert_allclose(shown, np.broadcast_to(_colour(0.25), WHITE.shape), atol=1e-6)


def test_weights_stand_where_their_position_is_in_the_picture():
    weights = np.zeros((4, 4))
    weights[0, 3] = 1
    shown = scale_maps.overlay(WHITE, weights, FROM_0_TO_1)
    np.testing.assert_allclose(shown[0, -1], _colour(1.0), atol=1e-6)
    np.testing.assert_allclose(shown[-1, 0], _colour(0.0), atol=1e-6)


def test_the_face_shades_the_map_and_keeps_its_hue():
    face = WHITE.copy()
    face[:, :12] = 0
    shown = scale_maps.overlay(face, np.full((2, 2), 0.5), FROM_0_TO_1)
    np.testing.assert_allclose(shown[0, 0], scale_maps.DARKEST * shown[0, -1])


@pytest.mark.parametrize(
    ("weights", "expected"),
    [([0.22, 0.31], (0.2, 0.4)), ([0.25], (0.2, 0.3)), ([0.0, 1.0], (0, 1)), ([1.0], (0.9, 1))],
)
def test_the_colour_bar_ends_at_the_tenths_around_the_weights(weights, expected):
    assert scale_maps.shown_range(np.array(weights)) == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize("scales", [(2,), (1, 4), (1, 2, 3, 4)])
def test_every_scale_in_use_has_a_map_in_every_row(tmp_path, scales):
    """Equal weights on white faces: one colour, which nothing but the bar has as well."""
    count, rows = len(scales), 2
    weights = np.full((rows, 3, 3, count), 1 / count)
    faces, still = np.stack([WHITE] * rows), np.zeros((rows, 24, 24))
    path = tmp_path / "maps.png"
    scale_maps.scale_maps(path, faces, still, weights, scales, ["a", "b"], "caption")
    low, high = scale_maps.shown_range(weights)
    expected = 255 * _colour((1 / count - low) / (high - low))
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape[1] == 1100
    flat = (np.abs(pixels - expected) <= 1).all(axis=-1)
    side = 100 * min(scale_maps.LARGEST, (11 - scale_maps.LEFT - scale_maps.RIGHT) / (2 + count))
    assert flat.sum() == pytest.approx(rows * count * side**2, rel=0.12)
