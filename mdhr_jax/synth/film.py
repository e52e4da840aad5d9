# SPDX-License-Identifier: Apache-2.0
"""A film that shows how the rendered faces move."""

import os
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from mdhr_jax import facs
from mdhr_jax.synth import labels, sheet, video

PEOPLE = 4
FRAMES = 120
_CHIP_HEIGHT, _CHIPS_PER_ROW, _GAP = 22, 6, 3
_FAINT = (170, 170, 176)


def film(
    path: str | os.PathLike[str], layout: facs.AuLayout, *, seed: int, size: int = 176
) -> None:
    """Write an animated WebP or GIF: people in motion, and below each the AUs that they show.

    Args:
      path: file to write; its suffix picks the format.
      layout: whose AUs to show.
      seed: picks the people.
      size: height and width of one face in pixels.

    Raises:
      InputError: the file cannot be written.
    """
    columns = [_column(layout, seed, f"person {number}", size) for number in range(PEOPLE)]
    frames = [Image.fromarray(frame) for frame in np.concatenate(columns, axis=2)]
    duration = round(1000 / layout.fps)
    options = {"save_all": True, "append_images": frames[1:], "duration": duration, "loop": 0}
    sheet.save(frames[0], path, **options, quality=70)


def _column(
    layout: facs.AuLayout, seed: int, subject: str, size: int
) -> UInt8[np.ndarray, "t h w c"]:
    """One person's frames on top of the AUs of each."""
    name: dict[str, Any] = {"seed": seed, "subject": subject, "video": "film"}
    sampled = labels.sample_labels(layout, **name, num_frames=8 * FRAMES)
    stretch = sheet.liveliest(sampled, FRAMES)
    numbers = range(stretch.start, stretch.stop)
    pictures = video.render_video(layout, sampled, **name, size=size, frames=numbers)
    chips = np.stack([_chips(layout, active, size) for active in sampled[stretch]])
    return np.concatenate([pictures, chips], axis=1)


def _chips(
    layout: facs.AuLayout, active: Int[np.ndarray, " n"], size: int
) -> UInt8[np.ndarray, "h w c"]:
    """The numbers of the layout's AUs, those that are active highlighted."""
    rows = -(-len(layout.aus) // _CHIPS_PER_ROW)
    picture = Image.new("RGB", (size, rows * _CHIP_HEIGHT + _GAP), sheet.PAPER)
    draw, width = ImageDraw.Draw(picture), size / _CHIPS_PER_ROW
    font = ImageFont.load_default(13)
    for position, (au, shown) in enumerate(zip(layout.aus, active, strict=True)):
        row, column = divmod(position, _CHIPS_PER_ROW)
        left, top = column * width, _GAP + row * _CHIP_HEIGHT
        box = (left + 2, top, left + width - 2, top + _CHIP_HEIGHT - _GAP)
        draw.rounded_rectangle(box, radius=4, fill=sheet.ACTIVE if shown else sheet.PAPER)
        centre = (left + width / 2, top + (_CHIP_HEIGHT - _GAP) / 2)
        draw.text(centre, str(au), sheet.PAPER if shown else _FAINT, font, anchor="mm")
    return np.asarray(picture)
