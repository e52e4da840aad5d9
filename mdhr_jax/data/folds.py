# SPDX-License-Identifier: Apache-2.0
"""Subject-disjoint cross-validation folds: who is tested in fold k, and who is trained on."""

import collections
from collections.abc import Sequence

from mdhr_jax import facs
from mdhr_jax.errors import InputError

NUM_FOLDS = 3

Folds = tuple[tuple[str, ...], ...]
"""Test subjects of each fold; a fold trains on the test subjects of the others."""


def assign(layout: facs.AuLayout, subjects: Sequence[str]) -> Folds:
    """Deal `subjects` to three test sets.

    People of the official folds of `layout` keep their fold. As soon as anybody else is among
    them, all are dealt out evenly, in the order of their names.

    Raises:
      InputError: a name occurs twice.
    """
    _refuse_repeated(subjects)
    if {subject for fold in layout.folds for subject in fold}.issuperset(subjects):
        return tuple(tuple(s for s in fold if s in subjects) for fold in layout.folds)
    return tuple(tuple(sorted(subjects)[k::NUM_FOLDS]) for k in range(NUM_FOLDS))


def check_disjoint(folds: Sequence[Sequence[str]]) -> None:
    """Refuse folds that share a person.

    Raises:
      InputError: somebody is in two folds, or twice in one.
    """
    _refuse_repeated([subject for fold in folds for subject in fold])


def split_subjects(folds: Folds, fold: int, split: str, held_out: float = 0.0) -> tuple[str, ...]:
    """Who is in a split of fold `fold`, counted from 1.

    Args:
      folds: test subjects of each fold.
      fold: which one, from 1.
      split: "train", "held-out" or "test".
      held_out: share of the people of other folds who are held out of training.

    Raises:
      InputError: there is no such fold, or nobody is in that part of it.
    """
    if not 1 <= fold <= len(folds):
        raise InputError(f"fold {fold} does not exist: choose one of 1 to {len(folds)}")
    others = folds[: fold - 1] + folds[fold:]
    learning = tuple(subject for other in others for subject in other)
    kept = _spread(learning, held_out)
    train = tuple(subject for subject in learning if subject not in kept)
    subjects = {"train": train, "held-out": kept, "test": folds[fold - 1]}[split]
    if not subjects:
        filled = [k for k, people in enumerate(folds, 1) if people]
        raise InputError(
            f"fold {fold} has no {split} subjects in this data set: people are tested in folds "
            f"{filled}, prepare more subjects or choose another fold"
            + (f"; {held_out:g} of the others are held out" if held_out else "")
        )
    return subjects


def _spread(subjects: tuple[str, ...], share: float) -> tuple[str, ...]:
    """A share of the subjects, rounded, evenly over the order of their names."""
    count = round(share * len(subjects))
    chosen = {len(subjects) * (2 * i + 1) // (2 * count) for i in range(count)}
    return tuple(s for i, s in enumerate(sorted(subjects)) if i in chosen)


def _refuse_repeated(subjects: Sequence[str]) -> None:
    repeated = [s for s, count in collections.Counter(subjects).items() if count > 1]
    if repeated:
        raise InputError(
            f"subject {', '.join(repeated)} appears more than once in the folds: "
            "a person is either trained on or tested, name each one in a single fold"
        )
