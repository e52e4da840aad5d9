# SPDX-License-Identifier: Apache-2.0
"""Pictures of a run as PNG, 1100 pixels wide: training curves, AUs over time, F1 per AU.

Colours are Okabe and Ito's, told apart by colour-blind readers too. Figures are made without
pyplot, so nothing is kept between calls and no display is needed.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Bool, Float, Int, Num, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import ConnectionPatch, Patch

BLUE, ORANGE, PURPLE, BLACK = "#0072B2", "#E69F00", "#CC79A7", "#222222"
TRUTH, LIGHT = "#BFD9EA", "#BBBBBB"
UNKNOWN: dict[str, Any] = {
    "facecolor": "white",
    "edgecolor": LIGHT,
    "hatch": "////",
    "linewidth": 0,
}
WIDTH, DPI = 11.0, 100  # inches, pixels per inch

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": BLACK,
    "figure.dpi": DPI,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
}


def training_curves(path: pathlib.Path, rows: Sequence[Mapping]) -> None:
    """Loss, learning rate and the evaluations' mean F1 over steps.

    Args:
      path: PNG to write.
      rows: those of `metrics.jsonl`, with `loss` and `learning_rate` in kind "train" and the
        fraction `mean_f1` in kind "eval".
    """
    panels = (
        ("train", "loss", "training loss", 1, "-"),
        ("train", "learning_rate", "learning rate", 1, "-"),
        ("eval", "mean_f1", "mean F1 at evaluations, percent", 100, "o-"),
    )
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.0), layout=ConstrainedLayoutEngine(wspace=0.06))
        subplots = figure.subplots(1, 3, sharex=True)
        for axes, (kind, key, title, factor, form) in zip(subplots, panels, strict=True):
            chosen = [row for row in rows if row["kind"] == kind]
            # None: a step without a finite loss.
            values = [math.nan if row[key] is None else factor * row[key] for row in chosen]
            axes.plot([row["step"] for row in chosen], values, form, color=BLUE, markersize=4)
            axes.set(title=title, xlabel="step", ylim=(0, None))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.grid(axis="y", color=LIGHT, linewidth=0.5)
        figure.savefig(path)


def f1_bars(
    path: pathlib.Path,
    au_names: Sequence[str],
    f1: Float[np.ndarray, " n"],
    always_positive: Float[np.ndarray, " n"],
    title: str,
) -> None:
    """F1 per AU and their mean, as fractions, beside what always answering "active" would score."""
    names = [*au_names, "mean"]
    place = np.arange(len(names))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        axes = figure.subplots()
        for shift, color, label, values in (
            (-0.2, BLUE, "this model", f1),
            (0.2, LIGHT, "always positive", always_positive),
        ):
            percent = 100 * np.append(values, values.mean())
            bars = axes.bar(place + shift, percent, 0.38, color=color, label=label)
            axes.bar_label(bars, fmt="%.0f", fontsize=9, color=BLACK, padding=1)
        axes.axvline(len(au_names) - 0.5, color=LIGHT, linewidth=1)
        axes.set(title=title, ylabel="F1 in percent", ylim=(0, 105), xlim=(-0.6, place[-1] + 0.6))
        axes.set_xticks(place, names)
        axes.tick_params(axis="x", length=0)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
        figure.savefig(path)


def comparison(
    path: pathlib.Path,
    names: Sequence[str],
    scores: Sequence[Sequence[float]],
    differences: Sequence[tuple[float, float, float]],
    always_positive: float,
    paper: Sequence[float] | None = None,
) -> None:
    """Variants of a training: F1 of each seed, and differences to the first with intervals.

    Args:
      path: PNG to write.
      names: of the variants, the first is compared with.
      scores: mean F1 of every seed, percent, per variant.
      differences: difference, lower and upper end, percent, per variant; nan where there is none.
      always_positive: F1 of answering "active" to every frame, percent.
      paper: the paper's differences, nan where it has none; None for a comparison of our own.
    """
    places = np.arange(len(names))[::-1]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.1 + 0.42 * len(names)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for place, seeds in zip(places, scores, strict=True):
            left.plot(seeds, [place] * len(seeds), "o", color=BLUE, markersize=5, alpha=0.7)
        left.axvline(always_positive, color=LIGHT, linestyle="--", label="always-positive")
        left.set(title="mean F1 of each seed, percent", ylim=(-0.6, len(names) - 0.4))
        left.set_yticks(places, names)
        left.legend(loc="lower left")
        found, low, high = np.transpose(differences)
        reach = np.stack([found - low, high - found])
        right.errorbar(found, places, xerr=reach, fmt="o", color=BLUE, capsize=3, label="ours")
        if paper is not None and not np.isnan(paper).all():
            right.plot(paper, places, "D", color=ORANGE, label="paper")
            right.legend(loc="upper right")  # where the first row has no point
        right.axvline(0, color=BLACK, linewidth=0.8)
        right.set(title="points above the first row, 95 % interval")
        for axes in (left, right):
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x", color=LIGHT, linewidth=0.5)
        figure.savefig(path)


def au_timeline(
    path: pathlib.Path,
    frames: UInt8[np.ndarray, "k h w 3"],
    frame_positions: Int[np.ndarray, " k"],
    labels: Num[np.ndarray, "t n"],
    scores: Float[np.ndarray, "t n"],
    au_names: Sequence[str],
    mask: Bool[np.ndarray, "t n"],
    title: str,
    threshold: float = 0.5,
) -> None:
    """Faces over time, and per AU the score, the true and the predicted activity.

    Args:
      path: PNG to write.
      frames: pictures shown on top, from left to right.
      frame_positions: which of the `t` frames they are.
      labels: 1 active, 0 not; anything where the mask is false.
      scores: in [0, 1].
      au_names: names of the rows.
      mask: true where the label is known.
      title: heading.
      threshold: score from which an AU counts as active.
    """
    time, aus = labels.shape
    side = min(1.4, 0.88 * WIDTH / len(frames))
    heights = np.array([0.85, 0.45 * aus + 0.2, 0.25, side, 0.35])  # inches, from the bottom
    bottom, height = np.cumsum(heights) / heights.sum(), heights / heights.sum()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, heights.sum()))
        curves = figure.add_axes((0.07, bottom[0], 0.91, height[1]))
        for n in range(aus):
            _draw_au(curves, aus - 1 - n, labels[:, n] > 0.5, scores[:, n], mask[:, n], threshold)
        curves.set(xlim=(0, time), ylim=(-0.35, aus - 0.05), xlabel="frame")
        curves.set_yticks(np.arange(aus)[::-1] + 0.4, au_names)
        curves.tick_params(axis="y", length=0)
        curves.spines["left"].set_visible(False)
        strip = figure.add_axes((0.07, bottom[2], 0.91, height[3]))
        _draw_strip(strip, curves, frames, frame_positions + 0.5, side)
        strip.set_title(title)
        figure.legend(handles=_timeline_legend(mask), loc="lower center", ncols=6)
        figure.savefig(path)


def _draw_au(
    axes: Axes,
    base: int,
    active: Bool[np.ndarray, " t"],
    scores: Float[np.ndarray, " t"],
    known: Bool[np.ndarray, " t"],
    threshold: float,
) -> None:
    """One row of the timeline: scores of 0 to 1 stand at heights `base` to `base + 0.8`."""
    predicted = scores >= threshold
    axes.broken_barh(_spans(active & known), (base, 0.8), color=TRUTH)
    axes.broken_barh(_spans(~known), (base, 0.8), **UNKNOWN)
    for colour, frames in (
        (BLUE, predicted & active & known),
        (ORANGE, predicted & ~active & known),
        (PURPLE, ~predicted & active & known),
    ):
        axes.broken_barh(_spans(frames), (base - 0.12, 0.09), color=colour)
    axes.axhline(base + 0.8 * threshold, color=LIGHT, linewidth=0.7, linestyle=":")
    axes.plot(np.arange(len(scores)) + 0.5, base + 0.8 * scores, color=BLACK)


def _draw_strip(
    strip: Axes, curves: Axes, frames: UInt8[np.ndarray, "k h w 3"], places: np.ndarray, side: float
) -> None:
    """Pictures side by side, each tied to its place on the time axis."""
    slot = 0.91 * WIDTH / len(frames)
    for j, (frame, place) in enumerate(zip(frames, places, strict=True)):
        centre = (j + 0.5) * slot
        strip.imshow(frame, extent=(centre - side / 2, centre + side / 2, 0, side))
        ends: dict[str, Any] = {"xyA": (centre, 0), "xyB": (place, curves.get_ylim()[1])}
        tie = ConnectionPatch(**ends, coordsA=strip.transData, coordsB=curves.transData)
        tie.set(color=LIGHT, linewidth=1)
        strip.figure.add_artist(tie)
    strip.set(xlim=(0, 0.91 * WIDTH), ylim=(0, side), aspect="auto")
    strip.set_axis_off()


def _spans(frames: Bool[np.ndarray, " t"]) -> list[tuple[int, int]]:
    """Runs of true frames as (first, length)."""
    first, end = np.flatnonzero(np.diff(frames, prepend=False, append=False)).reshape(-1, 2).T
    return list(zip(first.tolist(), (end - first).tolist(), strict=True))


def _timeline_legend(mask: Bool[np.ndarray, "t n"]) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Patch(color=TRUTH, label="truly active"),
        Line2D([], [], color=BLACK, label="score"),
        Patch(color=BLUE, label="predicted, right"),
        Patch(color=ORANGE, label="false alarm"),
        Patch(color=PURPLE, label="missed"),
    ]
    return handles if mask.all() else [*handles, Patch(**UNKNOWN, label="no label")]
