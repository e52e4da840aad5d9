# SPDX-License-Identifier: Apache-2.0
import math
import re

import pytest

from mdhr_jax import evaluate, facs
from mdhr_jax.configs import base, graphau
from mdhr_jax.models import backbones
from mdhr_jax.report import paper, published
from mdhr_jax.run import kinds
from mdhr_jax.run.recipe import Recipe
from tests.conftest import SHARED

SPEC = SHARED / "reference/graphau/SPEC.md"
BACKBONES = {
    "ResNet-50": "resnet50",
    "ResNet-101": "resnet101",
    "Swin-T": "swin_t",
    "Swin-S": "swin_s",
    "Swin-B": "swin_b",
}


def test_graphau_s_numbers_are_those_of_its_specification():
    if not SPEC.exists():
        pytest.skip(f"needs {SPEC.name} of GraphAU, in ../shared")
    text = SPEC.read_text().partition("## 12. ")[2].partition("\nOG ")[0]
    found = 0
    for layout, rows in re.findall(r"\| (BP4D|DISFA) \|.*\n\|[-|]+\n((?:\|.*\n)+)", text):
        for name, *numbers in (line.strip("| ").split(" | ") for line in rows.splitlines()):
            (system,) = published.beside("graphau", layout.lower(), BACKBONES[name]).values()
            assert [*system.f1, system.printed_mean] == list(map(float, numbers))
            assert abs(system.mean - system.printed_mean) < 0.06
            found += 1
    (means,) = re.findall("Means only: BP4D (.*?)\\. ", text)
    for name, mean in (entry.split() for entry in means.split(", ")):
        (system,) = published.beside("graphau", "bp4d", BACKBONES[name]).values()
        assert system.printed_mean == system.mean == float(mean)
        assert all(map(math.isnan, system.f1)) and len(system.f1) == len(facs.BP4D.aus)
        found += 1
    assert found == 7


def test_what_the_paper_quotes_is_its_own_row():
    (quoted,) = published.beside("graphau", "bp4d", "swin_b").values()
    assert any(quoted is system for system in paper.SYSTEMS["bp4d"])


def test_rows_name_kinds_layouts_and_backbones_that_there_are():
    for row in published._ROWS:
        assert row.kind in kinds.KINDS and row.layout in facs.LAYOUTS
        assert row.backbone in (None, *backbones.BACKBONES)
        assert len(row.system.f1) == len(facs.LAYOUTS[row.layout].aus)


def test_a_recipe_says_what_stands_beside_it():
    mdhr, own = base.get_config(), graphau.get_config()
    assert list(evaluate.beside(Recipe.of(mdhr))) == ["paper ResNet-50", "paper Swin-B"]
    assert list(evaluate.beside(Recipe.of(own))) == ["ME-GraphAU"]
    for key, value in {"model.backbone": "resnet_narrow", "layout": "opengraphau"}.items():
        own.update_from_flattened_dict({key: value})
        assert evaluate.beside(Recipe.of(own)) == {}
        own = graphau.get_config()
