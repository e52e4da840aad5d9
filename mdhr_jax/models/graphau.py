# SPDX-License-Identifier: Apache-2.0
"""GraphAU: ME-GraphAU (IJCAI 2022) and OpenGraphAU as one class, and the tables of its slots.

A frame is scored by itself. Stage 1 (ANFL) is `relations="nearest"`, stage 2 (MEFL) "gated". The
two releases differ in the order of ReLU and sum, the edge head, and outputs of one side.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, reduce
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from mdhr_jax import facs
from mdhr_jax.errors import choose
from mdhr_jax.models import au_graph, backbones, blocks, layers

RELATIONS = {
    "none": au_graph.NoGraph,
    "nearest": au_graph.NearestGraph,
    "gated": au_graph.GatedGraph,
}
# The AU whose node an output of one side hangs on, where it is not that of the same number. In
# OpenGraphAU, labels included, the sides of AU12 hang on AU11.
SIDES: dict[str, dict[int, int]] = {"released": {12: 11}, "own": {}}


@dataclasses.dataclass(frozen=True)
class Slots:
    """What fills the slots of `GraphAU`, and what it starts from: the keys of `config.model`.

    The defaults are those of ME-GraphAU's stage 2 with ResNet-50.

    Attributes:
      backbone, features, relations, neighbours, metric, update, edge_head, sides: as of `GraphAU`.
      init_from: run or weight file to start from; empty: none.
    """

    backbone: str = "resnet50"
    features: int = 512
    relations: str = "gated"
    neighbours: int = 4
    metric: str = "dots"
    update: str = "activated_sum"
    edge_head: bool = True
    sides: str = "own"
    init_from: str = ""


class SideClassifier(layers.CosineClassifier):
    """Scores of the AUs of one side, each from the node that it hangs on (`places`)."""

    def __init__(self, places: tuple[int, ...], features: int, *, rngs: nnx.Rngs):
        super().__init__(len(places), features, rngs=rngs)
        self.places = places

    def __call__(self, nodes: Float[Array, "b t n d"]) -> Float[Array, "b t k"]:
        # A product with zeros and ones, exact: the gradient of indexing would be a scatter that
        # adds up, whose order on a GPU is open.
        is_place = np.eye(nodes.shape[2], dtype=np.float32)[list(self.places)]
        wide = layers.widened(nodes)
        chosen = jnp.einsum("kn,btnd->btkd", is_place, wide, precision=lax.Precision.HIGHEST)
        return super().__call__(chosen)


class NoSides(nnx.Module):
    """Without AUs of one side: no scores."""

    def __call__(self, nodes: Float[Array, "b t n d"]) -> Float[Array, "b t 0"]:
        return jnp.zeros((*nodes.shape[:2], 0), jnp.float32)


class GraphAU(nnx.Module):
    """Frames of faces to AU scores.

    Args:
      layout: AUs; those without a side have a node, those of one side hang on a node and follow
        the others.
      backbone: a key of `backbones.BACKBONES`.
      features: width of positions, nodes and edges (release: a quarter of a ResNet's features, half
        of a Swin's).
      relations: a key of `RELATIONS`.
      neighbours: K of the graph (release: 4, DISFA 3); of "nearest" relations.
      metric: what near means, a key of `au_graph.METRICS`; of "nearest" relations.
      update: how nodes take messages, a key of `au_graph.UPDATES`; of "gated" relations.
      edge_head: logits of the edges (release: ME-GraphAU); of "gated" relations.
      sides: a key of `SIDES`.
      rngs: stream `params` initialises.

    Raises:
      ValueError: an unknown kind, `neighbours` out of range, or an AU of one side before others or
        without a node to hang on.
    """

    context = 0  # frames before and after a clip that the model reads

    def __init__(
        self,
        layout: facs.AuLayout,
        *,
        backbone: str,
        features: int,
        relations: str,
        neighbours: int,
        metric: str,
        update: str,
        edge_head: bool,
        sides: str,
        rngs: nnx.Rngs,
    ):
        places = _places(layout, choose("sides", SIDES, sides))
        n, slot = len(layout.aus) - len(places), layers.slots(rngs)
        self.layout = layout
        self.backbone = choose("backbone", backbones.BACKBONES, backbone)(rngs=slot("backbone"))
        self.static = blocks.LinearBlock(self.backbone.features, features, rngs=slot("static"))
        self.au_features = blocks.StackedLinearBlock(
            n, features, features, rngs=slot("au_features")
        )
        self.relations = choose("relations", RELATIONS, relations)(
            n,
            features,
            neighbours=neighbours,
            metric=choose("metric", au_graph.METRICS, metric),
            update=choose("update", au_graph.UPDATES, update),
            edge_head=edge_head,
            rngs=slot("relations"),
        )
        self.classifier = layers.CosineClassifier(n, features, rngs=slot("classifier"))
        self.side_classifier = (
            SideClassifier(places, features, rngs=slot("side_classifier")) if places else NoSides()
        )

    def __call__(
        self, frames: Float[Array, "b t h w 3"], key: jax.Array | None = None
    ) -> dict[str, Array | list | tuple]:
        """Scores and every named intermediate.

        Args:
          frames: ImageNet-normalised RGB; h = w a multiple of the backbone's `image_multiple`.
          key: random key of drop-path, needed in training by backbones that have it.

        Returns:
          `maps`, `tokens`, and what `relate` returns.

        Raises:
          ValueError: an image size that the backbone does not take.
        """
        backbones.check_size(self.backbone, frames.shape[2], frames.shape[3])
        with jax.named_scope("backbone"):
            tokens, maps = self.backbone(frames, key)
        with jax.named_scope("relations"):
            outputs = self.relate(self.static(tokens))
        return {"maps": maps, "tokens": tokens, **outputs}

    def relate(self, static: Float[Array, "b t h w d"]) -> dict[str, Array | list | tuple]:
        """What becomes of the static features.

        Returns:
          `scores` (b, t, n) in [0, 1], in the layout's order; `edge_logits` (b, t, n*n, 4) of the
          nodes' edges, or (); `static`; `own_maps` and `own_nodes`, of each AU alone; `graph`, the
          nodes that are scored; and what the relations add.
        """
        positions = rearrange(static, "b t h w d -> b t (h w) d")
        own_maps = rearrange(self.au_features(positions), "b t p n d -> b t n p d")
        own_nodes = reduce(own_maps, "b t n p d -> b t n d", "mean")
        graph, edge_logits, extra = self.relations(positions, own_maps, own_nodes)
        scores = jnp.concatenate([self.classifier(graph), self.side_classifier(graph)], -1)
        return {
            "scores": scores,
            "edge_logits": edge_logits,
            "static": static,
            "own_maps": own_maps,
            "own_nodes": own_nodes,
            "graph": graph,
            **extra,
        }


def _places(layout: facs.AuLayout, elsewhere: dict[int, int]) -> tuple[int, ...]:
    """The node that each AU of one side hangs on, by its place among the others."""
    of_one_side = [au for au in layout.aus if facs.side(au)]
    n = len(layout.aus) - len(of_one_side)
    nodes = layout.aus[:n]
    if (*nodes, *of_one_side) != layout.aus:
        raise ValueError(f"layout {layout.name!r}: name the AUs of one side after the others")
    hosts = {au: elsewhere.get(facs.number(au), facs.number(au)) for au in of_one_side}
    if homeless := [au for au, host in hosts.items() if host not in nodes]:
        raise ValueError(
            f"layout {layout.name!r}: AU {homeless[0]} hangs on AU {hosts[homeless[0]]}, which the "
            "layout has not; add that AU, or hang it elsewhere (sides)"
        )
    return tuple(nodes.index(host) for host in hosts.values())


def create(layout: facs.AuLayout, slots: Slots, rngs: nnx.Rngs) -> GraphAU:
    """The model before training; ValueError: as `GraphAU`."""
    own = dataclasses.asdict(slots)
    del own["init_from"]
    return GraphAU(layout, **own, rngs=rngs)
