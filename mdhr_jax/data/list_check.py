# SPDX-License-Identifier: Apache-2.0
"""The official lists against themselves and against the release's numbers (`mdhr check-lists`).

`release_lists.json` holds what MDHR's lists amount to: counts, class weights to six decimals,
digests. ME-GraphAU's amount to the same, but for the names of DISFA's frames; how either writes its
path lists stands in `path_lists.json`. The lists themselves are licensed and nowhere in the
package.
"""

import dataclasses
import functools
import importlib.resources
import itertools
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mdhr_jax import facs
from mdhr_jax.data import clip_facts, folds, list_files, lists
from mdhr_jax.errors import InputError

Fact = int | float | str
Facts = dict[str, dict[str, Fact]]

DECIMALS = 6  # of the class weights in the official files
DIGITS = 16  # of a SHA-256 that are kept


@functools.cache
def released() -> dict[str, list[Facts]]:
    """MDHR's facts by layout name, one entry per fold."""
    return _read_json("release_lists.json")


@functools.cache
def path_digests() -> dict[str, dict[str, list[dict[str, str]]]]:
    """Digests of path lists as written, by release and layout name, one entry per fold."""
    return _read_json("path_lists.json")


def _read_json(name: str) -> Any:
    return json.loads(importlib.resources.files("mdhr_jax.data").joinpath(name).read_text())


