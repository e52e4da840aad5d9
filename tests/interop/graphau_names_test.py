# SPDX-License-Identifier: Apache-2.0
"""The official state_dicts of all released configurations: names, order, shapes, and back."""

import json
import pathlib

import jax
import numpy as np
import pytest
from flax import nnx

from mdhr_jax import facs
from mdhr_jax.interop import graphau_names, names, official
from mdhr_jax.models import graphau
from mdhr_jax.numerics import steps

NAMES = pathlib.Path(__file__).parents[3] / "shared/reference/graphau/NAMES.json"
FEATURES = {"resnet18": 128, "resnet50": 512, "resnet101": 512, "swin_t": 384, "swin_s": 384}


def _trees(layout, backbone, **slots):
    """Parameters and statistics, as shapes."""
    filled = graphau.Slots(backbone=backbone, **slots)
    model = nnx.eval_shape(lambda: graphau.create(layout, filled, nnx.Rngs(0)))
    return steps.split(model)[1:]


def _entries(trees, layout, backbone):
    rows = graphau_names.table(layout, backbone)
    found = [entry for tree in trees for entry in names.entries(tree, rows)]
    return sorted(found, key=lambda entry: entry.place)


@pytest.mark.slow
@pytest.mark.skipif(not NAMES.exists(), reason="the names of the releases are in ../shared")
def test_names_order_shapes_and_types_are_the_releases():
    for config, expected in json.loads(NAMES.read_text()).items():
        family, *middle, stage = config.split("_")
        layout = facs.OPENGRAPHAU if family == "opengraph" else facs.LAYOUTS[middle.pop(0)]
        backbone = "_".join(middle)
        trees = _trees(
            layout,
            backbone,
            features=FEATURES.get(backbone, 512),
            relations={"stage1": "nearest", "stage2": "gated"}[stage],
            edge_head=family == "megraph",
            sides="released",
        )
        entries = _entries(trees, layout, backbone)
        arrays = {entry.name: np.broadcast_to(np.float32(0), entry.shape) for entry in entries}
        found = [
            [name, list(array.shape), str(array.dtype)]
            for name, array in official._with_computed(arrays, 0)
        ]
        assert found == expected, config


@pytest.mark.parametrize(("aus", "relations"), [("aus-1-2-L2", "gated"), ("aus-1-2", "nearest")])
def test_there_and_back_is_the_identity_bit_for_bit(aus, relations):
    layout, rng = facs.layout(aus), np.random.default_rng(0)
    slots = {"relations": relations, "features": 4, "neighbours": 1}
    for tree in _trees(layout, "resnet18", **slots):
        tree = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), tree)
        tree.pop("backbone")
        entries = _entries([tree], layout, "resnet18")
        arrays = names.to_official(tree, entries)
        jax.tree.map(
            np.testing.assert_array_equal, names.from_official(tree, entries, arrays), tree
        )


def test_an_edge_is_called_by_its_receiver_first():
    layout = facs.layout("aus-1-2-4")
    (_, stats) = _trees(layout, "resnet18", features=4)
    tree = {"relations": {"edge_norm": stats["relations"]["edge_norm"]}}
    tree["relations"]["edge_norm"]["mean"] = np.arange(9).reshape(3, 3, 1, 1)
    (mean, _) = _entries([tree], layout, "resnet18")
    assert mean.name == "head.edge_extractor.bn.running_mean"
    np.testing.assert_array_equal(mean.read(tree["relations"]["edge_norm"]["mean"]), np.arange(9))
