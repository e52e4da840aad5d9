# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from PIL import Image

from mdhr_jax import errors, facs
from mdhr_jax.synth import sheet


@pytest.mark.slow
def test_the_contact_sheet_is_a_picture_of_people_pairs_and_a_strip(tmp_path):
    path = tmp_path / "sheet.png"
    sheet.contact_sheet(path, facs.DISFA, seed=0, size=64)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    # Two rows of people, two rows of pairs, one strip and eight tracks.
    assert pixels.shape[1] > sheet.COLUMNS * 64
    assert pixels.shape[0] > 5 * 64
    faces = (pixels != 255).any(axis=-1)
    assert faces.mean() > 0.4


@pytest.mark.slow
def test_a_file_that_cannot_be_written_is_refused(tmp_path):
    path = tmp_path / "missing" / "sheet.png"
    with pytest.raises(errors.InputError, match="cannot be written .No such file"):
        sheet.contact_sheet(path, facs.DISFA, seed=0, size=64)
