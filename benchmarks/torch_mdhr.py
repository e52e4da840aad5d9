# SPDX-License-Identifier: Apache-2.0
"""MDHR in PyTorch, written from the specification, with the official parameter names.

The twin that ours is compared with: it passes the golden vectors itself (tests/torch_twin_test.py)
before anything is compared. Runs in an environment of its own (`bash launch/torch_env.sh`) and
knows nothing of the package. Tensors are channels first; `m` is frames of all clips, clip-major.
"""

import dataclasses
import functools
import math

import torch
from torch import nn
from torch.nn import functional

STAGES = 4
SQUEEZED = 16
WINDOW, SHIFT, MASKED = 7, 3, -100.0


@dataclasses.dataclass(frozen=True)
class Layout:
    """AUs, and region name -> (rows in sevenths of the face, positions of its AUs)."""

    aus: int
    regions: dict[str, tuple[tuple[int, int], tuple[int, ...]]]
    blocks: bool


UP, MID, DOWN = (0, 3), (2, 5), (4, 7)
LAYOUTS = {
    "bp4d": Layout(
        12,
        {
            "up": (UP, (0, 1, 2, 4)),
            "mid": (MID, (3,)),
            "down1": (DOWN, (6, 7, 8)),
            "down2": (DOWN, (5, 9, 10, 11)),
        },
        blocks=True,
    ),
    "disfa": Layout(
        8, {"up": (UP, (0, 1, 2)), "mid": (MID, (3, 4)), "down": (DOWN, (5, 6, 7))}, blocks=False
    ),
}


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (the first with stride) around a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with stride) and 1x1 convolution around a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        outputs = self.expansion * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Frames to the outputs of the four stages; the last is the token map too."""

    def __init__(
        self,
        depths: tuple[int, ...],
        width: int,
        block: type[BasicBlock | Bottleneck] = Bottleneck,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inputs = width
        self.channels = [block.expansion * width * 2**stage for stage in range(STAGES)]
        for stage, depth in enumerate(depths):
            blocks = []
            for number in range(depth):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(block(inputs, width * 2**stage, stride))
                inputs = self.channels[stage]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))

    @property
    def stages(self) -> list[nn.Module]:
        """In their order."""
        return [self.layer1, self.layer2, self.layer3, self.layer4]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(x, 3, 2, 1)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[-1].flatten(2).transpose(1, 2), maps


class DropPath(nn.Module):
    """Leaves a residual branch out for some frames, in training only."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand(len(x), 1, 1, device=x.device) >= self.rate
        return x * keep / (1 - self.rate)


