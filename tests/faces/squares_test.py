# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import skimage.data

from mdhr_jax.errors import InputError
from mdhr_jax.faces import align, squares, video
from mdhr_jax.faces.detect import NO_FACES, Faces
from tests.faces.mtcnn.cascade_test import ASTRONAUT_BOX, ASTRONAUT_LANDMARKS

TEMPLATE = align.TEMPLATES["bp4d"]
SMALL, LARGE = np.array([300.0, 300]), np.array([100.0, 100])
POINTS = np.array([[10, 12], [30, 12], [20, 22], [12, 32], [28, 32]], float)


def _faces(*places):
    """A small face and one twice as large, each where it belongs."""
    size = {id(SMALL): 40, id(LARGE): 80}
    boxes = np.array([[*place, *(place + size[id(place)])] for place in places]).reshape(-1, 4)
    landmarks = np.array([place + POINTS * size[id(place)] / 40 for place in places])
    return Faces(boxes, np.full(len(places), 0.9), landmarks.reshape(-1, 5, 2))


class _Scripted:
    def __init__(self, *script):
        self.script = script

    def detect(self, frames, near=None):
        return [self.script[frame.number - 1] for frame in frames]


def _cut(*script):
    picture = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    frames = [video.Frame(number, None, picture) for number in range(1, len(script) + 1)]
    cutter = squares.Found(lambda name: _Scripted(*script), TEMPLATE)
    return list(cutter.squares(frames, video="clip", side=64))


def test_the_largest_face_is_cut_and_kept():
    found = _cut(_faces(SMALL, LARGE), _faces(LARGE, SMALL), _faces(SMALL, LARGE))
    assert len({square.face for square in found}) == 1
    expected = align.similarity(LARGE + 2 * POINTS, TEMPLATE, 64)
    for square in found:
        assert square.others == 1
        assert square.transform == pytest.approx(expected)
        assert square.picture.shape == (64, 64, 3)


def test_a_lost_face_gives_no_picture():
    found = _cut(_faces(LARGE), NO_FACES, _faces(LARGE))
    assert [square.picture is None for square in found] == [False, True, False]
    assert [square.transform is None for square in found] == [False, True, False]


def test_a_bystander_does_not_stand_in_for_a_moment():
    both = _faces(LARGE, SMALL)
    found = _cut(both, both, _faces(SMALL), both)
    assert [square.picture is None for square in found] == [False, False, True, False]
    assert len({square.face for square in found if square.picture is not None}) == 1


def test_another_face_takes_over_when_the_first_is_gone():
    found = _cut(_faces(LARGE, SMALL), *[_faces(SMALL)] * 28)
    shown = [square.face for square in found if square.picture is not None]
    assert len(set(shown)) == 2
    assert shown[0] != shown[-1]


def test_a_bystander_that_was_seen_longer_takes_over_at_once():
    found = _cut(_faces(LARGE, SMALL), *[_faces(SMALL)] * 3)
    assert [square.picture is None for square in found] == [False, True, False, False]


@pytest.mark.parametrize("every", [1, 3, 20, 40])
def test_of_an_interview_cut_between_two_people_no_frame_is_lost(every):
    shots = [LARGE, SMALL, LARGE, SMALL]
    found = _cut(*(_faces(shot) for shot in shots for _ in range(every)))
    assert all(square.picture is not None for square in found)
    faces = [square.face for square in found]
    assert [place for place in range(1, 4 * every) if faces[place] != faces[place - 1]] == [
        every,
        2 * every,
        3 * every,
    ]


def test_a_bystander_waits_though_nobody_was_found_for_a_moment():
    both = _faces(LARGE, SMALL)
    found = _cut(both, both, NO_FACES, _faces(SMALL), both)
    assert [square.picture is None for square in found] == [False, False, True, True, False]


