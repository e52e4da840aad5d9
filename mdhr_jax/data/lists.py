# SPDX-License-Identifier: Apache-2.0
"""The list files of the official release: frame paths, AU labels, region combinations, weights.

One text file each, line by line in parallel, per fold (1, 2, 3) and split (train, test). They are
the release's interchange format and name the frames of BP4D and DISFA:

    path      F001/T1/2440.jpg          SN001/SN001_0.png
    label     0 0 1 0 ...               0, 1, or -1 and 9 for unknown, one value per AU
    region    1 0 0 2                   optional; combination number of each region
    weight    1.342985 1.689665 ...     one line, the AUs' weights in the loss (train only)

A path is `subject/.../...number.ext`; its folders name the video, whose numbers increase. Windows
line ends, a byte order mark and a missing last newline are accepted, anything else that is out of
order is refused with file and line.
"""

import dataclasses
import functools
import itertools
import pathlib
import re
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from mdhr_jax import facs
from mdhr_jax.data import clips, folds
from mdhr_jax.errors import InputError
from mdhr_jax.machine import files

_FRAME_PATH = re.compile(
    r"(?P<video>(?P<subject>[^/\s]+)(/[^/\s]+)*)/([^/\s]*[^/\s0-9])?(?P<number>[0-9]{1,9})\.\w+"
)
_LABEL_VALUES = {"0": 0, "1": 1, "-1": -1, "9": -1}


@dataclasses.dataclass(frozen=True)
class ListNames:
    """How a data set names its list files: the prefix, and the word for the path list."""

    prefix: str
    path: str

    @property
    def folder(self) -> str:
        """The folder that holds the files."""
        return f"{self.prefix}_dataset"

    def file(self, kind: str, fold: int, split: str) -> str:
        """File name of a list; `kind` is path, label, region or weight."""
        word = {"path": self.path, "region": "sub_label"}.get(kind, kind)
        return f"{self.prefix}_{split}_{word}_fold{fold}.txt"


NAMES = {
    "bp4d": ListNames(prefix="BP4D", path="img_path"),
    "disfa": ListNames(prefix="DISFA", path="path"),
}
"""By layout name. Lists of another AU set need one more line here."""


@dataclasses.dataclass(frozen=True)
class FoldLists:
    """The frames of one split of one fold, in the order of the lists.

    Attributes:
      paths: as written, without surrounding blanks.
      frames: videos, frame numbers and labels.
      regions: combination number of each region; an unknown AU counts as not active.
    """

    paths: tuple[str, ...]
    frames: clips.FrameTable
    regions: Int[np.ndarray, "m r"]

    @property
    def class_weights(self) -> Float[np.ndarray, " n"]:
        """Weights of the AUs in the loss, from these labels; an unknown AU counts as not active.

        Raises:
          ValueError: an AU never occurs.
        """
        return facs.class_weights((self.frames.labels == 1).mean(0))


def find_file(
    root: str | pathlib.Path, layout: facs.AuLayout, *, kind: str, fold: int, split: str
) -> pathlib.Path:
    """Where a list file is, or would be.

    Args:
      root: the folder that holds `BP4D_dataset` and `DISFA_dataset`, or one of these two.
      layout: whose lists.
      kind: path, label, region or weight.
      fold: 1, 2 or 3.
      split: train or test.

    Raises:
      InputError: no such directory, or no list names are known for the layout.
    """
    if layout.name not in NAMES:
        raise InputError(
            f"layout {layout.name!r} has no official lists: choose one of {', '.join(NAMES)}"
        )
    names, folder = NAMES[layout.name], _folder(root, layout)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such directory; name the folder that holds {names.folder} with the "
            "official list files"
        )
    return folder / names.file(kind, fold, split)


def find_folds(root: str | pathlib.Path, layout: facs.AuLayout) -> tuple[int, ...]:
    """The folds of which there is at least one list file; `root` as in `find_file`."""
    folder = _folder(root, layout)
    numbers = range(1, folds.NUM_FOLDS + 1)
    return tuple(fold for fold in numbers if any(folder.glob(f"*_fold{fold}.txt")))


def _folder(root: str | pathlib.Path, layout: facs.AuLayout) -> pathlib.Path:
    root, name = pathlib.Path(root), NAMES[layout.name].folder
    return root if root.resolve().name == name else root / name


def read_fold(root: str | pathlib.Path, layout: facs.AuLayout, fold: int, split: str) -> FoldLists:
    """Read path, label and (where it exists) region list of one split.

    Raises:
      InputError: a file is missing, or a line is broken, missing, or contradicts another file.
    """
    file = {
        kind: find_file(root, layout, kind=kind, fold=fold, split=split)
        for kind in ("path", "label", "region")
    }
    matches = _parse_lines(file["path"], _parse_path)
    parse = functools.partial(_parse_labels, count=len(layout.aus))
    labels = np.array(_parse_lines(file["label"], parse), np.int8)
    _check_count(file["label"], len(labels), file["path"], len(matches))
    regions = (labels == 1) @ layout.bit_weights
    if file["region"].exists():
        _check_regions(file, layout, labels, regions)
    return FoldLists(
        paths=tuple(match[0] for match in matches),
        frames=_frame_table(file["path"], matches, labels),
        regions=regions,
    )


