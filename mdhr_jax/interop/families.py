# SPDX-License-Identifier: Apache-2.0
"""The models of which releases published weights: MDHR, ME-GraphAU, OpenGraphAU.

A file does not say what it holds; its entries do, and what a release never varied (K of the graph,
the order of ReLU and sum) follows from these.
"""

import dataclasses
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mdhr_jax import facs
from mdhr_jax.errors import InputError
from mdhr_jax.interop import graphau_names, names
from mdhr_jax.models import graphau, mdhr

type Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Release:
    """A model as a release published it.

    Attributes:
      kind: of the model, a key of `kinds.KINDS`.
      title: what it is, in words.
      layout: AUs in the order of the scores.
      slots: values of `config.model`, but `init_from` and what a file cannot tell.
      rows: the names of its entries.
      crop: how it expects test pictures to be cut, a key of `preprocess.EVALUATION`.
      of_fold: what the names of its files say wrongly of their fold; empty: nothing.
    """

    kind: str
    title: str
    layout: facs.AuLayout
    slots: Mapping[str, Any]
    rows: list[names.NameRule]
    crop: str
    of_fold: str = ""


def recognise(arrays: Arrays) -> Release:
    """The release's model that a state_dict holds.

    Raises:
      InputError: it holds none.
    """
    for recognised in (_mdhr_in, _graphau_in):
        if found := recognised(arrays):
            return found
    first = ascii(next(iter(arrays), "nothing"))
    raise InputError(
        f"holds no MDHR, ME-GraphAU or OpenGraphAU of a release (its first entry is {first}); for "
        "a backbone alone use config.model.init_from"
    )


def is_known(arrays: Arrays) -> bool:
    """Whether a state_dict holds a release's model, and not a backbone alone, or something else.

    Raises:
      InputError: as `recognise`, of a model that is nearly one.
    """
    return any(recognised(arrays) for recognised in (_mdhr_in, _graphau_in))


def of_model(kind: str, layout: facs.AuLayout, slots: Any) -> Release:
    """The release's model that one of ours is.

    Raises:
      ValueError: it is none; by what it differs is listed as `KEY=VALUE`.
    """
    if kind not in FAMILIES:
        raise ValueError(f"model.kind={kind}")
    family = FAMILIES[kind]
    own = {"layout": layout.name, **{f"model.{key}": x for key, x in _slots(slots).items()}}
    others = [] if layout in family.layouts else ["layout"]
    if slots.backbone not in family.backbones:
        others.append("model.backbone")
    if not others:
        release = family.make(layout, slots)
        others = [f"model.{k}" for k, x in release.slots.items() if own[f"model.{k}"] != x]
    if others:
        raise ValueError(", ".join(f"{key}={own[key]}" for key in others))
    return release


def _slots(slots: Any) -> dict[str, Any]:
    """Dotted."""
    flat = dataclasses.asdict(slots)
    for key, value in list(flat.items()):
        if isinstance(value, dict):
            del flat[key]
            flat |= {f"{key}.{name}": x for name, x in value.items()}
    return flat


# MDHR.

_MDHR_FIRST = {"Backbone.conv1.weight": "resnet50", "Backbone.patch_embed.proj.weight": "swin_b"}
_REGION_HEAD = re.compile(r"LRM\.\w+_fc\.weight")
# Not implied by the entries: how many frames the model compares.
_MDHR_FREE = ("dynamics.k", "initial", "init_from")


def _mdhr_in(arrays: Arrays) -> Release | None:
    backbones = [backbone for name, backbone in _MDHR_FIRST.items() if name in arrays]
    heads = {name for name in arrays if _REGION_HEAD.fullmatch(name)}
    layouts = [
        layout
        for layout in (facs.BP4D, facs.DISFA)
        if heads == {f"LRM.{region.name}_fc.weight" for region in layout.regions}
    ]
    if not (backbones and layouts):
        return None
    return _mdhr(layouts[0], mdhr.Slots(backbone=backbones[0]))


def _mdhr(layout: facs.AuLayout, slots: mdhr.Slots) -> Release:
    released = mdhr.Slots(backbone=slots.backbone)
    implied = {key: x for key, x in _slots(released).items() if key not in _MDHR_FREE}
    title = f"MDHR of {layout.name}, {slots.backbone}"
    return Release("mdhr", title, layout, implied, names.table(layout, slots.backbone), "whole")


# GraphAU.

