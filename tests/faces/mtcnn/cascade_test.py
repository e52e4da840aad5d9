# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import skimage.data
from PIL import Image

from mdhr_jax.errors import InputError
from mdhr_jax.faces import video
from mdhr_jax.faces.mtcnn import cascade
from tests.conftest import SHARED

# Of the package mtcnn 1.0.0 (tensorflow-cpu 2.21, Python 3.11).
ASTRONAUT_BOX = [181.60, 63.73, 264.55, 171.08]
ASTRONAUT_LANDMARKS = [
    [203.54, 100.10],
    [245.41, 102.24],
    [224.22, 126.42],
    [201.79, 138.59],
    [244.39, 140.38],
]


@pytest.fixture(scope="module")
def detector(faces_extra):
    return cascade.Mtcnn()


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()


def _detect(detector, pictures, near=None):
    frames = [video.Frame(i, None, picture) for i, picture in enumerate(pictures, 1)]
    return detector.detect(frames, near)


def test_the_astronaut(detector, astronaut):
    (faces,) = _detect(detector, [astronaut])
    np.testing.assert_allclose(faces.boxes, [ASTRONAUT_BOX], atol=0.05)
    np.testing.assert_allclose(faces.landmarks, [ASTRONAUT_LANDMARKS], atol=0.05)
    np.testing.assert_allclose(faces.scores, [0.998], atol=1e-3)


@pytest.mark.slow
def test_pictures_do_not_influence_each_other(detector, astronaut):
    blank = np.full((90, 130, 3), 128, np.uint8)
    small = np.asarray(Image.fromarray(astronaut).resize((300, 300)))
    together = _detect(detector, [blank, astronaut, small, astronaut[:, ::-1]])
    assert [len(faces.scores) for faces in together] == [0, 1, 1, 1]
    for picture, found in zip([blank, astronaut, small], together, strict=False):
        (alone,) = _detect(detector, [picture])
        for part, expected in zip(found, alone, strict=True):
            np.testing.assert_allclose(part, expected, atol=1e-3)


@pytest.mark.slow
def test_nothing_is_compiled_anew_for_another_size(astronaut, monkeypatch, faces_extra):
    traced = []
    jit = cascade.jax.jit
    counted = lambda run: jit(lambda *inputs: (traced.append(inputs), run(*inputs))[1])  # noqa: E731
    monkeypatch.setattr(cascade.jax, "jit", counted)
    detector = cascade.Mtcnn()
    for side in (40, 100, 211, 347):
        resized = np.asarray(Image.fromarray(astronaut).resize((side, 200)))
        _detect(detector, [resized] * (1 + side % 3))
    assert len(traced) == 3


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 900, 3), (12, 12, 3), (33, 20, 3)])
def test_pictures_too_small_for_a_face(detector, shape):
    (faces,) = _detect(detector, [np.random.default_rng(0).integers(0, 256, shape, np.uint8)])
    assert faces.boxes.shape == (0, 4)
    assert faces.landmarks.shape == (0, 5, 2)


def test_near_a_known_box_the_same_face_is_found(detector, astronaut):
    (faces,) = _detect(detector, [astronaut])
    moved = faces.boxes + np.array([4, -3, 4, -3])
    elsewhere = np.array([[300.0, 200, 400, 300]])
    (again,) = _detect(detector, [astronaut], [np.concatenate([elsewhere, moved])])
    assert len(again.scores) == 1
    np.testing.assert_allclose(again.landmarks, faces.landmarks, atol=2)
    assert len(_detect(detector, [astronaut], [np.empty((0, 4))])[0].scores) == 0


def test_no_pictures(detector):
    assert _detect(detector, []) == []


@pytest.mark.slow
@pytest.mark.usefixtures("faces_extra")
def test_small_faces_are_left_out_when_asked(astronaut):
    small = np.asarray(Image.fromarray(astronaut).resize((170, 170)))  # the face: 29 pixels
    assert len(_detect(cascade.Mtcnn(20), [small])[0].scores) == 1
    assert len(_detect(cascade.Mtcnn(80), [small])[0].scores) == 0


def test_faces_smaller_than_a_cell_are_refused():
    with pytest.raises(InputError, match="at least 12"):
        cascade.Mtcnn(11)


def _shared_picture(name):
    if not SHARED.exists():
        pytest.skip("needs ../shared")
    return np.asarray(Image.open(SHARED / "media" / name).convert("RGB"))


def test_the_packages_example(detector):
    (faces,) = _detect(detector, [_shared_picture("mtcnn_ivan.jpg")])
    left, top, width, height = 277, 90, 48, 63
    np.testing.assert_allclose(faces.boxes, [[left, top, left + width, top + height]], atol=3)
    documented = [(291, 117), (314, 114), (303, 131), (296, 143), (313, 141)]
    np.testing.assert_allclose(faces.landmarks[0], documented, atol=3)


@pytest.mark.parametrize(
    ("name", "count"), [("mtcnn_no_faces.jpg", 0), ("pyfeat_multi_face.jpg", 5)]
)
def test_all_faces_and_no_others(detector, name, count):
    assert len(_detect(detector, [_shared_picture(name)])[0].scores) == count
