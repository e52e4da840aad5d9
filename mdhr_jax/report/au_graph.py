# SPDX-License-Identifier: Apache-2.0
"""Predicted AUs and the attention between them on the face as PNG, after the paper's Figure 4."""

import math
import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Bool, Float, Int8, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrowPatch, Polygon
from scipy.spatial import ConvexHull

from mdhr_jax import facs
from mdhr_jax.errors import InputError
from mdhr_jax.report import plots

Point = tuple[float, float]

# Where an AU is seen, fractions of an aligned crop: right, down. What shows on both sides of a face
# has its node on one of them, so that neighbours, and regions of the same rows, stay apart.
PLACES: dict[facs.Au, Point] = {
    1: (0.39, 0.25),
    2: (0.20, 0.24),
    4: (0.55, 0.30),
    6: (0.23, 0.52),
    7: (0.74, 0.39),
    9: (0.55, 0.49),
    10: (0.42, 0.64),
    12: (0.71, 0.65),
    14: (0.82, 0.73),
    15: (0.71, 0.83),
    17: (0.50, 0.91),
    23: (0.33, 0.76),
    24: (0.50, 0.75),
    25: (0.59, 0.77),
    26: (0.61, 0.92),
}
REGION_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#AA4499")
NODE, RING, OUTLINE = 0.031, 0.043, 0.062  # radii, fractions of the face
POINTS = 8.0  # width of an arrow of weight 1
GAP = 15.0  # points between an arrow's end and the centre of a node
BEND = 0.14  # keeps the two directions between two AUs apart
NUMBERED = 4  # links of a frame whose weight is printed
CAPTION = 155  # characters of a line of the caption
TITLE, BOTTOM = 0.3, 1.1  # inches over each face, and under them all


class Link(NamedTuple):
    """That one AU attends to another; AUs by their places in the layout."""

    receiver: int
    sender: int
    weight: float


def links(attention: Float[np.ndarray, "n n"]) -> list[Link]:
    """Attention between different AUs where there is any, strongest first.

    Args:
      attention: rows receive, columns send, rows sum to 1; 0 where the graph has no edge.
    """
    between = attention * (1 - np.eye(len(attention)))
    order = np.argsort(-between, axis=None, kind="stable")[: np.count_nonzero(between)]
    receivers, senders = np.unravel_index(order, between.shape)
    return [
        Link(int(receiver), int(sender), float(between[receiver, sender]))
        for receiver, sender in zip(receivers, senders, strict=True)
    ]


def au_graphs(
    path: pathlib.Path,
    layout: facs.AuLayout,
    faces: UInt8[np.ndarray, "k h w 3"],
    predicted: Bool[np.ndarray, "k n"],
    labels: Int8[np.ndarray, "k n"],
    attention: Float[np.ndarray, "k n n"],
    titles: Sequence[str],
    caption: str,
) -> None:
    """A face per frame with its AUs as nodes, grouped by region, and attention as arrows.

    Args:
      path: PNG to write.
      layout: AUs and regions.
      faces: aligned crops.
      predicted: active according to the model.
      labels: 1 truly active, 0 not, -1 unknown.
      attention: as in `links`.
      titles: of the faces.
      caption: under the picture.

    Raises:
      InputError: an AU without a place on the face.
    """
    if homeless := [au for au in layout.aus if au not in PLACES]:
        raise InputError(
            f"layout {layout.name!r}: where AU {homeless[0]} is seen on a face is not known; add "
            "its place to report.au_graph.PLACES"
        )
    columns = min(2, len(faces))
    rows = -(-len(faces) // columns)
    side = plots.WIDTH / 2 - 0.1
    height = rows * (side + TITLE) + BOTTOM
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(plots.WIDTH, height))
        for k, face in enumerate(faces):
            row, column = divmod(k, columns)
            left = (plots.WIDTH - columns * side) / 2 + column * (side + 0.05)
            bottom = height - (row + 1) * (side + TITLE)
            size = np.array([plots.WIDTH, height] * 2)
            axes = figure.add_axes(tuple(np.array([left, bottom, side, side]) / size))
            axes.set_title(titles[k])
            axes.imshow(_faded(face), extent=(0, 1, 1, 0), interpolation="bilinear")
            axes.set_axis_off()
            draw_regions(axes, layout)
            draw_links(axes, layout, links(attention[k]))
            draw_nodes(axes, layout, predicted[k], labels[k] == 1)
        place: dict[str, Any] = {
            "loc": "lower left",
            "bbox_to_anchor": (0, (BOTTOM - 0.55) / height),
        }
        figure.legend(handles=_legend(layout), **place, ncols=5, fontsize=9)
        figure.text(0.01, 0.08 / height, textwrap.fill(caption, CAPTION), fontsize=9)
        figure.savefig(path)


