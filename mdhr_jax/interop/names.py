# SPDX-License-Identifier: Apache-2.0
"""Official state_dict names and shapes, and where each entry lives in our tree.

A table pairs a pattern of our paths with an official name and an einops rule that turns our
array into the official one; read backwards it turns an official array into ours. Where the right
side begins with `n`, our array stacks one official entry per AU. MDHR's table is here, that of the
GraphAU family in `graphau_names`.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from einops import rearrange
from jaxtyping import Array

from mdhr_jax import facs

LINEAR = "i o -> o i"
POINTWISE = "i o -> o i 1 1"
CONV = "h w i o -> o i h w"
PATCH = "(p q i) o -> o i p q"
STACKED = "c n d -> n d c"
# Last parts of entries that torch computes by itself; they have no place in our tree.
COMPUTED = ("num_batches_tracked", "relative_position_index", "attn_mask")
NORM_LEAVES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


@dataclasses.dataclass(frozen=True)
class NameRule:
    """One line of the table: our path (a regular expression), the official name, the rule."""

    ours: str
    official: str
    rule: str = "... -> ..."
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)  # that a rule cannot infer
    aus: tuple[int, ...] = ()  # positions of the stacked AUs in the layout's order


@dataclasses.dataclass(frozen=True)
class Entry:
    """One official entry: name, shape, and the piece of our tree that holds it.

    `place` orders entries as the official state_dict does.
    """

    name: str
    shape: tuple[int, ...]
    path: tuple[str | int, ...]
    row: NameRule
    index: int | None
    place: tuple[int | float, ...]

    def read(self, array: np.ndarray) -> np.ndarray:
        """The official array, cut out of ours at `path`."""
        official = rearrange(array, self.row.rule, **self.row.sizes)
        return official if self.index is None else official[self.index]


def linear(ours: str, official: str, rule: str = LINEAR, **extra) -> list[NameRule]:
    """Rows of a linear map or a convolution with a bias."""
    return [
        NameRule(f"{ours}.kernel", f"{official}.weight", rule, **extra),
        NameRule(f"{ours}.bias", f"{official}.bias"),
    ]


def patches(ours: str, official: str, size: int) -> list[NameRule]:
    """Rows of a convolution whose kernel, `size` x `size`, equals its stride."""
    return linear(ours, official, PATCH, sizes={"p": size, "q": size})


def norm(ours: str, official: str, **extra) -> list[NameRule]:
    """Rows of a norm: scale and bias, and where it has them, running statistics."""
    return [NameRule(f"{ours}.{a}", f"{official}.{b}", **extra) for a, b in NORM_LEAVES.items()]


def stacked(ours: str, official: str, aus: Sequence[int]) -> list[NameRule]:
    """Rows of linear blocks, one official one for each of these AUs."""
    stack: dict[str, Any] = {"aus": tuple(aus)}
    return [
        NameRule(f"{ours}.kernel", f"{official}.fc.weight", STACKED, **stack),
        NameRule(f"{ours}.bias", f"{official}.fc.bias", "n d -> n d", **stack),
        *norm(f"{ours}.norm", f"{official}.bn", rule="n d -> n d", **stack),
    ]


BASIC = (("first", CONV), ("second", CONV))
BOTTLENECK = (("reduce", POINTWISE), ("conv", CONV), ("expand", POINTWISE))


def _resnet(prefix: str, branch: Sequence[tuple[str, str]] = BOTTLENECK) -> list[NameRule]:
    block, official = r"backbone.stages.(\d+).(\d+)", f"{prefix}.layer{{+1}}.{{2}}"
    rows = [NameRule("backbone.stem.conv.kernel", f"{prefix}.conv1.weight", CONV)]
    rows += norm("backbone.stem.norm", f"{prefix}.bn1")
    for number, (name, rule) in enumerate(branch, start=1):
        rows.append(NameRule(f"{block}.{name}.kernel", f"{official}.conv{number}.weight", rule))
        rows += norm(f"{block}.{name}_norm", f"{official}.bn{number}")
    rows.append(
        NameRule(f"{block}.shortcut.linear.kernel", f"{official}.downsample.0.weight", POINTWISE)
    )
    return rows + norm(f"{block}.shortcut.norm", f"{official}.downsample.1")


def _swin(prefix: str) -> list[NameRule]:
    block, official = r"backbone.stages.(\d+).(\d+)", f"{prefix}.layers.{{1}}.blocks.{{2}}"
    merge, merged = r"backbone.merges.(\d+)", f"{prefix}.layers.{{1}}.downsample"
    return [
        *patches("backbone.patches", f"{prefix}.patch_embed.proj", 4),
        *norm("backbone.patch_norm", f"{prefix}.patch_embed.norm"),
        *norm(f"{block}.attention_norm", f"{official}.norm1"),
        NameRule(
            f"{block}.attention.position_bias", f"{official}.attn.relative_position_bias_table"
        ),
        *linear(f"{block}.attention.qkv", f"{official}.attn.qkv"),
        *linear(f"{block}.attention.projection", f"{official}.attn.proj"),
        *norm(f"{block}.mlp_norm", f"{official}.norm2"),
        *linear(f"{block}.mlp_in", f"{official}.mlp.fc1"),
        *linear(f"{block}.mlp_out", f"{official}.mlp.fc2"),
        *linear(f"{merge}.reduction", f"{merged}.reduction"),
        *norm(f"{merge}.norm", f"{merged}.norm"),
        *norm("backbone.norm", f"{prefix}.norm"),
    ]


def _dynamics() -> list[NameRule]:
    projections, norms, squeezes, squeeze_norms = [], [], [], []
    for scale in (1, 2, 3, 4):
        project, squeeze = f"dynamics.projections.{scale - 1}", f"dynamics.squeezes.{scale - 1}"
        projections += patches(f"{project}.convolution", f"MFD.conv{scale}", 2 ** (4 - scale))
        norms += norm(f"{project}.norm", f"MFD.bn{scale}")
        squeezes += linear(f"{squeeze}.linear", f"MFD.weight_{scale}", POINTWISE)
        squeeze_norms += norm(f"{squeeze}.norm", f"MFD.wbn{scale}")
    return [
        *projections,
        *linear("dynamics.fusion.linear", "MFD.convcat", POINTWISE),
        *norms,
        *norm("dynamics.fusion.norm", "MFD.bn"),
        *squeezes,
        *linear("dynamics.choice", "MFD.weight", POINTWISE),
        *squeeze_norms,
    ]


def _relations(layout: facs.AuLayout) -> list[NameRule]:
    extractors, blocks, heads = [], [], []
    for r, region in enumerate(layout.regions):
        aus = layout.au_indices(region)
        extractors += stacked(f"au_features.blocks.{r}", "LRM.class_linears.{n}", aus)
        blocks += linear(f"regions.blocks.{r}.linear", f"LRM.{region.name}_linear.fc")
        blocks += norm(f"regions.blocks.{r}.norm", f"LRM.{region.name}_linear.bn")
        heads += linear(f"heads.heads.{r}", f"LRM.{region.name}_fc")
    return extractors + blocks + heads


def _edges() -> list[NameRule]:
    return [
        NameRule("edges.attention.target", "CRM.gat.scoring_fn_target", "c -> 1 1 c"),
        NameRule("edges.attention.source", "CRM.gat.scoring_fn_source", "c -> 1 1 c"),
        NameRule("edges.attention.bias", "CRM.gat.bias"),
        NameRule("edges.attention.linear.kernel", "CRM.gat.linear.weight", LINEAR),
    ]


def _temporal(layout: facs.AuLayout) -> list[NameRule]:
    stack: dict[str, Any] = {"aus": tuple(range(len(layout.aus)))}
    filters = "TCN.temporal_cnn.{n}"
    return [
        *norm("temporal.norm", "TCN.bn"),
        NameRule("temporal.kernel", f"{filters}.weight", "k n d -> n d 1 k", **stack),
        NameRule("temporal.bias", f"{filters}.bias", "n d -> n d", **stack),
    ]


# Rows of a backbone, from its official name.
BACKBONE_ROWS: dict[str, Callable[[str], list[NameRule]]] = {
    "resnet18": functools.partial(_resnet, branch=BASIC),
    "resnet50": _resnet,
    "resnet101": _resnet,
    "swin_t": _swin,
    "swin_s": _swin,
    "swin_b": _swin,
    "swin_b_outputs": _swin,
}


def table(layout: facs.AuLayout, backbone: str) -> list[NameRule]:
    """All rows for an MDHR with the default slots, in the order of the official state_dict."""
    return [
        *BACKBONE_ROWS[backbone]("Backbone"),
        *linear("static.linear", "global_linear.fc"),
        *norm("static.norm", "global_linear.bn"),
        *_dynamics(),
        *_relations(layout),
        *_edges(),
        *_temporal(layout),
        NameRule("classifier.class_vectors", "node_classifier.sc"),
    ]


def _official_name(row: NameRule, numbers: tuple[int, ...], au: int | None) -> str:
    name = row.official.replace("{n}", str(au))
    for position, number in enumerate(numbers, start=1):
        # "{+1}": official stages of the ResNet count from 1.
        name = name.replace(f"{{{position}}}", str(number))
        name = name.replace(f"{{+{position}}}", str(number + 1))
    return name


def _groups(rows: list[NameRule]) -> list[int]:
    """For each row the first one whose name agrees with its own up to the first number."""
    starts = [row.official.split("{")[0] for row in rows]
    return [starts.index(start) for start in starts]


def _place(group: int, position: int, numbers: tuple[int, ...], au: int | None) -> tuple:
    """Where an entry stands: its row's group, stage, block or AU in it, the row's position.

    What belongs to a stage as a whole (Swin's merges) follows the stage's blocks.
    """
    within = numbers if au is None else (au,)
    return (group, *within, *[math.inf] * (2 - len(within)), position)


def entries(tree: dict, rows: list[NameRule]) -> list[Entry]:
    """The official entries of a tree of arrays or shapes, in the order of the state_dict.

    Args:
      tree: of arrays or shapes.
      rows: the table of its model.

    Raises:
      ValueError: leaves that match no row or several; all are named.
    """
    groups = _groups(rows)
    found, problems = [], []
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        path = tuple(key.key for key in keys)
        dotted = ".".join(map(str, path))
        matches = [(i, m) for i, row in enumerate(rows) if (m := re.fullmatch(row.ours, dotted))]
        if len(matches) != 1:
            problems.append(f"{dotted} matches {len(matches)} rows")
            continue
        position, match = matches[0]
        row = rows[position]
        numbers = tuple(int(group) for group in match.groups())
        shape = rearrange(np.broadcast_to(False, leaf.shape), row.rule, **row.sizes).shape
        for index, au in enumerate(row.aus) if row.aus else [(None, None)]:
            name = _official_name(row, numbers, au)
            place = _place(groups[position], position, numbers, au)
            own = shape if au is None else shape[1:]
            found.append(Entry(name, own, path, row, index, place))
    if problems:
        raise ValueError("official names: " + "; ".join(problems))
    return sorted(found, key=lambda entry: entry.place)


def lookup(tree: dict, path: tuple[str | int, ...]) -> Array | np.ndarray:
    """The leaf at a path."""
    leaf: Any = tree
    for key in path:
        leaf = leaf[key]
    return leaf


def to_official(tree: dict, found: list[Entry]) -> dict[str, np.ndarray]:
    """Official names to arrays in official layout."""
    return {entry.name: entry.read(np.asarray(lookup(tree, entry.path))) for entry in found}


def problems(found: list[Entry], official: dict[str, np.ndarray]) -> list[list[str]]:
    """Missing, left-over and mis-shaped entries, in words; none when all is as expected."""
    expected = {entry.name: entry.shape for entry in found}
    return [
        [f"missing {name}" for name in expected if name not in official],
        [f"left over {ascii(name)[1:-1]}" for name in official if name not in expected],
        [
            f"{name} has shape {official[name].shape}, expected {shape}"
            for name, shape in expected.items()
            if name in official and official[name].shape != shape
        ],
    ]


def from_official(tree: dict, found: list[Entry], official: dict[str, np.ndarray]) -> dict:
    """Our tree (of which `tree` gives the structure) filled with official arrays.

    `problems` says beforehand whether they fit.
    """
    groups: dict[tuple, list[Entry]] = {}
    for entry in found:
        groups.setdefault(entry.path, []).append(entry)
    leaves = {path: _join(group, official) for path, group in groups.items()}
    return jax.tree_util.tree_map_with_path(
        lambda keys, _: leaves[tuple(key.key for key in keys)], tree
    )


def _join(group: list[Entry], official: dict[str, np.ndarray]) -> np.ndarray:
    row = group[0].row
    ours, theirs = row.rule.split(" -> ")
    arrays = [official[entry.name] for entry in sorted(group, key=lambda entry: entry.index or 0)]
    stack = np.stack(arrays) if row.aus else arrays[0]
    return rearrange(stack, f"{theirs} -> {ours}", **row.sizes)
