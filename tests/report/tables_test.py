# SPDX-License-Identifier: Apache-2.0
import csv
import json
import math
import pathlib

import numpy as np
import pytest

from mdhr_jax import errors, facs
from mdhr_jax.report import tables

PAPER_TABLES = pathlib.Path(__file__).parents[3] / "shared/paper_tables.json"

TWO_AUS = facs.AuLayout(
    name="two",
    aus=(1, 12),
    regions=(facs.Region("up", facs.UPPER, (1,)), facs.Region("down", facs.LOWER, (12,))),
    region_blocks=False,
    fps=25.0,
)
# Two people; tp, fp, tn, fn of two AUs: in all 6 2 8 4 and 1 0 3 0.
COUNTS = np.array([[[5, 2, 3, 0], [1, 0, 1, 0]], [[1, 0, 5, 4], [0, 0, 2, 0]]])
DETAILS = {"protocol": "official", "step": 1200, "test subjects": ["F001", "M002"], "frames": 20}


def _table(layout=TWO_AUS, counts=COUNTS, auc=(0.75, 1.0)):
    return tables.evaluation(layout, counts, np.array(auc), DETAILS)


def _cells(table, row):
    (values,) = [r.values for r in table.rows if r.name == row]
    return dict(zip(table.columns, values, strict=True))


def test_measures_equal_hand_computed_ones():
    table = _table()
    first, mean = _cells(table, "AU01"), _cells(table, "mean")
    assert first["F1"] == pytest.approx(12 / 18)
    assert first["bal. acc."] == pytest.approx((0.6 + 0.8) / 2)
    assert first["accuracy"] == pytest.approx(0.7)
    assert first["always-positive"] == pytest.approx(20 / 30)
    assert first["coin flip"] == pytest.approx(10 / 20)  # 5 hits, 5 misses, 5 false alarms
    assert mean["F1"] == pytest.approx((12 / 18 + 1) / 2)
    assert mean["ROC-AUC"] == 0.875
    assert _cells(table, "all AUs as one")["F1"] == pytest.approx(14 / 20)
    assert first["low"] <= first["F1"] <= first["high"]


def test_an_au_that_never_occurs_is_not_available_and_counted_both_ways():
    silent = COUNTS.copy()
    silent[:, 1] = [0, 1, 3, 0]
    table = _table(counts=silent, auc=(0.75, math.nan))
    assert math.isnan(_cells(table, "AU12")["F1"]) and math.isnan(_cells(table, "AU12")["low"])
    assert _cells(table, "mean")["F1"] == pytest.approx(12 / 18 / 2)
    assert _cells(table, "mean, occurring")["F1"] == pytest.approx(12 / 18)
    assert _cells(table, "mean")["ROC-AUC"] == 0.75


def test_text_is_aligned_percent_with_one_decimal():
    caption, header, *rows = _table().text().splitlines()
    assert caption == "protocol official, step 1200, test subjects F001 M002, frames 20"
    assert len({len(line) for line in (header, *rows)}) == 1
    assert rows[0].split()[:2] == ["AU01", "66.7"]


def test_markdown_holds_the_same_cells_as_text():
    cells = [line.strip("| ").split(" | ") for line in _table().markdown().splitlines()[2:4]]
    assert [line.split() for line in _table().text().splitlines()[2:4]] == cells


def test_csv_and_json_hold_the_same_unrounded_fractions():
    header, *lines = csv.reader(_table().csv().splitlines())
    stored = json.loads(_table().json())
    for name, *values in lines:
        row = stored["rows"][name]
        assert [row[column] for column in header[1:]] == [
            None if value == "n/a" else float(value) for value in values
        ]
    assert stored["rows"]["AU01"]["F1"] == pytest.approx(2 / 3, abs=1e-15)
    assert stored["details"]["test subjects"] == ["F001", "M002"]


def test_labels_that_are_all_unknown_are_refused():
    with pytest.raises(errors.InputError, match="none of 20 test frames has a known label"):
        _table(counts=0 * COUNTS)


@pytest.mark.parametrize(
    ("layout", "means"), [(facs.BP4D, ["66.6", "66.1"]), (facs.DISFA, ["64.9", "66.2"])]
)
def test_paper_means_are_shown_as_printed_in_the_paper(layout, means):
    n = len(layout.aus)
    lines = _table(layout, np.ones((2, n, 4), int), np.ones(n)).text().splitlines()
    (mean,) = [line for line in lines if line.startswith("mean  ")]
    assert mean.split()[-2:] == means


@pytest.mark.skipif(not PAPER_TABLES.exists(), reason="paper tables (../shared) are not here")
@pytest.mark.parametrize(
    ("layout", "key"), [(facs.BP4D, "table1_bp4d"), (facs.DISFA, "table2_disfa")]
)
def test_paper_rows_equal_the_transcribed_tables(layout, key):
    table = json.loads(PAPER_TABLES.read_text())[key]
    printed = {row["system"]: row for row in table["rows"]}
    assert tuple(table["aus"]) == layout.aus
    for name, f1 in tables.PAPER_F1[layout.name].items():
        row = printed[f"MDHR ({name})"]
        assert list(f1) == row["f1"]
        assert math.isclose(np.mean(f1), row["recomputed_avg"], abs_tol=0.006)