def _faded(face: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    """Light and nearly grey, of full contrast: what is drawn on it must stand out."""
    muted = 0.75 * face.mean(axis=2, keepdims=True) + 0.25 * face
    low, high = np.quantile(muted, [0.02, 0.98])
    return 0.45 + 0.55 * np.clip((muted - low) / max(high - low, 1), 0, 1)


def _colours(layout: facs.AuLayout) -> list[str]:
    """The colour of each AU's region."""
    return [REGION_COLOURS[r % len(REGION_COLOURS)] for r in layout.region_index]


def draw_regions(axes: Axes, layout: facs.AuLayout) -> None:
    """Dotted outlines around the AUs of each region."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    disc = OUTLINE * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    colours = _colours(layout)
    for region in layout.regions:
        points = np.concatenate([np.array(PLACES[au]) + disc for au in region.aus])
        colour = colours[layout.aus.index(region.aus[0])]
        outline = Polygon(points[ConvexHull(points).vertices])
        outline.set(fill=False, edgecolor=colour, linestyle=":", linewidth=1.6)
        axes.add_patch(outline)


def draw_links(axes: Axes, layout: facs.AuLayout, found: Sequence[Link]) -> None:
    """Arrows to the receiver in the sender's colour; weak ones first, thin and pale."""
    colours = _colours(layout)
    taken = [PLACES[au] for au in layout.aus]
    for rank, link in reversed(list(enumerate(found))):
        colour = colours[link.sender]
        sender, receiver = (PLACES[layout.aus[n]] for n in (link.sender, link.receiver))
        arrow = FancyArrowPatch(
            sender,
            receiver,
            connectionstyle=f"arc3,rad={BEND}",
            arrowstyle="-|>",
            shrinkA=GAP,
            shrinkB=GAP,
            mutation_scale=6 + 10 * link.weight,
            color=colour,
            **_stroke(link.weight),
        )
        axes.add_patch(arrow)
        if rank < NUMBERED:
            where = _free_place(sender, receiver, taken)
            taken.append(where)
            text = axes.text(*where, f"{link.weight:.2f}", color=colour, fontsize=9)
            text.set(ha="center", va="center", zorder=5)
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8})


def _stroke(weight: float) -> dict[str, Any]:
    return {"linewidth": POINTS * weight, "alpha": 0.2 + 0.7 * weight}


def _free_place(start: Point, end: Point, taken: Sequence[Point]) -> Point:
    """Where on an arrow a number is farthest from nodes and other numbers."""
    places = [_on_arrow(start, end, share) for share in np.linspace(0.25, 0.75, 26)]
    return max(places, key=lambda place: min(math.dist(place, other) for other in taken))


def _on_arrow(start: Point, end: Point, share: float) -> Point:
    """The point after that share of an arrow's curve (matplotlib's arc3, y downwards)."""
    (x, y), (right, down) = start, np.subtract(end, start)
    control = (x + right / 2 - BEND * down, y + down / 2 + BEND * right)
    weights = ((1 - share) ** 2, 2 * share * (1 - share), share**2)
    return tuple(np.dot(weights, (start, control, end)).tolist())


def draw_nodes(
    axes: Axes,
    layout: facs.AuLayout,
    predicted: Bool[np.ndarray, " n"],
    true: Bool[np.ndarray, " n"],
) -> None:
    """Dots with the AUs' numbers: filled if predicted, in a ring if true."""
    for n, (au, colour) in enumerate(zip(layout.aus, _colours(layout), strict=True)):
        face, ink = (colour, "white") if predicted[n] else ("white", colour)
        dot = Circle(PLACES[au], NODE, facecolor=face, edgecolor=colour, linewidth=1.6, zorder=3)
        axes.add_patch(dot)
        axes.text(*PLACES[au], str(au), color=ink, zorder=4, ha="center", va="center_baseline")
        if true[n]:
            ring = Circle(PLACES[au], RING, fill=False, edgecolor=plots.BLACK, linewidth=1.6)
            axes.add_patch(ring)


def _legend(layout: facs.AuLayout) -> list[Line2D]:
    dot: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 9, "color": plots.BLACK}
    colours = dict(zip(layout.region_index.tolist(), _colours(layout), strict=False))
    return [
        Line2D([], [], **dot, label="predicted active"),
        Line2D([], [], **dot, markerfacecolor="white", label="predicted inactive"),
        Line2D([], [], **dot | {"markersize": 14}, markerfacecolor="white", label="truly active"),
        *(
            Line2D([], [], color=plots.BLACK, **_stroke(weight), label=f"attention {weight}")
            for weight in (0.1, 0.3, 0.5)
        ),
        *(
            Line2D([], [], color=colours[r], linestyle=":", label=f"region {region.name}")
            for r, region in enumerate(layout.regions)
        ),
    ]
