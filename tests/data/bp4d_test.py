# SPDX-License-Identifier: Apache-2.0
"""Raw BP4D trees are found as `raw_trees` planned them."""

import dataclasses

import numpy as np
import pytest

from mdhr_jax.data.builders import bp4d
from mdhr_jax.errors import InputError
from tests.data import raw_trees


def _video(subject, task, first, count, seed):
    labels = np.random.default_rng(seed).choice([0, 1, 9], (count, 12))
    return raw_trees.Bp4dVideo(subject=subject, task=task, first=first, labels=labels)


def _plan(**changes):
    first = _video("F001", "T1", 5, 9, seed=0)
    first = dataclasses.replace(first, **({"uncoded_before": 2, "uncoded_after": 3} | changes))
    return [first, _video("F001", "T8", 1, 6, seed=1), _video("M018", "T2", 3, 7, seed=2)]


def _assert_as_planned(found, plan, images="jpg"):
    assert [recording.name for recording in found.recordings] == ["F001/T1", "F001/T8", "M018/T2"]
    for recording, video in zip(found.recordings, plan, strict=True):
        assert recording.subject == video.subject
        np.testing.assert_array_equal(recording.numbers, video.numbers)
        planned = np.where(video.labels == 9, -1, video.labels)
        np.testing.assert_array_equal(recording.labels, planned)
        frames = [
            f._replace(number=n)
            for f, n, _ in recording.source.frames(recording.numbers, pytest.fail)
        ]
        expected = video.numbers[video.has_picture(images)].tolist()
        assert [frame.number for frame in frames] == expected
        name = raw_trees.index(video.subject), raw_trees.index(video.task)
        start = video.pictures(images)[0]
        for frame in frames:
            assert raw_trees.read_blobs(frame.picture) == (*name, frame.number - start)


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {}),
        ({"padding": 4}, {"occ_folder": "old"}),
        ({"padding": "mixed"}, {"shuffle_columns": True}),
        ({"missing": frozenset({6, 9})}, {"columns": range(1, 28), "line_end": "\r\n"}),
        ({"uncoded_after": -2}, {}),
    ],
)
def test_pictures(tmp_path, changes, options):
    plan = _plan(**changes)
    raw_trees.write_bp4d(tmp_path, plan, **options)
    found = bp4d.find(tmp_path, tmp_path)
    _assert_as_planned(found, plan)
    assert found.notes == ()


@pytest.mark.parametrize("folder", ["", "Sequences(2D)"])
def test_videos(tmp_path, folder):
    plan = _plan(uncoded_after=-1)
    raw_trees.write_bp4d(tmp_path, plan, images="avi", folder=folder)
    _assert_as_planned(bp4d.find(tmp_path, tmp_path), plan, images="avi")


@pytest.mark.slow
def test_videos_named_by_task(tmp_path):
    plan = _plan()
    raw_trees.write_bp4d(tmp_path, plan, images="avi", folder="flat")
    (tmp_path / "flat/2F01_01.avi").rename(tmp_path / "flat/2f01_t1.AVI")
    _assert_as_planned(bp4d.find(tmp_path, tmp_path), plan, images="avi")


@pytest.mark.parametrize("style", ["img", "plain"])
def test_pictures_already_cut(tmp_path, style):
    plan = _plan()
    raw_trees.write_cropped_bp4d(tmp_path, plan, style=style, size=96)
    _assert_as_planned(bp4d.find(tmp_path / "AUCoding", tmp_path), plan)


def test_intensities(tmp_path):
    levels = {6: np.array([0, 1, 2, 3, 4, 5, 9, 0, 1]), 17: np.array([9] * 8 + [2])}
    plan = _plan(intensities=levels)
    raw_trees.write_bp4d(tmp_path, plan)
    first, other, _ = bp4d.find(tmp_path, tmp_path).recordings
    columns = dict(zip(raw_trees.BP4D_AUS, first.intensities.T, strict=True))
    assert columns[6].tolist() == [0, 1, 2, 3, 4, 5, -1, 0, 1]
    assert columns[17].tolist() == [-1] * 8 + [2]
    assert (columns[12] == -1).all()
    assert (other.intensities == -1).all()


