# SPDX-License-Identifier: Apache-2.0
"""A tiny data set whose pictures are painted by a stand-in for the renderer."""

import pathlib

import numpy as np
import pytest

from mdhr_jax import facs
from mdhr_jax.data import lists
from mdhr_jax.data.builders import rendered
from mdhr_jax.synth import video as renderer

SHARED = pathlib.Path(__file__).parents[3] / "shared"


def plain_pictures(layout, labels, *, seed, subject, video, size, frames):
    """One grey level per picture, increasing by 3 from frame to frame."""
    del layout, labels, seed, video
    level = sum(subject.encode()) % 50
    return np.stack([np.full((size, size, 3), level + 3 * frame, np.uint8) for frame in frames])


@pytest.fixture
def plain_renderer(monkeypatch):
    monkeypatch.setattr(renderer, "render_video", plain_pictures)


def _shared(path, what):
    if not (SHARED / path).is_dir():
        pytest.skip(f"{what} lie outside the repository, in ../shared/{path}")
    return SHARED / path


@pytest.fixture
def official_lists():
    return _shared("official_lists", "the official lists, licensed labels,")


@pytest.fixture
def golden():
    return _shared("reference/golden", "the golden vectors of the release")


def _write_lists(root, layout, fold, split, paths, labels):
    """Write path, label and region list of a fold; unknown labels count as 0 in regions."""
    names = lists.NAMES[layout.name]
    folder = root / names.folder
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.asarray(labels)
    regions = (labels == 1) @ layout.bit_weights
    rows = {"path": [[path] for path in paths], "label": labels, "region": regions}
    for kind, lines in rows.items():
        text = "".join(" ".join(map(str, line)) + "\n" for line in lines)
        (folder / names.file(kind, fold, split)).write_text(text)


def _write_disfa_lists(root):
    """Test lists of four people: a gap in SN001's frame numbers, unknown labels in SN002's."""
    rng = np.random.default_rng(0)
    people = {
        1: {"SN003": range(5)},
        2: {"SN006": range(9)},
        3: {"SN001": [*range(7), *range(9, 12)], "SN002": range(6)},
    }
    for fold, videos in people.items():
        paths = [f"{name}/{name}_{i}.png" for name, numbers in videos.items() for i in numbers]
        labels = rng.integers(0, 2, (len(paths), len(facs.DISFA.aus)))
        labels[["SN002" in path for path in paths], 0] = -1
        _write_lists(root, facs.DISFA, fold, "test", paths, labels)
    return root


@pytest.fixture
def write_lists():
    return _write_lists


@pytest.fixture
def write_disfa_lists():
    return _write_disfa_lists


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """The four people of `_write_disfa_lists` as a prepared data set."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renderer, "render_video", plain_pictures)
        return rendered.build(
            root / "set",
            facs.DISFA,
            seed=0,
            image_size=16,
            lists=_write_disfa_lists(root / "lists"),
            progress=False,
        )
