# SPDX-License-Identifier: Apache-2.0
import hashlib
import json
import pathlib

import numpy as np
import pytest

from mdhr_jax import facs
from mdhr_jax.data import list_files
from mdhr_jax.verify import graphau_lists
from tests.conftest import SHARED

GOLDEN = pathlib.Path(__file__).parents[1] / "golden/graphau"
LISTS = SHARED / "official_lists"
PATHS = {"train": ["SN001/0.png", "SN001/1.png", "SN002/0.png"], "test": ["SN003/5.png"]}
LABELS = np.ones((3, len(facs.DISFA.aus)), int)


@pytest.mark.parametrize("release", list_files.NAMES)
def test_lists_of_either_release_are_compared(release, tmp_path, write_lists):
    for split, paths in PATHS.items():
        named = list_files.frame_names(paths, release)
        write_lists(tmp_path, facs.DISFA, 2, split, named, LABELS[: len(named)], release)
    weights = list_files.find(tmp_path, facs.DISFA).file("weight", 2, "train")
    weights.write_text("\t".join(["1.000000"] * 8))
    golden = {"weights": {"DISFA_fold2": [1.0] * 8}, "lists": {}}
    for split, paths in PATHS.items():
        people = {path.split("/")[0] for path in paths}
        golden["lists"][f"DISFA_{split}_fold2"] = {
            "entries": len(paths),
            "subjects": len(people),
            "runs": len(people),
            "sha256": hashlib.sha256("".join(f"{path}\n" for path in paths).encode()).hexdigest(),
            "same_as_mdhr": False,
        }
    golden["lists"]["DISFA_test_fold2"] |= {"same_as_mdhr_after_renaming": True, "runs": 2}
    (tmp_path / "lists.json").write_text(json.dumps(golden))
    train, test, *others = graphau_lists.lists(tmp_path, tmp_path)
    assert train.passed and [check.passed for check in others] == [True, True]
    assert not test.passed and test.note == "runs, same_as_mdhr_after_renaming"


@pytest.mark.long
def test_official_lists_are_me_graphau_s_but_for_names():
    if not LISTS.is_dir():
        pytest.skip("the official lists are in ../shared")
    checks = list(graphau_lists.lists(GOLDEN, LISTS))
    assert len(checks) == 24
    assert not [check.stage for check in checks if not check.passed]
