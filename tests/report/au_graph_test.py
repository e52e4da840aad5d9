# SPDX-License-Identifier: Apache-2.0
import itertools

import numpy as np
import pytest
from matplotlib import colors
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionStyle
from PIL import Image

from mdhr_jax import errors, facs
from mdhr_jax.report import au_graph

ATTENTION = np.array([[0.1, 0.6, 0.3], [0.0, 1.0, 0.0], [0.2, 0.0, 0.8]])
SMALL = facs.AuLayout(
    "small",
    (1, 6, 12),
    (
        facs.Region("up", facs.UPPER, (1,)),
        facs.Region("mid", facs.MIDDLE, (6,)),
        facs.Region("down", facs.LOWER, (12,)),
    ),
    region_blocks=False,
    fps=25.0,
)

DRAWN = {n: layout for n, layout in facs.LAYOUTS.items() if {*layout.aus} <= {*au_graph.PLACES}}


@pytest.fixture
def axes():
    axes = Figure(figsize=(4, 4)).add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 1), ylim=(1, 0))
    return axes


def test_every_au_has_a_place_of_its_own_inside_the_face():
    assert au_graph.PLACES.keys() == {*facs.BP4D.aus, *facs.DISFA.aus}
    places = np.array(list(au_graph.PLACES.values()))
    assert (places > au_graph.OUTLINE).all() and (places < 1 - au_graph.OUTLINE).all()
    for first, second in itertools.combinations(places, 2):
        assert np.linalg.norm(first - second) > 2 * au_graph.RING


@pytest.mark.parametrize("layout", DRAWN.values(), ids=DRAWN)
def test_an_outline_goes_around_the_aus_of_its_region_alone(layout, axes):
    au_graph.draw_regions(axes, layout)
    for region, outline in zip(layout.regions, axes.patches, strict=True):
        path = outline.get_path()
        inside = {au for au in layout.aus if path.contains_point(au_graph.PLACES[au])}
        assert inside == set(region.aus)


def test_regions_have_colours_of_their_own(axes):
    au_graph.draw_regions(axes, facs.BP4D)
    assert len({patch.get_edgecolor() for patch in axes.patches}) == 4


def test_links_lead_between_different_aus_strongest_first():
    found = au_graph.links(ATTENTION)
    assert found == [(0, 1, 0.6), (0, 2, 0.3), (2, 0, 0.2)]
    assert au_graph.links(np.eye(3)) == []


def test_arrows_are_as_wide_as_their_attention_and_of_the_senders_colour(axes):
    found = au_graph.links(ATTENTION)
    au_graph.draw_links(axes, SMALL, found)
    arrows = {arrow.get_linewidth(): arrow for arrow in axes.patches}
    assert list(arrows) == pytest.approx([au_graph.POINTS * w for w in (0.2, 0.3, 0.6)])
    assert sorted(arrow.get_alpha() for arrow in axes.patches) == [
        arrow.get_alpha() for arrow in axes.patches
    ]
    strongest = axes.patches[-1]
    sender = au_graph.REGION_COLOURS[1]  # AU06, the middle region
    assert colors.to_hex(strongest.get_edgecolor()) == sender.lower()


def test_the_strongest_attention_is_printed(axes):
    attention = np.linspace(1, 2, 144).reshape(12, 12)
    attention /= attention.sum(axis=1, keepdims=True)
    found = au_graph.links(attention)
    au_graph.draw_links(axes, facs.BP4D, found)
    printed = sorted((text.get_text() for text in axes.texts), reverse=True)
    assert printed == [f"{link.weight:.2f}" for link in found[: au_graph.NUMBERED]]


def test_a_weight_stands_on_its_arrow(axes):
    start, end = au_graph.PLACES[6], au_graph.PLACES[12]
    ends = axes.transData.transform([start, end])
    curve = ConnectionStyle.Arc3(rad=au_graph.BEND)(*ends, shrinkA=0, shrinkB=0).vertices
    middle = curve[0] / 4 + curve[1] / 2 + curve[2] / 4
    label = axes.transData.transform(au_graph._on_arrow(start, end, 0.5))
    np.testing.assert_allclose(label, middle, atol=1e-6)


def test_dots_are_filled_if_predicted_and_ringed_if_true(axes):
    au_graph.draw_nodes(axes, SMALL, np.array([True, False, True]), np.array([True, True, False]))
    dots = [patch for patch in axes.patches if patch.radius == au_graph.NODE]
    rings = [patch for patch in axes.patches if patch.radius == au_graph.RING]
    white = colors.to_rgba("white")
    assert [dot.get_facecolor() == white for dot in dots] == [False, True, False]
    assert [ring.center for ring in rings] == [au_graph.PLACES[1], au_graph.PLACES[6]]
    assert [text.get_text() for text in axes.texts] == ["1", "6", "12"]


def test_an_au_without_a_place_is_refused_by_name(tmp_path):
    with pytest.raises(errors.InputError, match="where AU L12 is seen on a face is not known"):
        au_graph.au_graphs(
            tmp_path / "graph.png",
            facs.layout("aus-1-L12"),
            np.zeros((1, 8, 8, 3), np.uint8),
            np.ones((1, 2), bool),
            np.ones((1, 2), np.int8),
            np.eye(2)[None],
            ["a"],
            "About it.",
        )


@pytest.mark.parametrize("count", [1, 3])
def test_a_picture_has_the_width_of_the_others_and_two_faces_in_a_row(tmp_path, count):
    path = tmp_path / "graph.png"
    au_graph.au_graphs(
        path,
        SMALL,
        np.zeros((count, 8, 8, 3), np.uint8),
        np.ones((count, 3), bool),
        np.ones((count, 3), np.int8),
        np.stack([ATTENTION] * count),
        ["a", "b", "c"][:count],
        "caption",
    )
    with Image.open(path) as picture:
        width, height = picture.size
    assert width == 1100
    assert 540 * -(-count // 2) < height < 580 * -(-count // 2) + 120
