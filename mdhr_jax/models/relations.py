# SPDX-License-Identifier: Apache-2.0
"""HSR, hierarchical spatial relations (paper section 3.2, Eq. 7-9; release numerics).

Local: the fused map is cut into the layout's facial regions; each AU reads its feature from its
region (AFE), and an auxiliary head per region recognises which combination of AUs is active.
Cross-region: a graph links each AU to the AUs of other regions that the heads find active.
"""

import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, reduce, repeat
from flax import nnx
from jaxtyping import Array, Float, Int

from mdhr_jax import facs
from mdhr_jax.models import blocks, graph_attention, layers

RegionMaps = list[Float[Array, "b t _ w d"]]  # regions may differ in rows


class RegionSlices(nnx.Module):
    """The rows of the map that each region covers."""

    def __init__(self, layout: facs.AuLayout, features: int, *, rngs: nnx.Rngs):
        del features, rngs  # nothing to learn
        self.regions = layout.regions

    def __call__(self, fused: Float[Array, "b t h w d"]) -> RegionMaps:
        return [fused[:, :, region.grid_rows(fused.shape[2])] for region in self.regions]


class RegionBlocks(RegionSlices):
    """The same rows through a linear block of the region's own (release: BP4D)."""

    def __init__(self, layout: facs.AuLayout, features: int, *, rngs: nnx.Rngs):
        super().__init__(layout, features, rngs=rngs)
        self.blocks = nnx.List(
            blocks.LinearBlock(features, features, rngs=rngs) for _ in layout.regions
        )

    def __call__(self, fused: Float[Array, "b t h w d"]) -> RegionMaps:
        slices = super().__call__(fused)
        return [block(x) for block, x in zip(self.blocks, slices, strict=True)]


class RegionalFeatures(nnx.Module):
    """AFE: every AU has a linear block of its own over its region, then the average.

    The blocks of a region's AUs are one product, because they share its map.
    """

    block: ClassVar[Callable[..., nnx.Module]] = blocks.StackedLinearBlock

    def __init__(self, layout: facs.AuLayout, features: int, *, rngs: nnx.Rngs):
        self.blocks = nnx.List(
            self.block(len(region.aus), features, features, rngs=rngs) for region in layout.regions
        )
        order = [index for region in layout.regions for index in layout.au_indices(region)]
        self.order = tuple(int(i) for i in np.argsort(order))

    def __call__(
        self, fused: Float[Array, "b t h w d"], region_maps: RegionMaps
    ) -> Float[Array, "b t n d"]:
        nodes = [
            reduce(block(x), "b t h w n d -> b t n d", "mean")
            for block, x in zip(self.blocks, region_maps, strict=True)
        ]
        order = np.array(self.order, np.int32)
        # Each AU once: the gradient needs no addition, whose order on a GPU would be open.
        return jnp.concatenate(nodes, 2).at[:, :, order].get(unique_indices=True)


class RegionalProjections(RegionalFeatures):
    """AFE as the paper writes it: a 1x1 convolution per AU without norm and ReLU, the average."""

    block = layers.StackedLinear


class SharedFeatures(nnx.Module):
    """Without AFE: one linear block over the whole map, one average for all AUs.

    The AUs' nodes are equal; the class vectors tell them apart.
    """

    def __init__(self, layout: facs.AuLayout, features: int, *, rngs: nnx.Rngs):
        self.aus = len(layout.aus)
        self.block = blocks.LinearBlock(features, features, rngs=rngs)

    def __call__(
        self, fused: Float[Array, "b t h w d"], region_maps: RegionMaps
    ) -> Float[Array, "b t n d"]:
        pooled = reduce(self.block(fused), "b t h w d -> b t d", "mean")
        return repeat(pooled, "b t d -> b t n d", n=self.aus)


class CombinationHeads(nnx.Module):
    """Auxiliary heads: which combination of its AUs does each region show?"""

    def __init__(self, layout: facs.AuLayout, features: int, *, rngs: nnx.Rngs):
        self.heads = nnx.List(
            layers.Linear(features, region.combinations, rngs=rngs) for region in layout.regions
        )

    def __call__(self, region_maps: RegionMaps) -> tuple[Float[Array, "b t _"], ...]:
        pooled = [reduce(x, "b t h w d -> b t d", "mean") for x in region_maps]
        return tuple(head(x) for head, x in zip(self.heads, pooled, strict=True))


