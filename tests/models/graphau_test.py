# SPDX-License-Identifier: Apache-2.0
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mdhr_jax import facs
from mdhr_jax.models import au_graph, graphau, mdhr, views
from mdhr_jax.numerics import steps

AUS = facs.layout("aus-1-4-11-12")
SIDED = facs.layout("aus-1-4-11-12-L1-L12-R12")
CLOSE = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
STAGES = pytest.mark.parametrize("relations", ["nearest", "gated"])


@pytest.fixture
def build(make):
    """A narrow model with values as after some training."""

    def build(layout=AUS, **slots):
        narrow = graphau.Slots(backbone="resnet_narrow", features=6, neighbours=2)
        return make(graphau.create, layout, dataclasses.replace(narrow, **slots))

    return build


def _static(clips=2, frames=3, dtype=np.float32):
    """Static features, as after a backbone and its linear block."""
    rng = np.random.default_rng(0)
    return np.maximum(rng.normal(size=(clips, frames, 2, 2, 6)), 0).astype(dtype)


def _relate(model, static):
    """Outputs and new statistics, without the backbone, which would be most of the time."""
    graph, *state = steps.split(model)

    def run(state, static):
        merged = nnx.merge(graph, *state)
        outputs = merged.relate(static)
        return outputs, nnx.to_pure_dict(nnx.state(merged.relations, nnx.BatchStat))

    return jax.jit(run)(state, static)


def test_the_defaults_are_the_releases_second_stage_with_resnet50():
    model = nnx.eval_shape(lambda: graphau.create(facs.BP4D, graphau.Slots(), nnx.Rngs(0)))
    graph, *state = steps.split(views.eval_view(model, dtype=jnp.float32))
    params, batch_stats = state
    assert sorted(params) == ["au_features", "backbone", "classifier", "relations", "static"]
    assert params["relations"]["edge_norm"]["scale"].shape == (12, 12, 1, 1)
    assert batch_stats["relations"]["layers"][1]["node_norm"]["mean"].shape == (12, 1)
    frames = jax.ShapeDtypeStruct((2, 1, 64, 64, 3), jnp.float32)
    outputs, _ = jax.eval_shape(functools.partial(steps.forward, graph), *state, frames)
    assert outputs["scores"].shape == (2, 1, 12)
    assert outputs["edge_logits"].shape == (2, 1, 144, 4)
    assert outputs["pair_maps"].shape == (2, 1, 12, 12, 4, 512)


def test_an_image_size_that_the_backbone_does_not_take_is_refused(build):
    with pytest.raises(ValueError, match="square images of a multiple of 32 pixels, not 32x64"):
        build()(jnp.zeros((1, 1, 32, 64, 3)))


@pytest.mark.parametrize("relations", graphau.RELATIONS)
@pytest.mark.parametrize("layout", [AUS, SIDED], ids=["both sides", "one side"])
def test_scores_are_those_of_the_layout(build, relations, layout):
    model = views.eval_view(build(layout, relations=relations), dtype=jnp.float32)
    outputs, _ = _relate(model, _static())
    assert outputs["scores"].shape == (2, 3, len(layout.aus))
    assert (outputs["scores"] >= 0).all() and (outputs["scores"] <= 1 + 1e-6).all()
    gated = relations == "gated"
    assert np.shape(outputs["edge_logits"]) == ((2, 3, 16, 4) if gated else (0,))


@STAGES
def test_frames_of_many_clips_are_as_single_frames(build, relations):
    """Time means nothing, in training neither: all frames are one batch."""
    model = build(relations=relations)
    together, apart = _static(2, 3), _static(2, 3).reshape(6, 1, 2, 2, 6)
    for view in (views.eval_view, views.train_view):
        (outputs, stats), (single, others) = (
            _relate(view(model, dtype=jnp.float32), static) for static in (together, apart)
        )
        CLOSE(outputs["scores"].reshape(6, 1, -1), single["scores"])
        jax.tree.map(CLOSE, stats, others)


