# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import numpy as np
import pytest
from flax import nnx

from mdhr_jax import facs
from mdhr_jax.interop import names
from mdhr_jax.models import backbones, mdhr, resnet, swin
from mdhr_jax.numerics import steps
from mdhr_jax.verify import network

# The structure of the full models with as little in it as possible.
TINY = {
    "resnet50": functools.partial(resnet.ResNet, depths=(1, 2, 1, 1), width=2),
    "swin_b": functools.partial(
        swin.Swin, width=2, depths=(1, 2, 1, 1), heads=(1, 1, 2, 2), drop_path=0.0
    ),
}
MODELS = pytest.mark.parametrize(
    ("layout", "backbone"),
    [(layout, backbone) for layout in (facs.BP4D, facs.DISFA) for backbone in TINY],
    ids=lambda x: getattr(x, "name", x),
)


def _shapes(layout, backbone, features):
    """Parameters and statistics, as shapes."""
    slots = network.RELEASE | {"features": features}
    model = nnx.eval_shape(
        lambda: mdhr.MDHR(layout, backbone=backbone, k=2, rngs=nnx.Rngs(0), **slots)
    )
    _, params, batch_stats = steps.split(model)
    return params, batch_stats


def _random(tree):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), tree)


@pytest.fixture
def tiny(monkeypatch):
    """Random parameters and statistics of a tiny model, each with its entries."""

    def build(layout, backbone):
        monkeypatch.setitem(backbones.BACKBONES, backbone, TINY[backbone])
        trees = [_random(tree) for tree in _shapes(layout, backbone, features=3)]
        return [(tree, names.entries(tree, names.table(layout, backbone))) for tree in trees]

    return build


@MODELS
def test_every_leaf_is_named_and_every_name_is_given_once(tiny, layout, backbone):
    found = []
    for tree, entries in tiny(layout, backbone):
        official = names.to_official(tree, entries)
        assert sum(a.size for a in official.values()) == sum(a.size for a in jax.tree.leaves(tree))
        assert {entry.name: entry.shape for entry in entries} == {
            name: array.shape for name, array in official.items()
        }
        found += [entry.name for entry in entries]
    assert len(found) == len(set(found))


@MODELS
def test_names_and_back_is_the_identity_bit_for_bit(tiny, layout, backbone):
    for tree, entries in tiny(layout, backbone):
        back = names.from_official(tree, entries, names.to_official(tree, entries))
        jax.tree.map(np.testing.assert_array_equal, back, tree)


def test_arrays_take_the_official_layout(tiny):
    (params, entries), (stats, stat_entries) = tiny(facs.BP4D, "resnet50")
    official = names.to_official(params, entries) | names.to_official(stats, stat_entries)
    block = params["backbone"]["stages"][1][0]
    expected = {
        "Backbone.conv1.weight": params["backbone"]["stem"]["conv"]["kernel"].transpose(3, 2, 0, 1),
        "Backbone.layer2.0.conv1.weight": block["reduce"]["kernel"].T[:, :, None, None],
        "Backbone.layer2.0.downsample.0.weight": (
            block["shortcut"]["linear"]["kernel"].T[:, :, None, None]
        ),
        "global_linear.fc.weight": params["static"]["linear"]["kernel"].T,
        # Scale 2: our rows run over patch row, patch column, channel.
        "MFD.conv2.weight": params["dynamics"]["projections"][1]["convolution"]["kernel"]
        .reshape(4, 4, 16, 64)
        .transpose(3, 2, 0, 1),
        # AU15 is number 8 of the layout and number 2 of region 2.
        "LRM.class_linears.8.fc.weight": params["au_features"]["blocks"][2]["kernel"][:, 2].T,
        "LRM.class_linears.8.bn.running_var": (stats["au_features"]["blocks"][2]["norm"]["var"][2]),
        "TCN.temporal_cnn.8.weight": params["temporal"]["kernel"][:, 8].T[:, None],
        "CRM.gat.scoring_fn_target": params["edges"]["attention"]["target"][None, None],
    }
    for name, array in expected.items():
        np.testing.assert_array_equal(official[name], array, err_msg=name)


def test_a_leaf_without_a_row_is_refused_by_name():
    tree = {"static": {"linear": {"kernel": np.zeros((2, 2)), "gain": np.zeros(2)}}}
    with pytest.raises(ValueError, match="static.linear.gain matches 0 rows"):
        names.entries(tree, names.table(facs.BP4D, "resnet50"))


def test_missing_left_over_and_misshaped_entries_are_reported_together(tiny):
    params, entries = tiny(facs.DISFA, "resnet50")[0]
    official = names.to_official(params, entries)
    del official["TCN.bn.weight"]
    official["TCN.extra"] = np.zeros(3)
    official["node_classifier.sc"] = np.zeros((8, 4))
    assert names.problems(entries, official) == [
        ["missing TCN.bn.weight"],
        ["left over TCN.extra"],
        ["node_classifier.sc has shape (8, 4), expected (8, 3)"],
    ]