def read_test_sets(
    root: str | pathlib.Path, layout: facs.AuLayout
) -> tuple[tuple[FoldLists, ...], folds.Folds]:
    """Every frame of the data set once, as the three test lists; and the subjects in each.

    Raises:
      InputError: as `read_fold`, or a subject stands in two test lists.
    """
    tests = tuple(read_fold(root, layout, fold, "test") for fold in range(1, folds.NUM_FOLDS + 1))
    subjects = tuple(tuple(dict.fromkeys(test.frames.subjects)) for test in tests)
    folds.check_disjoint(subjects)
    return tests, subjects


def read_weights(
    root: str | pathlib.Path, layout: facs.AuLayout, fold: int
) -> Float[np.ndarray, " n"]:
    """Read the weights of the AUs in the loss for a fold's training split.

    Raises:
      InputError: the file is missing, or is not one line of n positive numbers.
    """
    file = find_file(root, layout, kind="weight", fold=fold, split="train")
    rows = _parse_lines(file, functools.partial(_parse_weights, count=len(layout.aus)))
    if len(rows) > 1:
        raise InputError(f"{file}, line 2: a weight file has one line, delete the rest")
    return np.array(rows[0])


def _read_lines(file: pathlib.Path) -> list[str]:
    with files.reading(file):
        data = file.read_bytes()
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{file}, line {line}: this is not text (UTF-8), restore it") from error
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise InputError(f"{file}, line 1: the file is empty, restore it")
    return lines


def _parse_lines[T](file: pathlib.Path, parse: Callable[[str], T]) -> list[T]:
    # Label lines repeat a lot: each distinct line is parsed once.
    parsed = {}
    lines = _read_lines(file)
    for number, line in enumerate(lines, 1):
        if line not in parsed:
            try:
                parsed[line] = parse(line.strip())
            except ValueError as error:
                raise InputError(f"{file}, line {number}: {error}") from error
    return [parsed[line] for line in lines]


def _parse_path(line: str) -> re.Match:
    match = _FRAME_PATH.fullmatch(line)
    if match is None or not line.isprintable() or {".", ".."}.intersection(line.split("/")):
        raise ValueError(f"{line[:80]!r} is not a frame path such as F001/T1/2440.jpg")
    return match


def _parse_labels(line: str, count: int) -> list[int]:
    values = line.split()
    for column, value in enumerate(values, start=1):
        if value not in _LABEL_VALUES:
            raise ValueError(
                f"label {value[:20]!r} in column {column} is none of 0, 1, and -1 or 9 for unknown"
            )
    if len(values) != count:
        raise ValueError(f"{len(values)} labels, but the layout has {count} AUs")
    return [_LABEL_VALUES[value] for value in values]


def _parse_regions(line: str, count: int) -> list[int]:
    values = line.split()
    if len(values) != count or not all(re.fullmatch("[0-9]{1,4}", value) for value in values):
        raise ValueError(f"{line[:80]!r} are not the {count} combination numbers of the regions")
    return [int(value) for value in values]


def _parse_weights(line: str, count: int) -> list[float]:
    values = [float(value) for value in line.split()]
    if len(values) != count or not all(0 < value < np.inf for value in values):
        raise ValueError(f"{line[:80]!r} are not the positive weights of {count} AUs")
    return values


def _check_count(file: pathlib.Path, count: int, other: pathlib.Path, expected: int) -> None:
    if count != expected:
        raise InputError(
            f"{file}, line {min(count, expected) + 1}: this file has {count} lines, {other.name} "
            f"has {expected}; the lists belong together line by line, restore the wrong one"
        )


def _check_regions(
    file: dict[str, pathlib.Path],
    layout: facs.AuLayout,
    labels: np.ndarray,
    regions: np.ndarray,
) -> None:
    parse = functools.partial(_parse_regions, count=regions.shape[1])
    listed = np.array(_parse_lines(file["region"], parse))
    _check_count(file["region"], len(listed), file["label"], len(labels))
    unknown_aus = (labels < 0) @ (layout.bit_weights > 0).astype(int)
    wrong = np.argwhere((unknown_aus == 0) & (listed != regions))
    if len(wrong):
        row, region = wrong[0]
        raise InputError(
            f"{file['region']}, line {row + 1}: region {layout.regions[region].name!r} is "
            f"{listed[row, region]}, but line {row + 1} of {file['label'].name} makes it "
            f"{regions[row, region]}; one of the two lists is wrong"
        )


def _frame_table(
    file: pathlib.Path, matches: list[re.Match], labels: np.ndarray
) -> clips.FrameTable:
    videos, row = {}, 0
    for name, run in itertools.groupby(matches, key=lambda match: match["video"]):
        frames = list(run)
        if name in videos:
            raise InputError(
                f"{file}, line {row + 1}: video {name} was interrupted by another one; "
                "keep the frames of a video together"
            )
        number = np.array([int(match["number"]) for match in frames])
        falls = np.flatnonzero(np.diff(number) <= 0)
        if len(falls):
            raise InputError(
                f"{file}, line {row + falls[0] + 2}: frame {number[falls[0] + 1]} comes after "
                f"frame {number[falls[0]]}; list the frames of a video once and in order"
            )
        videos[name] = clips.Video(
            name=name,
            subject=frames[0]["subject"],
            number=number,
            labels=labels[row : row + len(frames)],
        )
        row += len(frames)
    return clips.FrameTable.from_videos(list(videos.values()))