@STAGES
def test_groups_of_clips_have_statistics_of_their_own(build, relations):
    model, static = build(relations=relations), _static(4, 1)
    run = functools.partial(views.train_view, model, dtype=jnp.float32)
    both, stats = _relate(run(groups=2), static)
    first, first_stats = _relate(run(), static[:2])
    CLOSE(both["scores"][:2], first["scores"])
    jax.tree.map(CLOSE, stats, first_stats)  # running statistics follow the first group


@STAGES
def test_the_folded_view_scores_like_the_evaluated_one(build, relations):
    with jax.enable_x64(True):
        model = build(SIDED, relations=relations)
        wide = jax.tree.map(lambda x: x.astype(jnp.float64), nnx.state(model))
        model, static = nnx.merge(nnx.graphdef(model), wide), _static(dtype=np.float64)
        evaluated, folded = (
            _relate(view(model, dtype=jnp.float64), static)[0]
            for view in (views.eval_view, views.folded_view)
        )
        np.testing.assert_allclose(folded["scores"], evaluated["scores"], atol=1e-12)
        if relations == "gated":  # averaged before anything is made of all positions
            assert folded["edge_maps"].shape == (2, 3, 4, 4, 1, 6)
            assert evaluated["edge_maps"].shape == (2, 3, 4, 4, 4, 6)


def test_half_precision_keeps_what_decides_in_float32(build):
    outputs, _ = _relate(views.eval_view(build(relations="nearest"), dtype=jnp.bfloat16), _static())
    assert outputs["graph"].dtype == jnp.bfloat16
    assert outputs["similarity"].dtype == outputs["scores"].dtype == jnp.float32


def test_all_that_equal_the_last_neighbour_are_neighbours():
    similarity = jnp.array([[3.0, 1.0, 2.0], [0.0, 0.0, 0.0], [1.0, 2.0, 2.0]])
    np.testing.assert_array_equal(
        au_graph.nearest(similarity, 2), [[1, 0, 1], [1, 1, 1], [0, 1, 1]]
    )
    np.testing.assert_array_equal(au_graph.nearest(similarity, 3), np.ones((3, 3)))


def test_a_graph_is_normalised_by_the_sums_of_rows_on_both_sides():
    adjacency = jnp.array([[1, 1, 1, 1], [0, 1, 0, 0], [1, 0, 1, 1], [0, 1, 0, 0]])
    expected = adjacency / np.sqrt(np.outer([4, 1, 3, 1], [4, 1, 3, 1]))
    np.testing.assert_allclose(au_graph.normalised(adjacency), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("metric", "nearest"),
    [("dots", 1), ("cosine", 2), ("manhattan", 3), ("euclidean", 4)],
)
def test_metrics_find_who_is_near(metric, nearest):
    nodes = np.array([[1, 0], [9, 9], [2, 0.1], [0, 0], [0.4, -0.7]], np.float32)
    similarity = au_graph.METRICS[metric](jnp.asarray(nodes)[None, None])[0, 0]
    assert similarity[0, 1:].argmax() + 1 == nearest


def test_no_gradient_passes_through_the_graph(build):
    """The gradient of the nodes is that with the graph held still."""
    relations = views.eval_view(build(relations="nearest"), dtype=jnp.float32).relations
    graph, *state = steps.split(relations)
    rng = np.random.default_rng(0)
    nodes, factors = (jnp.asarray(rng.normal(size=(1, 1, 4, 6)), jnp.float32) for _ in range(2))
    maps = jnp.zeros((1, 1, 4, 1, 6))

    def total(nodes, metric):
        relations = nnx.merge(graph, *state)
        relations.metric = metric
        return (factors * relations(maps[:, :, 0], maps, nodes)[0]).sum()

    held = au_graph.METRICS["dots"](nodes)
    ours, expected = (
        jax.grad(total)(nodes, metric) for metric in (au_graph.METRICS["dots"], lambda _: held)
    )
    np.testing.assert_array_equal(ours, expected)
    assert np.abs(ours).max() > 0


