# SPDX-License-Identifier: Apache-2.0
"""What an earlier version made: a rendered set, and a run of two steps on it, `earlier.tar.xz`."""

import dataclasses
import pathlib
import tarfile

import numpy as np
import pytest
from ml_collections import ConfigDict

from mdhr_jax import errors, evaluate, train
from mdhr_jax.data import records
from mdhr_jax.run import checkpoint, directory


@pytest.fixture
def earlier(tmp_path):
    with tarfile.open(pathlib.Path(__file__).with_name("earlier.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_a_set_of_an_earlier_version_opens_and_says_what_it_lacks(earlier, capsys):
    source = records.open_dataset(earlier / "set")
    (line,) = capsys.readouterr().err.splitlines()
    assert "kept no digest of its pictures" in line and str(earlier) in line
    assert source.pictures(np.arange(len(source.table))).shape == (48, 37, 37, 3)


@pytest.mark.slow
def test_a_run_of_an_earlier_version_is_evaluated(earlier, one_device, capsys):
    table, _ = evaluate.evaluate(evaluate.load(earlier / "run", data=earlier / "set"))
    assert 0 <= table.column("F1")[-1] <= 1
    assert "seen in training none known" in table.caption
    assert (
        "whether test subjects were seen in training cannot be checked" in capsys.readouterr().err
    )


def test_a_run_of_an_earlier_version_knows_whom_it_has_seen_where_its_data_are_there(earlier):
    recipe = directory.load_recipe(earlier / "run")
    directory.claim(earlier / "run", dataclasses.replace(recipe, data=str(earlier / "set")))
    with pytest.raises(errors.InputError, match=r"\(S002, S005\); test on others, or add"):
        evaluate.load(earlier / "run", fold=2)


@pytest.mark.slow
def test_a_finished_run_of_an_earlier_version_is_finished(earlier, one_device, capsys):
    config = ConfigDict(directory.load_recipe(earlier / "run").values())
    config.data = str(earlier / "set")
    train.train(config, earlier / "run")
    output = capsys.readouterr()
    assert "step 2 of 2" in output.out
    assert "whether they are the same cannot be checked" in output.err
    assert checkpoint.latest_step(directory.checkpoints(earlier / "run"), "last") == 2
