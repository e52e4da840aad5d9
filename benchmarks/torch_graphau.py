# SPDX-License-Identifier: Apache-2.0
"""ME-GraphAU and OpenGraphAU in PyTorch, written from the specification, with official names.

The twin that ours is compared with: it passes the golden vectors itself
(tests/torch_graphau_test.py) before anything is compared. Runs in an environment of its own
(`bash launch/torch_env.sh`) and knows nothing of the package. `m` is pictures, `n` nodes, `c`
features; edge i * n + j goes from sender j to receiver i.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping

import torch
import torch_mdhr
from torch import nn
from torch.nn import functional

PATTERNS = 4  # of two AUs: neither, the sender, the receiver, both
LETTERS = "UVABE"  # of a gated layer's linear maps
ADAMW = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 5e-4}


def gated(
    x: torch.Tensor, e: torch.Tensor, layer: Mapping[str, nn.Module]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised messages (m, n, c) and edges (m, n*n, c) of a gated layer.

    Args:
      x: nodes.
      e: edges.
      layer: the five linear maps and the norms of nodes and edges, by name.
    """
    nodes = x.shape[1]
    pairs = layer["A"](x)[:, :, None] + layer["B"](x)[:, None]
    e = e + functional.relu(layer["bne"](pairs.flatten(1, 2) + layer["E"](e)))
    gates = e.unflatten(1, (nodes, nodes)).sigmoid().softmax(2)
    message = layer["U"](x) + (gates * layer["V"](x)[:, None]).mean(2)
    return layer["bnv"](message), e


class NumberedLayers(nn.Module):
    """ME's two gated layers: ReLU after the sum."""

    def __init__(self, nodes: int, features: int):
        super().__init__()
        for number in (1, 2):
            for letter in LETTERS:
                self.add_module(f"{letter}{number}", nn.Linear(features, features, bias=False))
        for number in (1, 2):
            self.add_module(f"bnv{number}", nn.BatchNorm1d(nodes))
            self.add_module(f"bne{number}", nn.BatchNorm1d(nodes**2))

    def forward(self, x: torch.Tensor, e: torch.Tensor) -> dict[str, torch.Tensor]:
        found = {}
        for number in (1, 2):
            layer = {name: getattr(self, f"{name}{number}") for name in (*LETTERS, "bnv", "bne")}
            message, e = gated(x, e, layer)
            x = functional.relu(x + message)
            found |= {f"x{number}": x, f"e{number}": e}
        return found


class ListedLayer(nn.Module):
    """Maps and norms of one of OpenGraphAU's gated layers."""

    def __init__(self, nodes: int, features: int):
        super().__init__()
        for letter in LETTERS:
            self.add_module(letter, nn.Linear(features, features, bias=False))
        self.bnv = nn.BatchNorm1d(nodes)
        self.bne = nn.BatchNorm1d(nodes**2)


class ListedLayers(nn.Module):
    """OpenGraphAU's two gated layers: ReLU before the sum."""

    def __init__(self, nodes: int, features: int):
        super().__init__()
        self.graph_layers = nn.ModuleList(ListedLayer(nodes, features) for _ in range(2))

    def forward(self, x: torch.Tensor, e: torch.Tensor) -> dict[str, torch.Tensor]:
        found = {}
        for number, layer in enumerate(self.graph_layers, start=1):
            message, e = gated(x, e, dict(layer.named_children()))
            x = x + functional.relu(message)
            found |= {f"x{number}": x, f"e{number}": e}
        return found


@dataclasses.dataclass(frozen=True)
class Release:
    """What a release with its AUs fixes.

    Attributes:
      nodes: AUs that have one.
      sided: the nodes of the left and right outputs, a pair each.
      neighbours: of a node in stage 1, K.
      prefix: of the names of what every node has.
      layers: the gated ones of stage 2.
      edge_head: whether stage 2 names the pattern of two AUs.
    """

    nodes: int
    sided: tuple[int, ...] = ()
    neighbours: int = 4
    prefix: str = ""
    layers: type[NumberedLayers | ListedLayers] = NumberedLayers
    edge_head: bool = True


RELEASES = {
    "megraph_bp4d": Release(12),
    "megraph_disfa": Release(8, neighbours=3),
    "opengraph": Release(
        27,
        sided=(0, 1, 2, 4, 7, 8, 11),
        prefix="main_",
        layers=ListedLayers,
        edge_head=False,
    ),
}