def _windows(x: torch.Tensor) -> torch.Tensor:
    """(m, h, w, c) -> (m * windows, 49, c), windows and tokens row-major."""
    m, h, w, c = x.shape
    x = x.view(m, h // WINDOW, WINDOW, w // WINDOW, WINDOW, c).transpose(2, 3)
    return x.reshape(-1, WINDOW * WINDOW, c)


def _unwindowed(x: torch.Tensor, size: int) -> torch.Tensor:
    n, c = size // WINDOW, x.shape[-1]
    x = x.view(-1, n, n, WINDOW, WINDOW, c).transpose(2, 3)
    return x.reshape(-1, size, size, c)


class Attention(nn.Module):
    """Multi-head attention in windows with a relative position bias."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        y, x = torch.arange(WINDOW * WINDOW) // WINDOW, torch.arange(WINDOW * WINDOW) % WINDOW
        dy, dx = y[:, None] - y[None, :], x[:, None] - x[None, :]
        index = (dy + WINDOW - 1) * (2 * WINDOW - 1) + dx + WINDOW - 1
        self.register_buffer("relative_position_index", index)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        windows, tokens, width = x.shape
        qkv = self.qkv(x).view(windows, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        logits = logits + bias.view(tokens, tokens, self.heads).permute(2, 0, 1)
        if mask is not None:
            logits = logits.view(-1, len(mask), self.heads, tokens, tokens) + mask[:, None]
            logits = logits.view(windows, self.heads, tokens, tokens)
        mixed = logits.softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(windows, tokens, width))


class Mlp(nn.Module):
    """Two linear layers with exact GELU."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """Window attention and perceptron, each after a LayerNorm, each a residual."""

    def __init__(self, width: int, heads: int, size: int, shifted: bool, drop: float):
        super().__init__()
        self.size, self.shift = size, SHIFT if shifted and size > WINDOW else 0
        self.register_buffer("attn_mask", self._mask() if self.shift else None)
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)
        self.drop_path = DropPath(drop)

    def _mask(self) -> torch.Tensor:
        rows = torch.arange(self.size)
        cell = (rows >= self.size - WINDOW).long() + (rows >= self.size - SHIFT).long()
        cells = _windows((3 * cell[:, None] + cell[None, :])[None, ..., None])[..., 0]
        return torch.where(cells[:, :, None] != cells[:, None, :], MASKED, 0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        m, tokens, width = x.shape
        y = self.norm1(x).view(m, self.size, self.size, width)
        y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = _unwindowed(self.attn(_windows(y), self.attn_mask), self.size)
        y = torch.roll(y, (self.shift, self.shift), (1, 2)).view(m, tokens, width)
        x = x + self.drop_path(y)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerge(nn.Module):
    """Four neighbours side by side, LayerNorm, 4C -> 2C."""

    def __init__(self, width: int, size: int):
        super().__init__()
        self.size = size
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(len(x), self.size, self.size, -1)
        corners = (x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2])
        return self.reduction(self.norm(torch.cat(corners, -1).flatten(1, 2)))


class PatchEmbed(nn.Module):
    """4x4 patches, LayerNorm."""

    def __init__(self, width: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, 4, 4)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.proj(x).flatten(2).transpose(1, 2))


class SwinStage(nn.Module):
    """Blocks and the merge after them."""

    def __init__(self, width: int, heads: int, size: int, drops: list[float], last: bool):
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(width, heads, size, shifted=block % 2 == 1, drop=drop)
            for block, drop in enumerate(drops)
        )
        if not last:
            self.downsample = PatchMerge(width, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.downsample(x) if hasattr(self, "downsample") else x


class Swin(nn.Module):
    """Frames to tokens and to the inputs of the four stages."""

    def __init__(
        self,
        width: int = 128,
        depths: tuple[int, ...] = (2, 2, 18, 2),
        heads: tuple[int, ...] = (4, 8, 16, 32),
        drop: float = 0.5,
        image_size: int = 224,
    ):
        super().__init__()
        self.patch_embed = PatchEmbed(width)
        self.channels = [width * 2**stage for stage in range(STAGES)]
        drops = torch.linspace(0, drop, sum(depths), device="cpu").tolist()
        self.layers = nn.ModuleList()
        for stage, depth in enumerate(depths):
            size, own = image_size // 4 // 2**stage, [drops.pop(0) for _ in range(depth)]
            self.layers.append(
                SwinStage(self.channels[stage], heads[stage], size, own, stage == STAGES - 1)
            )
        self.norm = nn.LayerNorm(self.channels[-1])

    @property
    def stages(self) -> list[nn.Module]:
        """In their order, each with the merge after it."""
        return list(self.layers)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        x, maps = self.patch_embed(x), []
        for stage in self.stages:
            size = math.isqrt(x.shape[1])
            maps.append(x.transpose(1, 2).unflatten(2, (size, size)))
            x = stage(x)
        return self.norm(x), maps


BACKBONES = {
    "resnet18": functools.partial(ResNet, (2, 2, 2, 2), 64, BasicBlock),
    "resnet50": functools.partial(ResNet, (3, 4, 6, 3), 64),
    "resnet101": functools.partial(ResNet, (3, 4, 23, 3), 64),
    "resnet_narrow": functools.partial(ResNet, (1, 1, 1, 1), 8),
    "swin_t": functools.partial(Swin, 96, (2, 2, 6, 2), (3, 6, 12, 24), 0.2),
    "swin_s": functools.partial(Swin, 96, (2, 2, 18, 2), (3, 6, 12, 24), 0.3),
    "swin_b": Swin,
}


class LinearBlock(nn.Module):
    """Linear, batch norm over the last axis, ReLU: (m, positions, inputs) -> (..., outputs)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.fc = nn.Linear(inputs, outputs)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.bn(self.fc(x).transpose(1, 2)).transpose(1, 2))


