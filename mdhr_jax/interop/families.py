# SPDX-License-Identifier: Apache-2.0
"""The models of which releases published weights: MDHR, ME-GraphAU, OpenGraphAU.

A file does not say what it holds; its entries do, and what a release never varied (K of the graph,
the order of ReLU and sum) follows from these.
"""

import dataclasses
import re
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
    """

    kind: str
    title: str
    layout: facs.AuLayout
    slots: Mapping[str, Any]
    rows: list[names.NameRule]
    crop: str


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
_SWINS = {(96, 6): "swin_t", (96, 18): "swin_s", (128, 18): "swin_b"}  # width, depth of stage 3
_GATED = re.compile(r"head\.(edge_extractor|gnn\.(graph_layers|[A-Z]\d))")
_RESNETS = {6: "resnet50", 23: "resnet101"}  # depth of stage 3


def _graphau_in(arrays: Arrays) -> Release | None:
    vectors = arrays.get("head.main_sc", arrays.get("head.sc"))
    backbone = _backbone_in(arrays)
    if vectors is None or backbone is None or vectors.ndim != 2:
        return None
    nodes, features = vectors.shape
    layout = facs.OPENGRAPHAU if "head.main_sc" in arrays else _NODES.get(nodes)
    if layout is None:
        raise InputError(
            f"head.sc has {nodes} rows, one for each AU: an ME-GraphAU has 12 (BP4D) or 8 (DISFA)"
        )
    relations = "gated" if any(map(_GATED.match, arrays)) else "nearest"
    slots = graphau.Slots(backbone=backbone, features=features, relations=relations)
    return _graphau(layout, slots)


def _backbone_in(arrays: Arrays) -> str | None:
    """The backbone whose shapes the entries have."""
    numbers = [
        int(match[1])
        for name in arrays
        if (match := re.match(r"backbone\.(?:layer3|layers\.2\.blocks)\.(\d+)\.", name))
    ]
    depth = max(numbers, default=-1) + 1
    if "backbone.conv1.weight" in arrays:
        basic = "backbone.layer1.0.conv3.weight" not in arrays
        return "resnet18" if basic else _RESNETS.get(depth)
    patches = arrays.get("backbone.patch_embed.proj.weight")
    return None if patches is None else _SWINS.get((len(patches), depth))


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
        ("resnet18", *_RESNETS.values(), *_SWINS.values()),
        _graphau,
    ),
}
