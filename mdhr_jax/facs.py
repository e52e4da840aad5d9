# SPDX-License-Identifier: Apache-2.0
"""Facial action units, facial regions, and the AU layouts of the data sets.

A layout is a value: everything that differs between BP4D, DISFA and a user's own AU set stands in
an `AuLayout`, and everything derived from it (region combinations, adjacency, bit weights) is
computed here. Regions and bit order are the release's (paper section 3.2.1;
`docs/paper-vs-release.md`).
"""

import dataclasses
import math
import re
from collections.abc import Iterable

import numpy as np

type Au = int | str
"""By its number, or where one side of the face is meant, its owner's left or right: 12, "L12"."""

AU_NAMES = {
    1: "inner brow raiser",
    2: "outer brow raiser",
    4: "brow lowerer",
    5: "upper lid raiser",
    6: "cheek raiser",
    7: "lid tightener",
    9: "nose wrinkler",
    10: "upper lip raiser",
    11: "nasolabial deepener",
    12: "lip corner puller",
    13: "sharp lip puller",
    14: "dimpler",
    15: "lip corner depressor",
    16: "lower lip depressor",
    17: "chin raiser",
    18: "lip pucker",
    19: "tongue show",
    20: "lip stretcher",
    22: "lip funneler",
    23: "lip tightener",
    24: "lip pressor",
    25: "lips part",
    26: "jaw drop",
    27: "mouth stretch",
    32: "lip bite",
    38: "nostril dilator",
    39: "nostril compressor",
}

# Those that the FACS manual describes, of face, head, eyes and behaviour (Ekman et al. 2002).
NUMBERS = frozenset(
    (
        1,
        2,
        *range(4, 47),
        50,
        *range(51, 67),
        68,
        69,
        *range(70, 75),
        *range(80, 86),
        91,
        92,
        97,
        98,
    )
)


def number(au: Au) -> int:
    """The number of an AU in FACS."""
    return int(str(au).lstrip("LR"))


def side(au: Au) -> str:
    """`L` or `R`; empty where both sides are meant."""
    return au[:1] if isinstance(au, str) else ""


def is_au(value: object) -> bool:
    """Whether a value names an AU as a layout does, whether or not FACS has the number."""
    if isinstance(value, str):
        return bool(re.fullmatch("[LR][1-9][0-9]?", value))
    return type(value) is int


# Rows of the face in sevenths of its height, `start, stop` (paper section 3.2.1).
UPPER, MIDDLE, LOWER = (0, 3), (2, 5), (4, 7)


@dataclasses.dataclass(frozen=True)
class Region:
    """A horizontal band of the face and the AUs whose combination is recognised in it.

    Attributes:
      name: short name, used for parameters and outputs.
      rows: `(start, stop)` in sevenths of the face height.
      aus: the first is the most significant bit of the combination's number.
    """

    name: str
    rows: tuple[int, int]
    aus: tuple[Au, ...]

    @property
    def combinations(self) -> int:
        """Number of AU combinations, the classes of the region's auxiliary head."""
        return 2 ** len(self.aus)

    def grid_rows(self, grid: int) -> slice:
        """Rows of a `grid` x `grid` feature map that the region covers (0:3, 2:5, 4:7 at 7)."""
        start, stop = self.rows
        return slice(math.floor(grid * start / 7), math.ceil(grid * stop / 7))