class MFD(nn.Module):
    """Multi-scale facial dynamics."""

    def __init__(self, channels: list[int], features: int, k: int):
        super().__init__()
        self.k, width = k, channels[-1]
        scales = range(1, STAGES + 1)
        for scale, inputs in zip(scales, channels, strict=True):
            patch = 2 ** (STAGES - scale)
            self.add_module(f"conv{scale}", nn.Conv2d(inputs, width, patch, patch))
        self.convcat = nn.Conv2d(width, features, 1)
        for scale in scales:
            self.add_module(f"bn{scale}", nn.BatchNorm2d(width))
        self.bn = nn.BatchNorm1d(features)
        for scale in scales:
            self.add_module(f"weight_{scale}", nn.Conv2d(width, SQUEEZED, 1))
        self.weight = nn.Conv2d(STAGES * SQUEEZED, STAGES, 1)
        for scale in scales:
            self.add_module(f"wbn{scale}", nn.BatchNorm2d(SQUEEZED))

    def forward(
        self, maps: list[torch.Tensor], frames: int
    ) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
        """Motion features (m, positions, features), averages per scale, weights."""
        pooled, squeezed = [], []
        for scale, x in enumerate(maps, start=1):
            motion = self._motion(scale, x.unflatten(0, (-1, frames)))
            pooled.append(motion)
            reduced = getattr(self, f"weight_{scale}")(motion)
            squeezed.append(functional.relu(getattr(self, f"wbn{scale}")(reduced)))
        weights = self.weight(torch.cat(squeezed, 1)).softmax(1)
        mixed = sum(weights[:, s : s + 1] * p for s, p in enumerate(pooled))
        fused = functional.relu(self.bn(self.convcat(mixed).flatten(2)))
        return fused.transpose(1, 2), pooled, weights

    def _motion(self, scale: int, x: torch.Tensor) -> torch.Tensor:
        clips = len(x)
        differences = (x[:, 1:] - x[:, :-1]).flatten(0, 1)
        motion = getattr(self, f"conv{scale}")(differences)
        motion = functional.relu(getattr(self, f"bn{scale}")(motion)).unflatten(0, (clips, -1))
        channels_first = functional.pad(motion.transpose(1, 2), (0, 0, 0, 0, self.k, self.k))
        window = functional.avg_pool3d(channels_first, (2 * self.k, 1, 1), stride=1)
        return window.transpose(1, 2).flatten(0, 1)