@pytest.mark.parametrize(("sides", "host"), [("released", 11), ("own", 12)])
def test_sides_hang_on_the_node_of_their_au_but_aus_12_of_the_release(build, sides, host):
    """Scores do not change with other nodes."""
    classifier = build(SIDED, sides=sides).side_classifier
    nodes = np.random.default_rng(0).uniform(size=(1, 1, 4, 6)).astype(np.float32)
    before = classifier(jnp.asarray(nodes))
    changed = np.stack(
        [
            np.asarray(classifier(jnp.asarray(nodes).at[:, :, n, 0].add(1.0)) != before)[0, 0]
            for n in range(4)
        ]
    )
    expected = [[au == 1, au == host, au == host] for au in (1, 4, 11, 12)]
    np.testing.assert_array_equal(changed, expected)


@pytest.mark.parametrize(
    ("layout", "slots", "message"),
    [
        ("aus-1-12-L12", {"sides": "released"}, "AU L12 hangs on AU 11, which the layout has not"),
        ("aus-1-L12", {}, "AU L12 hangs on AU 12, which the layout has not"),
        ("aus-1-L1-4", {}, "name the AUs of one side after the others"),
        ("aus-1-4", {"relations": "nearest", "neighbours": 3}, "neighbours=3: give 1 to 2"),
        ("aus-1-4", {"relations": "far"}, "relations='far' is unknown"),
        ("aus-1-4", {"relations": "none", "metric": "far"}, "metric='far' is unknown"),
    ],
)
def test_what_does_not_fit_is_refused(build, layout, slots, message):
    with pytest.raises(ValueError, match=message):
        build(facs.layout(layout), **slots)


@pytest.mark.slow
def test_stages_share_the_initial_values_of_what_they_share():
    slots = graphau.Slots(backbone="resnet_narrow", features=6)
    first, second = (
        steps.split(graphau.create(AUS, dataclasses.replace(slots, relations=kind), nnx.Rngs(0)))[1]
        for kind in ("nearest", "gated")
    )
    del first["relations"], second["relations"]
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_initial_values_spread_as_the_releases():
    relations = au_graph.GatedGraph(
        3, 256, update=au_graph.UPDATES["activated_sum"], edge_head=True, rngs=nnx.Rngs(0)
    )
    for module, expected in [
        (relations.pair_attention.query, (2 / 128) ** 0.5),
        (relations.pair_attention.value, (2 / 256) ** 0.5),
        (relations.layers[1].others, (2 / 256) ** 0.5),
        (relations.head, (6 / 260 / 3) ** 0.5),
    ]:
        np.testing.assert_allclose(module.kernel[...].std(), expected, rtol=0.1)
    bias = relations.edge.bias[...]
    assert np.abs(bias).max() <= 1 / 16 and np.abs(bias).max() > 0.05
    assert relations.layers[0].edge.bias is None


def test_mdhr_takes_aus_of_one_side(make):
    slots = {"dynamics": "none", "scales": (1,), "k": 1, "window": "zero", "afe": "block"}
    heads = {"auxiliary": True, "edges": "cross_region_activated", "temporal": True}
    model = make(mdhr.MDHR, SIDED, backbone="resnet_narrow", features=4, **slots, **heads)
    graph, *state = steps.split(model)
    frames = jax.ShapeDtypeStruct((1, 2, 32, 32, 3), jnp.float32)
    outputs, _ = jax.eval_shape(functools.partial(steps.forward, graph), *state, frames)
    assert outputs["scores"].shape == (1, 2, 7)
    assert [logits.shape[-1] for logits in outputs["region_logits"]] == [8, 16]
