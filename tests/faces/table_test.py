# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from mdhr_jax.errors import InputError
from mdhr_jax.faces import table, video

POINTS = np.array([[10, 20], [30, 20], [20, 30], [12, 40], [28, 40]], float)
OURS = [
    f"{p}_{a}" for p in ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right") for a in "xy"
]
# The same face with 68 points: eyes are rings around their centres.
MANY = np.zeros((68, 2))
RING = np.array([[-3, 0], [-1, -2], [1, -2], [3, 0], [1, 2], [-1, 2]])
MANY[36:42], MANY[42:48] = POINTS[0] + RING, POINTS[1] + RING
MANY[30], MANY[48], MANY[54] = POINTS[2:]
ALL = [f"{axis}_{k}" for axis in "xy" for k in range(68)]


def _csv(tmp_path, header, *rows):
    file = tmp_path / "faces.csv"
    file.write_text("\n".join(",".join(map(str, row)) for row in (header, *rows)) + "\n")
    return file


def _detect(file, *numbers, name="clip"):
    frames = [video.Frame(n, None, np.zeros((1, 1, 3), np.uint8)) for n in numbers]
    return table.read(file)(name).detect(frames)


def test_our_columns(tmp_path):
    file = _csv(tmp_path, ["frame", "score", *OURS], [2, 0.8, *POINTS.flat])
    nothing, faces = _detect(file, 1, 2)
    assert nothing.scores.shape == (0,)
    np.testing.assert_array_equal(faces.landmarks, [POINTS])
    np.testing.assert_array_equal(faces.scores, [0.8])
    np.testing.assert_array_equal(faces.boxes, [[0, 10, 40, 50]])


def test_openface(tmp_path):
    header = ["frame", " face_id", " timestamp", " confidence", " success", *(f" {n}" for n in ALL)]
    header += [f" {name.upper()}" for name in ALL]  # in space
    found = [1, 0, 0.0, 0.98, 1, *MANY.T.flat, *np.arange(136)]
    lost = [2, 0, 0.04, 0.1, 0, *np.zeros(272)]
    faces, nothing = _detect(_csv(tmp_path, header, found, lost), 1, 2)
    np.testing.assert_allclose(faces.landmarks, [POINTS])
    np.testing.assert_array_equal(faces.scores, [0.98])
    assert len(nothing.scores) == 0


def test_py_feat_counts_from_zero_and_leaves_cells_empty(tmp_path):
    header = ["FaceRectX", "FaceScore", *ALL, "input", "frame"]
    found = [1.0, 0.97, *MANY.T.flat, "a.mp4", 0]
    lost = ["", "", *[""] * 136, "a.mp4", "1.0"]
    faces, nothing = _detect(_csv(tmp_path, header, found, lost), 1, 2, name="a")
    np.testing.assert_allclose(faces.landmarks, [POINTS])
    assert len(nothing.scores) == 0


def test_several_faces_come_surest_first(tmp_path):
    rows = [[1, 0.5, *POINTS.flat], [1, 0.9, *(POINTS + 100).flat]]
    (faces,) = _detect(_csv(tmp_path, ["frame", "score", *OURS], *rows), 1)
    np.testing.assert_array_equal(faces.scores, [0.9, 0.5])
    np.testing.assert_array_equal(faces.landmarks, [POINTS + 100, POINTS])


def test_a_column_names_the_video(tmp_path):
    names = ("F001/T1", "F001/T2", "other")
    rows = [[name, 1, *(POINTS + 5 * (name != names[0])).flat] for name in names]
    file = _csv(tmp_path, ["video", "frame", *OURS], *rows)
    for name in ("F001/T2", "clips/other.mp4"):
        (faces,) = _detect(file, 1, name=name)
        np.testing.assert_array_equal(faces.landmarks, [POINTS + 5])
    with pytest.raises(InputError, match=r"which rows are video 'F002/T9'\? It names F001/T1"):
        _detect(file, 1, name="F002/T9")


