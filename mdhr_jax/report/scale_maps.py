# SPDX-License-Identifier: Apache-2.0
"""The weights of the motion's scales over the face as PNG, after the paper's Figure 3."""

import pathlib
import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from PIL import Image

from mdhr_jax.report import plots

# Hue tells the weight; how dark a pixel is is left to the face behind it.
COLOURS = LinearSegmentedColormap.from_list("weight", ["#FFFFFF", "#F9D56E", "#E66100", "#8C1C5A"])
DARKEST = 0.25  # brightness at black pixels of the face, of that at white ones
LOUD = 0.998  # share of the pixels that move less than what is drawn black
CAPTION = 155  # characters of a line of the caption
# Inches: room around the grid of faces, and the side of a face.
LEFT, RIGHT, TOP, BOTTOM, LARGEST = 1.25, 0.2, 0.5, 1.35, 2.2


def scale_maps(
    path: pathlib.Path,
    faces: UInt8[np.ndarray, "k h w 3"],
    motion: Float[np.ndarray, "k h w"],
    weights: Float[np.ndarray, "k g g s"],
    scales: Sequence[int],
    titles: Sequence[str],
    caption: str,
) -> None:
    """A row per frame: the face, its motion, and on the face the weight of every scale.

    Args:
      path: PNG to write.
      faces: what the network sees.
      motion: change of the pictures around each frame, grey levels.
      weights: of the scales at every position, sum 1 over them.
      scales: their numbers, from 1, the finest.
      titles: of the rows, in short lines.
      caption: under the picture.
    """
    colours = ScalarMappable(Normalize(*shown_range(weights)), COLOURS)
    loudest = max(float(np.quantile(motion, LOUD)), 1.0)
    rows, columns = len(faces), 2 + len(scales)
    side = min(LARGEST, (plots.WIDTH - LEFT - RIGHT) / columns)
    height = TOP + rows * side + BOTTOM
    room = {
        "left": LEFT / plots.WIDTH,
        "right": (LEFT + columns * side) / plots.WIDTH,
        "bottom": BOTTOM / height,
        "top": 1 - TOP / height,
        "wspace": 0.04,
        "hspace": 0.04,
    }
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(plots.WIDTH, height))
        cells = figure.subplots(rows, columns, squeeze=False, gridspec_kw=room)
        for row, axes in enumerate(cells):
            place = {"xycoords": ("figure fraction", "axes fraction"), "va": "center"}
            axes[0].annotate(titles[row], (0.01, 0.5), **place, annotation_clip=False)
            axes[0].imshow(faces[row])
            axes[1].imshow(motion[row], cmap="gray_r", vmin=0, vmax=loudest)
            for s, cell in enumerate(axes[2:]):
                cell.imshow(overlay(faces[row], weights[row, :, :, s], colours))
        for cell, heading in zip(cells[0], _headings(loudest, weights, scales), strict=True):
            cell.set_title(heading, loc="center", fontsize=10)
        for cell in cells.flat:
            cell.set_axis_off()
        left = cells[0, 2].get_position().x0
        box = (left, (BOTTOM - 0.3) / height, room["right"] - left, 0.15 / height)
        bar = figure.colorbar(colours, cax=figure.add_axes(box), orientation="horizontal")
        bar.ax.axvline(1 / len(scales), color=plots.BLACK)
        bar.set_label("weight of the scale at a position (all scales: 1, line: equal shares)")
        figure.text(0.01, 0.08 / height, textwrap.fill(caption, CAPTION), fontsize=9)
        figure.savefig(path)


def shown_range(weights: Float[np.ndarray, "..."]) -> tuple[float, float]:
    """The tenths below and above all weights, within 0 and 1; never equal."""
    low = max(np.ceil(10 * weights.min()) - 1, 0)
    high = min(np.floor(10 * weights.max()) + 1, 10)
    return low / 10, high / 10


def overlay(
    face: UInt8[np.ndarray, "h w 3"], weights: Float[np.ndarray, "g g"], colours: ScalarMappable
) -> Float[np.ndarray, "h w 3"]:
    """The weights' colours, interpolated between positions and shaded by the face; RGB in 0..1."""
    grey = face.mean(axis=2, keepdims=True)
    shade = DARKEST + (1 - DARKEST) * grey / max(grey.max(), 1)
    coarse = Image.fromarray(weights.astype(np.float32))
    fine = coarse.resize((face.shape[1], face.shape[0]), Image.Resampling.BILINEAR)
    return colours.to_rgba(np.asarray(fine))[..., :3] * shade


def _headings(
    loudest: float, weights: Float[np.ndarray, "k g g s"], scales: Sequence[int]
) -> list[str]:
    means = weights.mean(axis=(0, 1, 2))
    return [
        "frame",
        f"motion, black from\n{loudest:.0f} grey levels",
        *(
            f"scale {scale}, stride {2 ** (scale + 1)}\nmean weight {mean:.2f}"
            for scale, mean in zip(scales, means, strict=True)
        ),
    ]
