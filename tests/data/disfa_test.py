# SPDX-License-Identifier: Apache-2.0
"""Raw DISFA trees are found as `raw_trees` planned them."""

import numpy as np
import pytest

from mdhr_jax.data.builders import disfa
from mdhr_jax.errors import InputError
from tests.data import raw_trees

COLUMNS = [raw_trees.DISFA_AUS.index(au) for au in (1, 2, 4, 6, 9, 12, 25, 26)]


def _subject(name="SN001", seed=0, **changes):
    levels = np.random.default_rng(seed).integers(0, 6, (8, 12))
    return raw_trees.DisfaSubject(name=name, intensities=levels, **changes)


def _assert_as_planned(recording, subject, video="LeftVideo"):
    assert (recording.name, recording.subject) == (subject.name, subject.name)
    levels = subject.intensities[: len(recording.numbers), COLUMNS]
    np.testing.assert_array_equal(recording.numbers, np.arange(len(levels)))
    np.testing.assert_array_equal(recording.intensities, levels)
    np.testing.assert_array_equal(recording.labels, levels >= 2)
    frames = [
        f._replace(number=n) for f, n, _ in recording.source.frames(recording.numbers, pytest.fail)
    ]
    assert [frame.number for frame in frames] == list(range(len(frames)))
    name = raw_trees.index(subject.name), raw_trees.index(video)
    for frame in frames:
        assert raw_trees.read_blobs(frame.picture) == (*name, frame.number)
    return len(frames)


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["Videos_LeftCamera", "Video_LeftCamera"])
@pytest.mark.parametrize("suffix", ["_comp.avi", "_Comp.avi"])
def test_left_camera(tmp_path, folder, suffix):
    plan = [_subject(), _subject("SN032", seed=1)]
    raw_trees.write_disfa(tmp_path, plan, camera=folder, suffix=suffix)
    raw_trees.write_disfa(tmp_path, plan, camera=folder.replace("Left", "Right"), suffix=suffix)
    found = disfa.find(tmp_path, tmp_path)
    assert [_assert_as_planned(*pair) for pair in zip(found.recordings, plan, strict=True)] == [
        8,
        8,
    ]
    assert found.notes == ()


def test_right_camera(tmp_path):
    plan = [_subject()]
    raw_trees.write_disfa(tmp_path, plan, camera="Video_RightCamera")
    (recording,) = disfa.find(tmp_path, tmp_path, camera="right").recordings
    assert _assert_as_planned(recording, plan[0], "RightVideo") == 8
    with pytest.raises(InputError, match="no left video such as LeftVideoSN001_comp.avi"):
        disfa.find(tmp_path, tmp_path)


@pytest.mark.parametrize("style", ["img", "plain", "img_o"])
def test_pictures_already_cut(tmp_path, style):
    plan = [_subject(missing=frozenset({3}))]
    raw_trees.write_cropped_disfa(tmp_path, plan, style=style, size=96)
    (recording,) = disfa.find(tmp_path, tmp_path).recordings
    frames = [n for _, n, _ in recording.source.frames(recording.numbers, pytest.fail)]
    assert frames == [0, 1, 2, 4, 5, 6, 7]


def test_the_order_of_lines_decides(tmp_path):
    plan = [_subject(first_number=0)]
    raw_trees.write_disfa(tmp_path, plan)
    (recording,) = disfa.find(tmp_path, tmp_path).recordings
    assert _assert_as_planned(recording, plan[0]) == 8


@pytest.mark.slow
@pytest.mark.parametrize("active_from", [1, 3])
def test_intensity_from_which_an_au_is_active(tmp_path, active_from):
    plan = [_subject()]
    raw_trees.write_disfa(tmp_path, plan)
    (recording,) = disfa.find(tmp_path, tmp_path, active_from=active_from).recordings
    np.testing.assert_array_equal(recording.labels, plan[0].intensities[:, COLUMNS] >= active_from)


def test_a_missing_au_is_unknown_and_noted(tmp_path):
    raw_trees.write_disfa(tmp_path, [_subject(absent=frozenset({9}))])
    found = disfa.find(tmp_path, tmp_path)
    (recording,) = found.recordings
    assert (recording.labels[:, 4] == -1).all() and (recording.intensities[:, 4] == -1).all()
    assert (recording.labels[:, [0, 1, 2, 3, 5, 6, 7]] >= 0).all()
    assert found.notes == ("SN001: no labels of AU09, it is unknown there",)


def test_files_of_different_lengths_are_cut_or_unknown_and_noted(tmp_path):
    raw_trees.write_disfa(tmp_path, [_subject(rows={12: 6, 25: 10})])
    found = disfa.find(tmp_path, tmp_path)
    (recording,) = found.recordings
    assert len(recording.numbers) == 8
    assert (recording.labels[6:, 5] == -1).all() and (recording.labels[:6, 5] >= 0).all()
    assert found.notes == (
        "SN001: 6 lines for AU12, 8 are expected",
        "SN001: 10 lines for AU25, 8 are expected",
    )


def test_a_line_that_is_missing_is_noted(tmp_path):
    raw_trees.write_disfa(tmp_path, [_subject()])
    file = tmp_path / "ActionUnit_Labels/SN001/SN001_au4.txt"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:3] + lines[4:]))
    found = disfa.find(tmp_path, tmp_path)
    assert "SN001_au4.txt: frame 5 after frame 3; the order of lines counts" in found.notes


def test_a_second_copy_is_refused(tmp_path):
    raw_trees.write_disfa(tmp_path, [_subject()])
    raw_trees.write_disfa(tmp_path / "copy", [_subject()])
    with pytest.raises(InputError, match="the same labels stand in"):
        disfa.find(tmp_path, tmp_path)
    with pytest.raises(InputError, match="SN001: found twice"):
        disfa.find(tmp_path / "copy", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("frames", [5, 11])
def test_videos_longer_or_shorter_than_their_labels(tmp_path, frames):
    plan = [_subject(frames=frames)]
    raw_trees.write_disfa(tmp_path, plan)
    found = disfa.find(tmp_path, tmp_path)
    (recording,) = found.recordings
    assert _assert_as_planned(recording, plan[0]) == min(frames, 8)
    assert found.notes == (
        f"SN001: 8 labelled frames, but {frames} pictures; the rest is left out",
    )


def test_9_is_unknown(tmp_path):
    raw_trees.write_disfa(tmp_path, [_subject()])
    file = tmp_path / "ActionUnit_Labels/SN001/SN001_au9.txt"
    file.write_text("1,9\n" + file.read_text().partition("\n")[2])
    (recording,) = disfa.find(tmp_path, tmp_path).recordings
    assert recording.labels[0, 4] == recording.intensities[0, 4] == -1
    assert (recording.labels[1:, 4] >= 0).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n2,6\n", "line 2: intensity '6' is none of"),
        ("1,2\n2\n", "line 2: expected frame and intensity, got 1"),
        ("1,2\nx,0\n", "line 2: frame 'x'"),
        ("", "labels no frame"),
    ],
)
def test_broken_labels_are_refused_with_file_and_line(tmp_path, text, message):
    raw_trees.write_disfa(tmp_path, [_subject()])
    (tmp_path / "ActionUnit_Labels/SN001/SN001_au9.txt").write_text(text)
    with pytest.raises(InputError, match=rf"SN001_au9\.txt.*{message}"):
        disfa.find(tmp_path, tmp_path)


def test_folders_without_labels_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no label file such as SN001_au1\.txt"):
        disfa.find(tmp_path, tmp_path)