def test_windows_files(tmp_path):
    file = _csv(tmp_path, ["frame", *OURS], [1, *POINTS.flat])
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert len(_detect(file, 1)[0].scores) == 1


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (["frame", "x_0"], [1, 2], "needs the column frame"),
        (OURS, POINTS.flat, "needs the column frame"),
        (["frame", *OURS], [0, *POINTS.flat], "line 2: frame '0'"),
        (["frame", *OURS], ["1.5", *POINTS.flat], "line 2: frame '1.5'"),
        (["frame", *OURS], ["nan", *POINTS.flat], "line 2"),
        (["frame", *OURS], [1, 2, 3], "line 2: 3 values, but line 1 names 11"),
        (["frame", *OURS], [1, "x", *POINTS.flat[1:]], "line 2: .*'x'"),
        ([], [], "needs the column"),
    ],
)
def test_broken_files(tmp_path, header, row, message):
    with pytest.raises(InputError, match=message):
        table.read(_csv(tmp_path, header, list(row)))


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"frame\0"])
def test_binary_files(tmp_path, data):
    file = tmp_path / "faces.csv"
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"faces\.csv"):
        table.read(file)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        table.read(tmp_path / "none.csv")


def test_names_that_could_be_two_videos_are_refused(tmp_path):
    rows = [[f"{person}/T1", 1, *POINTS.flat] for person in ("F001", "F002")]
    file = _csv(tmp_path, ["video", "frame", *OURS], *rows)
    assert len(_detect(file, 1, name="F002/T1.avi")[0].scores) == 1
    with pytest.raises(InputError, match="It names F001/T1, F002/T1"):
        _detect(file, 1, name="F003/T1")


def test_a_table_without_names_is_about_one_video(tmp_path):
    videos = table.read(_csv(tmp_path, ["frame", *OURS], [1, *POINTS.flat]))
    assert videos("a") is videos("a")
    with pytest.raises(InputError, match="could be about 'a' and 'b'"):
        videos("b")


@pytest.mark.parametrize("points", [np.zeros(10), POINTS.flat[:] * 1e4, np.ones(10)])
def test_landmarks_that_are_no_face_are_refused(tmp_path, points):
    with pytest.raises(InputError, match="line 2: the landmarks are no face"):
        table.read(_csv(tmp_path, ["frame", *OURS], [1, *points]))


@pytest.mark.parametrize("success", ["0", "0.0", "False", "", "nan", "NA"])
def test_a_row_without_success_is_a_frame_without_a_face(tmp_path, success):
    header = ["Frame", "Success", *OURS]
    rows = [1, "1.0", *POINTS.flat], [2, success, *POINTS.flat], [3, "True", *POINTS.flat]
    found = _detect(_csv(tmp_path, header, *rows), 1, 2, 3)
    assert [len(faces.scores) for faces in found] == [1, 0, 1]


@pytest.mark.parametrize("text", ["", "nan", "-nan(ind)", "1.#QNAN", "NA", "-nan", "inf"])
def test_a_row_that_lacks_a_number_is_a_frame_without_a_face(tmp_path, text):
    rows = [1, *POINTS.flat], [2, *POINTS.flat[:9], text]
    found = _detect(_csv(tmp_path, ["frame", *OURS], *rows), 1, 2)
    assert [len(faces.scores) for faces in found] == [1, 0]


def test_one_broken_landmark_spoils_the_row(tmp_path):
    """OpenFace's last point, none of the five."""
    rows = [1, 0.98, 1, *MANY.T.flat], [2, 0.98, 1, *MANY.T.flat[:-1], "-nan(ind)"]
    found = _detect(_csv(tmp_path, ["frame", "confidence", "success", *ALL], *rows), 1, 2)
    assert [len(faces.scores) for faces in found] == [1, 0]


