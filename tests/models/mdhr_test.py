# SPDX-License-Identifier: Apache-2.0
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mdhr_jax import facs
from mdhr_jax.models import backbones, blocks, layers, mdhr, norms, views
from mdhr_jax.numerics import steps

LAYOUT = facs.AuLayout(
    "tiny",
    aus=(1, 2, 12, 25),
    regions=(facs.Region("up", (0, 4), (1, 2)), facs.Region("low", (3, 7), (12, 25))),
    region_blocks=True,
    fps=25.0,
)
DEFAULT = {
    "backbone": "strided",
    "dynamics": "multiscale",
    "scales": (3, 4),
    "k": 2,
    "features": 4,
    "window": "zero",
    "afe": "block",
    "auxiliary": True,
    "edges": "cross_region_activated",
    "temporal": True,
}
WITHOUT = {"dynamics": "none", "temporal": False}


def _combinations():
    """Allowed combinations in which every two kinds meet.

    The first is the default, the second has nothing; the others are slow.
    """
    slots = ("dynamics", "afe", "auxiliary", "edges", "temporal")
    tables = (mdhr.DYNAMICS, mdhr.AFE, mdhr.AUXILIARY, mdhr.EDGES, mdhr.TEMPORAL)
    found = [dict(zip(slots, kinds, strict=True)) for kinds in itertools.product(*tables)]
    found = [c for c in found if c["auxiliary"] or not mdhr.EDGES[c["edges"]].needs_heads]
    pairs = [set(itertools.combinations(combination.items(), 2)) for combination in found]
    chosen = [found[0], found[-1]]
    unmet = set.union(*pairs) - pairs[0] - pairs[-1]
    while unmet:
        most = max(range(len(found)), key=lambda i: len(pairs[i] & unmet))
        chosen.append(found[most])
        unmet -= pairs[most]
    for number, combination in enumerate(chosen):
        marks = pytest.mark.slow if number > 1 else ()
        yield pytest.param(combination, id="-".join(map(str, combination.values())), marks=marks)


class Strided(nnx.Module):
    """Every eighth pixel, dropped now and then: what a backbone must offer and no more."""

    channels, features, image_multiple = (4, 4, 4, 4), 4, 8

    def __init__(self, *, rngs):
        self.linear = layers.Linear(3, 4, rngs=rngs)
        self.drop_path = layers.DropPath(0.5)

    def __call__(self, frames, key=None):
        flat = frames.reshape(-1, *frames.shape[2:])
        x = self.drop_path(self.linear(flat), key).reshape(*frames.shape[:-1], 4)
        maps = [x[:, :, ::stride, ::stride] for stride in (1, 2, 4, 8)]
        return maps[-1], maps


@pytest.fixture(autouse=True)
def strided(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "strided", Strided)


def _build(layout=LAYOUT, **changes):
    return nnx.eval_shape(lambda: mdhr.MDHR(layout, **DEFAULT | changes, rngs=nnx.Rngs(0)))


def _clips(size=8):
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, size, size, 3)), jnp.float32)


@pytest.fixture
def split(make):
    """Graph definition, parameters and statistics of a model as it runs in a view."""

    def build(view, layout=LAYOUT, **changes):
        model = make(mdhr.MDHR, layout, **DEFAULT | changes)
        return steps.split(view(model))

    return build


@pytest.fixture
def gradients_of(split):
    """Losses, gradients and outputs of one training pass on random labels."""

    def run(region_weight=0.5, au_weight=1.0, **slots):
        view = functools.partial(views.train_view, dtype=jnp.float32)
        graph, params, stats = split(view, **slots)
        labels = jnp.asarray(np.random.default_rng(1).integers(0, 2, (2, 3, 4)), jnp.int32)
        mask = jnp.ones((2, 3, 4), bool)
        objective = steps.Objective(LAYOUT, (au_weight,) * 4, region_weight)

        def one_pass(params, stats, clips):
            return steps.loss_and_gradients(
                graph, objective, params, stats, clips, labels, mask, jax.random.key(0)
            )

        losses, gradients, _, outputs = jax.jit(one_pass)(params, stats, _clips())
        return losses, gradients, outputs

    return run