@dataclasses.dataclass(frozen=True)
class Fold:
    """The lists of one fold.

    Attributes:
      layout: of which data set.
      release: whose lists, a key of `list_files.NAMES`.
      number: which fold, from 1.
      labelled: whether there are label lists, not examples of them alone.
      splits: the frames of `train` and of `test`.
      listed_weights: what the weight list says.
      weights: class weights that the training labels give; without labels, the listed ones.
    """

    layout: facs.AuLayout
    release: str
    number: int
    labelled: bool
    splits: dict[str, lists.FoldLists]
    listed_weights: Float[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"]

    @functools.cached_property
    def facts(self) -> Facts:
        """Counts, class weights and digests, with the names that `release_lists.json` has.

        `train starts` are the frames at which a clip may begin, `test padding` the frames that are
        missing at the ends of the test clips. The digests of paths are of these lists, as written;
        those of lists are taken over paths as MDHR writes them, labels and region ids, clip after
        clip.
        """
        train = clip_facts.training_facts(_named_by_mdhr(self.splits["train"]))
        test = clip_facts.evaluation_facts(_named_by_mdhr(self.splits["test"]))
        of_labels = {
            "train lists": train["train_sha256"][:DIGITS],
            "test lists": test["val_sha256"][:DIGITS],
            **{
                f"{name} region ids": clip_facts.regions_digest(split)[:DIGITS]
                for name, split in self.splits.items()
            },
        }
        return {
            "counts": {
                "train subjects": len(train["train_subjects"]),
                "train videos": train["n_train_videos"],
                "train frames": train["train_frames_total"],
                "train starts": train["train_start_positions"],
                "test subjects": len(test["val_subjects"]),
                "test videos": len(self.splits["test"].frames.videos),
                "test frames": test["val_frames_real"],
                "test clips": test["val_clips"],
                "test padding": test["val_frames_padded"],
                "shared subjects": len(self.shared_subjects),
            },
            "class weights": _by_au(self.layout, self.weights),
            "digests": {
                **{f"{name} paths": _digest(split.paths) for name, split in self.splits.items()},
                **(of_labels if self.labelled else {}),
            },
        }

    @property
    def expected(self) -> Facts:
        """Those of `facts` that are known of the release."""
        place = self.number - 1
        known = released()[self.layout.name][place]
        paths = path_digests()[self.release][self.layout.name][place]
        return {**known, "digests": {**paths, **known["digests"]}}

    def likeness(self, name: str, release: str) -> str:
        """Whether the path list of a split is a release's: `same lines`, `same frames`, neither.

        Args:
          name: train or test.
          release: a key of `list_files.NAMES`; DISFA's frames have other names in each.
        """
        theirs = path_digests()[release][self.layout.name][self.number - 1][f"{name} paths"]
        own = self.splits[name].paths
        if _digest(own) == theirs:
            return "same lines"
        renamed = _digest(list_files.frame_names(own, release))
        return "same frames" if renamed == theirs else "other frames"

    @property
    def shared_subjects(self) -> list[str]:
        """People who are trained on and tested."""
        return sorted(set.intersection(*(set(s.frames.subjects) for s in self.splits.values())))

    def problems(self) -> Iterator[str]:
        """Everything that is inconsistent or not the release's, a line each."""
        for problem in (*self._inconsistent(), *self._differing()):
            yield f"{self.layout.name} fold {self.number}: {problem}"

    def _inconsistent(self) -> Iterator[str]:
        if self.shared_subjects:
            yield f"{_named(self.shared_subjects)} in both the train and the test list"
        for name, split in self.splits.items():
            listed = set(split.frames.subjects)
            wanted = set(folds.split_subjects(self.layout.folds, self.number, name))
            if listed - wanted:
                yield f"{_named(listed - wanted)} in the {name} list, but not of this split"
            if wanted - listed:
                yield f"{_named(wanted - listed)} missing from the {name} list"
        if not self.labelled:
            yield "the label lists are examples of a few rows: paths and weights alone are checked"
        weights = _by_au(self.layout, self.listed_weights)
        if wrong := _unlike(weights, self.facts["class weights"]):
            yield f"the weight list is not what the train labels give: {wrong}"

    def _differing(self) -> Iterator[str]:
        for group, expected in self.expected.items():
            if wrong := _unlike(self.facts[group], expected):
                yield f"{group} are not the release's: {wrong}"


def read(root: str | pathlib.Path, layout: facs.AuLayout, number: int) -> Fold:
    """Reads the lists of a fold.

    Raises:
      InputError: as `lists.read_fold` and `lists.read_weights`, or an AU is never active in the
        training list, so that it has no class weight.
    """
    folder = list_files.find(root, layout)
    labelled = not any(
        lists.labels_are_examples(root, layout, number, name) for name in list_files.SPLITS
    )
    read_split = lists.read_fold if labelled else lists.read_paths
    splits = {name: read_split(root, layout, number, name) for name in list_files.SPLITS}
    listed = lists.read_weights(root, layout, number)
    try:
        weights = splits["train"].class_weights if labelled else listed
    except ValueError as error:
        file = folder.file("label", number, "train")
        raise InputError(f"{file}: {error}, so they have no class weight; restore it") from error
    return Fold(layout, folder.release, number, labelled, splits, listed, weights)


def check(root: str | pathlib.Path) -> bool:
    """Prints the facts of all folds whose lists are there, then a verdict; True when all is exact.

    Args:
      root: directory of the lists, as for `list_files.find`.

    Raises:
      InputError: no such folder, no list in it, or a list that is missing or broken.
    """
    if not pathlib.Path(root).is_dir():
        raise InputError(f"{root}: no such directory; give the one with the official lists")
    layouts = [facs.LAYOUTS[name] for name in released()]
    numbers = {layout.name: list_files.find_folds(root, layout) for layout in layouts}
    if not any(numbers.values()):
        folders = " or ".join(map(list_files.folder_names, layouts))
        raise InputError(f"{root}: holds no official lists; give the directory with {folders}")
    problems = []
    for layout in layouts:
        read_folds = [read(root, layout, number) for number in numbers[layout.name]]
        print(_describe(layout, read_folds), flush=True)
        problems += [problem for fold in read_folds for problem in fold.problems()]
    print(_verdict(sum(map(len, numbers.values())), problems))
    return not problems


def _verdict(checked: int, problems: Sequence[str]) -> str:
    if problems:
        return "\n  ".join(["not exact:", *problems])
    total = sum(map(len, released().values()))
    return f"{'all six folds' if checked == total else f'{checked} of {total} folds'}: exact"


def _describe(layout: facs.AuLayout, read_folds: Sequence[Fold]) -> str:
    if not read_folds:
        return f"{layout.name}: no lists here\n"
    whose = f"{layout.name}, lists of {read_folds[0].release}"
    tables = [
        (f"{whose}: clips of {clip_facts.CLIP_LENGTH} frames", _counts(read_folds)),
        ("class weights", _by_fold("class weights", read_folds)),
        (f"SHA-256, first {DIGITS} digits", _by_fold("digests", read_folds)),
        ("path lists beside a release's", _likeness(read_folds)),
    ]
    if all(fold.labelled for fold in read_folds):
        title = "\n  ".join(["frames per region id", *_formulas(layout)])
        tables.append((title, _regions(layout, read_folds)))
    return "\n".join(f"{title}\n{_aligned(rows)}\n" for title, rows in tables)


def _counts(read_folds: Sequence[Fold]) -> list[Sequence]:
    """A row per fold under two header rows: the first and the second words of the names."""
    above, below = zip(*(name.split() for name in read_folds[0].facts["counts"]), strict=True)
    rows = [(fold.number, *fold.facts["counts"].values()) for fold in read_folds]
    return [("", *above), ("fold", *below), *rows]


def _by_fold(group: str, read_folds: Sequence[Fold]) -> list[Sequence]:
    """A row per fact, a column per fold."""
    facts = [fold.facts[group] for fold in read_folds]
    rows = [(name, *(own.get(name, "-") for own in facts)) for name in max(facts, key=len)]
    return [_header(read_folds), *rows]


def _likeness(read_folds: Sequence[Fold]) -> list[Sequence]:
    """A row per release and split, a column per fold."""
    rows = [
        (f"{release} {name}", *(fold.likeness(name, release) for fold in read_folds))
        for release in list_files.NAMES
        for name in list_files.SPLITS
    ]
    return [_header(read_folds), *rows]


def _header(read_folds: Sequence[Fold]) -> Sequence[str]:
    return ("", *(f"fold {fold.number}" for fold in read_folds))


def _formulas(layout: facs.AuLayout) -> Iterator[str]:
    """How the ids come about: `mid = 2 AU06 + 1 AU09`."""
    for region in layout.regions:
        indices = layout.au_indices(region)
        terms = (f"{1 << layout.bit_shifts[i]} {layout.au_names[i]}" for i in indices)
        yield f"{region.name} = {' + '.join(terms)}"


def _regions(layout: facs.AuLayout, read_folds: Sequence[Fold]) -> list[Sequence]:
    """How many test frames show each combination, a row per id, a column per region."""
    ids = np.concatenate([fold.splits["test"].regions for fold in read_folds]).T
    counts = [
        np.bincount(own, minlength=region.combinations).tolist()
        for region, own in zip(layout.regions, ids, strict=True)
    ]
    rows = enumerate(itertools.zip_longest(*counts, fillvalue=""))
    return [("id", *(region.name for region in layout.regions)), *((i, *row) for i, row in rows)]


def _aligned(rows: Sequence[Sequence]) -> str:
    cells = [[f"{x:f}" if isinstance(x, float) else str(x) for x in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(["", *(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))])
        for row in cells
    )


def _by_au(layout: facs.AuLayout, weights: Float[np.ndarray, " n"]) -> dict[str, float]:
    return dict(zip(layout.au_names, weights.round(DECIMALS).tolist(), strict=True))


def _named_by_mdhr(split: lists.FoldLists) -> lists.FoldLists:
    return dataclasses.replace(split, paths=tuple(list_files.frame_names(split.paths, "MDHR")))


def _digest(paths: Iterable[str]) -> str:
    return clip_facts.paths_digest(paths)[:DIGITS]


def _unlike(facts: Mapping[str, Fact], expected: Mapping[str, Fact]) -> str:
    """The facts that are not as expected, in words; empty when all are that there are."""
    wrong = {n: value for n, value in expected.items() if n in facts and facts[n] != value}
    return ", ".join(f"{name} {facts[name]} instead of {value}" for name, value in wrong.items())


def _named(things: Iterable[str]) -> str:
    first, *others = sorted(things)
    return f"{first} and {len(others)} more are" if others else f"{first} is"
