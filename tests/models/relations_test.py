# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdhr_jax import facs
from mdhr_jax.models import relations

D = 3
LAYOUTS = pytest.mark.parametrize("layout", [facs.BP4D, facs.DISFA], ids=lambda x: x.name)


def _normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _logits(layout, *combinations):
    """Region logits of one frame that favour these combinations."""
    return tuple(
        jnp.asarray(np.eye(region.combinations, dtype=np.float32)[[[c]]])
        for region, c in zip(layout.regions, combinations, strict=True)
    )


def _per_region(module, layout):
    """For every region a block of an AFE module, a map, and the nodes of the region's AUs."""
    maps = [_normal(1, 2, 2, 3, D, seed=r) for r, _ in enumerate(layout.regions)]
    nodes = np.asarray(module(maps[0], maps))
    own = [nodes[:, :, layout.au_indices(region)] for region in layout.regions]
    return zip(module.blocks, maps, own, strict=True)


def test_region_maps_are_the_regions_rows(make_in_testing):
    fused = _normal(2, 3, 7, 7, D)
    grid = np.asarray(fused)
    up, mid, down1, down2 = make_in_testing(relations.RegionSlices, facs.BP4D, D)(fused)
    np.testing.assert_array_equal(up, grid[:, :, 0:3])
    np.testing.assert_array_equal(mid, grid[:, :, 2:5])
    np.testing.assert_array_equal(down1, grid[:, :, 4:7])
    np.testing.assert_array_equal(down2, grid[:, :, 4:7])


def test_region_blocks_pass_each_slice_through_its_own_block(make_in_testing):
    fused = _normal(1, 2, 7, 7, D)
    module = make_in_testing(relations.RegionBlocks, facs.BP4D, D)
    slices = make_in_testing(relations.RegionSlices, facs.BP4D, D)(fused)
    found = module(fused)
    for block, part, expected in zip(module.blocks, slices, found, strict=True):
        np.testing.assert_array_equal(block(part), expected)
    assert not np.allclose(found[2], found[3])  # the same rows, another block


@LAYOUTS
def test_every_au_reads_its_own_region_only(make_in_testing, layout):
    module = make_in_testing(relations.RegionalFeatures, layout, D)
    maps = [_normal(1, 2, 2, 3, D, seed=r) for r, _ in enumerate(layout.regions)]
    run = jax.jit(lambda maps: module(maps[0], maps))
    nodes = np.asarray(run(maps))
    assert nodes.shape == (1, 2, len(layout.aus), D)
    for r, region in enumerate(layout.regions):
        moved = [_normal(*m.shape, seed=9) if i == r else m for i, m in enumerate(maps)]
        changed = (np.asarray(run(moved)) != nodes).any((0, 1, 3))
        np.testing.assert_array_equal(changed, [au in region.aus for au in layout.aus])


def test_an_aus_feature_is_the_average_of_its_block(make_in_testing):
    module = make_in_testing(relations.RegionalFeatures, facs.DISFA, D)
    for block, region_map, nodes in _per_region(module, facs.DISFA):
        averaged = np.asarray(block(region_map)).mean((2, 3))
        np.testing.assert_allclose(nodes, averaged, rtol=1e-5, atol=1e-6)


def test_without_afe_the_aus_nodes_are_equal_and_see_the_whole_map(make_in_testing):
    module = make_in_testing(relations.SharedFeatures, facs.DISFA, D)
    fused = _normal(1, 2, 7, 7, D)
    nodes = module(fused, [])
    assert nodes.shape == (1, 2, 8, D)
    expected = np.asarray(module.block(fused)).mean((2, 3))
    for node in np.moveaxis(np.asarray(nodes), 2, 0):
        np.testing.assert_allclose(node, expected, rtol=1e-5, atol=1e-6)


def test_heads_classify_the_average_of_each_regions_map(make_in_testing):
    module = make_in_testing(relations.CombinationHeads, facs.DISFA, D)
    maps = [_normal(1, 2, 3, 7, D, seed=r) for r in range(3)]
    logits = module(maps)
    assert [z.shape for z in logits] == [(1, 2, 8), (1, 2, 4), (1, 2, 8)]
    for head, m, z in zip(module.heads, maps, logits, strict=True):
        kernel, bias = np.asarray(head.kernel[...]), np.asarray(head.bias[...])
        expected = np.asarray(m).mean((2, 3)) @ kernel + bias
        np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-6)


