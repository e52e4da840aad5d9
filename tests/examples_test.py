# SPDX-License-Identifier: Apache-2.0
"""The examples in the help of the commands do what they say, one after the other."""

import concurrent.futures
import pathlib
import shlex
import shutil

import jax
import numpy as np
import pytest

from mdhr_jax import cli, facs
from mdhr_jax.commands import flags
from mdhr_jax.configs import base
from mdhr_jax.data import list_check
from mdhr_jax.interop import files, names, official
from mdhr_jax.machine import workers
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.run.trained import abstract_state
from mdhr_jax.synth import film
from tests.data import raw_trees

REPOSITORY = pathlib.Path(__file__).parents[1]
# What each leaves, and what those say that leave nothing.
LEFT = {
    "quickstart": "runs/quickstart/timeline.png",
    "synthesize": "data/faces/index.npz",
    "prepare": "data/own/index.npz",
    "check-data": "data/faces.check/report.md",
    "train": "runs/a/checkpoints/last",
    "evaluate": "runs/a/evaluation/f1.md",
    "crossval": "runs/folds/f1.md",
    "compare": "runs/compared/table.md",
    "figures": "runs/graph.png",
    "convert": "runs/official/config.json",
    "predict": "runs/aus.csv",
}
SAID = {
    "tables": "Table 3",
    "bench": "mdhr bench infer",
    "doctor": "checkpoint 'last' of step",
    "check-lists": "lists checked",
    "verify": " 0 stages out of tolerance",
}
CONFIG = """
from mdhr_jax.configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.clips_per_video = 1
    return config
"""


def test_every_command_has_examples_of_itself_in_its_help(capsys):
    assert LEFT.keys() | SAID.keys() == cli.COMMANDS.keys()
    for name, command in cli.COMMANDS.items():
        assert cli.main([name, "--help"]) == 0
        lines = command.example.splitlines()
        assert "".join(f"  {line}\n" for line in lines) in capsys.readouterr().out
        assert lines[-1].startswith(f"mdhr {name} ")


@pytest.fixture
def checkout(tmp_path, monkeypatch, tiny_quickstart):
    """A repository with the tiny quickstart and the small golden files, and what users bring."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "fewer_clips.py").write_text(CONFIG)
    monkeypatch.setitem(flags.CONFIGS, "quickstart", tmp_path / "fewer_clips.py")
    monkeypatch.setattr(film, "PEOPLE", 1)
    monkeypatch.setattr(film, "FRAMES", 12)
    small = shutil.ignore_patterns("*_b1t8k2.*")  # the networks take minutes
    shutil.copytree(REPOSITORY / "tests/golden", tmp_path / "tests/golden", ignore=small)
    labels = [[0, 1], [1, 0]] * 4
    people = [raw_trees.OwnVideo(name, labels, subject=name) for name in ("anna", "ben")]
    raw_trees.write_folder(tmp_path / "recordings", people)
    _write_official(tmp_path / "best_model_fold1.pth")
    monkeypatch.setattr(list_check, "check", _stand_in)
    monkeypatch.setattr(workers, "cores", lambda: 1)
    monkeypatch.setattr(workers, "run", _here)


def _write_official(path):
    shapes, _ = abstract_state(Recipe.of(base.get_config()))
    state = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, leaf.dtype), shapes)
    files.write(path, official.export(state, names.table(facs.BP4D, "resnet50")))


def _here(function, jobs, where):
    """In this process, which has compiled already what others would compile anew."""
    for job in jobs:
        future = concurrent.futures.Future()
        future.set_result(function(job))
        yield job, future


def _stand_in(root):
    """The lists are the release's own; `list_check` has its tests."""
    print(root, "checked")
    return True


@pytest.mark.long
@pytest.mark.usefixtures("checkout")
def test_every_example_works_after_those_before_it(capsys):
    for name, command in cli.COMMANDS.items():
        for line in command.example.splitlines():
            _, *arguments = shlex.split(line, comments=True)
            assert cli.main(arguments) == 0, (line, capsys.readouterr().err)
        assert SAID.get(name, "") in capsys.readouterr().out, name
        assert pathlib.Path(LEFT.get(name, ".")).exists(), name
