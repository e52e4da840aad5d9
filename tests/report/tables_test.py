# SPDX-License-Identifier: Apache-2.0
import csv
import json
import math

import numpy as np
import pytest

from mdhr_jax import errors, facs
from mdhr_jax.report import published, tables

# Two people; tp, fp, tn, fn of two AUs: in all 6 2 8 4 and 1 0 3 0.
COUNTS = np.array([[[5, 2, 3, 0], [1, 0, 1, 0]], [[1, 0, 5, 4], [0, 0, 2, 0]]])
PEOPLE = ["F001", "M002"]
DETAILS = {"protocol": "official", "step": 1200, "test subjects": PEOPLE, "frames": 20}


@pytest.fixture
def tabulate(two_aus):
    def table(layout=two_aus, counts=COUNTS, auc=(0.75, 1.0), kind="mdhr", backbone="resnet50"):
        beside = published.beside(kind, layout.name, backbone)
        return tables.evaluation(layout, PEOPLE, counts, np.array(auc), beside, DETAILS)

    return table


def test_measures_equal_hand_computed_ones(tabulate, table_cells):
    table = tabulate()
    first, mean = table_cells(table, "AU01"), table_cells(table, "mean")
    assert first["F1"] == pytest.approx(12 / 18)
    assert first["bal. acc."] == pytest.approx((0.6 + 0.8) / 2)
    assert first["accuracy"] == pytest.approx(0.7)
    assert first["always-positive"] == pytest.approx(20 / 30)
    assert first["coin flip"] == pytest.approx(10 / 20)  # 5 hits, 5 misses, 5 false alarms
    assert mean["F1"] == pytest.approx((12 / 18 + 1) / 2)
    assert mean["ROC-AUC"] == 0.875
    assert table_cells(table, "all AUs as one")["F1"] == pytest.approx(14 / 20)
    assert first["low"] <= first["F1"] <= first["high"]


def test_an_au_that_never_occurs_is_not_available_and_counted_both_ways(tabulate, table_cells):
    silent = COUNTS.copy()
    silent[:, 1] = [0, 1, 3, 0]
    table = tabulate(counts=silent, auc=(0.75, math.nan))
    assert math.isnan(table_cells(table, "AU12")["F1"])
    assert math.isnan(table_cells(table, "AU12")["low"])
    assert table_cells(table, "mean")["F1"] == pytest.approx(12 / 18 / 2)
    assert table_cells(table, "mean, occurring")["F1"] == pytest.approx(12 / 18)
    assert table_cells(table, "mean")["ROC-AUC"] == 0.75
    both = [np.tile(silent, (1, 6, 1))] * 2
    compared = tables.difference(facs.LAYOUTS["bp4d"], PEOPLE, *both, DETAILS)
    assert math.isnan(table_cells(compared, "AU24")["difference"])
    assert table_cells(compared, "AU23")["difference"] == 0


def test_text_is_aligned_percent_with_one_decimal(tabulate):
    caption, more, *lines = tabulate().text().splitlines()
    assert caption.startswith("protocol official, step 1200, test subjects F001 M002, frames 20, ")
    assert "95% interval of F1" in f"{caption} {more}"
    assert len({len(line) for line in lines}) == 1
    assert lines[-5].split()[:2] == ["AU01", "66.7"]


def test_long_column_names_take_several_lines(tabulate):
    header = [line.split() for line in tabulate().text().splitlines()[2:4]]
    assert header == [
        ["bal.", "always-", "coin"],
        "F1 low high acc. ROC-AUC accuracy".split() + ["positive", "flip"],
    ]


def test_markdown_holds_the_same_cells_as_text(tabulate):
    rows = tabulate().markdown().splitlines()[2:4]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [line.split() for line in tabulate().text().splitlines()[4:6]] == cells