_NODES = {12: facs.BP4D, 8: facs.DISFA}
_NEIGHBOURS = {"bp4d": 4, "disfa": 3, "opengraphau": 4}
_ME: dict[str, Any] = {"update": "activated_sum", "sides": "own"}
_OPEN: dict[str, Any] = {"update": "sum_activated", "sides": "released"}
_STAGES = {"nearest": 1, "gated": 2}
_THIRD_STAGE = re.compile(r"backbone\.(layer3|layers\.2\.blocks)\.(\d{1,6})\.")
_BOTTLENECK = re.compile(r"backbone\.layer\d\.\d+\.conv3\.")
_FIRST_STAGE = re.compile(r"backbone\.layers\.0\.blocks\.\d+\.norm1\.")
# By bottlenecks, or the width of the first stage; and the depth of the third.
_RESNETS = {(False, 2): "resnet18", (True, 6): "resnet50", (True, 23): "resnet101"}
_SWINS = {(96, 6): "swin_t", (96, 18): "swin_s", (128, 18): "swin_b"}
_BACKBONES = (*_RESNETS.values(), *_SWINS.values())
_ONE_TOO_HIGH = (
    "ME-GraphAU's training names the files of stage 2 one fold too high (that of fold 1 "
    "ends in fold2): compare F1 per fold with what is published"
)
_HEAD = re.compile(r"head\.((main_|sub_)?sc$|(main_)?class_linears\.|gnn\.|edge_extractor\.)")
_AU_BLOCK = re.compile(r"head\.(main_)?class_linears\.(\d+)\.")
_OF_AUS = re.compile(r"head\.((main_)?sc|(main_)?class_linears\.\d+\.fc\.bias)")
_NEAREST = re.compile(r"head\.gnn\.(U|V|bnv)\.")
_GATED = re.compile(r"head\.(edge_extractor|edge_fc|gnn\.(graph_layers|[A-Z]\d|bn[ve]\d))\b")


def _graphau_in(arrays: Arrays) -> Release | None:
    if not any(map(_HEAD.match, arrays)):
        return None
    blocks = [match for name in arrays if (match := _AU_BLOCK.match(name))]
    is_open = "head.main_sc" in arrays or any(match[1] for match in blocks)
    slots = graphau.Slots(
        backbone=_backbone_in(arrays),
        features=_features_in(arrays),
        relations=_relations_in(arrays),
    )
    if is_open:
        return _graphau(facs.OPENGRAPHAU, slots)
    rows = len(np.atleast_1d(arrays.get("head.sc", ())))
    found = (rows, len({match[2] for match in blocks}))
    layouts = [_NODES[nodes] for nodes in found if nodes in _NODES]
    if not layouts:
        raise InputError(
            f"has {rows} AUs (rows of head.sc): an ME-GraphAU has 12 (BP4D) or 8 (DISFA), and no "
            "other was released; give a file of one of them"
        )
    return _graphau(layouts[0], slots)


def _relations_in(arrays: Arrays) -> str:
    """Of the stage whose graph the entries name."""
    first, second = (min(filter(each.match, arrays), default="") for each in (_NEAREST, _GATED))
    if first and second:
        raise InputError(
            f"holds entries of two stages, {first} of stage 1 and {second} of stage 2; give a file "
            "of one stage"
        )
    return "gated" if second else "nearest"


def _features_in(arrays: Arrays) -> int:
    """Width of the AU nodes, as most of the entries of AUs have it."""
    widths = [a.shape[-1] for name, a in arrays.items() if a.ndim and _OF_AUS.fullmatch(name)]
    return max(1, statistics.mode([*widths, 1]))


def _backbone_in(arrays: Arrays) -> str:
    """The backbone whose blocks the entries are."""
    blocks = [match for name in arrays if (match := _THIRD_STAGE.match(name))]
    depth = 1 + max((int(match[2]) for match in blocks), default=-1)
    if any(match[1] == "layer3" for match in blocks):
        backbone = _RESNETS.get((any(map(_BOTTLENECK.match, arrays)), depth))
    else:
        widths = (array.size for name, array in arrays.items() if _FIRST_STAGE.match(name))
        backbone = _SWINS.get((next(widths, 0), depth))
    if backbone is None:
        raise InputError(
            f"holds a GraphAU whose backbone is none of {', '.join(_BACKBONES)} (its third "
            f"stage has {depth} blocks); give a file with one of these"
        )
    return backbone


def _graphau(layout: facs.AuLayout, slots: graphau.Slots) -> Release:
    is_open = layout == facs.OPENGRAPHAU
    relations = slots.relations if slots.relations in _STAGES else "gated"
    implied = (_OPEN if is_open else _ME) | {
        "backbone": slots.backbone,
        "features": slots.features,
        "relations": relations,
        "neighbours": _NEIGHBOURS[layout.name],
        "metric": "dots",
        "edge_head": relations == "gated" and not is_open,
    }
    title = "OpenGraphAU" if is_open else f"ME-GraphAU of {layout.name}"
    return Release(
        "graphau",
        f"{title}, stage {_STAGES[relations]}, {slots.backbone}",
        layout,
        implied,
        graphau_names.table(layout, slots.backbone),
        "portrait" if is_open else "centre",
        _ONE_TOO_HIGH if relations == "gated" and not is_open else "",
    )


class Family(NamedTuple):
    """What was published of a kind of model.

    Attributes:
      layouts: of the AUs.
      backbones: keys of `backbones.BACKBONES`.
      make: the release's model with the AUs of a layout that is nearest to slots of ours.
    """

    layouts: Sequence[facs.AuLayout]
    backbones: Sequence[str]
    make: Callable[[facs.AuLayout, Any], Release]


FAMILIES = {
    "mdhr": Family((facs.BP4D, facs.DISFA), tuple(_MDHR_FIRST.values()), _mdhr),
    "graphau": Family(
        (facs.BP4D, facs.DISFA, facs.OPENGRAPHAU),
        _BACKBONES,
        _graphau,
    ),
}