def test_every_face_of_a_photo_is_cut_the_largest_first():
    picture = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    cutter = squares.Found(lambda name: _Scripted(_faces(SMALL, LARGE), NO_FACES), TEMPLATE)
    first, second = (video.Frame(number, None, picture) for number in (1, 2))
    found = squares.photo(cutter, first, video="photos", side=64)
    large, small = (square.transform for square in found)
    assert large == pytest.approx(align.similarity(LARGE + 2 * POINTS, TEMPLATE, 64))
    assert small == pytest.approx(align.similarity(SMALL + POINTS, TEMPLATE, 64))
    assert [square.others for square in found] == [1, 1]
    assert squares.photo(cutter, second, video="photos", side=64) == []
    (whole,) = squares.photo(squares.parse("none", TEMPLATE), first, video="photos", side=400)
    assert (whole.picture == picture).all()


@pytest.mark.parametrize(
    ("shape", "scale", "shift", "same"),
    [
        ((200, 200), 0.5, 0, True),  # the same picture, smaller, as calls send it for a while
        ((400, 500), 1, 100, False),  # another picture
    ],
)
def test_a_face_is_followed_where_the_size_of_the_picture_changes(shape, scale, shift, same):
    large = _faces(LARGE)
    moved = Faces(large.boxes * scale + shift, large.scores, large.landmarks * scale + shift)
    script = [*[large] * 9, *[moved] * 9, *[large] * 9]
    shapes = [*[(400, 400)] * 9, *[shape] * 9, *[(400, 400)] * 9]
    frames = [video.Frame(n, None, np.zeros((*s, 3), np.uint8)) for n, s in enumerate(shapes, 1)]
    cutter = squares.Found(lambda name: _Scripted(*script), TEMPLATE)
    found = list(cutter.squares(frames, video="clip", side=64))
    assert (len({square.face for square in found}) == 1) == same
    for square, faces in zip(found, script, strict=True):  # no mean over two sizes
        expected = align.similarity(faces.landmarks[0], TEMPLATE, 64)
        assert square.transform == pytest.approx(expected)


def test_a_face_lies_where_the_template_says():
    """The landmarks of a face cut by mtcnn's own come to lie on the template."""
    frame = video.Frame(1, None, skimage.data.astronaut())
    detector = _Scripted(
        Faces(np.array([ASTRONAUT_BOX]), np.array([0.9]), np.array([ASTRONAUT_LANDMARKS]))
    )
    cutter = squares.Found(lambda name: detector, TEMPLATE)
    (square,) = cutter.squares([frame], video="clip", side=256)
    a, b = square.transform
    landmarks = a * (np.array(ASTRONAUT_LANDMARKS) @ np.array([1, 1j])) + b
    assert np.abs(landmarks - TEMPLATE.points(256))[:3].max() < 8


def test_stated_places_are_cut_at_record_size():
    cutter = squares.parse("center", TEMPLATE)
    frame = video.Frame(3, 0.1, np.zeros((40, 60, 3), np.uint8))
    assert [square.picture.shape for square in cutter.squares([frame], video="a", side=20)] == [
        (20, 20, 3)
    ]
    with pytest.raises(InputError, match=r"^clip, frame 3: the picture is 60x40 pixels"):
        list(squares.parse("none", TEMPLATE).squares([frame], video="clip", side=20))


def test_a_rectangle_in_pixels_fits_one_size():
    frames = [
        video.Frame(number, None, np.zeros((side, side, 3), np.uint8))
        for number, side in ((1, 40), (2, 40), (5, 60))
    ]
    with pytest.raises(
        InputError, match="^clip, frame 5: the picture is 60x60 pixels, before it was 40x40"
    ):
        list(squares.parse("1,2,30,30", TEMPLATE).squares(frames, video="clip", side=20))
    assert len(list(squares.parse("center", TEMPLATE).squares(frames, video="clip", side=20))) == 3


@pytest.mark.parametrize("text", ["top", "mtcnn:1", "csv", "1,2,3"])
def test_unknown_places_are_refused(text):
    with pytest.raises(InputError, match="unknown.*mtcnn"):
        squares.parse(text, TEMPLATE)


@pytest.mark.parametrize("text", ["center", "csv:faces.csv"])
def test_only_mtcnn_looks_for_faces_of_a_size(text):
    with pytest.raises(InputError, match=f"^--smallest_face: has no meaning with --crop={text}"):
        squares.parse(text, TEMPLATE, 60)