def test_a_film_may_show_no_face_at_all(tmp_path):
    lost = [1, 0, 0.0, *np.zeros(10)]
    for header in (["frame", "success", "confidence"], ["frame", "face_id", "confidence"]):
        (faces,) = _detect(_csv(tmp_path, [*header, *OURS], lost), 1)
        assert len(faces.scores) == 0


def test_success_is_yes_or_no(tmp_path):
    with pytest.raises(InputError, match=r"line 2: success '0\.5' is neither 1 nor 0"):
        table.read(_csv(tmp_path, ["frame", "success", *OURS], [1, 0.5, *POINTS.flat]))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_tables_as_programs_save_them(tmp_path, encoding):
    file = _csv(tmp_path, ["who", "frame", *OURS], ["J\u00f6rg", 1, *POINTS.flat])
    text = file.read_text().replace(",", ";").replace(".", ",") + ";;;\n"
    file.write_bytes(text.encode(encoding))
    np.testing.assert_array_equal(_detect(file, 1)[0].landmarks, [POINTS])


@pytest.mark.parametrize("name", ["anna\\Jos\u00e9", "anna/Jose\u0301.mp4"])
def test_names_in_every_spelling(tmp_path, name):
    rows = [[video, 1, *POINTS.flat] for video in (name, "ben/Jose")]
    file = _csv(tmp_path, ["video", "frame", *OURS], *rows)
    assert len(_detect(file, 1, name="clips/anna/Jos\u00e9.mp4")[0].scores) == 1


@pytest.mark.parametrize(
    ("named", "film"),
    [
        ("anna/a.mp4", "anna/a.mp4"),
        ("anna/a", "/data/anna/a.mp4"),
        ("/home/x/anna/a.mp4", "anna/a"),
        ("a", "../anna/a.MOV"),
        ("C:\\films\\a.mp4", "a.mp4"),
        ("anna/2024.05.02", "/x/anna/2024.05.02.mp4"),
    ],
)
@pytest.mark.parametrize("column", ["video", "input"])
def test_the_name_of_a_video_may_lack_folders_and_ending(tmp_path, column, named, film):
    rows = [[name, 1, *POINTS.flat] for name in (named, "ben/b")]
    file = _csv(tmp_path, [column, "frame", *OURS], *rows)
    assert len(_detect(file, 1, name=film)[0].scores) == 1


@pytest.mark.parametrize(
    ("named", "film"),
    [
        ("anna/a.mp4", "ben/a.mp4"),
        ("anna/a.mp4", "/data/ben/a.mp4"),
        ("anna/2024.05.02", "anna/2024.05.01"),
        ("a.mp4", "aa.mp4"),
        ("", "ben/a.mp4"),
    ],
)
@pytest.mark.parametrize("column", ["video", "input"])
def test_another_film_is_not_given_its_rows(tmp_path, column, named, film):
    rows = [[name, 1, *POINTS.flat] for name in (named, "carl/c.mp4")]
    file = _csv(tmp_path, [column, "frame", *OURS], *rows)
    with pytest.raises(InputError, match="which rows are video"):
        _detect(file, 1, name=film)


def test_py_feat_names_every_picture_of_a_folder(tmp_path):
    rows = [[f"/home/x/anna/{n}.png", n, *POINTS.flat] for n in (1, 2)]
    file = _csv(tmp_path, ["input", "frame", *OURS], *rows)
    assert [len(faces.scores) for faces in _detect(file, 1, 2, name="../x/anna")] == [1, 1]
    with pytest.raises(InputError, match="which rows are video"):
        _detect(file, 1, name="ben")


def test_a_name_without_folder_is_one_video(tmp_path):
    videos = table.read(_csv(tmp_path, ["video", "frame", *OURS], ["a.mp4", 1, *POINTS.flat]))
    videos("anna/a.mp4")
    with pytest.raises(InputError, match="could be about 'anna/a.mp4' and 'ben/a.mp4'; name both"):
        videos("ben/a.mp4")