def test_csv_and_json_hold_the_same_unrounded_fractions(tabulate, tmp_path):
    tabulate().write(tmp_path / "new" / "f1")
    header, *lines = csv.reader((tmp_path / "new" / "f1.csv").read_text().splitlines())
    stored = json.loads((tmp_path / "new" / "f1.json").read_text())
    assert (tmp_path / "new" / "f1.md").read_text() == tabulate().markdown()
    for name, *values in lines:
        row = stored["rows"][name]
        assert [row[column] for column in header[1:]] == [
            None if value == "n/a" else float(value) for value in values
        ]
    assert stored["rows"]["AU01"]["F1"] == pytest.approx(2 / 3, abs=1e-15)
    assert stored["details"]["test subjects"] == ["F001", "M002"]


def test_labels_that_are_all_unknown_are_refused(tabulate):
    with pytest.raises(errors.InputError, match="none of 20 test frames has a known label"):
        tabulate(counts=0 * COUNTS)


@pytest.mark.parametrize(
    ("layout", "means"), [(facs.BP4D, ["66.6", "66.1"]), (facs.DISFA, ["64.9", "66.2"])]
)
def test_the_papers_means_stand_beside_ours_as_printed(tabulate, layout, means):
    n = len(layout.aus)
    lines = tabulate(layout, np.ones((2, n, 4), int), np.ones(n)).text().splitlines()
    (mean,) = [line for line in lines if line.startswith("mean  ")]
    assert mean.split()[-2:] == means


def test_the_papers_table_ends_with_ours_and_marks_misprinted_means(
    tabulate, table_cells, tmp_path
):
    n = len(facs.DISFA.aus)
    result = tabulate(facs.DISFA, np.tile(COUNTS[:, :1], (1, n, 1)), np.ones(n))
    beside = published.beside("mdhr", "disfa", "resnet50")
    tables.write(facs.DISFA, result, "F1", beside, tmp_path)
    table = tables.beside_paper(facs.DISFA, result, "F1", beside.values())
    assert (tmp_path / "paper.md").read_text() == table.markdown()
    assert len(table.rows) == 15
    marked = [row.name for row in table.rows if row.name.endswith("*")]
    assert marked == ["EAC-Net *", "SMA-Net *", "HSTR-Net *"]
    assert table_cells(table, "HSTR-Net *")["mean"] == pytest.approx(0.671375)
    assert table_cells(table, "HSTR-Net *")["printed"] == 0.629
    assert table.rows[-1].name == "ours"
    assert table_cells(table, "ours")["AU26"] == table_cells(result, "AU26")["F1"]
    assert table_cells(table, "ours")["mean"] == table_cells(result, "mean")["F1"]
    assert "marked * the printed mean is more than 0.3 off" in table.caption
    assert "static image EAC-Net JAA-Net ARL SMA-Net," in table.caption


@pytest.mark.parametrize(
    ("layout", "backbone", "shown", "added"),
    [
        (facs.BP4D, "resnet50", ["53.7", "64.7"], ["ME-GraphAU (ResNet-50)"]),
        (facs.BP4D, "resnet101", ["n/a", "64.8"], ["ME-GraphAU (ResNet-101)"]),
        (facs.BP4D, "swin_b", ["52.7", "65.5"], []),  # the paper quotes it
        (facs.DISFA, "swin_b", ["52.5", "62.4"], ["ME-GraphAU (Swin-B)"]),
    ],
)
def test_what_is_published_of_a_graphau_stands_beside_one(tabulate, layout, backbone, shown, added):
    n = len(layout.aus)
    result = tabulate(layout, np.ones((2, n, 4), int), np.ones(n), "graphau", backbone)
    assert result.columns[-1] == "ME-GraphAU" and "paper Swin-B" not in result.columns
    lines = dict(line.split(maxsplit=1) for line in result.text().splitlines()[2:] if line.strip())
    assert [lines[row].split()[-1] for row in ("AU01", "mean")] == shown
    beside = published.beside("graphau", layout.name, backbone).values()
    table = tables.beside_paper(layout, result, "F1", beside)
    assert [row.name for row in table.rows[14:]] == [*added, "ours"]
    for name in added:
        assert f"its authors' README {name}" in table.caption


def test_another_layout_has_no_paper_table(tabulate, two_aus, tmp_path):
    tables.write(two_aus, tabulate(), "F1", {}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"f1.csv", "f1.json", "f1.md"}