def test_without_heads_there_are_no_logits(make_in_testing):
    assert make_in_testing(relations.NoHeads, facs.DISFA, D)([]) == ()


def test_active_aus_are_the_bits_of_the_most_likely_combinations():
    # Hand-made: AU1 and AU7, no AU6, AU15, AU10 and AU17 (first AU = most significant bit).
    active = relations.active_aus(facs.BP4D, _logits(facs.BP4D, 0b1001, 0, 0b001, 0b1100))
    expected = np.isin(facs.BP4D.aus, [1, 7, 15, 10, 17])
    np.testing.assert_array_equal(active[0, 0], expected)


def test_senders_are_the_active_aus_of_other_regions_and_the_node_itself(make_in_testing):
    module = make_in_testing(relations.CrossRegionActivated, facs.BP4D, D)
    _, extra = module(_normal(1, 1, 12, D), _logits(facs.BP4D, 0b1001, 0, 0b001, 0b1100))
    group = {1: 0, 2: 0, 4: 0, 7: 0, 6: 1, 12: 2, 14: 2, 15: 2, 10: 3, 17: 3, 23: 3, 24: 3}
    active = {1, 7, 15, 10, 17}
    expected = [
        [int(n == m or (m in active and group[n] != group[m])) for m in facs.BP4D.aus]
        for n in facs.BP4D.aus
    ]
    np.testing.assert_array_equal(extra["adjacency"][0, 0], expected)
    np.testing.assert_array_equal(extra["attention"][0, 0] > 0, np.array(expected) > 0)


def test_no_active_au_leaves_the_self_edges(make_in_testing):
    module = make_in_testing(relations.CrossRegionActivated, facs.DISFA, D)
    _, extra = module(_normal(1, 1, 8, D), _logits(facs.DISFA, 0, 0, 0))
    np.testing.assert_array_equal(extra["adjacency"][0, 0], np.eye(8))


def test_the_graph_passes_no_gradient_to_the_logits(make_in_testing):
    module = make_in_testing(relations.CrossRegionActivated, facs.DISFA, D)
    logits = tuple(_normal(1, 2, region.combinations) for region in facs.DISFA.regions)
    nodes = _normal(1, 2, 8, D)
    gradients = jax.jit(jax.grad(lambda z: module(nodes, z)[0].sum()))(logits)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0)


def test_without_edges_nodes_pass_unchanged(make_in_testing):
    nodes = _normal(1, 2, 8, D)
    found, extra = make_in_testing(relations.NoEdges, facs.DISFA, D)(nodes, ())
    np.testing.assert_array_equal(found, nodes)
    assert extra == {}


@pytest.mark.parametrize(
    ("links", "linked"),
    [
        (relations.fully_connected, lambda n, m: True),
        (relations.within_region, lambda n, m: n == m),
        (relations.cross_region_full, lambda n, m: n != m),
    ],
)
def test_fixed_graphs_link_regions_as_their_name_says(make_in_testing, links, linked):
    module = make_in_testing(relations.FixedEdges, facs.DISFA, D, links=links)
    nodes, extra = module(_normal(1, 2, 8, D), ())
    region = {1: 0, 2: 0, 4: 0, 6: 1, 9: 1, 12: 2, 25: 2, 26: 2}
    aus = facs.DISFA.aus
    expected = [[n == m or linked(region[n], region[m]) for m in aus] for n in aus]
    for frame in range(2):
        np.testing.assert_array_equal(extra["adjacency"][0, frame] > 0, expected)
        np.testing.assert_array_equal(extra["attention"][0, frame] > 0, expected)
    assert nodes.shape == (1, 2, 8, D)


def test_the_papers_au_features_are_plain_projections(make_in_testing):
    module = make_in_testing(relations.RegionalProjections, facs.DISFA, D)
    for block, region_map, nodes in _per_region(module, facs.DISFA):
        kernel, bias = np.asarray(block.kernel[...]), np.asarray(block.bias[...])
        average = np.asarray(region_map).mean((2, 3))
        expected = np.einsum("btc,cnd->btnd", average, kernel) + bias
        np.testing.assert_allclose(nodes, expected, rtol=1e-4, atol=1e-5)
