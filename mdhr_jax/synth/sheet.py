# SPDX-License-Identifier: Apache-2.0
"""A picture that shows what the rendered faces look like."""

import os
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from mdhr_jax import facs
from mdhr_jax.machine import files
from mdhr_jax.synth import labels, people, video

COLUMNS = 8
PEOPLE = 2 * COLUMNS
STRIP_FRAMES = 250
_MARGIN, _GAP, _CAPTION, _TRACK = 60, 12, 24, 14
PAPER, ACTIVE = (255, 255, 255), (208, 84, 60)
_INK, _INACTIVE = (40, 40, 44), (236, 236, 238)


def contact_sheet(
    path: str | os.PathLike[str], layout: facs.AuLayout, *, seed: int, size: int = 160
) -> None:
    """Write a PNG: people at rest, every AU beside rest, and a film strip over its labels.

    Args:
      path: file to write.
      layout: whose AUs to show.
      seed: picks the people.
      size: height and width of one face in pixels.

    Raises:
      InputError: the file cannot be written.
    """
    sections = {
        "People at rest": _people(seed, size),
        "Each action unit alone at its apex, beside rest": _pairs(layout, seed, size),
        f"A film strip and its labels ({layout.name})": _film_strip(layout, seed, size),
    }
    height = _GAP + sum(_CAPTION + 2 * _GAP + body.height for body in sections.values())
    sheet = _page(size, height)
    top = _GAP
    for title, body in sections.items():
        ImageDraw.Draw(sheet).text((_MARGIN, top), title, _INK, ImageFont.load_default(18))
        sheet.paste(body, (0, top + _CAPTION + _GAP // 2))
        top += _CAPTION + 2 * _GAP + body.height
    save(sheet, path, format="PNG")


def save(picture: Image.Image, path: str | os.PathLike[str], **options: Any) -> None:
    """Save a picture with PIL's options; InputError if the file cannot be written."""
    with files.writing(path):
        picture.save(path, **options)


def _face(
    seed: int, subject: str, size: int, au: facs.Au | None = None
) -> UInt8[np.ndarray, "h w c"]:
    """A person at rest, or with one AU at its apex."""
    shown = [[float(number == au) for number in people.AUS]]
    rendered = video.render_intensities(
        np.array(shown), seed=seed, subject=subject, video="sheet", size=size
    )
    return rendered[0]


def _subject(number: int) -> str:
    return f"person {number}"


def _page(size: int, height: int) -> Image.Image:
    return Image.new("RGB", (2 * _MARGIN + COLUMNS * size, height), PAPER)


def _people(seed: int, size: int) -> Image.Image:
    page = _page(size, PEOPLE // COLUMNS * size)
    for number in range(PEOPLE):
        row, column = divmod(number, COLUMNS)
        portrait = Image.fromarray(_face(seed, _subject(number), size))
        page.paste(portrait, (_MARGIN + column * size, row * size))
    return page


def _pairs(layout: facs.AuLayout, seed: int, size: int) -> Image.Image:
    per_row = COLUMNS // 2
    rows = -(-len(layout.aus) // per_row)
    page = _page(size, rows * (size + _CAPTION))
    write = ImageDraw.Draw(page)
    for position, au in enumerate(layout.aus):
        row, column = divmod(position, per_row)
        left, top = _MARGIN + 2 * column * size, row * (size + _CAPTION)
        # Each row is another person.
        for offset, shown in enumerate((None, au)):
            portrait = Image.fromarray(_face(seed, _subject(row), size, shown))
            page.paste(portrait, (left + offset * (size - _GAP // 2), top))
        write.text(
            (left, top + size + 3), f"AU{au} {facs.AU_NAMES[facs.number(au)]}", _INK, _font()
        )
    return page


def _film_strip(layout: facs.AuLayout, seed: int, size: int) -> Image.Image:
    """Frames of the liveliest stretch of a long video, and a track per AU under them."""
    name: dict[str, Any] = {"seed": seed, "subject": _subject(0), "video": "strip"}
    sampled = labels.sample_labels(layout, **name, num_frames=20 * STRIP_FRAMES)
    shown = sampled[liveliest(sampled, STRIP_FRAMES)]
    moments = (np.arange(COLUMNS) + 0.5) * STRIP_FRAMES / COLUMNS
    pictures = video.render_video(layout, shown, **name, size=size, frames=moments.astype(int))
    page = _page(size, size + _GAP + _TRACK * len(layout.aus))
    for column, picture in enumerate(pictures):
        page.paste(Image.fromarray(picture), (_MARGIN + column * size, 0))
    for track, (au_name, active) in enumerate(zip(layout.au_names, shown.T, strict=True)):
        top = size + _GAP // 2 + track * _TRACK
        bar = np.where(active[None, :, None] == 1, ACTIVE, _INACTIVE).astype(np.uint8)
        lane = Image.fromarray(bar).resize((COLUMNS * size, _TRACK - 3), Image.Resampling.NEAREST)
        page.paste(lane, (_MARGIN, top))
        ImageDraw.Draw(page).text((_MARGIN - 44, top - 3), au_name, _INK, _font())
    return page


def liveliest(sampled: Int[np.ndarray, "t n"], length: int) -> slice:
    """The stretch of so many frames with the most beginnings and ends of activations."""
    changes = np.abs(np.diff(sampled, axis=0)).sum(axis=1)
    start = int(np.argmax(np.convolve(changes, np.ones(length - 1), mode="valid")))
    return slice(start, start + length)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(13)
