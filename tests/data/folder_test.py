# SPDX-License-Identifier: Apache-2.0
"""A user's own videos are found as `raw_trees` planned them."""

import numpy as np
import pytest

from mdhr_jax.data.builders import folder
from mdhr_jax.errors import InputError
from tests.data import raw_trees

LABELS = [[0, 1], [1, 9], [None, 0], [-1, 1]]
READ = [[0, 1], [1, -1], [-1, 0], [-1, 1]]


def _plan(**changes):
    return [
        raw_trees.OwnVideo(name="clips/a", labels=LABELS, **({"subject": "anna"} | changes)),
        raw_trees.OwnVideo(name="clips/b", labels=LABELS[::-1], **({"subject": "ben"} | changes)),
    ]


def _shown(recording):
    frames = recording.source.frames(recording.numbers, pytest.fail)
    return {number: raw_trees.read_blobs(frame.picture).frame for frame, number, _ in frames}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"one_csv": False},
        {"as_video": False},
        {"one_csv": False, "as_video": False, "line_end": "\r\n"},
        {"video_column": "file", "codec": "mjpeg"},
    ],
)
def test_videos_pictures_and_labels_are_those_of_the_plan(tmp_path, options):
    raw_trees.write_folder(tmp_path, _plan(), **options)
    found, layout = folder.find(tmp_path)
    assert layout.aus == (1, 12)
    assert [recording.subject for recording in found.recordings] == ["anna", "ben"]
    assert len({recording.name for recording in found.recordings}) == 2
    assert [recording.subject for recording in found.recordings] == ["anna", "ben"]
    for recording, labels in zip(found.recordings, [READ, READ[::-1]], strict=True):
        np.testing.assert_array_equal(recording.labels, labels)
        assert _shown(recording) == {1: 0, 2: 1, 3: 2, 4: 3}


def test_openface_tables_take_the_person_from_the_folder(tmp_path):
    plan = [raw_trees.OwnVideo(name="anna/a", labels=LABELS, failed=frozenset({2}))]
    raw_trees.write_folder(tmp_path, plan, one_csv=False, headers="openface", openface_r=True)
    found, layout = folder.find(tmp_path)
    (recording,) = found.recordings
    assert (recording.subject, recording.name) == ("anna", "anna/a")
    assert layout.aus == (1, 12)
    assert recording.numbers.tolist() == [1, 3, 4]


def test_frames_between_labels_are_left_out(tmp_path):
    plan = [raw_trees.OwnVideo(name="a", labels=LABELS, subject="anna", first=3, frames=9)]
    raw_trees.write_folder(tmp_path, plan)
    (recording,) = folder.find(tmp_path)[0].recordings
    assert _shown(recording) == {3: 2, 4: 3, 5: 4, 6: 5}


def test_other_tables_are_left_alone(tmp_path):
    raw_trees.write_folder(tmp_path, _plan())
    (tmp_path / "notes.csv").write_text("who,when\nanna,today\n")
    assert len(folder.find(tmp_path)[0].recordings) == 2


def _write(tmp_path, *lines):
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["video,frame,AU01", "a,1,1"], "line 2: person ''"),
        (["video,frame,subject,AU01", "a,1,an na,1"], "line 2: person 'an na'"),
        (["video,frame,subject,AU01", "a,1,anna,2"], "line 2, column 4: label '2'"),
        (["video,frame,subject,AU01", "a,x,anna,1"], "line 2: frame 'x'"),
        (["video,frame,subject,AU01", "a,1,anna"], "line 2: 3 values"),
        (["video,frame,subject,AU01", "a,1,anna,1", "a,1,anna,1"], "line 3: frame 1 of a"),
        (["video,frame,subject,AU01", "../a,1,anna,1"], "lies outside"),
        (["video,frame,subject,AU01", "/a,1,anna,1"], "names no video in"),
        (["video,frame,subject,AU01,AU01_c", "a,1,anna,1,0"], "line 1: two columns for one AU"),
        (["video,frame,subject,AU01", "none,1,anna,1"], "found nothing"),
        (["video,frame,subject,AU01", ",1,anna,1"], "line 2: '' names no video"),
        (["video,frame,subject,AU01", "..,1,anna,1"], "line 2: '..' names no video"),
        (["video,frame,subject,AU01", "a\x00b,1,anna,1"], "line 2"),
        (["frame,label", "1,1"], "no CSV file with the columns"),
    ],
)
def test_broken_tables_are_refused(tmp_path, lines, message):
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match=message):
        folder.find(_write(tmp_path, *lines))


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/1.png").write_bytes(b"")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "a").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="lies outside"):
        folder.find(_write(inside, "video,frame,subject,AU01", "a,1,anna,1"))


