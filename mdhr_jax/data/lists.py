# SPDX-License-Identifier: Apache-2.0
"""Official lists, of MDHR or ME-GraphAU: frame paths, AU labels, regions or relations, weights.

One text file each, line by line in parallel, per fold (1, 2, 3) and split (train, test). They are
the releases' interchange format and name the frames of BP4D and DISFA (`list_files`):

    path      F001/T1/2440.jpg          SN001/SN001_0.png, or SN001/0.png
    label     0 0 1 0 ...               0, 1, or -1 and 9 for unknown, one value per AU
    region    1 0 0 2                   MDHR, optional; combination number of each region
    relation  0 1 2 3 ...               ME-GraphAU, optional; 2 label i + label j of all AUs i, j
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
from einops import rearrange
from jaxtyping import Float, Int

from mdhr_jax import facs
from mdhr_jax.data import clips, folds, list_files
from mdhr_jax.errors import InputError
from mdhr_jax.machine import files

_FRAME_PATH = re.compile(
    r"(?P<video>(?P<subject>[^/\s]+)(/[^/\s]+)*)/([^/\s]*[^/\s0-9])?(?P<number>[0-9]{1,9})\.\w+"
)
_LABEL_VALUES = {"0": 0, "1": 1, "-1": -1, "9": -1}


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


def read_fold(root: str | pathlib.Path, layout: facs.AuLayout, fold: int, split: str) -> FoldLists:
    """Read path, label and (where it exists) region or relation list of one split.

    Args:
      root: directory of the lists, as for `list_files.find`.
      layout: whose lists.
      fold: 1, 2 or 3.
      split: train or test.

    Raises:
      InputError: a file is missing, or a line is broken, missing, or contradicts another file.
    """
    folder = list_files.find(root, layout)
    path_file, label_file = (folder.file(kind, fold, split) for kind in ("path", "label"))
    matches = _parse_lines(path_file, _parse_path)
    parse = functools.partial(_parse_labels, count=len(layout.aus))
    labels = np.array(_parse_lines(label_file, parse), np.int8)
    _check_count(label_file, len(labels), path_file, len(matches))
    for kind in folder.names.patterns.keys() & _DERIVED.keys():
        if (file := folder.file(kind, fold, split)).exists():
            _DERIVED[kind](file, label_file, layout, labels)
    return _fold_lists(path_file, matches, layout, labels)


def read_paths(root: str | pathlib.Path, layout: facs.AuLayout, fold: int, split: str) -> FoldLists:
    """As `read_fold` of the path list alone: every label is unknown."""
    file = list_files.find(root, layout).file("path", fold, split)
    matches = _parse_lines(file, _parse_path)
    unknown = np.full((len(matches), len(layout.aus)), -1, np.int8)
    return _fold_lists(file, matches, layout, unknown)


def labels_are_examples(
    root: str | pathlib.Path, layout: facs.AuLayout, fold: int, split: str
) -> bool:
    """Whether a label list shows the form alone, as those in ME-GraphAU's repository do.

    Raises:
      InputError: as `read_fold`, where path or label list cannot be read.
    """
    folder = list_files.find(root, layout)
    rows, frames = (len(_read_lines(folder.file(kind, fold, split))) for kind in ("label", "path"))
    return rows == folder.names.examples != frames


def read_test_sets(
    root: str | pathlib.Path, layout: facs.AuLayout
) -> tuple[tuple[FoldLists, ...], folds.Folds]:
    """Every frame of the data set once, as the three test lists; and the subjects in each.

    Raises:
      InputError: as `read_fold`, or a subject stands in two test lists.
    """
    tests = tuple(read_fold(root, layout, fold, "test") for fold in list_files.FOLDS)
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
    file = list_files.find(root, layout).file("weight", fold, "train")
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


def _parse_relations(line: str, count: int) -> Int[np.ndarray, " k"]:
    values = line.split()
    if len(values) != count or not {*values} <= {*"0123"}:
        raise ValueError(f"{line[:80]!r} are not the {count} relations of AUs, each from 0 to 3")
    return np.array(values, np.int8)


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
    file: pathlib.Path, label_file: pathlib.Path, layout: facs.AuLayout, labels: np.ndarray
) -> None:
    regions = _regions(layout, labels)
    parse = functools.partial(_parse_regions, count=regions.shape[1])
    listed = np.array(_parse_lines(file, parse))
    _check_count(file, len(listed), label_file, len(labels))
    unknown_aus = (labels < 0) @ (layout.bit_weights > 0).astype(int)
    wrong = np.argwhere((unknown_aus == 0) & (listed != regions))
    if len(wrong):
        row, region = wrong[0]
        raise InputError(
            f"{file}, line {row + 1}: region {layout.regions[region].name!r} is "
            f"{listed[row, region]}, but line {row + 1} of {label_file.name} makes it "
            f"{regions[row, region]}; one of the two lists is wrong"
        )


def _check_relations(
    file: pathlib.Path, label_file: pathlib.Path, layout: facs.AuLayout, labels: np.ndarray
) -> None:
    """Edge i*n + j: 2 where AU i is active, and 1 where AU j is."""
    n = len(layout.aus)
    parse = functools.partial(_parse_relations, count=n * n)
    listed = rearrange(np.array(_parse_lines(file, parse)), "m (i j) -> m i j", i=n)
    _check_count(file, len(listed), label_file, len(labels))
    known = labels >= 0
    relations = 2 * labels[:, :, None] + labels[:, None, :]
    wrong = np.argwhere(known[:, :, None] & known[:, None, :] & (listed != relations))
    if len(wrong):
        row, i, j = wrong[0]
        raise InputError(
            f"{file}, line {row + 1}: the relation of {layout.au_names[i]} and "
            f"{layout.au_names[j]} is {listed[row, i, j]}, but line {row + 1} of "
            f"{label_file.name} makes it {relations[row, i, j]}; one of the two lists is wrong"
        )


# Lists that follow from the labels, and may be absent.
_DERIVED = {"region": _check_regions, "relation": _check_relations}


def _regions(layout: facs.AuLayout, labels: np.ndarray) -> Int[np.ndarray, "m r"]:
    return (labels == 1) @ layout.bit_weights


def _fold_lists(
    file: pathlib.Path, matches: list[re.Match], layout: facs.AuLayout, labels: np.ndarray
) -> FoldLists:
    return FoldLists(
        paths=tuple(match[0] for match in matches),
        frames=_frame_table(file, matches, labels),
        regions=_regions(layout, labels),
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
