# SPDX-License-Identifier: Apache-2.0
"""MDHR: the paper's Figure 2 as one class, and the tables that fill its slots.

A slot is filled once, at construction, from its table; "without" is a module like any other, so
a forward pass has no branches. A new kind is one class and one table line, such as
`mdhr.EDGES["mine"] = relations.EdgeKind(MyEdges)`.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mdhr_jax import facs
from mdhr_jax.errors import choose
from mdhr_jax.models import backbones, blocks, layers, relations
from mdhr_jax.models.dynamics import (
    ConcatenatedDynamics,
    MultiscaleDynamics,
    NoDynamics,
    Scales,
    SummedDynamics,
)
from mdhr_jax.models.temporal import TAPS, NoTemporal, TemporalConvolution

DYNAMICS = {
    "multiscale": MultiscaleDynamics,
    "sum": SummedDynamics,
    "concatenation": ConcatenatedDynamics,
    "none": NoDynamics,
}
REGIONS = {True: relations.RegionBlocks, False: relations.RegionSlices}
AFE = {
    "block": relations.RegionalFeatures,
    "convolution": relations.RegionalProjections,
    "none": relations.SharedFeatures,
}
AUXILIARY = {True: relations.CombinationHeads, False: relations.NoHeads}
EDGES = {
    "cross_region_activated": relations.EdgeKind(relations.CrossRegionActivated, needs_heads=True),
    "cross_region_full": relations.fixed_edges(relations.cross_region_full),
    "within_region": relations.fixed_edges(relations.within_region),
    "fully_connected": relations.fixed_edges(relations.fully_connected),
    "none": relations.EdgeKind(relations.NoEdges),
}
TEMPORAL = {True: TemporalConvolution, False: NoTemporal}


@dataclasses.dataclass(frozen=True)
class Dynamics:
    """How a model sees motion: the keys of `config.model.dynamics`.

    Attributes:
      kind: how scales are joined, a key of `DYNAMICS`.
      scales: which scales, any subset of 1 to 4.
      k: half the temporal window, frames.
      window: what it sees beyond the clip, a key of `dynamics.WINDOWS`.
    """

    kind: str = "multiscale"
    scales: tuple[int, ...] = (1, 2, 3, 4)
    k: int = 5
    window: str = "zero"


@dataclasses.dataclass(frozen=True)
class Slots:
    """What fills an MDHR's slots, and its values before training: the keys of `config.model`.

    The defaults are the release's, on BP4D with ResNet-50.

    Attributes:
      backbone: a key of `backbones.BACKBONES`.
      dynamics: how it sees motion.
      features: width of positions and AU nodes.
      afe: where AU-specific features come from, a key of `AFE`.
      auxiliary: whether there are heads for the regions' AU combinations.
      edges: between AUs, a key of `EDGES`.
      temporal: whether there is a temporal filter per AU.
      initial: values before training, a key of `INITIAL`.
      init_from: run or weight file whose backbone to start from; empty: `initial`.
    """

    backbone: str = "resnet50"
    dynamics: Dynamics = Dynamics()
    features: int = 512
    afe: str = "block"
    auxiliary: bool = True
    edges: str = "cross_region_activated"
    temporal: bool = True
    initial: str = "release"
    init_from: str = ""


class MDHR(nnx.Module):
    """Clips of face frames to AU scores.

    Args:
      layout: AUs and regions.
      backbone: a key of `backbones.BACKBONES`.
      dynamics, afe, edges: keys of `DYNAMICS`, `AFE`, `EDGES`. AFE is AU-specific features from
        the AU's region; without, all AUs share one.
      scales: which of the four scales the dynamics use, any subset of (1, 2, 3, 4).
      k: half the temporal window of the dynamics, in frames.
      window: what the temporal average sees beyond the clip, a key of `dynamics.WINDOWS`.
      features: width of positions and AU nodes (release: 512).
      auxiliary: heads for the regions' AU combinations.
      temporal: a temporal filter per AU.
      rngs: stream `params` initialises.

    Raises:
      ValueError: an unknown kind, a bad subset of scales, activated edges without heads.
    """

    def __init__(
        self,
        layout: facs.AuLayout,
        *,
        backbone: str,
        dynamics: str,
        scales: tuple[int, ...],
        k: int,
        window: str,
        features: int,
        afe: str,
        auxiliary: bool,
        edges: str,
        temporal: bool,
        rngs: nnx.Rngs,
    ):
        edge_kind = choose("edges", EDGES, edges)
        if edge_kind.needs_heads and not auxiliary:
            raise ValueError(f"edges={edges!r} needs the auxiliary heads; set auxiliary=True")
        n = len(layout.aus)
        slot = layers.slots(rngs)
        self.layout = layout
        self.backbone = choose("backbone", backbones.BACKBONES, backbone)(rngs=slot("backbone"))
        self.static = blocks.LinearBlock(self.backbone.features, features, rngs=slot("static"))
        self.dynamics = choose("dynamics", DYNAMICS, dynamics)(
            self.backbone.channels,
            features,
            scales=scales,
            k=k,
            window=window,
            rngs=slot("dynamics"),
        )
        has_blocks = layout.region_blocks and (afe != "none" or auxiliary)
        self.regions = REGIONS[has_blocks](layout, features, rngs=slot("regions"))
        self.au_features = choose("afe", AFE, afe)(layout, features, rngs=slot("au_features"))
        self.heads = AUXILIARY[auxiliary](layout, features, rngs=slot("heads"))
        self.edges = edge_kind.make(layout, features, rngs=slot("edges"))
        self.temporal = TEMPORAL[temporal](n, features, rngs=slot("temporal"))
        self.classifier = layers.CosineClassifier(n, features, rngs=slot("classifier"))

    @property
    def context(self) -> int:
        """Frames before and after a clip that the model reads."""
        return self.dynamics.context

    def __call__(
        self, frames: Float[Array, "b s h w 3"], key: jax.Array | None = None
    ) -> dict[str, Array | list | tuple | dict]:
        """Scores and every named intermediate.

        Args:
          frames: ImageNet-normalised RGB; s = t + 2 `context`, of which the middle t
            are scored, t >= 2 with dynamics; h = w a multiple of the backbone's
            `image_multiple`.
          key: random key of drop-path, needed in training by backbones that have it.

        Returns:
          `scores` (b, t, n) in [0, 1]; `region_logits`, one (b, t, classes) per region;
          `maps`, `tokens`, `static`, `motion`, `nodes`, `graph`, `temporal`; what the dynamics
          add (`pooled`, `scale_weights`) and what the edges add (`senders`, `adjacency`,
          `attention`).

        Raises:
          ValueError: an image size that the backbone does not take.
        """
        backbones.check_size(self.backbone, frames.shape[2], frames.shape[3])
        with jax.named_scope("backbone"):
            tokens, maps = self.backbone(frames, key)
        with jax.named_scope("motion"):
            motion, dynamics_extra = self.dynamics(maps)
        with jax.named_scope("relations"):
            static = self.static(tokens[:, self.context : tokens.shape[1] - self.context])
            fused = static + motion
            region_maps = self.regions(fused)
            nodes = self.au_features(fused, region_maps)
            region_logits = self.heads(region_maps)
            graph, edges_extra = self.edges(nodes, region_logits)
            filtered = self.temporal(graph)
            scores = self.classifier(filtered)
        return {
            "scores": scores,
            "region_logits": region_logits,
            "maps": maps,
            "tokens": tokens,
            "static": static,
            "motion": motion,
            "nodes": nodes,
            "graph": graph,
            "temporal": filtered,
            **dynamics_extra,
            **edges_extra,
        }


def calm(model: MDHR) -> None:
    """Temporal filters begin as the identity, motion features at a tenth of their size.

    The release's random filters mix frames at random, and before the backbone has learned
    anything, batch normalisation brings sensor noise and head motion to the size of the static
    features. A pretrained backbone copes; a small net that starts from nothing waits for long.
    """
    for _, module in nnx.iter_modules(model):
        match module:
            case TemporalConvolution():
                centre = jnp.zeros_like(module.kernel[...]).at[TAPS // 2].set(1)
                module.kernel[...] = centre
                module.bias[...] = jnp.zeros_like(module.bias[...])
            case Scales():
                module.fusion.norm.scale[...] = module.fusion.norm.scale[...] * 0.1


INITIAL = {"release": lambda model: None, "calm": calm}


def create(layout: facs.AuLayout, slots: Slots, rngs: nnx.Rngs) -> MDHR:
    """The model before training.

    Raises:
      ValueError: a slot has no such kind, or the kinds do not go together.
    """
    set_values = choose("initial", INITIAL, slots.initial)
    model = MDHR(
        layout,
        backbone=slots.backbone,
        dynamics=slots.dynamics.kind,
        scales=slots.dynamics.scales,
        k=slots.dynamics.k,
        window=slots.dynamics.window,
        features=slots.features,
        afe=slots.afe,
        auxiliary=slots.auxiliary,
        edges=slots.edges,
        temporal=slots.temporal,
        rngs=rngs,
    )
    set_values(model)
    return model