class LRM(nn.Module):
    """AU nodes and combination logits from the regions' rows."""

    def __init__(self, layout: Layout, features: int):
        super().__init__()
        self.layout = layout
        self.class_linears = nn.ModuleList(
            LinearBlock(features, features) for _ in range(layout.aus)
        )
        for name in layout.regions if layout.blocks else ():
            self.add_module(f"{name}_linear", LinearBlock(features, features))
        for name, (_, aus) in layout.regions.items():
            self.add_module(f"{name}_fc", nn.Linear(features, 2 ** len(aus)))

    def forward(self, x: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        grid = math.isqrt(x.shape[1])
        square = x.unflatten(1, (grid, grid))
        logits, nodes = {}, [None] * self.layout.aus
        for name, ((start, stop), aus) in self.layout.regions.items():
            rows = slice(math.floor(grid * start / 7), math.ceil(grid * stop / 7))
            part = square[:, rows].flatten(1, 2)
            if self.layout.blocks:
                part = getattr(self, f"{name}_linear")(part)
            logits[name] = getattr(self, f"{name}_fc")(part.mean(1))
            for au in aus:
                nodes[au] = self.class_linears[au](part).mean(1)
        return logits, torch.stack(nodes, 1)


class GAT(nn.Module):
    """One head of graph attention with a residual."""

    def __init__(self, features: int):
        super().__init__()
        self.scoring_fn_target = nn.Parameter(torch.zeros(1, 1, features))
        self.scoring_fn_source = nn.Parameter(torch.zeros(1, 1, features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.linear = nn.Linear(features, features, bias=False)

    def forward(self, v: torch.Tensor, edges: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.linear(v)
        source, target = (h * self.scoring_fn_source).sum(-1), (h * self.scoring_fn_target).sum(-1)
        scores = functional.leaky_relu(source[:, :, None] + target[:, None, :], 0.2)
        attention = scores.masked_fill(edges < 0.1, -math.inf).softmax(-1)
        return functional.elu(attention @ h + v + self.bias), attention


class CRM(nn.Module):
    """Edges from AUs that the regions' heads see active to AUs of other regions."""

    def __init__(self, layout: Layout, features: int):
        super().__init__()
        self.layout = layout
        region = torch.zeros(layout.aus, dtype=torch.long)
        for index, (_, aus) in enumerate(layout.regions.values()):
            region[list(aus)] = index
        cross = (region[:, None] != region[None, :]).long()
        self.register_buffer("cross", cross, persistent=False)
        self.gat = GAT(features)

    def forward(
        self, logits: dict[str, torch.Tensor], nodes: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        senders = torch.zeros_like(nodes[..., 0], dtype=torch.long)
        for name, (_, aus) in self.layout.regions.items():
            combination = logits[name].detach().argmax(-1)
            for bit, au in enumerate(reversed(aus)):
                senders[:, au] = combination >> bit & 1
        own = torch.eye(self.layout.aus, dtype=torch.long, device=nodes.device)
        edges = self.cross * senders[:, None, :] + own
        graph, attention = self.gat(nodes, edges)
        return {"mask": senders, "adj": edges, "att": attention, "gat": graph}


class TCN(nn.Module):
    """A depthwise filter over time per AU, batch norm with a channel per AU, ReLU."""

    def __init__(self, aus: int, features: int):
        super().__init__()
        self.bn = nn.BatchNorm1d(aus)
        self.temporal_cnn = nn.ModuleList(
            nn.Conv1d(features, features, 5, padding=2, groups=features) for _ in range(aus)
        )

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        clips = x.unflatten(0, (-1, frames))
        filtered = [
            convolution(clips[:, :, au].transpose(1, 2)).transpose(1, 2).flatten(0, 1)
            for au, convolution in enumerate(self.temporal_cnn)
        ]
        return functional.relu(self.bn(torch.stack(filtered, 1)))


class Classifier(nn.Module):
    """Cosine between a node and the AU's rectified vector."""

    def __init__(self, aus: int, features: int):
        super().__init__()
        self.sc = nn.Parameter(torch.zeros(aus, features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        vectors = functional.normalize(functional.relu(self.sc), dim=-1)
        return (functional.normalize(x, dim=-1) * vectors).sum(-1)


class MDHR(nn.Module):
    """Clips (b, t, 3, h, w) to scores (m, aus) and every named intermediate."""

    def __init__(self, layout: Layout, backbone: nn.Module, *, features: int = 512, k: int = 5):
        super().__init__()
        self.Backbone = backbone
        self.global_linear = LinearBlock(8 * backbone.channels[0], features)
        self.MFD = MFD(backbone.channels, features, k)
        self.LRM = LRM(layout, features)
        self.CRM = CRM(layout, features)
        self.TCN = TCN(layout.aus, features)
        self.node_classifier = Classifier(layout.aus, features)

    def forward(self, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        """Names are those of the golden vectors."""
        frames = clips.shape[1]
        tokens, maps = self.Backbone(clips.flatten(0, 1))
        static = self.global_linear(tokens)
        motion, pooled, weights = self.MFD(maps, frames)
        logits, nodes = self.LRM(static + motion)
        relations = self.CRM(logits, nodes)
        filtered = self.TCN(relations["gat"], frames)
        outputs = {"bb": tokens, "static": static, "mfd": motion, "scale_w": weights}
        outputs |= {f"ms{scale}": x for scale, x in enumerate(maps, start=1)}
        outputs |= {f"pool{scale}": x for scale, x in enumerate(pooled, start=1)}
        outputs |= {f"logit_{name}": x for name, x in logits.items()}
        return (
            outputs
            | relations
            | {
                "nodes": nodes,
                "tcn": filtered,
                "scores": self.node_classifier(filtered),
            }
        )


def build(layout: str, backbone: str, *, k: int = 5) -> MDHR:
    """The released model: `layout` bp4d or disfa, `backbone` resnet or swin_transformer."""
    known = {"resnet": "resnet50", "swin_transformer": "swin_b"}
    return MDHR(LAYOUTS[layout], BACKBONES[known[backbone]](), k=k)


def weighted_asymmetric(
    scores: torch.Tensor, labels: torch.Tensor, class_weights: torch.Tensor
) -> torch.Tensor:
    """Loss of every score, (m, aus)."""
    p, y, tiny = scores, labels.to(scores.dtype), 1e-8
    positive = y * p.clamp(min=tiny).log()
    negative = p.detach() * (1 - y) * (1 - p).clamp(min=tiny).log()
    return -class_weights * (positive + negative)


def loss(
    outputs: dict[str, torch.Tensor],
    labels: torch.Tensor,
    class_weights: torch.Tensor,
    layout: Layout,
    region_weight: float = 0.01,
) -> dict[str, torch.Tensor]:
    """Weighted asymmetric loss of the scores and cross-entropy of the regions' combinations.

    Args:
      outputs: of the model, for m frames.
      labels: (m, aus) of 0 and 1.
      class_weights: one per AU, mean 1.
      layout: the model's.
      region_weight: lambda.
    """
    au_loss = weighted_asymmetric(outputs["scores"], labels, class_weights).mean()
    regions = []
    for name, (_, aus) in layout.regions.items():
        bits = 2 ** torch.arange(len(aus) - 1, -1, -1, device=labels.device)
        combination = (labels[:, list(aus)].long() * bits).sum(-1)
        regions.append(functional.cross_entropy(outputs[f"logit_{name}"], combination))
    region_loss = sum(regions) / len(regions)
    return {"loss": au_loss + region_weight * region_loss, "wa": au_loss, "ce": region_loss}