@dataclasses.dataclass(frozen=True)
class AuLayout:
    """Which AUs a data set annotates, and how they are grouped.

    Attributes:
      name: key in `LAYOUTS`.
      aus: in the order of labels and scores.
      regions: groups of AUs; every AU stands in exactly one.
      region_blocks: whether each region has a linear block of its own before heads and AU
        extractors (the release: BP4D yes, DISFA no).
      fps: frames per second of the recordings.
      folds: test subjects of each cross-validation fold; empty when the data say it.

    Raises:
      ValueError: an AU stands in no region or in two, or is none.
    """

    name: str
    aus: tuple[Au, ...]
    regions: tuple[Region, ...]
    region_blocks: bool
    fps: float
    folds: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self):
        if strange := [au for au in self.aus if not is_au(au)]:
            raise ValueError(
                f"layout {self.name!r}: {strange} are no AUs; name them 12, 'L12', 'R12'"
            )
        grouped = _ordered(au for region in self.regions for au in region.aus)
        if grouped != _ordered(set(self.aus)) or len(self.aus) != len(set(self.aus)):
            raise ValueError(
                f"layout {self.name!r}: each of the AUs {_ordered(self.aus)} must stand in exactly "
                f"one region, the regions hold {grouped}"
            )

    @property
    def au_names(self) -> tuple[str, ...]:
        """Column names: `AU01`, `AU02`, ..., `AUL12`."""
        return tuple(f"AU{side(au)}{number(au):02d}" for au in self.aus)

    def au_indices(self, region: Region) -> list[int]:
        """Positions of a region's AUs in the layout's order, in the region's bit order."""
        return [self.aus.index(au) for au in region.aus]

    @property
    def region_index(self) -> np.ndarray:
        """`(n,)` index of the region that each AU belongs to."""
        owner = {au: r for r, region in enumerate(self.regions) for au in region.aus}
        return np.array([owner[au] for au in self.aus], np.int32)

    @property
    def bit_shifts(self) -> np.ndarray:
        """`(n,)` position of each AU's bit in its region's combination number."""
        shift = {au: i for region in self.regions for i, au in enumerate(reversed(region.aus))}
        return np.array([shift[au] for au in self.aus], np.int32)

    @property
    def bit_weights(self) -> np.ndarray:
        """`(n, r)` matrix that turns 0/1 AU labels into one combination number per region."""
        weights = np.zeros((len(self.aus), len(self.regions)), np.int32)
        weights[np.arange(len(self.aus)), self.region_index] = 1 << self.bit_shifts
        return weights

    @property
    def cross_region(self) -> np.ndarray:
        """`(n, n)` 1 where two AUs belong to different regions (release: BP4D's four groups)."""
        return (self.region_index[:, None] != self.region_index[None, :]).astype(np.int32)


def _ordered(aus: Iterable[Au]) -> list[Au]:
    """By number, both sides before left and right."""
    return sorted(aus, key=lambda au: (number(au), side(au)))


def class_weights(positive_rates: np.ndarray) -> np.ndarray:
    """Weights of the AUs in the loss: inverse positive rates, scaled to mean 1 (release).

    Args:
      positive_rates: `(n,)` share of frames with the AU, over the training labels of a fold.

    Raises:
      ValueError: an AU never occurs, its weight would be infinite.
    """
    rates = np.asarray(positive_rates, np.float64)
    if (rates <= 0).any():
        raise ValueError(f"AUs at positions {np.flatnonzero(rates <= 0).tolist()} never occur")
    inverse = 1 / rates
    return inverse / inverse.sum() * len(rates)


_BP4D_PARTS = (
    "F001 F002 F008 F009 F010 F016 F018 F023 M001 M004 M007 M008 M012 M014",
    "F003 F005 F011 F013 F020 F022 M002 M005 M010 M011 M013 M016 M017 M018",
    "F004 F006 F007 F012 F014 F015 F017 F019 F021 M003 M006 M009 M015",
)
_DISFA_PARTS = (
    "SN001 SN002 SN009 SN010 SN016 SN026 SN027 SN030 SN032",
    "SN006 SN011 SN012 SN013 SN018 SN021 SN024 SN028 SN031",
    "SN003 SN004 SN005 SN007 SN008 SN017 SN023 SN025 SN029",
)


