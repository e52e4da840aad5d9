# SPDX-License-Identifier: Apache-2.0
import csv
import json
import math
import pathlib

import numpy as np
import pytest

from mdhr_jax import errors, facs, metrics
from mdhr_jax.report import tables

PAPER_TABLES = pathlib.Path(__file__).parents[3] / "shared/paper_tables.json"

TWO_AUS = facs.AuLayout(
    name="two",
    aus=(1, 12),
    regions=(facs.Region("up", facs.UPPER, (1,)), facs.Region("down", facs.LOWER, (12,))),
    region_blocks=False,
    fps=25.0,
)
COUNTS = metrics.Counts(*np.array([[6, 1], [2, 0], [8, 3], [4, 0]]))
NOTHING = metrics.Counts(*np.zeros((4, 2), int))


def _table(layout=TWO_AUS, counts=COUNTS):
    return tables.evaluation(
        layout,
        counts,
        protocol="official",
        threshold=0.5,
        checkpoint="best",
        step=1200,
        subjects=("F001", "M002"),
        frames=20,
    )


def test_text_is_aligned_percent_with_one_decimal():
    assert _table().text().splitlines() == [
        "layout two, protocol official, threshold 0.5, checkpoint best, step 1200, "
        "test subjects F001 M002, frames 20",
        "                    AU01  AU12  mean",
        "F1                  66.7 100.0  83.3",
        "accuracy            70.0 100.0  85.0",
        "always-positive F1  66.7  40.0  53.3",
    ]


def test_markdown_holds_the_same_cells_as_text():
    cells = [line.strip("| ").split(" | ") for line in _table().markdown().splitlines()[2:5]]
    assert cells[0] == ["F1", "66.7", "100.0", "83.3"]
    assert [line.split() for line in _table().text().splitlines()[2:]] == [
        [*name.split(), *numbers] for name, *numbers in cells
    ]


def test_csv_and_json_hold_the_same_unrounded_fractions():
    header, *lines = csv.reader(_table().csv().splitlines())
    parsed = {name: dict(zip(header[1:], map(float, x), strict=True)) for name, *x in lines}
    stored = json.loads(_table().json())
    assert parsed == stored["rows"]
    assert parsed["F1"]["AU01"] == pytest.approx(2 / 3, abs=1e-15)
    assert stored["details"]["test subjects"] == ["F001", "M002"]


def test_an_au_without_labels_is_not_available_in_every_form():
    table = _table(counts=metrics.Counts(*(part * [1, 0] for part in COUNTS)))
    assert table.text().splitlines()[3].split() == ["accuracy", "70.0", "n/a", "70.0"]
    assert "| accuracy | 70.0 | n/a | 70.0 |" in table.markdown()
    assert "accuracy,0.7,n/a,0.7" in table.csv()
    assert json.loads(table.json())["rows"]["accuracy"]["AU12"] is None


def test_labels_that_are_all_unknown_are_refused():
    with pytest.raises(errors.InputError, match="none of 20 test frames has a known label"):
        _table(counts=NOTHING)


@pytest.mark.parametrize(("layout", "means"), [(facs.BP4D, "66.6 66.1"), (facs.DISFA, "64.9 66.2")])
def test_paper_means_are_shown_as_printed_in_the_paper(layout, means):
    counts = metrics.Counts(*np.ones((4, len(layout.aus)), int))
    lines = _table(layout, counts).text().splitlines()[-2:]
    assert [line.split()[-1] for line in lines] == means.split()


@pytest.mark.skipif(not PAPER_TABLES.exists(), reason="paper tables (../shared) are not here")
@pytest.mark.parametrize(
    ("layout", "key"), [(facs.BP4D, "table1_bp4d"), (facs.DISFA, "table2_disfa")]
)
def test_paper_rows_equal_the_transcribed_tables(layout, key):
    table = json.loads(PAPER_TABLES.read_text())[key]
    printed = {row["system"]: row for row in table["rows"]}
    assert tuple(table["aus"]) == layout.aus
    for name, f1 in tables.PAPER_F1[layout.name].items():
        row = printed[f"MDHR ({name.split()[1]})"]
        assert list(f1) == row["f1"]
        assert math.isclose(np.mean(f1), row["recomputed_avg"], abs_tol=0.006)
