# SPDX-License-Identifier: Apache-2.0
"""Official state_dict names and shapes, and where each entry lives in our tree.

The table pairs a pattern of our paths with an official name and an einops rule that turns our
array into the official one; read backwards it turns an official array into ours. Where the right
side begins with `n`, our array stacks one official entry per AU.
"""

import dataclasses
import re

import jax
import numpy as np
from einops import rearrange
from jaxtyping import Array

from mdhr_jax import facs

LINEAR = "i o -> o i"
POINTWISE = "i o -> o i 1 1"
CONV = "h w i o -> o i h w"
PATCH = "(p q i) o -> o i p q"
NORM_LEAVES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: our path (a regular expression), the official name, the rule."""

    ours: str
    official: str
    rule: str = "... -> ..."
    patch: int = 0
    aus: tuple[int, ...] = ()  # positions of the stacked AUs in the layout's order

    @property
    def sizes(self) -> dict[str, int]:
        """Axis lengths that the rule cannot infer."""
        return {"p": self.patch, "q": self.patch} if self.patch else {}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One official entry: name, shape, and the piece of our tree that holds it."""

    name: str
    shape: tuple[int, ...]
    path: tuple[str | int, ...]
    row: Row
    index: int | None

    def read(self, array: np.ndarray) -> np.ndarray:
        """The official array, cut out of ours at `path`."""
        official = rearrange(array, self.row.rule, **self.row.sizes)
        return official if self.index is None else official[self.index]


def _linear(ours: str, official: str, rule: str = LINEAR, **extra) -> list[Row]:
    return [
        Row(f"{ours}.kernel", f"{official}.weight", rule, **extra),
        Row(f"{ours}.bias", f"{official}.bias"),
    ]


def _norm(ours: str, official: str, **extra) -> list[Row]:
    return [Row(f"{ours}.{a}", f"{official}.{b}", **extra) for a, b in NORM_LEAVES.items()]


def _resnet() -> list[Row]:
    block, official = r"backbone.stages.(\d+).(\d+)", "Backbone.layer{+1}.{2}"
    rows = [Row("backbone.stem.conv.kernel", "Backbone.conv1.weight", CONV)]
    rows += _norm("backbone.stem.norm", "Backbone.bn1")
    for number, (name, rule) in enumerate(
        [("reduce", POINTWISE), ("conv", CONV), ("expand", POINTWISE)], start=1
    ):
        rows.append(Row(f"{block}.{name}.kernel", f"{official}.conv{number}.weight", rule))
        rows += _norm(f"{block}.{name}_norm", f"{official}.bn{number}")
    rows.append(
        Row(f"{block}.shortcut.linear.kernel", f"{official}.downsample.0.weight", POINTWISE)
    )
    return rows + _norm(f"{block}.shortcut.norm", f"{official}.downsample.1")


def _swin() -> list[Row]:
    block, official = r"backbone.stages.(\d+).(\d+)", "Backbone.layers.{1}.blocks.{2}"
    merge, merged = r"backbone.merges.(\d+)", "Backbone.layers.{1}.downsample"
    return [
        *_linear("backbone.patches", "Backbone.patch_embed.proj", PATCH, patch=4),
        *_norm("backbone.patch_norm", "Backbone.patch_embed.norm"),
        *_norm(f"{block}.attention_norm", f"{official}.norm1"),
        *_linear(f"{block}.attention.qkv", f"{official}.attn.qkv"),
        *_linear(f"{block}.attention.projection", f"{official}.attn.proj"),
        Row(f"{block}.attention.position_bias", f"{official}.attn.relative_position_bias_table"),
        *_norm(f"{block}.mlp_norm", f"{official}.norm2"),
        *_linear(f"{block}.mlp_in", f"{official}.mlp.fc1"),
        *_linear(f"{block}.mlp_out", f"{official}.mlp.fc2"),
        *_norm(f"{merge}.norm", f"{merged}.norm"),
        *_linear(f"{merge}.reduction", f"{merged}.reduction"),
        *_norm("backbone.norm", "Backbone.norm"),
    ]


def _dynamics() -> list[Row]:
    rows = []
    for scale in (1, 2, 3, 4):
        project, squeeze = f"dynamics.projections.{scale - 1}", f"dynamics.squeezes.{scale - 1}"
        patch = 2 ** (4 - scale)
        rows += _linear(f"{project}.convolution", f"MFD.conv{scale}", PATCH, patch=patch)
        rows += _norm(f"{project}.norm", f"MFD.bn{scale}")
        rows += _linear(f"{squeeze}.linear", f"MFD.weight_{scale}", POINTWISE)
        rows += _norm(f"{squeeze}.norm", f"MFD.wbn{scale}")
    rows += _linear("dynamics.choice", "MFD.weight", POINTWISE)
    rows += _linear("dynamics.fusion.linear", "MFD.convcat", POINTWISE)
    return rows + _norm("dynamics.fusion.norm", "MFD.bn")


