# SPDX-License-Identifier: Apache-2.0
"""A protocol, top to bottom: a checkpoint on a test fold, and what its scores are worth per AU."""

import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from mdhr_jax.data import clips, records
from mdhr_jax.errors import InputError
from mdhr_jax.faces import pace
from mdhr_jax.interop import families, files
from mdhr_jax.machine import locks, notes, sharding
from mdhr_jax.report import paper, published, tables
from mdhr_jax.run import protocol, provenance, seen
from mdhr_jax.run.programs import build_scoring
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.run.scoring import Scores, score_split, whole_batches
from mdhr_jax.run.trained import Trained, load_trained


def evaluate(trained: Trained) -> tuple[tables.Table, Scores]:
    """The table of a model that `load` has read, and its scores of the test fold.

    Raises:
      InputError: as `test`.
    """
    scored = test(trained)
    return table(trained, scored), scored


def write_tables(
    checkpoint: str | pathlib.Path,
    out: pathlib.Path,
    *,
    data: str | pathlib.Path | None = None,
    fold: int | None = None,
    expected_protocol: str | None = None,
    allow_seen: bool = False,
    oracle: bool = False,
    against: str | pathlib.Path | None = None,
) -> str:
    """Evaluates a run or a weight file, writes the tables, and returns them as text.

    Args:
      checkpoint: as in `load`.
      out: directory of `f1`, `paper` and `difference`, each as `.csv`, `.json` and `.md`.
      data: as in `load`.
      fold: as in `load`.
      expected_protocol: as in `load`.
      allow_seen: as in `load`.
      oracle: shows F1 with thresholds chosen on the test fold as well.
      against: another run or file, to take the difference from.

    Raises:
      InputError: as `load` and `test`, or as `check_comparable`.
    """
    read = functools.partial(
        load, data=data, fold=fold, expected_protocol=expected_protocol, allow_seen=allow_seen
    )
    trained, other = read(checkpoint), read(against) if against else None
    if other:
        check_comparable(trained, other)
    # First: a place that cannot be written costs no evaluation.
    with locks.alone(out, "name another --out"):
        scored = test(trained)
        result = table(trained, scored, oracle)
        tables.write(trained.layout, result, "F1", beside(trained.recipe), out)
        if not other:
            return result.text()
        compared = difference(trained, scored, other, test(other))
        compared.write(out / "difference")
    return f"{result.text()}\n{compared.text()}"


def load(
    checkpoint: str | pathlib.Path,
    *,
    data: str | pathlib.Path | None = None,
    fold: int | None = None,
    expected_protocol: str | None = None,
    allow_seen: bool = False,
) -> Trained:
    """Reads what is to be evaluated: a run under its protocol, or an official weight file.

    Args:
      checkpoint: the run, or the file.
      data: data set; the one that the run trained on when None.
      fold: fold to test on; the run's own when None.
      expected_protocol: protocol that the caller expects; any when None.
      allow_seen: tests on people who were seen in training, too; the table says so.

    Returns:
      The trained model, whose recipe names the data set and the fold to test on.

    Raises:
      InputError: no run, no checkpoint, a file without data set or fold, a run of another
        protocol, no data set, or test subjects whom the model has learned from.
    """
    if files.is_weight_file(checkpoint) and not (data and fold):
        raise InputError(
            f"{checkpoint}: a weight file names neither data set nor fold; add --data DIRECTORY "
            "--fold N"
        )
    trained = load_trained(checkpoint)
    protocol.check_trained_for(trained.protocol.name, expected_protocol, trained.path)
    own = trained.recipe
    recipe = dataclasses.replace(
        own, data=str(data or own.data), fold=own.fold if fold is None else fold
    )
    source = recipe.open_data()
    seen.check_tested(trained.path, source, recipe.fold, allowed=allow_seen)
    _warn_of_other_pictures(trained.path, source)
    if files.is_weight_file(checkpoint):
        _say_that_the_fold_is_open(trained, recipe.fold)
    return dataclasses.replace(trained, recipe=recipe)


def _say_that_the_fold_is_open(trained: Trained, fold: int) -> None:
    own = trained.recipe
    release = families.of_model(own.kind_name, own.layout, own.model)
    line = (
        f"{trained.path}: its fold is not in it; taken for one that has not learned from the test "
        f"subjects of fold {fold}"
    )
    notes.once(f"{line}. {release.of_fold}" if release.of_fold else line)


