# SPDX-License-Identifier: Apache-2.0

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mdhr_jax import cli
from mdhr_jax.numerics import preprocess
from mdhr_jax.run import checkpoint, directory
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.run.trained import abstract_state
from mdhr_jax.studies import figures

NAMES = ["S001/T1:0", "S004/T2:35"]


@pytest.fixture
def save_run(tiny_config, tmp_path, one_device):
    """Writes a run with random values whose model differs from the tiny one's in some keys."""

    def save(**changes):
        tiny_config.protocol = "last"
        tiny_config.update_from_flattened_dict(
            {f"model.{key.replace('__', '.')}": value for key, value in changes.items()}
        )
        recipe = Recipe.of(tiny_config)
        shapes, _ = abstract_state(recipe)
        rng = np.random.default_rng(0)
        state = jax.tree.map(lambda x: jnp.asarray(rng.uniform(0.5, 1, x.shape), x.dtype), shapes)
        directory.claim(tmp_path / "run", recipe)
        checkpoints = directory.checkpoints(tmp_path / "run")
        checkpoint.save(checkpoints, "last", 9, state | {"step": jnp.int32(9)})
        return str(tmp_path / "run")

    return save


def _arguments(number, run, out, *more):
    return ["figures", "--figure", number, "--checkpoint", run, "--out", str(out), *more]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "changes", "expected"),
    [
        pytest.param(
            "3",
            {"dynamics__scales": (1, 3), "dynamics__window": "neighbours"},
            "; mean weight scale 1 ",
            marks=pytest.mark.slow,
        ),
        ("4", {"edges": "fully_connected"}, "strongest attention AU"),
    ],
)
def test_a_figure_of_a_run_shows_the_frames_asked_for(
    save_run, tmp_path, capsys, number, changes, expected
):
    out = tmp_path / "new" / "figure.png"
    run = save_run(**changes)
    assert cli.main(_arguments(number, run, out, "--frames", ",".join(NAMES))) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    seen = f"seen in training: none known ({run}: does not say whom it has learned from)"
    assert first == f"{out}: run, step 9, on people of test fold 1, {seen}. Frames as asked for."
    assert [line.split(": active AUs")[0] for line in lines] == NAMES
    assert all(expected in line for line in lines)
    with Image.open(out) as picture:
        assert picture.size[0] == 1100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "changes", "expected"),
    [
        ("3", {"dynamics__kind": "sum"}, "has no scale weights, which Figure 3 shows; use a"),
        ("4", {"edges": "none"}, "has no attention between AUs, which Figure 4 shows; use a"),
    ],
)
def test_a_model_without_what_a_figure_shows_is_refused_in_one_line(
    save_run, tmp_path, capsys, number, changes, expected
):
    assert cli.main(_arguments(number, save_run(**changes), tmp_path / "figure.png")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"mdhr figures: {tmp_path / 'run'}: its model {expected}" in line
    assert not (tmp_path / "figure.png").exists()


def test_another_format_is_refused_before_anything_is_read(tmp_path, capsys):
    assert cli.main(_arguments("4", "gone", tmp_path / "figure.pdf")) == 2
    assert "figure.pdf: end the name in .png" in capsys.readouterr().err


def test_motion_is_the_mean_change_next_to_the_frame():
    level = np.array([0, 10, 10, 40, 40, 100], np.uint8)
    clip = np.broadcast_to(level[None, :, None, None, None], (2, 6, 4, 4, 3))
    found = figures.motion(np.array(clip), np.array([2, 0]), window=2)
    # Differences 10 0 30 0 60: four around frame 2, only the two after frame 0.
    np.testing.assert_allclose(found, np.broadcast_to([[[10]], [[5]]], (2, 4, 4)))


def test_every_figure_takes_its_frames_by_labels_alone(rendered_set):
    """The choice is a function of the data set: no model is asked."""
    for kind in figures.FIGURES.values():
        fold = figures.selection.open_fold(rendered_set, 1, clip_length=8, context=0)
        rows = figures.selection.choose(kind.interest(fold), fold.people, figures.COUNT)
        assert sorted(fold.people[row] for row in rows) == ["S001", "S004"]


def test_network_input_turns_back_into_pictures():
    picture = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    again = preprocess.denormalise(preprocess.host_eval(picture, 8))
    np.testing.assert_array_equal(again, picture)