def _dots(v: torch.Tensor) -> torch.Tensor:
    return v @ v.transpose(1, 2)


def _cosine(v: torch.Tensor) -> torch.Tensor:
    return _dots(functional.normalize(v, dim=-1))


def _manhattan(v: torch.Tensor) -> torch.Tensor:
    return -(v[:, :, None] - v[:, None]).abs().sum(-1)


def _euclidean(v: torch.Tensor) -> torch.Tensor:
    return -(v[:, :, None] - v[:, None]).square().sum(-1).sqrt()


# How near nodes (m, n, c) are to each other, (m, n, n). ME's l1 is manhattan; OpenGraphAU's l1 is
# euclidean and its l2 manhattan.
METRICS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "dots": _dots,
    "cosine": _cosine,
    "manhattan": _manhattan,
    "euclidean": _euclidean,
}


class NearestGraph(nn.Module):
    """Messages from the nearest nodes, as many as `neighbours` and those as near as the last."""

    def __init__(self, nodes: int, features: int, neighbours: int, metric: str):
        super().__init__()
        self.neighbours, self.nearness = neighbours, METRICS[metric]
        self.U = nn.Linear(features, features)
        self.V = nn.Linear(features, features)
        self.bnv = nn.BatchNorm1d(nodes)

    def forward(self, v: torch.Tensor) -> dict[str, torch.Tensor]:
        si, adjacency, normalised = self.graph(v.detach())
        message = normalised @ self.V(v) + self.U(v)
        nodes = functional.relu(v + self.bnv(message))
        return {"si": si, "adj": adjacency, "norm_adj": normalised, "gnn": nodes}

    def graph(self, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Nearness, adjacency, and adjacency over both ends' numbers of neighbours."""
        si = self.nearness(v)
        last = si.topk(self.neighbours, dim=-1).values[..., -1:]
        adjacency = (si >= last).to(v.dtype)
        scale = adjacency.sum(-1, keepdim=True).rsqrt()
        return si, adjacency, scale * adjacency * scale.transpose(1, 2)


class CrossAttention(nn.Module):
    """One head, no projection after it."""

    def __init__(self, features: int):
        super().__init__()
        self.linear_q = nn.Linear(features, features // 2)
        self.linear_k = nn.Linear(features, features // 2)
        self.linear_v = nn.Linear(features, features)
        self.scale = (features // 2) ** -0.5

    def forward(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Every node's tokens y (m, n, d, c) ask all pictures' x (m, i, d, c): (m, i, n, d, c)."""
        q, k, v = self.linear_q(y) * self.scale, self.linear_k(x), self.linear_v(x)
        weights = torch.einsum("mjsc,mitc->mijst", q, k).softmax(-1)
        return torch.einsum("mijst,mitc->mijsc", weights, v)


class EdgeExtractor(nn.Module):
    """Edge features from what nodes' tokens (m, n, d, c) ask the picture and each other."""

    def __init__(self, nodes: int, features: int):
        super().__init__()
        self.FAM = CrossAttention(features)
        self.ARM = CrossAttention(features)
        self.edge_proj = nn.Linear(features, features)
        self.bn = nn.BatchNorm2d(nodes**2)

    def forward(self, u: torch.Tensor, x: torch.Tensor) -> dict[str, torch.Tensor]:
        fam = self.FAM(u, x[:, None])[:, 0]
        arm = self.ARM(fam, fam).flatten(1, 2)
        edges = self.bn(self.edge_proj(arm))
        return {"fam": fam, "arm": arm, "edge_map": edges, "f_e": edges.mean(2)}


class Head(nn.Module):
    """What both stages share: nodes from the picture's tokens, scores from nodes."""

    def __init__(self, release: Release, features: int):
        super().__init__()
        self.release = release
        self._add("sc", nn.Parameter(torch.zeros(release.nodes, features)))
        if release.sided:
            self.sub_sc = nn.Parameter(torch.zeros(2 * len(release.sided), features))
        blocks = (torch_mdhr.LinearBlock(features, features) for _ in range(release.nodes))
        self._add("class_linears", nn.ModuleList(blocks))

    def _add(self, name: str, part: nn.Parameter | nn.Module) -> None:
        setattr(self, self.release.prefix + name, part)

    def _get(self, name: str) -> nn.Parameter | nn.Module:
        return getattr(self, self.release.prefix + name)

    def nodes(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Tokens (m, n, d, c) and vectors (m, n, c) of every node."""
        u = torch.stack([block(x) for block in self._get("class_linears")], 1)
        return {"f_u": u, "f_v": u.mean(2)}

    def scores(self, nodes: torch.Tensor) -> torch.Tensor:
        """Of all AUs, then left and right of each sided one."""
        found = [_cosines(nodes, self._get("sc"))]
        if self.release.sided:
            both = nodes[:, list(self.release.sided)].repeat_interleave(2, 1)
            found.append(_cosines(both, self.sub_sc))
        return torch.cat(found, 1)


def _cosines(nodes: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    vectors = functional.normalize(functional.relu(vectors), dim=-1)
    return (functional.normalize(nodes, dim=-1) * vectors).sum(-1)


class ANFL(Head):
    """Stage 1: nodes told by their nearest."""

    def __init__(self, release: Release, features: int, metric: str = "dots"):
        super().__init__(release, features)
        self.gnn = NearestGraph(release.nodes, features, release.neighbours, metric)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.nodes(x)
        found |= self.gnn(found["f_v"])
        return found | {"scores": self.scores(found["gnn"])}


class MEFL(Head):
    """Stage 2: nodes and edges of the complete graph."""

    def __init__(self, release: Release, features: int):
        super().__init__(release, features)
        self.edge_extractor = EdgeExtractor(release.nodes, features)
        self.gnn = release.layers(release.nodes, features)
        if release.edge_head:
            self.edge_fc = nn.Linear(features, PATTERNS)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.nodes(x)
        found |= self.edge_extractor(found["f_u"], x)
        found |= self.gnn(found["f_v"], found["f_e"])
        if self.release.edge_head:
            found["edge_logits"] = self.edge_fc(found["e2"])
        return found | {"scores": self.scores(found["x2"])}


STAGES = {1: ANFL, 2: MEFL}


class GraphAU(nn.Module):
    """Pictures (m, 3, h, w) to scores (m, outputs) and every named intermediate."""

    def __init__(self, release: Release, backbone: nn.Module, *, stage: int, features: int):
        super().__init__()
        self.backbone = backbone
        self.global_linear = torch_mdhr.LinearBlock(backbone.channels[-1], features)
        self.head = STAGES[stage](release, features)

    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """Names are those of the golden vectors."""
        tokens, _ = self.backbone(pictures)
        x = self.global_linear(tokens)
        return {"bb": tokens, "global": x} | self.head(x)


def build(configuration: str) -> GraphAU:
    """A released model by its name, such as `megraph_bp4d_resnet50_stage2`."""
    release, backbone, stage = re.fullmatch(
        r"(\w+?)_((?:resnet|swin)\w+)_stage([12])", configuration
    ).groups()
    network = torch_mdhr.BACKBONES[backbone]()
    features = network.channels[-1] // (4 if backbone.startswith("resnet") else 2)
    return GraphAU(RELEASES[release], network, stage=int(stage), features=features)


def loss(
    outputs: dict[str, torch.Tensor],
    labels: torch.Tensor,
    class_weights: torch.Tensor,
    edge_weight: float,
) -> dict[str, torch.Tensor]:
    """Weighted asymmetric loss of the known scores, and cross-entropy of the edges if there are.

    Args:
      outputs: of the model, for m pictures.
      labels: (m, outputs) of 0, 1 and -1 for unknown; without -1 where there are edges.
      class_weights: one per output, mean 1.
      edge_weight: lambda.
    """
    entries = torch_mdhr.weighted_asymmetric(outputs["scores"], labels, class_weights)
    au_loss = entries[labels >= 0].mean()
    if "edge_logits" not in outputs:
        return {"loss": au_loss, "wa": au_loss}
    receivers, senders = labels.long()[:, :, None], labels.long()[:, None]
    patterns = (2 * receivers + senders).flatten()
    edge_loss = functional.cross_entropy(outputs["edge_logits"].flatten(0, 1), patterns)
    return {"loss": au_loss + edge_weight * edge_loss, "wa": au_loss, "edge": edge_loss}


def optimizer(model: nn.Module) -> torch.optim.AdamW:
    """That of both stages; every step brings its learning rate."""
    return torch.optim.AdamW(model.parameters(), lr=0.0, **ADAMW)
