# SPDX-License-Identifier: Apache-2.0
"""No test on people whom a model has learned from, wherever their recordings lie.

A run says in `data.json` whom it has learned from, those included from whom the run had learned
that it was started from. A weight file says nobody.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from mdhr_jax.data import people, records
from mdhr_jax.errors import InputError
from mdhr_jax.interop import files
from mdhr_jax.machine import notes
from mdhr_jax.run import directory, provenance
from mdhr_jax.run.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is known of the people of a test fold.

    Attributes:
      seen: names of those whom the model has learned from.
      alike: names of those who have the name of such a person.
      unknown: what does not say whom it has learned from.
    """

    seen: Sequence[str]
    alike: Sequence[str]
    unknown: Sequence[str]

    def __str__(self) -> str:
        known = people.listed(self.seen) if self.seen else "none"
        if not self.unknown:
            return known
        return f"{known} known ({', '.join(self.unknown)}: does not say whom it has learned from)"


def in_training(recipe: Recipe, source: records.FrameSource) -> people.Seen:
    """Whom a run of this recipe learns from, and those whom it starts from."""
    others = [name for k, fold in enumerate(source.folds, 1) if k != recipe.fold for name in fold]
    own = people.Seen(people.videos(source, others))
    start = recipe.model.init_from
    return own.with_others(of_model(pathlib.Path(start), source)) if start else own


def of_model(path: pathlib.Path, tested: records.FrameSource | None = None) -> people.Seen:
    """Whom the model of a run or a weight file has learned from.

    Args:
      path: the run or the file.
      tested: a data set that may be the one that a run of an earlier version has learned from.

    Raises:
      InputError: the run's `data.json` is damaged.
    """
    learned = None if files.is_weight_file(path) else provenance.read(path)
    if learned is None:
        return people.Seen({}, [str(path)])
    if learned.people is None:
        return _of_earlier_run(path, learned, tested)
    return people.Seen(learned.people, learned.unknown)


def _of_earlier_run(
    path: pathlib.Path, learned: provenance.Learned, tested: records.FrameSource | None
) -> people.Seen:
    """Earlier versions kept no names: known where the data set is still what it was."""
    recipe = directory.load_recipe(path)
    for source in (tested, _opened(recipe)):
        if source and source.metadata.index_sha256 == learned.index:
            return in_training(recipe, source)
    notes.once(
        f"{path}: an earlier version trained it and kept no names, and {recipe.data} is not the "
        "data set that it was: whether test subjects were seen in training cannot be checked"
    )
    return people.Seen({}, [str(path)])


def _opened(recipe: Recipe) -> records.FrameSource | None:
    try:
        return recipe.open_data()
    except InputError:
        return None


def verdict(seen: people.Seen, source: records.FrameSource, fold: int) -> Verdict:
    """Of those who were seen, who is tested in a fold of a data set."""
    tested = source.folds[fold - 1] if 1 <= fold <= len(source.folds) else ()
    official = [name for names in source.layout.folds for name in names]
    return Verdict(*seen.among(people.videos(source, tested), official), seen.unknown)


def check_tested(
    path: pathlib.Path, source: records.FrameSource, fold: int, *, allowed: bool
) -> None:
    """Refuses to test a run or weight file on people whom it has learned from.

    Raises:
      InputError: some of the fold's test subjects were seen, or a run of an earlier version cannot
        tell and another fold than its own is tested; neither is allowed.
    """
    overlap = verdict(of_model(path, source), source, fold)
    _refuse(
        overlap,
        f"{path}: has learned from people whom fold {fold} of {source.path} tests",
        "test on others, or add --allow_seen_subjects, which marks the table",
        allowed,
    )
    earlier = str(path) in overlap.unknown and provenance.read(path) is not None
    if earlier and not allowed and fold != (own := directory.load_recipe(path).fold):
        raise InputError(
            f"{path}: trained for fold {own}, perhaps on people whom fold {fold} tests: name the "
            f"data set that it has learned from with --data, test on fold {own}, or add "
            "--allow_seen_subjects"
        )


def check_start(recipe: Recipe, source: records.FrameSource) -> None:
    """Refuses to start a run from one that has learned from the run's test subjects.

    Raises:
      InputError: some of them were seen, and `config.allow_seen_subjects` does not allow it.
    """
    start = recipe.model.init_from
    if not start:
        return
    overlap = verdict(of_model(pathlib.Path(start), source), source, recipe.fold)
    _refuse(
        overlap,
        f"config.model.init_from={start}: has learned from people whom fold {recipe.fold} of "
        f"{source.path} tests",
        "start from what has not seen them, or add --config.allow_seen_subjects, which marks the "
        "tables",
        recipe.allow_seen_subjects,
    )


def _refuse(overlap: Verdict, what: str, remedy: str, allowed: bool) -> None:
    if overlap.seen and not allowed:
        raise InputError(f"{what} ({people.listed(overlap.seen)}); {remedy}")
    if overlap.alike:
        notes.once(
            f"{what.partition(': ')[0]}: {people.listed(overlap.alike)} of the test subjects have "
            "the names of people whom it has learned from, but no video is the same: taken for "
            "other people"
        )
