# SPDX-License-Identifier: Apache-2.0
"""Relations between the nodes of AUs: none, a top-K graph (ANFL), gated edge features (MEFL).

Each turns the nodes, and the maps that they are averages of, into new nodes (ME-GraphAU, IJCAI
2022; numerics of its release and of OpenGraphAU's). Positions of a map are one axis, `p` or `q`.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from mdhr_jax.models import layers, norms

Nodes = Float[Array, "b t n d"]
Edges = Float[Array, "b t n n d"]  # [i, j]: from the sender j to the receiver i
Maps = Float[Array, "b t n p d"]
Metric = Callable[[Nodes], Float[Array, "b t n n"]]
Update = Callable[[Nodes, Nodes], Nodes]


def _dots(nodes: Nodes) -> Float[Array, "b t n n"]:
    return jnp.einsum("btnd,btmd->btnm", nodes, nodes, precision=lax.Precision.HIGHEST)


def _differences(nodes: Nodes) -> Edges:
    return nodes[:, :, :, None] - nodes[:, :, None]


METRICS: dict[str, Metric] = {  # the larger, the nearer
    "dots": _dots,
    "cosine": lambda nodes: _dots(layers.unit(nodes)),
    "manhattan": lambda nodes: -jnp.abs(_differences(nodes)).sum(-1),
    "euclidean": lambda nodes: -jnp.sqrt(jnp.square(_differences(nodes)).sum(-1)),
}
UPDATES: dict[str, Update] = {  # of nodes by normalised messages
    "activated_sum": lambda nodes, messages: jax.nn.relu(nodes + messages),  # ME-GraphAU
    "sum_activated": lambda nodes, messages: nodes + jax.nn.relu(messages),  # OpenGraphAU
}


class NoGraph(nnx.Module):
    """Without relations: nodes pass unchanged."""

    def __init__(self, n: int, features: int, **settings: Any):
        del n, features, settings

    def __call__(
        self, positions: Float[Array, "b t p d"], maps: Maps, nodes: Nodes
    ) -> tuple[Nodes, tuple[()], dict[str, Array]]:
        """Returns the nodes, no edge logits, no intermediates."""
        return nodes, (), {}


def nearest(similarity: Float[Array, "... n n"], neighbours: int) -> Int[Array, "... n n"]:
    """1 for the `neighbours` largest of each row, and for all that equal the last of them."""
    last = jnp.sort(similarity)[..., similarity.shape[-1] - neighbours, None]
    return (similarity >= last).astype(jnp.int32)


def normalised(adjacency: Int[Array, "... n n"]) -> Float[Array, "... n n"]:
    """`A_ij / sqrt(d_i d_j)`, where d are the sums of the rows (release)."""
    degrees = adjacency.sum(-1)
    return adjacency / jnp.sqrt(degrees[..., :, None] * degrees[..., None, :])


class NearestGraph(layers.Layer):
    """Each node takes from its nearest nodes, found anew in every frame (ANFL, stage 1).

    No gradient passes through the graph.

    Raises:
      ValueError: fewer than one neighbour, or more than there are nodes.
    """

    def __init__(
        self,
        n: int,
        features: int,
        *,
        neighbours: int,
        metric: Metric,
        rngs: nnx.Rngs,
        **settings: Any,
    ):
        super().__init__()
        del settings
        if not 1 <= neighbours <= n:
            raise ValueError(f"neighbours={neighbours}: give 1 to {n}, the number of nodes")
        self.neighbours, self.metric = neighbours, metric
        init = jax.nn.initializers.normal(math.sqrt(2 / features))
        self.own = layers.Linear(features, features, kernel_init=init, rngs=rngs)
        self.others = layers.Linear(features, features, kernel_init=init, rngs=rngs)
        self.norm = norms.BatchNorm(n, 1)

    def __call__(
        self, positions: Float[Array, "b t p d"], maps: Maps, nodes: Nodes
    ) -> tuple[Nodes, tuple[()], dict[str, Array]]:
        """Returns new nodes, no edge logits, and `similarity` and `adjacency`.

        Rows of both matrices receive, columns send; distances are negative similarities.
        """
        similarity = self.metric(lax.stop_gradient(layers.widened(nodes)))
        adjacency = nearest(similarity, self.neighbours)
        weights = normalised(adjacency).astype(self.dtype)
        others = self.others(nodes)
        sent = jnp.einsum("btnm,btmd->btnd", weights, others, precision=self.precision)
        graph = jax.nn.relu(nodes + self.norm(sent + self.own(nodes)))
        return graph, (), {"similarity": similarity, "adjacency": adjacency}


class Attention(layers.Layer):
    """Queries, keys and values; one head, no residual."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        super().__init__()

        def linear(outputs: int) -> layers.Linear:
            init = jax.nn.initializers.normal(math.sqrt(2 / outputs))
            return layers.Linear(features, outputs, kernel_init=init, rngs=rngs)

        self.query, self.key = linear(features // 2), linear(features // 2)
        self.value = linear(features)

    def logits(
        self, y: Float[Array, "b t p d"], x: Float[Array, "b t q d"]
    ) -> Float[Array, "b t p q"]:
        """How much each position of `y` asks for each of `x`."""
        queries, keys = self.query(y), self.key(x)
        queries = queries * queries.shape[-1] ** -0.5
        return jnp.einsum("btpd,btqd->btpq", queries, keys, precision=self.precision)


class GatedLayer(layers.Layer):
    """Edges take from the nodes at their ends, nodes from the others through gates of the edges."""

    def __init__(self, n: int, features: int, *, update: Update, rngs: nnx.Rngs):
        super().__init__()

        def linear() -> layers.Linear:
            init = jax.nn.initializers.normal(math.sqrt(2 / features))
            return layers.Linear(features, features, bias=False, kernel_init=init, rngs=rngs)

        self.update = update
        self.receiver, self.sender, self.edge = linear(), linear(), linear()
        self.own, self.others = linear(), linear()
        self.edge_norm = norms.BatchNorm(n, n, 1, relu=True)
        self.node_norm = norms.BatchNorm(n, 1)

    def __call__(self, nodes: Nodes, edges: Edges) -> tuple[Nodes, Edges]:
        receivers = rearrange(self.receiver(nodes), "b t n d -> b t n 1 d")
        senders, sent = (
            rearrange(linear(nodes), "b t m d -> b t 1 m d")
            for linear in (self.sender, self.others)
        )
        edges = edges + self.edge_norm(receivers + senders + self.edge(edges))
        gates = jax.nn.softmax(jax.nn.sigmoid(layers.widened(edges)), axis=3)
        # The gates of a node sum to 1, and yet the release divides by the number of nodes.
        messages = self.own(nodes) + (gates.astype(self.dtype) * sent).mean(3)
        return self.update(nodes, self.node_norm(messages)), edges


class EdgeHead(layers.Linear):
    """Which of an edge's two AUs are active: logits of neither, sender, receiver, both."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        init = layers.uniform(math.sqrt(6 / (4 + features)))
        super().__init__(features, 4, kernel_init=init, rngs=rngs)

    def __call__(self, edges: Edges) -> Float[Array, "b t e 4"]:
        return rearrange(super().__call__(edges), "b t n m c -> b t (n m) c")


class NoEdgeHead(nnx.Module):
    """Without edge logits."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        del features, rngs

    def __call__(self, edges: Edges) -> tuple[()]:
        return ()


EDGE_HEADS = {True: EdgeHead, False: NoEdgeHead}


class GatedGraph(layers.Layer):
    """Nodes and a feature of every edge, self edges included, in two gated layers (MEFL, stage 2).

    Every position of an AU's map looks at the whole face; that is the AU's new map. Every position
    of a sender's new map looks at a receiver's; that is the edge's map, whose average is the edge's
    feature. All that is seen is an average of the face's positions, so what is asked, answered and
    shown between maps is computed at these, once; no map of an edge passes a matrix.
    """

    def __init__(
        self,
        n: int,
        features: int,
        *,
        update: Update,
        edge_head: bool,
        rngs: nnx.Rngs,
        **settings: Any,
    ):
        super().__init__()
        del settings
        init = jax.nn.initializers.normal(math.sqrt(2 / features))
        self.au_attention = Attention(features, rngs=rngs)
        self.pair_attention = Attention(features, rngs=rngs)
        self.edge = layers.Linear(features, features, kernel_init=init, rngs=rngs)
        self.edge_norm = norms.BatchNorm(n, n, 1, 1)
        self.layers = nnx.List(GatedLayer(n, features, update=update, rngs=rngs) for _ in range(2))
        self.head = EDGE_HEADS[edge_head](features, rngs=rngs)
        self.averages_first = False

    def fold(self) -> None:
        """Called by `views.folded_view`: without batch statistics the average may come first."""
        self.averages_first = True

    def __call__(
        self, positions: Float[Array, "b t p d"], maps: Maps, nodes: Nodes
    ) -> tuple[Nodes, Float[Array, "b t e 4"] | tuple[()], dict[str, Array | list[Array]]]:
        """Returns new nodes, edge logits of edge i*n + j, and named intermediates.

        `au_maps` and `edge_maps` before (`pair_maps`) and after projection and norm, [i, j] as of
        `Edges`; `nodes` and `edges` before and after every layer.
        """
        product = functools.partial(jnp.einsum, precision=self.precision)
        face = self.au_attention.value(positions)
        au_looks, pair_looks = self._looks(positions, maps, face)
        values = self.pair_attention.value(face)
        edge_maps = self.edge_norm(product("btmnpq,btqd->btmnpd", pair_looks, self.edge(values)))
        all_nodes, all_edges = [nodes], [edge_maps.mean(4)]
        for layer in self.layers:
            nodes, edges = layer(all_nodes[-1], all_edges[-1])
            all_nodes.append(nodes)
            all_edges.append(edges)
        return (
            nodes,
            self.head(all_edges[-1]),
            {
                "au_maps": product("btnpq,btqd->btnpd", au_looks, face),
                "pair_maps": product("btmnpq,btqd->btmnpd", pair_looks, values),
                "edge_maps": edge_maps,
                "nodes": all_nodes,
                "edges": all_edges,
            },
        )

    def _looks(
        self, positions: Float[Array, "b t p d"], maps: Maps, face: Float[Array, "b t q d"]
    ) -> tuple[Float[Array, "b t n p q"], Float[Array, "b t m n _ q"]]:
        """Which share of each position of the face is in the maps of AUs, and in those of edges."""
        product = functools.partial(jnp.einsum, precision=self.precision)
        queries = rearrange(maps, "b t n p d -> b t (n p) d")
        looks = self._softmax(self.au_attention.logits(queries, positions))
        between = product("btpq,btqr->btpr", looks, self.pair_attention.logits(face, face))
        logits = product("btpr,btsr->btps", between, looks)
        n = maps.shape[2]
        weights = self._softmax(rearrange(logits, "b t (n p) (m s) -> b t n p m s", n=n, m=n))
        if self.averages_first:
            weights = weights.mean(3, keepdims=True)
        looks = rearrange(looks, "b t (n p) q -> b t n p q", n=n)
        return looks, product("btnpms,btmsq->btmnpq", weights, looks)

    def _softmax(self, logits: Float[Array, "..."]) -> Float[Array, "..."]:
        return jax.nn.softmax(layers.widened(logits)).astype(self.dtype)