@pytest.mark.parametrize("link", ["a.mp4", "b/1.png"])
def test_a_video_or_picture_that_is_a_link_out_of_the_folder_is_refused(tmp_path, link):
    (tmp_path / "outside").write_bytes(b"")
    inside = tmp_path / "inside"
    (inside / "b").mkdir(parents=True)
    (inside / link).symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match=rf"{link}: lies outside"):
        folder.find(_write(inside, "video,frame,subject,AU01", f"{link[0]},1,anna,1"))


@pytest.mark.parametrize("text", ["9", "-1", "", "nan", "NaN"])
def test_labels_that_nobody_coded_are_unknown(tmp_path, text):
    (tmp_path / "a").mkdir()
    lines = ["video,frame,subject,AU01", f"a,1,anna,{text}", "a,2,anna,1"]
    (recording,) = folder.find(_write(tmp_path, *lines))[0].recordings
    assert recording.labels.tolist() == [[-1], [1]]


def test_tables_of_spreadsheets_are_read(tmp_path):
    """A byte order mark and Windows line ends."""
    (tmp_path / "a").mkdir()
    table = b"\xef\xbb\xbfframe,subject,AU01\r\n1,anna,1\r\n"
    (tmp_path / "a.csv").write_bytes(table)
    (recording,) = folder.find(tmp_path)[0].recordings
    assert (recording.numbers.tolist(), recording.labels.tolist()) == ([1], [[1]])


def test_a_table_that_is_not_text_is_refused_with_its_line(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"frame,subject,AU01\n1,anna,1\n2,\x81,1\n")
    with pytest.raises(InputError, match=r"a\.csv, line 3: this is not text"):
        folder.find(tmp_path)


def test_files_with_other_aus_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("frame,subject,AU01\n1,anna,1\n")
    (tmp_path / "b.csv").write_text("frame,subject,AU02\n1,anna,1\n")
    with pytest.raises(InputError, match="label the same ones"):
        folder.find(tmp_path)


def test_two_videos_of_one_name_are_refused(tmp_path):
    for suffix in (".avi", ".mp4"):
        (tmp_path / f"a{suffix}").write_bytes(b"")
    with pytest.raises(InputError, match=r"found a\.avi, a\.mp4"):
        folder.find(_write(tmp_path, "video,frame,subject,AU01", "a,1,anna,1"))


def test_videos_of_one_name_in_two_folders_are_two_recordings(tmp_path):
    plan = [
        raw_trees.OwnVideo(name=f"{d}/cam", labels=LABELS, subject="anna") for d in ("s1", "s2")
    ]
    raw_trees.write_folder(tmp_path, plan, video_column="file")
    found, _ = folder.find(tmp_path)
    assert len({recording.name for recording in found.recordings}) == 2


def test_frame_0_of_a_video_is_refused(tmp_path):
    raw_trees.write_folder(tmp_path, _plan())
    file = tmp_path / "labels.csv"
    header, first, *rows = file.read_text().splitlines()
    column = header.split(",").index("frame")
    cells = first.split(",")
    file.write_text(
        "\n".join([header, ",".join([*cells[:column], "0", *cells[column + 1 :]]), *rows])
    )
    with pytest.raises(InputError, match="frames of a video count from 1"):
        folder.find(tmp_path)
