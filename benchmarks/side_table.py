# SPDX-License-Identifier: Apache-2.0
"""What side_by_side.py found, as Markdown."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import sides
import targets

from mdhr_jax.report import markdown

PROGRAMS = {
    "train_step": "train step",
    "clips": "scores of many clips",
    "one_clip": "scores of one clip",
    "validation": "validation pass with F1",
}


_FRAMES = targets.STANDARD["eval_clips"] * targets.STANDARD["frames"]


class Goal(NamedTuple):
    """What is asked of one H200 with 8 clips of 16 frames.

    Attributes:
      milliseconds: of ours.
      ratios: ours / theirs, by variant.
    """

    milliseconds: float | None = None
    ratios: dict[str, float] = {}


GOALS = {
    (key, program): goal
    for key, asked in targets.BACKBONES.items()
    for program, goal in {
        "train_step": Goal(
            asked.train[1], {"released": 1 / asked.released[0], "tuned": 1 / targets.TUNED[0]}
        ),
        "clips": Goal(1000 * _FRAMES / asked.clips[1]),
        "one_clip": Goal(asked.clip[1]),
        "validation": Goal(None, {"released": 1 / targets.VALIDATION[0]}),
    }.items()
}
CPU_GOAL = 1.0  # ratio to every variant


class Row(NamedTuple):
    """A program in both, or why there is no time of theirs.

    Attributes:
      backbone, variant, program: keys.
      frames: of one call.
      ours, theirs: seconds per call in every window.
      missing: reason, empty where both were timed.
    """

    backbone: str
    variant: str
    program: str
    frames: int
    ours: list[float] = []
    theirs: list[float] = []
    missing: str = ""


class Place(NamedTuple):
    """Where it was measured, and on what.

    Attributes:
      asked: batch, picture size, precision and day, in words.
      ours, theirs: `about` and `machine` of each side.
      cores: threads of each.
      transforms: seconds of one core that PIL takes for a training batch.
      apart: worst agreement of the two sides; None where no variant ran.
      standard: this is what the goals for a GPU are about.
    """

    asked: str
    ours: dict
    theirs: dict
    cores: int
    transforms: float
    apart: sides.Apart | None
    standard: bool


def table(rows: Sequence[Row], place: Place) -> str:
    """A line per program, what was not measured, and the machine."""
    timed = [row for row in rows if not row.missing]
    lines = [_line(row, place) for row in timed]
    header = ("backbone", "program", "frames", "PyTorch", "ours, ms", "PyTorch, ms")
    header += ("ours, frames/s", "PyTorch, frames/s", "ours / PyTorch", "goal")
    missing = "".join(
        f"- not measured: {row.backbone}, {PROGRAMS.get(row.program, row.program)}, "
        f"{row.variant}: {row.missing}\n"
        for row in rows
        if row.missing
    )
    return f"{markdown.table(header, lines)}\n{missing}{_where(place)}"


def _line(row: Row, place: Place) -> tuple[str, ...]:
    ours, theirs = statistics.median(row.ours), statistics.median(row.theirs)
    return (
        row.backbone,
        PROGRAMS[row.program],
        str(row.frames),
        row.variant,
        f"{1000 * ours:,.2f}",
        f"{1000 * theirs:,.2f}",
        f"{row.frames / ours:,.1f}",
        f"{row.frames / theirs:,.1f}",
        f"{ours / theirs:.2f}",
        _goal(row, place),
    )


def _goal(row: Row, place: Place) -> str:
    """What is asked of ours on this device: a ratio, milliseconds, or both."""
    if place.ours["kind"] == "cpu":
        return f"{CPU_GOAL:.2f}"
    goal = GOALS.get((row.backbone, row.program), Goal()) if place.standard else Goal()
    ratio = goal.ratios.get(row.variant)
    said = [f"{ratio:.2f}"] if ratio else []
    said += [f"{goal.milliseconds:g} ms"] if goal.milliseconds else []
    return ", ".join(said)


def _where(place: Place) -> str:
    about = "".join(
        f"- {name}: {side['versions']} on {side['device']}; a product reaches "
        f"{side['flops'] / 1e12:.2f} TFLOP/s, a copy {side['bandwidth'] / 1e9:.0f} GB/s\n"
        for name, side in (("ours", place.ours), ("PyTorch", place.theirs))
    )
    goals = (
        "" if place.standard else "- not measured: the goals for one H200, 8 clips of 16 frames\n"
    )
    return (
        f"{goals}{about}{_agreement(place.apart)}"
        f"- released: PIL's transforms of a training batch, {1000 * place.transforms:,.0f} ms of "
        "one core, are its loader's work and in no figure; ours and tuned transform in the step\n"
        f"- {place.asked}, {place.cores} cores\n"
    )


def _agreement(apart: sides.Apart | None) -> str:
    if apart is None:
        return ""
    return (
        f"- same weights, same clips: scores differ by {apart.scores:.1e} in float32 and "
        f"{apart.timed:.1e} as timed, the loss by {apart.loss:.1e} of it\n"
    )
