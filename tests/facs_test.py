# SPDX-License-Identifier: Apache-2.0
import dataclasses
import itertools

import numpy as np
import pytest

from mdhr_jax import facs

LAYOUTS = pytest.mark.parametrize("layout", [facs.BP4D, facs.DISFA], ids=lambda x: x.name)


def _layout(aus, *groups):
    regions = tuple(facs.Region(f"r{i}", facs.UPPER, group) for i, group in enumerate(groups))
    return facs.AuLayout("mine", aus, regions, region_blocks=False, fps=25.0)


def test_regions_cover_the_papers_rows_of_a_7x7_grid():
    rows = [facs.Region("r", band, (1,)).grid_rows(7) for band in (facs.UPPER, facs.MIDDLE)]
    rows.append(facs.Region("r", facs.LOWER, (1,)).grid_rows(7))
    assert rows == [slice(0, 3), slice(2, 5), slice(4, 7)]


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (1, [(0, 1), (0, 1), (0, 1)]),
        (2, [(0, 1), (0, 2), (1, 2)]),
        (3, [(0, 2), (0, 3), (1, 3)]),
        (8, [(0, 4), (2, 6), (4, 8)]),
        (14, [(0, 6), (4, 10), (8, 14)]),
    ],
)
def test_regions_of_other_grids_round_outwards(grid, expected):
    bands = (facs.UPPER, facs.MIDDLE, facs.LOWER)
    found = [facs.Region("r", band, (1,)).grid_rows(grid) for band in bands]
    assert [(rows.start, rows.stop) for rows in found] == expected


def test_the_layouts_hold_the_releases_aus_and_groups():
    assert facs.BP4D.aus == (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
    assert [r.aus for r in facs.BP4D.regions] == [
        (1, 2, 4, 7),
        (6,),
        (12, 14, 15),
        (10, 17, 23, 24),
    ]
    assert [r.combinations for r in facs.BP4D.regions] == [16, 2, 8, 16]
    assert facs.DISFA.aus == (1, 2, 4, 6, 9, 12, 25, 26)
    assert [r.aus for r in facs.DISFA.regions] == [(1, 2, 4), (6, 9), (12, 25, 26)]
    assert [r.combinations for r in facs.DISFA.regions] == [8, 4, 8]


def test_the_first_au_of_a_region_is_the_most_significant_bit():
    labels = np.isin(facs.BP4D.aus, [1, 7, 15, 10, 17]).astype(int)
    np.testing.assert_array_equal(labels @ facs.BP4D.bit_weights, [0b1001, 0b0, 0b001, 0b1100])


@LAYOUTS
def test_bit_shifts_read_every_combination_back(layout):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (200, len(layout.aus)))
    combinations = labels @ layout.bit_weights
    bits = combinations[:, layout.region_index] >> layout.bit_shifts & 1
    np.testing.assert_array_equal(bits, labels)
    assert (combinations < [region.combinations for region in layout.regions]).all()


@LAYOUTS
def test_aus_are_linked_exactly_across_regions(layout):
    region = {au: r.name for r in layout.regions for au in r.aus}
    expected = [[int(region[a] != region[b]) for b in layout.aus] for a in layout.aus]
    np.testing.assert_array_equal(layout.cross_region, expected)


def test_au_indices_follow_the_regions_bit_order():
    layout = _layout((4, 1, 2), (1, 4), (2,))
    assert [layout.au_indices(region) for region in layout.regions] == [[1, 0], [2]]


@pytest.mark.parametrize(
    ("aus", "groups"),
    [
        ((1, 2, 4), [(1, 2)]),
        ((1, 2), [(1, 2), (2,)]),
        ((1, 2), [(1, 2), (4,)]),
        ((1, 2, 2), [(1, 2)]),
    ],
    ids=["in none", "in two", "in no layout", "named twice"],
)
def test_an_au_outside_exactly_one_region_is_refused(aus, groups):
    with pytest.raises(ValueError, match="'mine'.*exactly one region"):
        _layout(aus, *groups)


@LAYOUTS
def test_every_au_has_a_name(layout):
    assert set(layout.aus) <= set(facs.AU_NAMES)
    assert layout.au_names[0] == "AU01"
    assert len(set(layout.au_names)) == len(layout.aus)