def _relations(layout: facs.AuLayout) -> list[Row]:
    rows = []
    for r, region in enumerate(layout.regions):
        rows += _linear(f"regions.blocks.{r}.linear", f"LRM.{region.name}_linear.fc")
        rows += _norm(f"regions.blocks.{r}.norm", f"LRM.{region.name}_linear.bn")
        rows += _linear(f"heads.heads.{r}", f"LRM.{region.name}_fc")
        stack = {"aus": tuple(layout.au_indices(region))}
        ours, official = f"au_features.blocks.{r}", "LRM.class_linears.{n}"
        rows.append(Row(f"{ours}.kernel", f"{official}.fc.weight", "c n d -> n d c", **stack))
        rows.append(Row(f"{ours}.bias", f"{official}.fc.bias", "n d -> n d", **stack))
        rows += _norm(f"{ours}.norm", f"{official}.bn", rule="n d -> n d", **stack)
    return rows


def _head(layout: facs.AuLayout) -> list[Row]:
    stack = {"aus": tuple(range(len(layout.aus)))}
    temporal = "TCN.temporal_cnn.{n}"
    return [
        *_linear("static.linear", "global_linear.fc"),
        *_norm("static.norm", "global_linear.bn"),
        Row("edges.attention.linear.kernel", "CRM.gat.linear.weight", LINEAR),
        Row("edges.attention.source", "CRM.gat.scoring_fn_source", "c -> 1 1 c"),
        Row("edges.attention.target", "CRM.gat.scoring_fn_target", "c -> 1 1 c"),
        Row("edges.attention.bias", "CRM.gat.bias"),
        Row("temporal.kernel", f"{temporal}.weight", "k n d -> n d 1 k", **stack),
        Row("temporal.bias", f"{temporal}.bias", "n d -> n d", **stack),
        *_norm("temporal.norm", "TCN.bn"),
        Row("classifier.class_vectors", "node_classifier.sc"),
    ]


BACKBONE_ROWS = {"resnet50": _resnet, "swin_b": _swin}


def table(layout: facs.AuLayout, backbone: str) -> list[Row]:
    """All rows for a model with the default slots."""
    return [*BACKBONE_ROWS[backbone](), *_head(layout), *_dynamics(), *_relations(layout)]


def _official_name(row: Row, match: re.Match, au: int | None) -> str:
    numbers = [int(group) for group in match.groups()]
    name = row.official.replace("{n}", str(au))
    for position, number in enumerate(numbers, start=1):
        # "{+1}": official stages of the ResNet count from 1.
        name = name.replace(f"{{{position}}}", str(number))
        name = name.replace(f"{{+{position}}}", str(number + 1))
    return name


def entries(tree: dict, layout: facs.AuLayout, backbone: str) -> list[Entry]:
    """The official entries of a tree of arrays or shapes (parameters, statistics, or both).

    Raises:
      ValueError: leaves that match no row or several; all are named.
    """
    rows = table(layout, backbone)
    found, problems = [], []
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        path = tuple(key.key for key in keys)
        dotted = ".".join(map(str, path))
        matches = [(row, m) for row in rows if (m := re.fullmatch(row.ours, dotted))]
        if len(matches) != 1:
            problems.append(f"{dotted} matches {len(matches)} rows")
            continue
        row, match = matches[0]
        shape = rearrange(np.empty(leaf.shape, bool), row.rule, **row.sizes).shape
        if row.aus:
            found += [
                Entry(_official_name(row, match, au), shape[1:], path, row, index)
                for index, au in enumerate(row.aus)
            ]
        else:
            found.append(Entry(_official_name(row, match, None), shape, path, row, None))
    if problems:
        raise ValueError("official names: " + "; ".join(problems))
    return found


def lookup(tree: dict, path: tuple[str | int, ...]) -> Array | np.ndarray:
    """The leaf at a path."""
    for key in path:
        tree = tree[key]
    return tree


def to_official(tree: dict, found: list[Entry]) -> dict[str, np.ndarray]:
    """Official names to arrays in official layout."""
    return {entry.name: entry.read(np.asarray(lookup(tree, entry.path))) for entry in found}


def from_official(tree: dict, found: list[Entry], official: dict[str, np.ndarray]) -> dict:
    """Our tree (of which `tree` gives the structure) filled with official arrays.

    Raises:
      ValueError: missing, left-over or mis-shaped entries; all are named.
    """
    problems = [f"missing {e.name}" for e in found if e.name not in official]
    problems += [f"left over {name}" for name in official.keys() - {e.name for e in found}]
    problems += [
        f"{e.name} has shape {official[e.name].shape}, expected {e.shape}"
        for e in found
        if e.name in official and official[e.name].shape != e.shape
    ]
    if problems:
        raise ValueError("official arrays: " + "; ".join(sorted(problems)))
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
    arrays = [official[entry.name] for entry in group]
    return rearrange(np.stack(arrays) if row.aus else arrays[0], f"{theirs} -> {ours}")
