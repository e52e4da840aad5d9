# SPDX-License-Identifier: Apache-2.0
"""The paper's Tables 1-5 as rows: what each changes in a configuration, and the paper's mean F1.

    mdhr tables --table 3 --config bp4d_resnet50 --data DIR --seeds 3 --budget-steps N

Tables 3-5 are ablations of ResNet-50 on BP4D. A row says every key of its slots, so that the same
row in two tables is one training. Ours: not measured at full size, the recordings are licensed; on
rendered faces: `docs/results/tables`.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


@dataclasses.dataclass(frozen=True)
class Row:
    """A training of a table.

    Attributes:
      name: what it consists of.
      overrides: configuration keys and their values.
      paper: mean F1 in percent over three folds; None where the paper has no such row.
    """

    name: str
    overrides: Mapping[str, Any]
    paper: float | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows to be compared with each other; gains are over the first.

    Attributes:
      title: what it shows.
      layout: of the data set that the paper used.
      rows: in the paper's order.
    """

    title: str
    layout: str
    rows: tuple[Row, ...]


NOTHING = MappingProxyType(
    {
        "model.dynamics.kind": "none",
        "model.dynamics.scales": (1, 2, 3, 4),
        "model.afe": "none",
        "model.auxiliary": False,
        "model.edges": "none",
        "model.temporal": False,
    }
)
MFD = {"model.dynamics.kind": "multiscale"}
AFE = {"model.afe": "block"}
AUX = {"model.auxiliary": True}
CRM = {"model.edges": "cross_region_activated"}
TCN = {"model.temporal": True}


def _row(name: str, paper: float | None, *parts: Mapping[str, Any]) -> Row:
    """The backbone and these parts."""
    overrides = dict(NOTHING)
    for part in parts:
        overrides |= part
    return Row(name, overrides, paper)


def _scales(*scales: int) -> Row:
    """MFD on some scales, beside AFE; which ones the paper's middle rows use is lost."""
    chosen = {"model.dynamics.scales": scales}
    return _row(f"MFD {' '.join(map(str, scales))} + AFE", None, MFD, chosen, AFE)


def _edges(kind: str) -> Mapping[str, Any]:
    return {"model.edges": kind}


_AFE = _row("AFE", 64.1, AFE)
_MFD_AFE = _row("MFD + AFE", 65.3, MFD, AFE)
_AFE_AUX_CRM = _row("AFE + Aux + CRM", 65.1, AFE, AUX, CRM)
_FULL = _row("MFD + AFE + Aux + CRM + TCN", 66.6, MFD, AFE, AUX, CRM, TCN)


def _form(name: str, overrides: Mapping[str, Any]) -> Row:
    """The full model with one thing as the paper writes it."""
    return Row(name, {**_FULL.overrides, **overrides})


TABLES = {
    "1": Table(
        "Table 1: BP4D",
        "bp4d",
        (
            Row("ResNet-50", {"model.backbone": "resnet50"}, 66.6),
            Row("Swin-B", {"model.backbone": "swin_b"}, 66.1),
        ),
    ),
    "2": Table(
        "Table 2: DISFA",
        "disfa",
        (
            Row("ResNet-50", {"model.backbone": "resnet50"}, 64.9),
            Row("Swin-B", {"model.backbone": "swin_b"}, 66.2),
        ),
    ),
    "3": Table(
        "Table 3: the parts of MDHR",
        "bp4d",
        (
            _row("backbone", 63.3),
            _row("MFD", 64.6, MFD),
            _AFE,
            _row("AFE + Aux", 64.5, AFE, AUX),
            _AFE_AUX_CRM,
            _MFD_AFE,
            _row("MFD + AFE + Aux", 65.7, MFD, AFE, AUX),
            _row("MFD + AFE + Aux + CRM", 66.3, MFD, AFE, AUX, CRM),
            _FULL,
        ),
    ),
    "4": Table(
        "Table 4: scales of MFD, and how they are joined",
        "bp4d",
        (
            _AFE,
            _scales(1),
            _scales(4),
            _scales(1, 2),
            _scales(1, 2, 3),
            _scales(1, 2, 4),
            _row("MFD by sum + AFE", 64.9, {"model.dynamics.kind": "sum"}, AFE),
            _row("MFD by concatenation + AFE", 64.9, {"model.dynamics.kind": "concatenation"}, AFE),
            _MFD_AFE,
        ),
    ),
    "5": Table(
        "Table 5: edges of the AU graph",
        "bp4d",
        (
            _row("AFE + fully connected", 64.6, AFE, _edges("fully_connected")),
            _row("AFE + Aux + within region", 64.2, AFE, AUX, _edges("within_region")),
            _row("AFE + Aux + cross-region full", 64.9, AFE, AUX, _edges("cross_region_full")),
            _row("AFE + Aux + fully connected", 64.8, AFE, AUX, _edges("fully_connected")),
            _AFE_AUX_CRM,
        ),
    ),
    # Not a table of the paper: what it writes and the release does otherwise.
    "forms": Table(
        "The full model, one thing each as the paper writes it",
        "bp4d",
        (
            dataclasses.replace(_FULL, paper=None),
            _form("three regions", {"layout": "bp4d_three_regions"}),
            _form("no region blocks", {"layout": "bp4d_no_region_blocks"}),
            _form("AFE by 1x1 convolution", {"model.afe": "convolution"}),
            _form("edge-repeat padding", {"model.dynamics.window": "edge"}),
            _form("real neighbours", {"model.dynamics.window": "neighbours"}),
            _form("sums in the loss", {"loss_reduction": "sum"}),
        ),
    ),
}