class NoHeads(nnx.Module):
    """Without auxiliary heads: no region logits."""

    def __init__(self, layout: facs.AuLayout, features: int, *, rngs: nnx.Rngs):
        del layout, features, rngs

    def __call__(self, region_maps: RegionMaps) -> tuple[()]:
        return ()


def active_aus(
    layout: facs.AuLayout, region_logits: tuple[Float[Array, "b t _"], ...]
) -> Int[Array, "b t n"]:
    """1 for the AUs in each region's most likely combination; carries no gradient."""
    combinations = jnp.stack(
        [jax.lax.stop_gradient(logits).argmax(-1) for logits in region_logits], -1
    )
    return (combinations[..., layout.region_index] >> layout.bit_shifts) & 1


class EdgeKind(NamedTuple):
    """What makes the edges, from layout and features, and whether they read the heads' logits."""

    make: Callable[..., nnx.Module]
    needs_heads: bool = False


class CrossRegionActivated(nnx.Module):
    """Every AU attends to itself and to the active AUs of other regions (paper Eq. 8-9)."""

    def __init__(self, layout: facs.AuLayout, features: int, *, rngs: nnx.Rngs):
        self.layout = layout
        self.attention = graph_attention.GraphAttention(features, rngs=rngs)

    def __call__(
        self,
        nodes: Float[Array, "b t n d"],
        region_logits: tuple[Float[Array, "b t _"], ...],
    ) -> tuple[Float[Array, "b t n d"], dict[str, Array]]:
        """Returns new nodes, and `senders` (active AUs), `adjacency` and `attention`."""
        layout = self.layout
        senders = active_aus(layout, region_logits)
        linked = layout.cross_region * rearrange(senders, "b t m -> b t 1 m")
        adjacency: Any = linked + np.eye(len(layout.aus), dtype=np.int32)
        nodes, attention = self.attention(nodes, adjacency)
        return nodes, {"senders": senders, "adjacency": adjacency, "attention": attention}


Links = Callable[[facs.AuLayout], Int[np.ndarray, "n n"]]


def fully_connected(layout: facs.AuLayout) -> Int[np.ndarray, "n n"]:
    """Links of every AU to all AUs."""
    return np.ones_like(layout.cross_region)


def within_region(layout: facs.AuLayout) -> Int[np.ndarray, "n n"]:
    """Links of every AU to the AUs of its own region."""
    return 1 - layout.cross_region


def cross_region_full(layout: facs.AuLayout) -> Int[np.ndarray, "n n"]:
    """Links of every AU to itself and to all AUs of other regions, active or not."""
    return layout.cross_region + np.eye(len(layout.aus), dtype=np.int32)


class FixedEdges(nnx.Module):
    """The same graph in every frame, given by the layout (Table 5).

    `links` is 1 where the AU of the row attends to the AU of the column, itself included.
    """

    def __init__(
        self,
        layout: facs.AuLayout,
        features: int,
        *,
        links: Links,
        rngs: nnx.Rngs,
    ):
        self.layout, self.links = layout, links
        self.attention = graph_attention.GraphAttention(features, rngs=rngs)

    def __call__(
        self,
        nodes: Float[Array, "b t n d"],
        region_logits: tuple[Float[Array, "b t _"], ...],
    ) -> tuple[Float[Array, "b t n d"], dict[str, Array]]:
        """Returns new nodes, and `adjacency` and `attention`."""
        links = self.links(self.layout)
        adjacency = jnp.broadcast_to(links, (*nodes.shape[:2], *links.shape))
        nodes, attention = self.attention(nodes, adjacency)
        return nodes, {"adjacency": adjacency, "attention": attention}


def fixed_edges(links: Links) -> EdgeKind:
    """The kind of edges that has these links in every frame."""
    return EdgeKind(functools.partial(FixedEdges, links=links))


class NoEdges(nnx.Module):
    """Without a graph: nodes pass unchanged."""

    def __init__(self, layout: facs.AuLayout, features: int, *, rngs: nnx.Rngs):
        del layout, features, rngs

    def __call__(
        self,
        nodes: Float[Array, "b t n d"],
        region_logits: tuple[Float[Array, "b t _"], ...],
    ) -> tuple[Float[Array, "b t n d"], dict[str, Array]]:
        return nodes, {}
