# SPDX-License-Identifier: Apache-2.0
"""Official names of the GraphAU family: ME-GraphAU's, or OpenGraphAU's where AUs have sides."""

from mdhr_jax import facs
from mdhr_jax.interop import names
from mdhr_jax.interop.names import NameRule

# Ours and the release's, in its order.
_LETTERS = {"own": "U", "others": "V", "receiver": "A", "sender": "B", "edge": "E"}
_PARTS = {"query": "linear_q", "key": "linear_k", "value": "linear_v"}


def table(layout: facs.AuLayout, backbone: str) -> list[NameRule]:
    """All rows for either stage, in the order of the official state_dict."""
    n = sum(not facs.side(au) for au in layout.aus)
    has_sides = n < len(layout.aus)
    main = "main_" if has_sides else ""
    return [
        *names.BACKBONE_ROWS[backbone]("backbone"),
        *names.linear("static.linear", "global_linear.fc"),
        *names.norm("static.norm", "global_linear.bn"),
        NameRule("classifier.class_vectors", f"head.{main}sc"),
        NameRule("side_classifier.class_vectors", "head.sub_sc"),
        *names.stacked("au_features", f"head.{main}class_linears.{{n}}", range(n)),
        *_edge_features(n),
        *(_open_layers(n) if has_sides else _me_layers(n)),
        *names.linear("relations.own", "head.gnn.U"),
        *names.linear("relations.others", "head.gnn.V"),
        *names.norm("relations.norm", "head.gnn.bnv", rule="n 1 -> n"),
        *names.linear("relations.head", "head.edge_fc"),
    ]


def _edge_features(n: int) -> list[NameRule]:
    rows = []
    for ours, official in [("au_attention", "FAM"), ("pair_attention", "ARM")]:
        for part, name in _PARTS.items():
            rows += names.linear(
                f"relations.{ours}.{part}", f"head.edge_extractor.{official}.{name}"
            )
    rows += names.linear("relations.edge", "head.edge_extractor.edge_proj")
    per_edge = {"rule": "n m 1 1 -> (n m)", "sizes": {"n": n}}
    return rows + names.norm("relations.edge_norm", "head.edge_extractor.bn", **per_edge)


def _me_layers(n: int) -> list[NameRule]:
    numbers = (0, 1)
    maps = [row for k in numbers for row in _maps(k, f"head.gnn.{{letter}}{k + 1}")]
    return maps + [row for k in numbers for row in _norms(k, f"head.gnn.{{letter}}{k + 1}", n)]


def _open_layers(n: int) -> list[NameRule]:
    called = {k: f"head.gnn.graph_layers.{k}.{{letter}}" for k in (0, 1)}
    return [row for k, name in called.items() for row in (*_maps(k, name), *_norms(k, name, n))]


def _maps(layer: int, name: str) -> list[NameRule]:
    return [
        NameRule(
            f"relations.layers.{layer}.{ours}.kernel",
            f"{name.format(letter=letter)}.weight",
            names.LINEAR,
        )
        for ours, letter in _LETTERS.items()
    ]


def _norms(layer: int, name: str, n: int) -> list[NameRule]:
    ours, per_edge = f"relations.layers.{layer}", {"rule": "n m 1 -> (n m)", "sizes": {"n": n}}
    return [
        *names.norm(f"{ours}.node_norm", name.format(letter="bnv"), rule="n 1 -> n"),
        *names.norm(f"{ours}.edge_norm", name.format(letter="bne"), **per_edge),
    ]
