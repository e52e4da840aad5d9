# SPDX-License-Identifier: Apache-2.0
"""GraphAU's golden `lists.json`: what ME-GraphAU's path and weight lists amount to."""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from mdhr_jax import facs
from mdhr_jax.data import clip_facts, list_check, list_files
from mdhr_jax.verify import verdict
from mdhr_jax.verify.small_files import CLASS_WEIGHT
from mdhr_jax.verify.verdict import Check

RELEASE = "ME-GraphAU"


def lists(directory: pathlib.Path, lists_root: pathlib.Path) -> Iterator[Check]:
    """Path lists, class weights as listed and from the training labels, against `lists.json`.

    Args:
      directory: GraphAU's golden vectors.
      lists_root: lists of ME-GraphAU or of MDHR, whose frames are renamed.

    Raises:
      InputError: as `list_check.read`.
    """
    stored = json.loads((directory / "lists.json").read_text())
    for name, weights in stored["weights"].items():
        dataset, number = name.split("_fold")
        fold = _renamed(list_check.read(lists_root, facs.LAYOUTS[dataset.lower()], int(number)))
        for split in list_files.SPLITS:
            entry = f"{dataset}_{split}_fold{number}"
            facts, ours = stored["lists"][entry], _facts(fold, split)
            wrong = sorted(key for key in facts if ours.get(key) != facts[key])
            yield Check(f"{entry} path list", float(len(wrong)), 0.0, ", ".join(wrong))
        yield verdict.exact(f"{name} weight list", fold.listed_weights, weights)
        yield verdict.absolute(f"{name} class weights", fold.weights, weights, CLASS_WEIGHT)


def _renamed(fold: list_check.Fold) -> list_check.Fold:
    """The fold with its frames as ME-GraphAU writes them."""
    splits = {
        name: dataclasses.replace(split, paths=tuple(list_files.frame_names(split.paths, RELEASE)))
        for name, split in fold.splits.items()
    }
    return dataclasses.replace(fold, splits=splits)


def _facts(fold: list_check.Fold, split: str) -> dict[str, Any]:
    """What an entry of `lists.json` says."""
    paths = fold.splits[split].paths
    runs = [subject for subject, _ in itertools.groupby(path.split("/")[0] for path in paths)]
    likeness = fold.likeness(split, "MDHR")
    return {
        "entries": len(paths),
        "subjects": len(set(runs)),
        "runs": len(runs),
        "sha256": clip_facts.paths_digest(paths),
        "same_as_mdhr": likeness == "same lines",
        "same_as_mdhr_after_renaming": likeness in ("same lines", "same frames"),
    }
