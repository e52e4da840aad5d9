# SPDX-License-Identifier: Apache-2.0
"""What is asked of one H200 with 8 clips of 16 frames, and how what was measured compares.

Floors follow from the compiled programs: bytes that kernels read and write, and operations of
products, at the rates of that GPU (docs/gpus.md).
"""

import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

type Results = Mapping[str, Mapping[str, Any]]  # of parts by name, see measure.py

DEVICE = "H200"
STANDARD = {  # what the targets are about: arguments of side_by_side.py
    "clips": 8,
    "frames": 16,
    "eval_clips": 32,
    "batches": 8,
    "image_size": 224,
    "features": 512,
    "precision": "bfloat16",
}


class Target(NamedTuple):
    """A number that is asked for.

    Attributes:
      what: in words.
      unit: of all numbers.
      floor: what the device allows at best; None where nothing says.
      goal, must: what is aimed at, what is asked at least.
      part: of measure.py, whose result has it.
      measured: reads the number off the results; KeyError or StopIteration: it is not there.
      more: whether more is better.
    """

    what: str
    unit: str
    floor: float | None
    goal: float
    must: float
    part: str
    measured: Callable[[Results], float]
    more: bool = False

    def verdict(self, value: float) -> str:
        """How far a number has come."""
        sign = -1 if self.more else 1
        for name, asked in (("goal", self.goal), ("must", self.must)):
            if sign * value <= sign * asked:
                return f"{name} reached"
        return "missed"


def _step(part: str) -> Callable[[Results], float]:
    return lambda results: 1000 * results[part]["seconds"]["median"]


def _rate(part: str) -> Callable[[Results], float]:
    return lambda results: results[part]["frames_per_second"]


def _ours(part: str, program: str) -> Callable[[Results], float]:
    return lambda results: 1000 * statistics.median(next(_rows(results, part, program))["ours"])


def _times(part: str, program: str, variant: str) -> Callable[[Results], float]:
    def ratio(results: Results) -> float:
        row = next(row for row in _rows(results, part, program) if row["variant"] == variant)
        return statistics.median(row["theirs"]) / statistics.median(row["ours"])

    return ratio


def _rows(results: Results, part: str, program: str) -> Iterator[dict[str, Any]]:
    rows = results[part]["rows"]
    return (row for row in rows if row["program"] == program and not row["missing"])


def _fold(results: Results) -> float:
    return results["fold"]["fold_seconds"] / 60


class Backbone(NamedTuple):
    """What is asked of one backbone: floor, goal, must."""

    name: str
    train: tuple[float, float, float]
    clips: tuple[float, float, float]
    clip: tuple[float, float, float]
    released: tuple[float, float]


BACKBONES = {
    "resnet50": Backbone(
        "ResNet-50", (13.4, 18, 26), (45e3, 30e3, 20e3), (0.45, 0.9, 1.4), (4.5, 3.5)
    ),
    "swin_b": Backbone("Swin-B", (31.8, 40, 58), (12e3, 10e3, 7e3), (1.45, 2.2, 3.2), (7, 5)),
}
TUNED, VALIDATION = (1.5, 1.2), (25, 15)


def _of(key: str, asked: Backbone) -> list[Target]:
    name, beside = asked.name, f"beside-{key}"

    def times(what: str, program: str, variant: str, goals: tuple[float, float]) -> Target:
        measured = _times(beside, program, variant)
        return Target(f"{name}, {what}", "x", None, *goals, beside, measured, more=True)

    train, infer = f"train-{key}", f"infer-{key}"
    return [
        Target(f"{name}, training step", "ms", *asked.train, train, _step(train)),
        Target(
            f"{name}, scores of many clips",
            "frames/s",
            *asked.clips,
            infer,
            _rate(infer),
            more=True,
        ),
        Target(
            f"{name}, scores of one clip, from and to the host",
            "ms",
            *asked.clip,
            beside,
            _ours(beside, "one_clip"),
        ),
        times("training, PyTorch as released / ours", "train_step", "released", asked.released),
        times("training, tuned PyTorch / ours", "train_step", "tuned", TUNED),
        times("validation pass, PyTorch as released / ours", "validation", "released", VALIDATION),
    ]


TARGETS = [
    *(target for key, asked in BACKBONES.items() for target in _of(key, asked)),
    Target("ResNet-50, a fold of BP4D (717k frames), cold", "min", 2, 3.5, 6, "fold", _fold),
]