def test_class_weights_equal_hand_computed_ones():
    np.testing.assert_allclose(facs.class_weights(np.array([0.5, 0.25, 0.1])), [0.375, 0.75, 1.875])


def test_class_weights_have_mean_1():
    weights = facs.class_weights(np.array([0.21, 0.17, 0.2, 0.46]))
    np.testing.assert_allclose(weights.mean(), 1, rtol=1e-15)


def test_an_au_that_never_occurs_has_no_class_weight():
    with pytest.raises(ValueError, match=r"positions \[1\] never occur"):
        facs.class_weights(np.array([0.2, 0.0, 0.1]))


@pytest.mark.parametrize(("layout", "subjects"), [(facs.BP4D, 41), (facs.DISFA, 27)])
def test_folds_are_disjoint_and_complete(layout, subjects):
    listed = list(itertools.chain(*layout.folds))
    assert len(layout.folds) == 3
    assert len(listed) == len(set(listed)) == subjects


def test_the_first_fold_tests_the_releases_third_part():
    assert [fold[0] for fold in facs.BP4D.folds] == ["F004", "F003", "F001"]
    assert [fold[0] for fold in facs.DISFA.folds] == ["SN003", "SN006", "SN001"]


def test_layouts_are_values():
    copy = dataclasses.replace(facs.BP4D)
    assert copy == facs.BP4D and hash(copy) == hash(facs.BP4D)
    assert all(name == layout.name for name, layout in facs.LAYOUTS.items())


def test_own_aus_are_grouped_by_where_they_show():
    own = facs.layout("aus-1-6-12-25-26-45")
    assert own.aus == (1, 6, 12, 25, 26, 45)
    groups = {region.name: region.aus for region in own.regions}
    assert groups == {"up": (1, 45), "mid": (6,), "down1": (12,), "down2": (25, 26)}
    assert facs.own_name(own.aus) == own.name
    bp4d = facs.layout(facs.own_name(facs.BP4D.aus))
    assert [region.aus for region in bp4d.regions] == [region.aus for region in facs.BP4D.regions]


OTHERS = ["mine", "aus", "aus-", "aus-0", "aus-1-100", "aus-1,2", "aus-l12", "aus-12L", "aus-L"]


@pytest.mark.parametrize("name", OTHERS)
def test_other_names_are_no_layouts(name):
    with pytest.raises(ValueError, match="unknown"):
        facs.layout(name)


@pytest.mark.parametrize("au", [3, 47, 67, 99, "L3"])
def test_numbers_that_facs_has_not_are_no_aus(au):
    with pytest.raises(ValueError, match=f"FACS has no AU {facs.number(au)}"):
        facs.layout(f"aus-1-{au}")


def test_aus_of_one_side_are_named_and_grouped_like_those_of_both():
    layout = facs.layout("aus-12-L12-R12-1")
    assert layout.aus == (12, "L12", "R12", 1)
    assert layout.au_names == ("AU12", "AUL12", "AUR12", "AU01")
    assert {r.name: r.aus for r in layout.regions} == {"up": (1,), "down1": (12, "L12", "R12")}
    np.testing.assert_array_equal(layout.bit_shifts, [2, 1, 0, 0])
    assert facs.own_name(layout.aus) == layout.name
    assert [(facs.number(au), facs.side(au)) for au in layout.aus[:2]] == [(12, ""), (12, "L")]
    with pytest.raises(ValueError, match="exactly one region"):
        facs.layout("aus-L12-L12")
    with pytest.raises(ValueError, match="'X12'.* are no AUs"):
        _layout((1, "X12"), (1, "X12"))


def test_opengraphau_has_27_aus_and_seven_on_either_side():
    aus = facs.OPENGRAPHAU.aus
    assert [facs.side(au) for au in aus] == [""] * 27 + ["L", "R"] * 7
    assert set(map(facs.number, aus)) == facs.AU_NAMES.keys()
    assert facs.OPENGRAPHAU.au_names[-1] == "AUR14"
    assert len(facs.OPENGRAPHAU.regions) == 4


def test_an_au_twice_is_no_layout():
    with pytest.raises(ValueError, match="exactly one region"):
        facs.layout("aus-1-1")
