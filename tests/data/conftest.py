# SPDX-License-Identifier: Apache-2.0
"""A tiny data set whose pictures are painted by a stand-in for the renderer."""

import pathlib
import shutil

import numpy as np
import pytest

from mdhr_jax import facs
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


@pytest.fixture(scope="session")
def write_disfa_lists(write_lists):
    """Writes lists of four people: a gap in SN001, unknown labels in SN002."""

    def write(root):
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
            write_lists(root, facs.DISFA, fold, "test", paths, labels)
        return root

    return write


@pytest.fixture(scope="session")
def source(tmp_path_factory, write_disfa_lists):
    """The four people of `write_disfa_lists` as a prepared data set."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renderer, "render_video", plain_pictures)
        return rendered.build(
            root / "set",
            facs.DISFA,
            seed=0,
            image_size=16,
            lists=write_disfa_lists(root / "lists"),
            progress=False,
        )


@pytest.fixture
def copy(source, tmp_path):
    return shutil.copytree(source.path, tmp_path / "copy")
