# SPDX-License-Identifier: Apache-2.0
"""Published results that stand beside those of a like model, as printed, means of three folds.

MDHR's are the paper's. ME-GraphAU's, all of its stage 2, are its README's; those that the paper
quotes stand in `paper.json` alone. OpenGraphAU's are of a test set that nobody has.
"""

import math
from typing import NamedTuple

from mdhr_jax.report import paper
from mdhr_jax.report.paper import System


class _Row(NamedTuple):
    """A published result and the models that it stands beside.

    Attributes:
      kind: of the models, a key of `kinds.KINDS`.
      layout: the name of theirs.
      backbone: theirs, a key of `backbones.BACKBONES`; None: any.
      column: the heading.
      system: the result.
    """

    kind: str
    layout: str
    backbone: str | None
    column: str
    system: System


def _quoted(layout: str, name: str) -> System:
    """A row of the paper's table."""
    (system,) = (system for system in paper.SYSTEMS[layout] if system.name == name)
    return system


def _readme(backbone: str, printed_mean: float, f1: tuple[float, ...]) -> System:
    """A row of ME-GraphAU's README."""
    return System(f"ME-GraphAU ({backbone})", "its authors' README", printed_mean, f1)


_BP4D_RESNET50 = (53.7, 46.9, 59.0, 78.5, 80.0, 84.4, 87.8, 67.3, 52.5, 63.2, 50.6, 52.4)
_DISFA_SWIN_B = (52.5, 45.7, 76.1, 51.8, 46.5, 76.1, 92.9, 57.6)
_MEAN_ALONE = 12 * (math.nan,)

_ROWS = (
    *(
        _Row("mdhr", layout, None, f"paper {backbone}", _quoted(layout, f"MDHR ({backbone})"))
        for layout in paper.SYSTEMS
        for backbone in ("ResNet-50", "Swin-B")
    ),
    *(
        _Row("graphau", layout, backbone, "ME-GraphAU", system)
        for layout, backbone, system in (
            ("bp4d", "resnet50", _readme("ResNet-50", 64.7, _BP4D_RESNET50)),
            ("bp4d", "resnet101", _readme("ResNet-101", 64.8, _MEAN_ALONE)),
            ("bp4d", "swin_t", _readme("Swin-T", 65.6, _MEAN_ALONE)),
            ("bp4d", "swin_s", _readme("Swin-S", 65.1, _MEAN_ALONE)),
            ("bp4d", "swin_b", _quoted("bp4d", "ME-GraphAU")),
            ("disfa", "resnet50", _quoted("disfa", "ME-GraphAU")),
            ("disfa", "swin_b", _readme("Swin-B", 62.4, _DISFA_SWIN_B)),
        )
    ),
)


def beside(kind: str, layout: str, backbone: str) -> dict[str, System]:
    """What is published of such models, by the heading of its column.

    Args:
      kind: a key of `kinds.KINDS`.
      layout: the name of a layout.
      backbone: a key of `backbones.BACKBONES`.
    """
    return {
        row.column: row.system
        for row in _ROWS
        if (row.kind, row.layout) == (kind, layout) and row.backbone in (None, backbone)
    }