def _folds(parts: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    # The release counts backwards: fold 1 tests part 3, fold 3 tests part 1.
    return tuple(tuple(part.split()) for part in reversed(parts))


BP4D = AuLayout(
    name="bp4d",
    aus=(1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24),
    regions=(
        Region("up", UPPER, (1, 2, 4, 7)),
        Region("mid", MIDDLE, (6,)),
        Region("down1", LOWER, (12, 14, 15)),
        Region("down2", LOWER, (10, 17, 23, 24)),
    ),
    region_blocks=True,
    fps=25.0,
    folds=_folds(_BP4D_PARTS),
)

DISFA = AuLayout(
    name="disfa",
    aus=(1, 2, 4, 6, 9, 12, 25, 26),
    regions=(
        Region("up", UPPER, (1, 2, 4)),
        Region("mid", MIDDLE, (6, 9)),
        Region("down", LOWER, (12, 25, 26)),
    ),
    region_blocks=False,
    fps=20.0,
    folds=_folds(_DISFA_PARTS),
)

# BP4D's regions as the paper writes them: one lower region, where the release has two groups.
BP4D_THREE_REGIONS = dataclasses.replace(
    BP4D,
    name="bp4d_three_regions",
    regions=(*BP4D.regions[:2], Region("down", LOWER, (10, 12, 14, 15, 17, 23, 24))),
)
# Without the release's linear block per region, of which the paper says nothing.
BP4D_NO_REGION_BLOCKS = dataclasses.replace(BP4D, name="bp4d_no_region_blocks", region_blocks=False)

# Where an AU shows, by the muscles of the FACS manual; those not named show around the mouth.
_UPPER_AUS = {1, 2, 4, 5, 7, *range(41, 47)}
_MIDDLE_AUS = {6, 9, 38, 39}
_LIP_CORNER_AUS = {11, 12, 13, 14, 15, 16, 20}


def _grouped(name: str, aus: tuple[Au, ...]) -> AuLayout:
    """As the release groups BP4D's: by where AUs show, the lower face in two."""

    def among(numbers: Iterable[int]) -> tuple[Au, ...]:
        return tuple(au for au in aus if number(au) in numbers)

    lower = NUMBERS - _UPPER_AUS - _MIDDLE_AUS
    regions = (
        Region("up", UPPER, among(_UPPER_AUS)),
        Region("mid", MIDDLE, among(_MIDDLE_AUS)),
        Region("down1", LOWER, among(lower & _LIP_CORNER_AUS)),
        Region("down2", LOWER, among(lower - _LIP_CORNER_AUS)),
    )
    shown = tuple(region for region in regions if region.aus)
    return AuLayout(name, aus, shown, region_blocks=True, fps=25.0)


# Of OpenGraphAU, 27 AUs and seven of them on either side, in its order.
OPENGRAPHAU = _grouped(
    "opengraphau",
    (
        *(1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 23, 24, 25, 26, 27),
        *(32, 38, 39),
        *("L1", "R1", "L2", "R2", "L4", "R4", "L6", "R6", "L10", "R10", "L12", "R12", "L14", "R14"),
    ),
)

LAYOUTS = {
    layout.name: layout
    for layout in (BP4D, DISFA, BP4D_THREE_REGIONS, BP4D_NO_REGION_BLOCKS, OPENGRAPHAU)
}


def layout(name: str) -> AuLayout:
    """The layout in `LAYOUTS`, or of a user's own AUs, named by their numbers: `aus-1-2-12-L12`.

    Own AUs are grouped as the release groups BP4D's: by where they show, the lower face in two.

    Raises:
      ValueError: neither.
    """
    if name in LAYOUTS:
        return LAYOUTS[name]
    if not re.fullmatch("aus(-[LR]?[1-9][0-9]?)+", name):
        raise ValueError(
            f"layout {name!r} is unknown; choose from {', '.join(LAYOUTS)}, or name AUs: "
            "aus-1-2-12, those of one side L12 or R12"
        )
    aus = tuple(int(au) if au.isdigit() else au for au in name.split("-")[1:])
    if strange := sorted(set(map(number, aus)) - NUMBERS):
        raise ValueError(f"layout {name!r}: FACS has no AU {', '.join(map(str, strange))}")
    return _grouped(name, aus)


def own_name(aus: Iterable[Au]) -> str:
    """The name of the layout of these AUs, for `layout`."""
    return "-".join(["aus", *map(str, aus)])
