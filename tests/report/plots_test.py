# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from matplotlib import colors
from PIL import Image

from mdhr_jax.report import plots

NAMES = ("AU01", "AU12")


def _picture(path):
    return np.asarray(Image.open(path).convert("RGB"))


def _pixels(path, colour):
    """How many pixels of a picture have exactly this colour."""
    rgb = np.round(np.array(colors.to_rgb(colour)) * 255)
    return int((_picture(path) == rgb).all(axis=-1).sum())


def _timeline(path, truth, predicted, known):
    """Draws 20 frames of two AUs whose labels, decisions and masks are the same throughout."""
    shape = (20, 2)
    plots.au_timeline(
        path,
        frames=np.full((3, 8, 8, 3), (0, 255, 0), np.uint8),
        frame_positions=np.array([2, 10, 17]),
        labels=np.full(shape, truth),
        scores=np.full(shape, 0.9 if predicted else 0.1),
        au_names=NAMES,
        mask=np.full(shape, known),
        title="clip",
    )
    return path


@pytest.mark.parametrize(
    ("truth", "predicted", "known", "shown"),
    [
        (1, 1, True, plots.BLUE),
        (0, 1, True, plots.ORANGE),
        (1, 0, True, plots.PURPLE),
        (0, 0, True, None),
        (1, 1, False, None),
    ],
)
def test_timeline_bar_has_the_colour_of_the_decision(tmp_path, truth, predicted, known, shown):
    path = _timeline(tmp_path / "a.png", truth, predicted, known)
    bars = {c for c in (plots.BLUE, plots.ORANGE, plots.PURPLE) if _pixels(path, c) > 2000}
    assert bars == ({shown} if shown else set())
    assert (_pixels(path, plots.TRUTH) > 20_000) == bool(truth and known)


def test_timeline_shows_the_frames_at_readme_width(tmp_path):
    path = _timeline(tmp_path / "a.png", 0, 0, True)
    assert _picture(path).shape[1] == 1100
    assert 3 * 130**2 < _pixels(path, "#00FF00") < 3 * 145**2


def test_spans_are_runs_of_true_frames():
    assert plots._spans(np.array([1, 1, 0, 0, 1, 0, 1], bool)) == [(0, 2), (4, 1), (6, 1)]
    assert plots._spans(np.zeros(3, bool)) == []


def test_f1_bars_grow_with_f1(tmp_path):
    low, high, baseline = np.full(2, 0.2), np.full(2, 0.8), np.full(2, 0.5)
    for name, f1 in (("low.png", low), ("high.png", high)):
        plots.f1_bars(tmp_path / name, NAMES, f1, baseline, "F1")
    ratio = _pixels(tmp_path / "high.png", plots.BLUE) / _pixels(tmp_path / "low.png", plots.BLUE)
    assert 3 < ratio < 4.2  # the legend's patch is blue too
    assert _picture(tmp_path / "high.png").shape[1] == 1100


@pytest.mark.slow
def test_training_curves_are_drawn_with_and_without_evaluations(tmp_path):
    rows = [
        {"step": step, "kind": "train", "loss": 1 / step, "learning_rate": 1e-3}
        for step in (1, 2, 3)
    ]
    plots.training_curves(tmp_path / "without.png", rows)
    rows += [{"step": step, "kind": "eval", "mean_f1": 0.5} for step in (1, 3)]
    plots.training_curves(tmp_path / "with.png", rows)
    blue = [_pixels(tmp_path / name, plots.BLUE) for name in ("without.png", "with.png")]
    assert 0 < blue[0] < blue[1]
