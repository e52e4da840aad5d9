# SPDX-License-Identifier: Apache-2.0
"""HSR, hierarchical spatial relations (paper section 3.2, Eq. 7-9; release numerics).

Local: the fused map is cut into the layout's facial regions; each AU reads its feature from its
region (AFE), and an auxiliary head per region recognises which combination of AUs is active.
Cross-region: a graph links each AU to the AUs of other regions that the heads find active.
"""

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, reduce, repeat
from flax import nnx
from jaxtyping import Array, Float, Int

from mdhr_jax import facs
from mdhr_jax.models import graph_attention, layers

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
            layers.LinearBlock(features, features, rngs=rngs) for _ in layout.regions
        )

    def __call__(self, fused: Float[Array, "b t h w d"]) -> RegionMaps:
        slices = super().__call__(fused)
        return [block(x) for block, x in zip(self.blocks, slices, strict=True)]


class RegionalFeatures(nnx.Module):
    """AFE: every AU has a linear block of its own over its region, then the average.

    The blocks of a region's AUs are one product, because they share its map.
    """

    block = layers.StackedLinearBlock

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
        return jnp.concatenate(nodes, 2)[:, :, np.array(self.order, np.int32)]


class RegionalProjections(RegionalFeatures):
    """AFE as the paper writes it: a 1x1 convolution per AU without norm and ReLU, the average."""

    block = layers.StackedLinear


class SharedFeatures(nnx.Module):
    """Without AFE: one linear block over the whole map, one average for all AUs.

    The AUs' nodes are equal; the class vectors tell them apart.
    """

    def __init__(self, layout: facs.AuLayout, features: int, *, rngs: nnx.Rngs):
        self.aus = len(layout.aus)
        self.block = layers.LinearBlock(features, features, rngs=rngs)

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


class CrossRegionActivated(nnx.Module):
    """Every AU attends to itself and to the active AUs of other regions (paper Eq. 8-9)."""

    needs_heads = True

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
        adjacency = linked + np.eye(len(layout.aus), dtype=np.int32)
        nodes, attention = self.attention(nodes, adjacency)
        return nodes, {"senders": senders, "adjacency": adjacency, "attention": attention}


class FixedEdges(nnx.Module):
    """The same graph in every frame, given by the layout; subclasses say which (Table 5)."""

    needs_heads = False

    def __init__(self, layout: facs.AuLayout, features: int, *, rngs: nnx.Rngs):
        self.layout = layout
        self.attention = graph_attention.GraphAttention(features, rngs=rngs)

    def links(self) -> Int[np.ndarray, "n n"]:
        """1 where the AU of the row attends to the AU of the column, itself included."""
        raise NotImplementedError

    def __call__(
        self,
        nodes: Float[Array, "b t n d"],
        region_logits: tuple[Float[Array, "b t _"], ...],
    ) -> tuple[Float[Array, "b t n d"], dict[str, Array]]:
        """Returns new nodes, and `adjacency` and `attention`."""
        n = len(self.layout.aus)
        adjacency = jnp.broadcast_to(self.links(), (*nodes.shape[:2], n, n))
        nodes, attention = self.attention(nodes, adjacency)
        return nodes, {"adjacency": adjacency, "attention": attention}


class FullyConnected(FixedEdges):
    """Every AU attends to all AUs."""

    def links(self) -> Int[np.ndarray, "n n"]:  # noqa: D102
        return np.ones_like(self.layout.cross_region)


class WithinRegion(FixedEdges):
    """Every AU attends to the AUs of its own region."""

    def links(self) -> Int[np.ndarray, "n n"]:  # noqa: D102
        return 1 - self.layout.cross_region


class CrossRegionFull(FixedEdges):
    """Every AU attends to itself and to all AUs of other regions, active or not."""

    def links(self) -> Int[np.ndarray, "n n"]:  # noqa: D102
        return self.layout.cross_region + np.eye(len(self.layout.aus), dtype=np.int32)


class NoEdges(nnx.Module):
    """Without a graph: nodes pass unchanged."""

    needs_heads = False

    def __init__(self, layout: facs.AuLayout, features: int, *, rngs: nnx.Rngs):
        del layout, features, rngs

    def __call__(
        self,
        nodes: Float[Array, "b t n d"],
        region_logits: tuple[Float[Array, "b t _"], ...],
    ) -> tuple[Float[Array, "b t n d"], dict[str, Array]]:
        return nodes, {}
