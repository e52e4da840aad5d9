# SPDX-License-Identifier: Apache-2.0
import functools
import json
import pathlib

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from mdhr_jax import facs
from mdhr_jax.errors import InputError
from mdhr_jax.interop import files, names, official
from mdhr_jax.models import backbones, mdhr, swin
from mdhr_jax.numerics import steps
from mdhr_jax.verify import network

NAMES = pathlib.Path(__file__).parents[3] / "shared/reference/NAMES.json"
MODELS = pytest.mark.parametrize(
    ("layout", "backbone"),
    [
        (layout, backbone)
        for layout in (facs.BP4D, facs.DISFA)
        for backbone in ("resnet50", "swin_b")
    ],
    ids=lambda x: getattr(x, "name", x),
)

ROWS = names.table(facs.DISFA, "swin_b")


def _shapes(layout, backbone, features=512):
    slots = network.RELEASE | {"features": features}
    model = nnx.eval_shape(
        lambda: mdhr.MDHR(layout, backbone=backbone, k=2, rngs=nnx.Rngs(0), **slots)
    )
    _, params, batch_stats = steps.split(model)
    return {"params": params, "batch_stats": batch_stats}


@pytest.fixture
def swin_state(monkeypatch):
    """A state with Swin's structure and as little in it as possible, random numbers."""
    tiny = functools.partial(
        swin.Swin, width=2, depths=(2, 2, 3, 2), heads=(1, 1, 2, 2), drop_path=0.0
    )
    monkeypatch.setitem(backbones.BACKBONES, "swin_b", tiny)
    rng = np.random.default_rng(0)
    shapes = _shapes(facs.DISFA, "swin_b", features=3)
    state = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    return state | {"step": np.int32(7)}


@pytest.mark.slow
@pytest.mark.skipif(not NAMES.exists(), reason="the official names (../shared) are not here")
@MODELS
def test_names_order_shapes_and_types_are_the_official_ones(layout, backbone):
    kind = {"resnet50": "resnet", "swin_b": "swin_transformer"}[backbone]
    listed = json.loads(NAMES.read_text())[f"{layout.name.upper()}_{kind}"]
    # One number seen as an array of the right shape: the full models need no memory.
    state = jax.tree.map(
        lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), _shapes(layout, backbone)
    )
    found = official.export(state | {"step": 0}, names.table(layout, backbone))
    assert [[n, list(a.shape), str(a.dtype)] for n, a in found.items()] == listed


def test_out_and_in_is_the_identity_bit_for_bit(swin_state):
    arrays = official.export(swin_state, ROWS)
    back = official.load(arrays, swin_state, ROWS, "swin_b")
    jax.tree.map(np.testing.assert_array_equal, back, swin_state)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_a_state_dict_that_was_narrowed_as_a_whole_is_read(swin_state, tmp_path, dtype):
    arrays = official.export(swin_state, ROWS)
    narrow = {f"module.{name}": array.astype(dtype) for name, array in arrays.items()}
    files.write(tmp_path / "half.ckpt", narrow)
    back = official.load(files.read(tmp_path / "half.ckpt"), swin_state, ROWS, "swin_b")
    expected = jax.tree.map(lambda x: x.astype(dtype).astype(x.dtype), swin_state)
    jax.tree.map(np.testing.assert_array_equal, back, expected)


@pytest.mark.parametrize("count", [-1, 2**31, 0.5])
def test_a_count_of_batches_that_cannot_be_one_is_refused(swin_state, count):
    arrays = official.export(swin_state, ROWS)
    arrays["MFD.bn.num_batches_tracked"] = np.array(count)
    with pytest.raises(InputError, match="MFD.bn.num_batches_tracked is no count of batches"):
        official.load(arrays, swin_state, ROWS, "swin_b")


def test_everything_that_does_not_fit_is_named_at_once(swin_state):
    arrays = official.export(swin_state, ROWS)
    del arrays["TCN.bn.weight"]
    arrays["TCN.extra"] = np.zeros(3, np.float32)
    arrays["MFD.bn.weight"] = np.zeros(3)
    mask = "Backbone.layers.1.blocks.1.attn_mask"
    arrays[mask] = -arrays[mask]
    with pytest.raises(InputError) as error:
        official.load(arrays, swin_state, ROWS, "swin_b")
    for problem in (
        "4 entries do not fit swin_b:",
        "missing TCN.bn.weight",
        "left over TCN.extra",
        "MFD.bn.weight has type float64, expected float32",
        f"{mask} is another table than that of 7x7 windows",
    ):
        assert problem in str(error.value)


def test_backbones_are_found_in_mdhr_and_imagenet_files(swin_state):
    arrays = official.export(swin_state, ROWS)
    own = official.backbone_alone(arrays)
    imagenet = {name.removeprefix("Backbone."): array for name, array in own.items()}
    imagenet |= {"head.weight": np.zeros((1000, 16)), "head.bias": np.zeros(1000)}
    like = {part: {"backbone": swin_state[part].get("backbone", {})} for part in official.PARTS}
    for found in (own, official.backbone_alone(imagenet)):
        loaded = official.load(found, like, ROWS, "swin_b")
        jax.tree.map(np.testing.assert_array_equal, {p: loaded[p] for p in official.PARTS}, like)