def test_what_has_no_counterpart_is_noted(tmp_path):
    raw_trees.write_bp4d(tmp_path, _plan())
    (tmp_path / "AUCoding/AU_OCC/M018_T2.csv").unlink()
    (tmp_path / "AUCoding/AU_OCC/F001_T8.csv").rename(tmp_path / "AUCoding/AU_OCC/F002_T8.csv")
    found = bp4d.find(tmp_path, tmp_path)
    assert [recording.name for recording in found.recordings] == ["F001/T1"]
    assert found.notes == (
        "F002/T8: labels, but no pictures",
        "F001/T8: pictures, but no labels",
        "M018/T2: pictures, but no labels",
    )


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (0, "frame,1,2", r"line 1: expected a line of AU numbers"),
        (0, "0,1,2,4,6,7,10,12,14,15,17,23", r"line 1: .* missing: 24"),
        (2, None, r"line 3: 1 values, but line 1 names"),
        (2, "x", r"line 3: frame 'x'"),
        (3, "2.5", r"line 4, column 2: label '2.5' is none of 0, 1, 9, -1"),
        (3, "nan", r"line 4, column 2: label 'nan'"),
        (3, "3", r"line 4, column 2: label '3'"),
    ],
)
def test_broken_labels_are_refused_with_file_and_line(tmp_path, line, text, message):
    raw_trees.write_bp4d(tmp_path, _plan())
    file = tmp_path / "AUCoding/AU_OCC/F001_T1.csv"
    rows = [row.split(",") for row in file.read_text().split("\n")]
    if text is None:
        rows[line] = ["7"]
    elif line == 0:
        rows[0] = text.split(",")
    else:
        rows[line][0 if text == "x" else 1] = text
    file.write_text("\n".join(",".join(row) for row in rows))
    with pytest.raises(InputError, match=message) as refused:
        bp4d.find(tmp_path, tmp_path)
    assert "F001_T1.csv" in str(refused.value)


def test_a_frame_labelled_twice_is_refused(tmp_path):
    raw_trees.write_bp4d(tmp_path, _plan())
    file = tmp_path / "AUCoding/AU_OCC/F001_T1.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, lines[1]]))
    with pytest.raises(InputError, match="line 11: frame 5 has been labelled before"):
        bp4d.find(tmp_path, tmp_path)


def test_a_frame_with_two_pictures_is_refused(tmp_path):
    raw_trees.write_bp4d(tmp_path, _plan())
    folder = tmp_path / "Sequences(2D+3D)/F001/T1"
    (folder / "0005.jpg").write_bytes((folder / "5.jpg").read_bytes())
    with pytest.raises(InputError, match=r"0005\.jpg and 5\.jpg are both frame 5"):
        bp4d.find(tmp_path, tmp_path)


def test_folders_without_labels_or_pictures_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    raw_trees.write_bp4d(tmp_path / "raw", _plan())
    with pytest.raises(InputError, match=r"no label file such as F001_T1\.csv"):
        bp4d.find(tmp_path / "empty", tmp_path / "raw")
    with pytest.raises(InputError, match="no folder of pictures such as F001/T1"):
        bp4d.find(tmp_path / "raw", tmp_path / "empty")


def test_a_second_copy_is_refused_but_for_older_labels(tmp_path):
    plan = _plan()
    raw_trees.write_bp4d(tmp_path / "raw", plan)
    raw_trees.write_bp4d(tmp_path / "old", _plan()[::-1], occ_folder="old", seed=1)
    labels = tmp_path / "raw/AUCoding"
    (tmp_path / "old/AUCoding/F001_T1.csv").rename(labels / "F001_T1.csv")
    _assert_as_planned(bp4d.find(labels, tmp_path / "raw"), plan)
    with pytest.raises(InputError, match="F001/T1: found twice"):
        bp4d.find(labels, tmp_path)


def test_links_are_followed_once(tmp_path):
    plan = _plan()
    raw_trees.write_bp4d(tmp_path / "elsewhere", plan)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/pictures").symlink_to(tmp_path / "elsewhere/Sequences(2D+3D)")
    (tmp_path / "raw/labels").symlink_to(tmp_path / "elsewhere/AUCoding")
    (tmp_path / "elsewhere/AUCoding/loop").symlink_to(tmp_path / "raw")
    _assert_as_planned(bp4d.find(tmp_path / "raw", tmp_path / "raw"), plan)