def _warn_of_other_pictures(path: pathlib.Path, source: records.FrameSource) -> None:
    """Scores of faces that are cut in another way, or move at another pace, may be worse."""
    learned, tested = provenance.read(path), source.metadata
    if learned and (learned.crop != tested.crop or pace.is_other(tested.fps, learned.fps)):
        notes.once(
            f"{path}: has learned from faces cut by {learned.crop}, {learned.fps:g} frames per "
            f"second; those tested are cut by {tested.crop}, {tested.fps:g} frames per second: its "
            "scores may be worse"
        )


def test(trained: Trained) -> Scores:
    """Scores the frames of the test fold that the recipe names.

    Raises:
      InputError: no data set, one with other AUs, or no such fold.
    """
    recipe, mesh, source = trained.recipe, sharding.make_mesh(), trained.recipe.open_data()
    verdict = seen.verdict(seen.of_model(trained.path), source, recipe.fold)
    scored = score_split(
        build_scoring(recipe, mesh),
        trained.state,
        source,
        functools.partial(sharding.put_batch, mesh),
        fold=recipe.fold,
        clip_length=recipe.clip_length,
        context=recipe.context,
        batch_size=whole_batches(recipe.eval_batch_size, mesh),
    )
    return dataclasses.replace(scored, verdict=verdict)


def table(trained: Trained, scored: Scores, oracle: bool = False) -> tables.Table:
    """The result as a table, with what was chosen where in its caption.

    Args:
      trained: what was evaluated.
      scored: its scores.
      oracle: shows F1 with thresholds chosen on these very frames as well.
    """
    people, counts = scored.subject_counts(trained.thresholds)
    chosen_here = scored.best_thresholds(trained.recipe.threshold)
    return tables.evaluation(
        trained.layout,
        people,
        counts,
        scored.roc_auc(),
        beside(trained.recipe),
        details={
            "layout": trained.layout.name,
            "data": scored.source,
            **_choices(trained),
            "test subjects": people,
            "seen in training": str(scored.verdict),
            "frames": len(scored.rows),
        },
        oracle=scored.counts(chosen_here) if oracle else None,
    )


def beside(recipe: Recipe) -> dict[str, paper.System]:
    """What is published of such models, by the heading of its column."""
    return published.beside(recipe.kind_name, recipe.layout.name, recipe.model.backbone)


def difference(
    trained: Trained, scored: Scores, other: Trained, scored_other: Scores
) -> tables.Table:
    """F1 of two models on the same frames, each under its protocol, and their difference."""
    people, counts = scored.subject_counts(trained.thresholds)
    _, others = scored_other.subject_counts(other.thresholds)
    details = {
        "layout": trained.layout.name,
        "data": scored.source,
        "F1": {"of": str(trained.path), **_choices(trained)},
        "F1 against": {"of": str(other.path), **_choices(other)},
        "test subjects": people,
        "seen in training": str(scored.verdict),
        "seen in training of the other": str(scored_other.verdict),
        "frames": len(scored.rows),
    }
    return tables.difference(trained.layout, people, counts, others, details)


def check_comparable(trained: Trained, other: Trained) -> None:
    """Refuses to compare what is not tested on the same frames.

    Raises:
      InputError: the two have other AUs, test subjects, frames or labels.
    """
    aus, other_aus = (" ".join(run.layout.au_names) for run in (trained, other))
    if aus != other_aus:
        raise InputError(
            f"{other.path}: has {other_aus}, but {trained.path} has {aus}; compare with a run of "
            "the same AUs"
        )
    frames, other_frames = _test_frames(trained), _test_frames(other)
    if not _are_equal(frames, other_frames):
        raise InputError(
            f"{other.path}: tested on other subjects, frames or labels ({_size(other_frames)}) "
            f"than {trained.path} ({_size(frames)}); compare with a run of the same data set and "
            "fold"
        )


def _test_frames(trained: Trained) -> clips.FrameTable:
    source = trained.recipe.open_data()
    return source.table.take(source.rows(trained.recipe.fold, "test"))


def _are_equal(frames: clips.FrameTable, others: clips.FrameTable) -> bool:
    return all(
        np.array_equal(getattr(frames, name), getattr(others, name)) for name in vars(frames)
    )


def _size(frames: clips.FrameTable) -> str:
    people = sorted(set(frames.subjects))
    return f"{len(frames)} frames of {len(people)} people, {people[0]} to {people[-1]}"


def _choices(trained: Trained) -> dict[str, Any]:
    """What was chosen where."""
    return {
        "protocol": trained.protocol.name,
        "step": int(trained.state["step"]),
        "step chosen": trained.protocol.step,
        "threshold": _thresholds(trained),
        "seed": trained.recipe.seed,
    }


def _thresholds(trained: Trained) -> float | str:
    if not trained.recipe.tune_thresholds:
        return trained.recipe.threshold
    return "per AU, chosen on held-out training subjects"
