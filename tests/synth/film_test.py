# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from PIL import Image

from mdhr_jax import errors, facs
from mdhr_jax.synth import film


@pytest.fixture
def short(monkeypatch):
    """Two people, six frames."""
    monkeypatch.setattr(film, "PEOPLE", 2)
    monkeypatch.setattr(film, "FRAMES", 6)


def test_a_film_shows_people_and_their_aus(short, tmp_path):
    path = tmp_path / "faces.webp"
    film.film(path, facs.DISFA, seed=0, size=64)
    with Image.open(path) as picture:
        assert picture.n_frames == 6 and picture.width == 2 * 64
        frames = []
        for number in range(picture.n_frames):
            picture.seek(number)
            frames.append(np.asarray(picture.convert("RGB")).astype(int))
    assert np.abs(frames[-1] - frames[0]).max() > 20
    assert (frames[0][64:] > 240).all(axis=-1).mean() > 0.3  # the AUs' paper


def test_a_film_that_cannot_be_written_is_refused(short, tmp_path):
    with pytest.raises(errors.InputError, match="cannot be written .No such file"):
        film.film(tmp_path / "missing" / "faces.gif", facs.DISFA, seed=0, size=64)
