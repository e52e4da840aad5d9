# SPDX-License-Identifier: Apache-2.0
import json
import math
import pathlib

import pytest

from mdhr_jax import facs
from mdhr_jax.report import paper

TRANSCRIBED = pathlib.Path(__file__).parents[3] / "shared/paper_tables.json"


@pytest.mark.skipif(not TRANSCRIBED.exists(), reason="the paper's tables (../shared) are not here")
@pytest.mark.parametrize(
    ("layout", "key"), [(facs.BP4D, "table1_bp4d"), (facs.DISFA, "table2_disfa")]
)
def test_rows_equal_the_transcribed_tables(layout, key):
    table = json.loads(TRANSCRIBED.read_text())[key]
    assert tuple(table["aus"]) == layout.aus
    assert len(table["rows"]) == 14
    for system, row in zip(paper.SYSTEMS[layout.name], table["rows"], strict=True):
        assert (system.name, system.kind) == (row["system"], row["kind"])
        assert list(system.f1) == row["f1"]
        assert system.printed_mean == row["printed_avg"]
        assert math.isclose(system.mean, row["recomputed_avg"], abs_tol=0.006)


def test_four_printed_means_are_not_those_of_their_rows():
    misprinted = {
        (layout, system.name): (system.printed_mean, round(system.mean, 1))
        for layout, systems in paper.SYSTEMS.items()
        for system in systems
        if system.is_misprinted
    }
    assert misprinted == {
        ("bp4d", "EAC-Net"): (55.9, 55.6),
        ("disfa", "EAC-Net"): (48.5, 57.4),
        ("disfa", "SMA-Net"): (64.2, 62.4),
        ("disfa", "HSTR-Net"): (62.9, 67.1),
    }
