# SPDX-License-Identifier: Apache-2.0
"""The official lists against themselves and against the release's numbers (`mdhr check-lists`).

`release_lists.json` holds what the release's lists amount to: counts, class weights to six
decimals, digests. The lists themselves are licensed and nowhere in the package.
"""

import dataclasses
import functools
import importlib.resources
import itertools
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from mdhr_jax import facs
from mdhr_jax.data import clip_facts, folds, lists
from mdhr_jax.errors import InputError

Fact = int | float | str
Facts = dict[str, dict[str, Fact]]

SPLITS = ("train", "test")
DECIMALS = 6  # of the class weights in the official files
DIGITS = 16  # of a SHA-256 that are kept


@functools.cache
def released() -> dict[str, list[Facts]]:
    """The release's facts by layout name, one entry per fold."""
    return json.loads(
        importlib.resources.files("mdhr_jax.data").joinpath("release_lists.json").read_text()
    )


@dataclasses.dataclass(frozen=True)
class Fold:
    """The lists of one fold.

    Attributes:
      layout: whose lists.
      number: which fold, from 1.
      splits: the frames of `train` and of `test`.
      listed_weights: what the weight list says.
      weights: class weights that the training labels give.
    """

    layout: facs.AuLayout
    number: int
    splits: dict[str, lists.FoldLists]
    listed_weights: Float[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"]

    @functools.cached_property
    def facts(self) -> Facts:
        """Counts, class weights and digests, with the names that `release_lists.json` has.

        `train starts` are the frames at which a clip may begin, `test padding` the frames that are
        missing at the ends of the test clips. The digests of lists are taken over paths, labels
        and region ids, clip after clip.
        """
        train = clip_facts.training_facts(self.splits["train"])
        test = clip_facts.evaluation_facts(self.splits["test"])
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
                "train lists": train["train_sha256"][:DIGITS],
                "test lists": test["val_sha256"][:DIGITS],
                **{
                    f"{name} region ids": clip_facts.regions_digest(split)[:DIGITS]
                    for name, split in self.splits.items()
                },
            },
        }

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
        weights = _by_au(self.layout, self.listed_weights)
        if wrong := _unlike(weights, self.facts["class weights"]):
            yield f"the weight list is not what the train labels give: {wrong}"

    def _differing(self) -> Iterator[str]:
        for group, expected in released()[self.layout.name][self.number - 1].items():
            if wrong := _unlike(self.facts[group], expected):
                yield f"{group} are not the release's: {wrong}"


def read(root: str | pathlib.Path, layout: facs.AuLayout, number: int) -> Fold:
    """Reads the lists of a fold.

    Raises:
      InputError: as `lists.read_fold` and `lists.read_weights`, or an AU is never active in the
        training list, so that it has no class weight.
    """
    splits = {name: lists.read_fold(root, layout, number, name) for name in SPLITS}
    listed = lists.read_weights(root, layout, number)
    try:
        return Fold(layout, number, splits, listed, splits["train"].class_weights)
    except ValueError as error:
        file = lists.find_file(root, layout, kind="label", fold=number, split="train")
        raise InputError(f"{file}: {error}, so they have no class weight; restore it") from error


def check(root: str | pathlib.Path) -> bool:
    """Prints the facts of all folds whose lists are there, then a verdict; True when all is exact.

    Args:
      root: the folder that holds `BP4D_dataset` and `DISFA_dataset` or one of them, or is one.

    Raises:
      InputError: no such folder, no list in it, or a list that is missing or broken.
    """
    if not pathlib.Path(root).is_dir():
        raise InputError(f"{root}: no such directory; give the one with the official lists")
    layouts = [facs.LAYOUTS[name] for name in released()]
    numbers = {layout.name: lists.find_folds(root, layout) for layout in layouts}
    if not any(numbers.values()):
        folders = " or ".join(lists.NAMES[layout.name].folder for layout in layouts)
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
    tables = [
        (f"{layout.name}: clips of {clip_facts.CLIP_LENGTH} frames", _counts(read_folds)),
        ("class weights", _by_fold("class weights", read_folds)),
        (f"SHA-256, first {DIGITS} digits", _by_fold("digests", read_folds)),
        ("\n  ".join(["frames per region id", *_formulas(layout)]), _regions(layout, read_folds)),
    ]
    return "\n".join(f"{title}\n{_aligned(rows)}\n" for title, rows in tables)


def _counts(read_folds: Sequence[Fold]) -> list[Sequence]:
    """A row per fold under two header rows: the first and the second words of the names."""
    above, below = zip(*(name.split() for name in read_folds[0].facts["counts"]), strict=True)
    rows = [(fold.number, *fold.facts["counts"].values()) for fold in read_folds]
    return [("", *above), ("fold", *below), *rows]


def _by_fold(group: str, read_folds: Sequence[Fold]) -> list[Sequence]:
    """A row per fact, a column per fold."""
    names = read_folds[0].facts[group]
    header = ("", *(f"fold {fold.number}" for fold in read_folds))
    return [header, *((name, *(fold.facts[group][name] for fold in read_folds)) for name in names)]


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


def _unlike(facts: Mapping[str, Fact], expected: Mapping[str, Fact]) -> str:
    """The facts that are not as expected, in words; empty when all are."""
    wrong = {name: value for name, value in expected.items() if facts[name] != value}
    return ", ".join(f"{name} {facts[name]} instead of {value}" for name, value in wrong.items())


def _named(things: Iterable[str]) -> str:
    first, *others = sorted(things)
    return f"{first} and {len(others)} more are" if others else f"{first} is"