@pytest.mark.parametrize("slots", list(_combinations()))
def test_every_allowed_combination_of_slots_trains(gradients_of, slots):
    losses, gradients, outputs = gradients_of(**slots)
    assert np.isfinite(losses["loss"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert any(leaf.any() for leaf in jax.tree.leaves(gradients["backbone"]))
    assert outputs["scores"].shape == (2, 3, 4)
    assert 0 <= outputs["scores"].min() and outputs["scores"].max() <= 1 + 1e-6
    shapes = [z.shape for z in outputs["region_logits"]]
    assert shapes == ([(2, 3, 4), (2, 3, 4)] if slots["auxiliary"] else [])


def test_the_au_loss_does_not_train_the_heads(gradients_of):
    _, gradients, _ = gradients_of(region_weight=0.0, **WITHOUT)
    for leaf in jax.tree.leaves(gradients["heads"]):
        np.testing.assert_array_equal(leaf, 0)
    assert gradients["au_features"]["blocks"][0]["kernel"].any()


def test_the_region_loss_trains_the_heads_and_not_the_au_branch(gradients_of):
    _, gradients, _ = gradients_of(au_weight=0.0, **WITHOUT)
    for slot in ("au_features", "edges", "classifier"):
        for leaf in jax.tree.leaves(gradients[slot]):
            np.testing.assert_array_equal(leaf, 0)
    assert gradients["heads"]["heads"][0]["kernel"].any()


def test_activated_edges_without_heads_are_refused():
    with pytest.raises(
        ValueError, match="edges='cross_region_activated' needs.*set auxiliary=True"
    ):
        _build(auxiliary=False)


@pytest.mark.parametrize(
    ("slot", "choices"),
    [
        ("backbone", "resnet18, resnet50, resnet101, resnet_narrow, swin_t, swin_s, swin_b"),
        ("dynamics", "multiscale, sum, concatenation, none"),
        (
            "edges",
            "cross_region_activated, cross_region_full, within_region, fully_connected, none",
        ),
    ],
)
def test_an_unknown_kind_is_refused_with_the_choices(slot, choices):
    with pytest.raises(ValueError, match=f"{slot}='other' is unknown; choose from {choices}"):
        _build(**{slot: "other"})


@pytest.mark.parametrize("shape", [(12, 12), (8, 16)])
def test_an_image_size_that_the_backbone_does_not_take_is_refused(shape):
    graph, params, stats = steps.split(views.eval_view(_build(), dtype=jnp.float32))
    clips = jax.ShapeDtypeStruct((1, 2, *shape, 3), jnp.float32)
    with pytest.raises(ValueError, match=f"multiple of 8 pixels, not {shape[0]}x{shape[1]}"):
        jax.eval_shape(lambda *a: steps.forward(graph, *a), params, stats, clips)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "size"),
    [("resnet50", 32), pytest.param("swin_b", 224, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("layout", [facs.BP4D, facs.DISFA], ids=lambda x: x.name)
def test_the_full_models_have_the_documented_outputs(layout, backbone, size):
    model = _build(layout, backbone=backbone, features=512, scales=(1, 2, 3, 4), k=5)
    graph, params, stats = steps.split(views.eval_view(model, dtype=jnp.float32))
    clips = jax.ShapeDtypeStruct((1, 2, size, size, 3), jnp.float32)
    outputs, _ = jax.eval_shape(lambda *a: steps.forward(graph, *a), params, stats, clips)
    n, grid = len(layout.aus), size // 32
    assert outputs["scores"].shape == (1, 2, n)
    assert [z.shape[-1] for z in outputs["region_logits"]] == [
        region.combinations for region in layout.regions
    ]
    for name in ("static", "motion"):
        assert outputs[name].shape == (1, 2, grid, grid, 512)
    for name in ("nodes", "graph", "temporal"):
        assert outputs[name].shape == (1, 2, n, 512)
    assert outputs["scale_weights"].shape == (1, 2, grid, grid, 4)
    assert outputs["senders"].shape == (1, 2, n)
    for name in ("adjacency", "attention"):
        assert outputs[name].shape == (1, 2, n, n)


@pytest.mark.parametrize(
    ("blocks", "afe", "auxiliary", "expected"),
    [
        (True, "block", False, True),
        (True, "none", True, True),
        (True, "none", False, False),
        (False, "block", True, False),
    ],
)
def test_region_blocks_exist_where_the_layout_wants_them_and_something_reads_them(
    blocks, afe, auxiliary, expected
):
    layout = facs.AuLayout("x", LAYOUT.aus, LAYOUT.regions, region_blocks=blocks, fps=25.0)
    _, params, _ = steps.split(_build(layout, afe=afe, auxiliary=auxiliary, edges="none"))
    assert ("regions" in params) == expected


def test_a_calm_model_begins_without_mixing_frames():
    model = mdhr.MDHR(LAYOUT, **DEFAULT, rngs=nnx.Rngs(0))
    mdhr.calm(model)
    np.testing.assert_array_equal(model.dynamics.fusion.norm.scale[...], np.float32(0.1))
    model.temporal.norm.use_running_average = True
    nodes = np.random.default_rng(0).normal(size=(1, 3, 4, 4)).astype(np.float32)
    expected = np.maximum(nodes / np.sqrt(1 + 1e-5), 0)
    np.testing.assert_allclose(model.temporal(jnp.asarray(nodes)), expected, atol=1e-6)


@pytest.mark.parametrize("slots", [{"dynamics": "none"}, {"temporal": False}])
def test_a_model_without_dynamics_or_filter_can_begin_calm(slots):
    mdhr.calm(mdhr.MDHR(LAYOUT, **DEFAULT | slots, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    "slots",
    [
        {"dynamics": "none"},
        {"afe": "none", "auxiliary": False, "edges": "none"},
        {"temporal": False},
    ],
)
def test_what_fills_a_slot_does_not_change_the_values_of_the_others(slots):
    """Initial values, so that a comparison of variants begins as alike as it can."""
    trees = [
        steps.split(mdhr.MDHR(LAYOUT, **DEFAULT | changes, rngs=nnx.Rngs(0)))[1]
        for changes in ({}, slots)
    ]
    full, without = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in trees)
    shared = [path for path in full if path in without and full[path].shape == without[path].shape]
    assert len(shared) > len(without) // 2
    for path in shared:
        np.testing.assert_array_equal(full[path], without[path], err_msg=str(path))


def test_in_testing_clips_are_independent_and_statistics_stay(split):
    graph, params, stats = split(functools.partial(views.eval_view, dtype=jnp.float32))
    run = jax.jit(lambda clips: steps.forward(graph, params, stats, clips))
    clips = np.asarray(_clips())
    outputs, after = run(clips)
    moved, _ = run(np.stack([clips[0], clips[0]]))
    scores, moved = np.asarray(outputs["scores"]), np.asarray(moved["scores"])
    np.testing.assert_array_equal(scores[0], moved[0])
    assert (scores[1] != moved[1]).any()
    jax.tree.map(np.testing.assert_array_equal, after, stats)


def test_static_features_are_of_the_frames_between_the_neighbours(make_in_testing):
    slots = {"scales": (4,), "window": "neighbours", "afe": "none", "auxiliary": False}
    slots |= {"edges": "none", "temporal": False}
    model = make_in_testing(mdhr.MDHR, LAYOUT, **DEFAULT | slots)
    graph, *values = steps.split(model)
    clips = jax.random.normal(jax.random.key(0), (1, 7, 8, 8, 3))
    outputs, _ = jax.jit(functools.partial(steps.forward, graph))(*values, clips)
    expected = model.static(outputs["tokens"][:, 2:-2])
    np.testing.assert_allclose(outputs["static"], expected, rtol=1e-5, atol=1e-6)
    assert outputs["scores"].shape == (1, 3, 4)


def test_training_and_testing_views_differ_in_mode_only():
    model = _build()
    training = views.train_view(model, dtype=jnp.bfloat16, groups=2)
    testing = views.eval_view(model, dtype=jnp.float32)
    _, *train_trees = steps.split(training)
    _, *test_trees = steps.split(testing)
    assert jax.tree.map(jnp.shape, train_trees) == jax.tree.map(jnp.shape, test_trees)

    def modes(view):
        norm, drop_path = view.static.norm, view.backbone.drop_path
        return norm.dtype, norm.groups, norm.use_running_average, drop_path.deterministic

    assert modes(training) == (jnp.bfloat16, 2, False, False)
    assert modes(testing) == (jnp.float32, 1, True, True)
    undropped = views.train_view(model, dtype=jnp.float32, drop_path=False)
    assert modes(undropped) == (jnp.float32, 1, False, True)


def _scores(view, clips):
    graph, *values = steps.split(view)
    return jax.jit(lambda values: steps.forward(graph, *values, clips)[0]["scores"])(values)


@pytest.mark.parametrize(
    "slots",
    [
        pytest.param({"backbone": "resnet_narrow", "scales": (1, 2, 3, 4)}, marks=pytest.mark.slow),
        {"dynamics": "sum", "afe": "convolution"},
        {"dynamics": "concatenation", "afe": "none", "temporal": False},
    ],
    ids=lambda slots: "-".join(map(str, slots.values())),
)
def test_the_folded_view_scores_as_the_evaluation_s(make, slots):
    model = make(mdhr.MDHR, LAYOUT, **DEFAULT | slots)
    clips = jax.random.normal(jax.random.key(0), (2, 4, 64, 64, 3))
    with jax.enable_x64(True):
        graph, state = nnx.split(model)
        model = nnx.merge(graph, jax.tree.map(lambda x: x.astype(jnp.float64), state))
        expected = _scores(views.eval_view(model, dtype=jnp.float64), clips)
        folded = views.folded_view(model, dtype=jnp.float64)
        np.testing.assert_allclose(_scores(folded, clips), expected, rtol=1e-12)
        again = _scores(views.eval_view(model, dtype=jnp.float64), clips)
    np.testing.assert_array_equal(again, expected)
    assert set(steps.split(folded)[2]) <= {"temporal"}  # a norm over features is not folded


def test_the_folded_view_rounds_kernels_after_folding(make):
    model = make(mdhr.MDHR, LAYOUT, **DEFAULT)
    folded = views.folded_view(model, dtype=jnp.bfloat16)
    linear, norm = model.static.linear, model.static.norm
    kernel = linear.kernel[...] * (norm.scale[...] / jnp.sqrt(norm.var[...] + norm.epsilon))
    assert folded.static.linear.kernel[...].dtype == jnp.bfloat16
    np.testing.assert_allclose(folded.static.linear.kernel[...], kernel, rtol=2**-8)
    assert folded.edges.attention.source[...].dtype == jnp.float32
    assert folded.classifier.class_vectors[...].dtype == jnp.float32


class Doubled(blocks.LinearBlock):
    def __call__(self, x):
        return self.norm(2 * self.linear(x))


def test_a_block_that_computes_otherwise_is_not_folded(make):
    """`LinearBlock.fold` would leave the factor out of the norm's statistics."""
    model = make(mdhr.MDHR, LAYOUT, **DEFAULT)
    model.static = make(Doubled, 4, 4)
    folded = views.folded_view(model, dtype=jnp.float32)
    assert isinstance(folded.static.norm, norms.BatchNorm)
    assert isinstance(folded.dynamics.fusion.norm, layers.Rectifier)
    expected = _scores(views.eval_view(model, dtype=jnp.float32), _clips())
    np.testing.assert_allclose(_scores(folded, _clips()), expected, rtol=1e-5)


def test_bfloat16_mode_keeps_statistics_softmaxes_and_scores_in_float32(split):
    found = {}
    for dtype in (jnp.bfloat16, jnp.float32):
        view = functools.partial(views.train_view, dtype=dtype, drop_path=False)
        graph, params, stats = split(view)
        found[dtype] = jax.jit(functools.partial(steps.forward, graph))(params, stats, _clips())
    outputs, stats = found[jnp.bfloat16]
    for leaf in jax.tree.leaves(stats):
        assert leaf.dtype == jnp.float32
    for name in ("scores", "scale_weights", "attention"):
        assert outputs[name].dtype == jnp.float32, name
    for name in ("tokens", "static", "motion", "nodes", "graph", "temporal"):
        assert outputs[name].dtype == jnp.bfloat16, name
    expected = found[jnp.float32][0]["scores"]
    np.testing.assert_allclose(outputs["scores"], expected, atol=0.1)


def test_gradients_of_bfloat16_mode_are_float32():
    graph, params, stats = steps.split(views.train_view(_build(), dtype=jnp.bfloat16))
    labels = jax.ShapeDtypeStruct((2, 3, 4), jnp.int32)
    objective = steps.Objective(LAYOUT, (1.0,) * 4, 0.01)
    losses, gradients, _, _ = jax.eval_shape(
        lambda params, stats, clips, labels: steps.loss_and_gradients(
            graph, objective, params, stats, clips, labels, labels >= 0, jax.random.key(0)
        ),
        params,
        stats,
        _clips(),
        labels,
    )
    assert {leaf.dtype for leaf in jax.tree.leaves((losses, gradients))} == {jnp.dtype("float32")}
