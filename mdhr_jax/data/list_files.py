# SPDX-License-Identifier: Apache-2.0
"""The files of the official lists: how MDHR and ME-GraphAU name them, where they lie.

    MDHR                                            ME-GraphAU
    BP4D_dataset/BP4D_train_img_path_fold1.txt      BP4D/list/BP4D_train_img_path_fold1.txt
    DISFA_dataset/DISFA_train_path_fold1.txt        DISFA/list/DISFA_train_img_path_fold1.txt
    DISFA_dataset/DISFA_train_label_fold1.txt       DISFA/list/DISFA_train_label_fold1.txt
    DISFA_dataset/DISFA_train_sub_label_fold1.txt   DISFA/list/DISFA_train_AU_relation_fold1.txt
    DISFA_dataset/DISFA_train_weight_fold1.txt      DISFA/list/DISFA_weight_fold1.txt

Whose lists they are is told from the files that are there.
"""

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping

from mdhr_jax import facs
from mdhr_jax.data import folds
from mdhr_jax.errors import InputError

SPLITS = ("train", "test")
FOLDS = range(1, folds.NUM_FOLDS + 1)


@dataclasses.dataclass(frozen=True)
class ListNames:
    """How a release names the list files of a data set.

    Attributes:
      folders: where they may lie, below the directory that is given; the first is the release's.
      patterns: of file names, by kind: path, label, weight, and region or relation.
      examples: rows of a label list that shows the form alone; 0: there is none such.
    """

    folders: tuple[str, ...]
    patterns: Mapping[str, str]
    examples: int = 0

    def file(self, kind: str, fold: int, split: str) -> str:
        """File name of a list; KeyError: the release has none of this kind."""
        return self.patterns[kind].format(fold=fold, split=split)

    def files(self, fold: int) -> set[str]:
        """File names of all lists of a fold."""
        return {self.file(kind, fold, split) for kind in self.patterns for split in SPLITS}


def _mdhr(prefix: str, path: str) -> ListNames:
    words = {"path": path, "label": "label", "region": "sub_label", "weight": "weight"}
    patterns = {kind: f"{prefix}_{{split}}_{word}_fold{{fold}}.txt" for kind, word in words.items()}
    return ListNames((f"{prefix}_dataset", ""), patterns)


def _graphau(prefix: str) -> ListNames:
    words = {
        "path": "{split}_img_path",
        "label": "{split}_label",
        "relation": "{split}_AU_relation",  # of train alone
        "weight": "weight",
    }
    patterns = {kind: f"{prefix}_{word}_fold{{fold}}.txt" for kind, word in words.items()}
    return ListNames((f"{prefix}/list", "list", ""), patterns, examples=5)


NAMES = {
    "MDHR": {"bp4d": _mdhr("BP4D", "img_path"), "disfa": _mdhr("DISFA", "path")},
    "ME-GraphAU": {"bp4d": _graphau("BP4D"), "disfa": _graphau("DISFA")},
}
"""By release and layout name. Lists of another AU set need a line here."""

# From any release's names of frames to this one's. Only those of DISFA differ.
_FRAMES = {
    "MDHR": (re.compile(r"(\w+)/(\d+\.\w+)"), r"\1/\1_\2"),  # SN001/SN001_0.png
    "ME-GraphAU": (re.compile(r"(\w+)/\1_(\d+\.\w+)"), r"\1/\2"),  # SN001/0.png
}


def frame_names(paths: Iterable[str], release: str) -> list[str]:
    """Paths of frames as a release, a key of `NAMES`, writes them."""
    pattern, name = _FRAMES[release]
    return [match.expand(name) if (match := pattern.fullmatch(path)) else path for path in paths]


@dataclasses.dataclass(frozen=True)
class ListFolder:
    """A folder of list files.

    Attributes:
      path: the folder.
      release: whose lists, a key of `NAMES`.
      names: how they are named.
    """

    path: pathlib.Path
    release: str
    names: ListNames

    @property
    def there(self) -> dict[int, int]:
        """How many lists of each fold are in it."""
        files = {file.name for file in self.path.glob("*.txt")}
        return {fold: len(files & self.names.files(fold)) for fold in FOLDS}

    def file(self, kind: str, fold: int, split: str) -> pathlib.Path:
        """Where a list is, or would be.

        Args:
          kind: path, label, weight, region (MDHR) or relation (ME-GraphAU).
          fold: 1, 2 or 3.
          split: train or test.

        Raises:
          InputError: the release has no lists of this kind.
        """
        if kind not in self.names.patterns:
            raise InputError(
                f"{self.path}: holds lists of {self.release}, which has no {kind} lists; name "
                "those of the other release"
            )
        return self.path / self.names.file(kind, fold, split)


def find(root: str | pathlib.Path, layout: facs.AuLayout) -> ListFolder:
    """The lists of a layout, and whose they are.

    Args:
      root: the folder that holds those of `ListNames.folders`, or one of these.
      layout: whose lists.

    Raises:
      InputError: no such directory, two releases' lists in it, or no list names are known for the
        layout.
    """
    known = NAMES["MDHR"]
    if layout.name not in known:
        raise InputError(
            f"layout {layout.name!r} has no official lists: choose one of {', '.join(known)}"
        )
    found = _recognise(root, layout)
    if not found.path.is_dir():
        raise InputError(
            f"{found.path}: no such directory; name the folder that holds "
            f"{folder_names(layout)} with the official list files"
        )
    return found


def find_folds(root: str | pathlib.Path, layout: facs.AuLayout) -> tuple[int, ...]:
    """The folds of which there is at least one list file; `root` as in `find`.

    Raises:
      InputError: there are two releases' lists.
    """
    counts = _recognise(root, layout).there
    return tuple(fold for fold in FOLDS if counts[fold])


def folder_names(layout: facs.AuLayout) -> str:
    """The releases' own folders of lists, in words."""
    return " or ".join(names[layout.name].folders[0] for names in NAMES.values())


def _recognise(root: str | pathlib.Path, layout: facs.AuLayout) -> ListFolder:
    """The folder with most list files, by the names of which there are most."""
    candidates = [
        ListFolder(pathlib.Path(root) / place, release, names[layout.name])
        for release, names in NAMES.items()
        for place in names[layout.name].folders
    ]
    counts = [sum(candidate.there.values()) for candidate in candidates]
    full = {str(own.path) for own, count in zip(candidates, counts, strict=True) if count}
    if len(full) > 1:
        raise InputError(
            f"{root}: holds {layout.name} lists twice, in {' and in '.join(sorted(full))}; name "
            "one of these"
        )
    return candidates[counts.index(max(counts))]
