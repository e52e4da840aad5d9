# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import skimage.data

from mdhr_jax.faces import track, video
from mdhr_jax.faces.detect import NO_FACES, Faces
from mdhr_jax.faces.mtcnn import cascade
from tests.conftest import SHARED

BLANK = np.zeros((1, 1, 3), np.uint8)


def _frames(count):
    return [video.Frame(number, None, BLANK) for number in range(1, count + 1)]


def _faces(*corners):
    corner = np.array(corners, float).reshape(-1, 2)
    boxes = np.hstack([corner, corner + 40])
    landmarks = corner[:, None] + np.array([[10, 12], [30, 12], [20, 22], [12, 32], [28, 32]])
    return Faces(boxes, np.full(len(corner), 0.9), landmarks)


class _Scripted:
    """Knows the faces of every frame; `near` boxes it finds those that overlap."""

    def __init__(self, script):
        self.script = script
        self.searched = []

    def detect(self, frames, near=None):
        (frame,) = frames
        faces = self.script.get(frame.number, NO_FACES)
        if near is None:
            self.searched.append(frame.number)
            return [faces]
        shared = track.boxes.overlap(faces.boxes, near[0], of="union")
        close = (shared > 0.5).any(axis=1)
        return [Faces(*(part[close] for part in faces))]


def _present(tracked):
    return [sorted(faces) for _, faces in tracked]


def test_a_still_face_keeps_its_number_and_is_searched_now_and_then():
    detector = _Scripted({n: _faces((5, 5)) for n in range(1, 12)})
    tracked = list(track.follow(_frames(11), detector, every=5))
    assert _present(tracked) == [[0]] * 11
    assert detector.searched == [1, 6, 11]


def test_a_moving_face_keeps_its_number():
    detector = _Scripted({n: _faces((5 + 6 * n, 5)) for n in range(1, 21)})
    assert _present(track.follow(_frames(20), detector)) == [[0]] * 20


def test_two_faces_are_two_tracks_in_any_order():
    one, other = (5, 5), (200, 50)
    order = {n: _faces(one, other) if n % 2 else _faces(other, one) for n in range(1, 9)}
    for _, faces in track.follow(_frames(8), _Scripted(order)):
        assert faces[0].box[0] == 5
        assert faces[1].box[0] == 200


def test_a_lost_face_has_no_entry_and_comes_back_as_itself():
    script = {n: _faces((5, 5)) for n in range(1, 21) if not 7 <= n <= 9}
    detector = _Scripted(script)
    tracked = list(track.follow(_frames(20), detector, every=5))
    assert _present(tracked)[:6] == [[0]] * 6
    assert _present(tracked)[6:9] == [[], [], []]
    assert _present(tracked)[9:] == [[0]] * 11
    assert detector.searched == [1, 6, 7, 8, 9, 10, 15, 20]  # a missing face is looked for


def test_another_face_elsewhere_is_another_track():
    script = {n: _faces((5, 5)) for n in range(1, 6)} | {n: _faces((300, 5)) for n in range(6, 11)}
    assert _present(track.follow(_frames(10), _Scripted(script))) == [[0]] * 5 + [[1]] * 5


def test_a_face_after_a_long_time_is_a_new_track():
    script = {n: _faces((5, 5)) for n in (1, 2, 40, 41)}
    present = _present(track.follow(_frames(41), _Scripted(script), every=1))
    assert present[:2] == [[0]] * 2
    assert present[39:] == [[1]] * 2


def test_a_video_without_faces():
    detector = _Scripted({})
    assert _present(track.follow(_frames(7), detector)) == [[]] * 7
    assert detector.searched == list(range(1, 8))
    assert list(track.follow([], _Scripted({}))) == []


def test_smoothing_is_a_weighted_mean_and_stops_at_gaps():
    at = {1: 0, 2: 16, 3: 0, 4: 0, 6: 32, 7: 0}
    tracked = [
        (frame, {0: track.Face(*(part[0] for part in _faces((at[frame.number], 0))))})
        if frame.number in at
        else (frame, {})
        for frame in _frames(7)
    ]
    smooth = list(track.smoothed(tracked))
    assert [frame.number for frame, _ in smooth] == list(range(1, 8))
    x = {frame.number: faces[0].landmarks[0, 0] - 10 for frame, faces in smooth if faces}
    assert x == pytest.approx(
        {1: 16 * 4 / 11, 2: 16 * 6 / 15, 3: 16 * 4 / 15, 4: 16 / 11, 6: 32 * 6 / 10, 7: 32 * 4 / 10}
    )
    assert [len(faces) for _, faces in smooth] == [1, 1, 1, 1, 0, 1, 1]


def test_left_out_frames_are_gaps():
    script = {n: _faces((5 + n, 5)) for n in (1, 2, 3, 20, 21, 22)}
    detector = _Scripted(script)
    frames = [frame for frame in _frames(22) if frame.number in script]
    tracked = list(track.smoothed(track.follow(frames, detector)))
    assert _present(tracked) == [[0]] * 6
    assert 20 in detector.searched
    x = [faces[0].landmarks[0, 0] for _, faces in tracked]
    assert x[2] == pytest.approx(15 + 3 - (4 * 1 + 1 * 2) / 11)
    assert x[3] == pytest.approx(15 + 20 + (4 * 1 + 1 * 2) / 11)


def test_landmarks_are_not_averaged_over_a_jump_of_the_clock():
    detector = _Scripted({n: _faces((5 + (20 if n > 3 else 0), 5)) for n in range(1, 7)})
    frames = [frame._replace(missing=9.0 if frame.number == 4 else 0.0) for frame in _frames(6)]
    tracked = track.smoothed(track.follow(frames, detector))
    x = [face.landmarks[0, 0] for _, faces in tracked for face in faces.values()]
    assert x == pytest.approx([15] * 3 + [35] * 3)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_smoothing_short_videos(count):
    tracked = [(frame, {}) for frame in _frames(count)]
    assert list(track.smoothed(tracked)) == tracked


@pytest.mark.slow
def test_mtcnn_follows_a_face_that_moves(faces_extra):
    astronaut = skimage.data.astronaut()
    shifts = range(0, 60, 6)
    frames = [
        video.Frame(n, None, np.roll(astronaut, (n, shift), axis=(0, 1)))
        for n, shift in enumerate(shifts, start=1)
    ]
    tracked = list(track.follow(frames, cascade.Mtcnn(smallest_face=60), every=5))
    assert _present(tracked) == [[0]] * 10
    noses = np.array([faces[0].landmarks[2] for _, faces in tracked])
    moved = np.array([(shift, n) for n, shift in enumerate(shifts)])
    assert np.abs(noses - noses[0] - moved).max() < 2


@pytest.mark.long
@pytest.mark.parametrize(
    # Read off by eye: the man is in frames 1 to 72 of 169, frame 73 is black, then a cartoon.
    ("name", "shown", "count"),
    [
        ("pyfeat_face_noface.mov", range(1, 73), 169),
        ("pyfeat_no_face.mp4", range(0), 95),
        ("pyfeat_single_face.mp4", range(1, 73), 72),
    ],
)
def test_real_clips(name, shown, count, faces_extra):
    if not SHARED.exists():
        pytest.skip("needs ../shared")
    tracked = list(track.follow(video.frames(SHARED / "media" / name), cascade.Mtcnn()))
    assert len(tracked) == count
    assert [frame.number for frame, faces in tracked if faces] == list(shown)
    assert {number for _, faces in tracked for number in faces} == ({0} if shown else set())
