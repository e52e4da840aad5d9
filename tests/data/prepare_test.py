# SPDX-License-Identifier: Apache-2.0
"""Recordings become records, frame by frame as planned; what is left out is said."""

import dataclasses
import fcntl
import functools
import json
import pathlib
import resource

import numpy as np
import pytest
from PIL import Image

from mdhr_jax import facs
from mdhr_jax.data import clips, records
from mdhr_jax.data.builders import bp4d, disfa, folder, parts, prepare, recordings
from mdhr_jax.errors import InputError
from mdhr_jax.faces import align, squares
from tests.data import raw_trees
from tests.faces import decoder_test
from tests.faces.video_test import write_video

SQUARES = functools.partial(raw_trees.blobs, size=(64, 64))
AS_IT_IS = parts.Settings(crop="none", size=64)


def _plan(*names, count=6):
    return [
        raw_trees.Bp4dVideo(
            subject=name.partition("/")[0],
            task=name.partition("/")[2],
            first=10 * number + 1,
            labels=np.random.default_rng(number).choice([0, 1, 9], (count, 12)),
        )
        for number, name in enumerate(names)
    ]


@pytest.fixture
def plan(tmp_path):
    plan = _plan("F001/T1", "F001/T2", "F003/T1", "M003/T5")
    raw_trees.write_bp4d(tmp_path / "raw", plan, paint=SQUARES)
    return plan


def _prepare(tmp_path, settings=AS_IT_IS, **options):
    found = bp4d.find(tmp_path / "raw", tmp_path / "raw")
    options = {"source": "bp4d", "processes": 1, "progress": False} | options
    return prepare.prepare(tmp_path / "set", found, facs.BP4D, settings, **options)


def _assert_as_planned(source, plan, left_out=()):
    rows = iter(range(len(source.table)))
    for video in plan:
        for number, labels in zip(video.numbers.tolist(), video.labels, strict=True):
            if (video.subject, video.task, number) in left_out:
                continue
            row = next(rows)
            record = source.records[row]
            assert record["video"].decode() == f"{video.subject}/{video.task}"
            assert record["subject"].decode() == video.subject
            assert record["frame"] == source.table.number[row] == number
            np.testing.assert_array_equal(record["labels"], np.where(labels == 9, -1, labels))
            shown = raw_trees.read_blobs(source.pictures(np.array([row]))[0])
            assert shown == (
                raw_trees.index(video.subject),
                raw_trees.index(video.task),
                number - video.pictures()[0],
            )
    assert next(rows, None) is None


def test_records_are_those_of_the_plan(tmp_path, plan):
    said = _prepare(tmp_path)
    assert "24 frames of 3 people in 4 videos" in said
    source = records.open_dataset(tmp_path / "set")
    _assert_as_planned(source, plan)
    assert source.folds == (("M003",), ("F003",), ("F001",))  # the official ones
    assert source.metadata.crop == "none"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["raw", "set"]


def test_records_say_where_they_come_from(tmp_path, plan):
    _prepare(tmp_path)
    source = records.open_dataset(tmp_path / "set")
    file = tmp_path / "raw/Sequences(2D+3D)/F001/T1/1.jpg"
    record = source.records[0]
    assert record["source"].decode() == recordings.sha256(file)
    assert np.isnan(record["time"]) and np.isnan(record["transform"]).all()
    assert (record["intensities"] == -1).all()
    manifest = json.loads((tmp_path / "set/sources.json").read_text())
    assert manifest["Sequences(2D+3D)/F001/T1/1.jpg"] == [
        file.stat().st_size,
        recordings.sha256(file),
    ]
    assert "AUCoding/AU_OCC/F001_T1.csv" in manifest


def test_missing_pictures_leave_gaps(tmp_path):
    first, *others = _plan("F001/T1", "F003/T1")
    plan = [dataclasses.replace(first, missing=frozenset({3, 4})), *others]
    raw_trees.write_bp4d(tmp_path / "raw", plan, paint=SQUARES)
    _prepare(tmp_path)
    _assert_as_planned(
        records.open_dataset(tmp_path / "set"), plan, {("F001", "T1", 3), ("F001", "T1", 4)}
    )
    report = json.loads((tmp_path / "set/report.json").read_text())
    assert report["videos"]["F001/T1"] == {
        "kept": 4,
        "missing": [3, 4],
        "lost": [],
        "breaks": [],
        "several": [],
        "unreadable": [],
        "unread": 0,
    }


@pytest.mark.slow
def test_faces_are_found_aligned_and_lost_ones_left_out(tmp_path, faces_extra):
    plan = _plan("F001/T1", "F003/T2")
    raw_trees.write_bp4d(tmp_path / "raw", plan, paint=raw_trees.astronaut_faces)
    blank = tmp_path / "raw/Sequences(2D+3D)/F001/T1/4.jpg"
    Image.new("RGB", (320, 240), (90, 90, 90)).save(blank)
    said = _prepare(tmp_path, parts.Settings(size=96))
    assert "1 without a face" in said
    source = records.open_dataset(tmp_path / "set")
    assert source.metadata.crop == "mtcnn, template bp4d"
    assert source.table.number[:5].tolist() == [1, 2, 3, 5, 6]
    transform = source.records[0]["transform"]
    a, b = complex(*transform[:2]), complex(*transform[2:])
    x, y = raw_trees.astronaut_centre("F001", "T1", 0)
    assert abs(a * complex(x, y) + b - (48 + 48j)) < 12
    # Aligned faces hardly differ from frame to frame.
    pictures = source.pictures(np.arange(5)).astype(int)
    assert np.abs(np.diff(pictures, axis=0)).mean() < 8


class _Switching:
    """A cutter whose frames show face 0, from the fourth on face 1."""

    def squares(self, frames, *, video, side):
        for place, frame in enumerate(frames):
            yield squares.Square(frame, frame.picture, int(place >= 3))


class _Blind:
    """A cutter that finds no face in one recording."""

    def squares(self, frames, *, video, side):
        for frame in frames:
            yield squares.Square(frame, None if video == "F001/T2" else frame.picture, 0)


def test_a_recording_of_which_nothing_is_left_is_named(tmp_path, plan, monkeypatch):
    monkeypatch.setattr(parts, "cutter", lambda settings: _Blind())
    assert _prepare(tmp_path).endswith("; nothing is left of F001/T2")


def test_no_clip_goes_on_where_another_face_is_followed(tmp_path, plan, monkeypatch):
    monkeypatch.setattr(parts, "cutter", lambda settings: _Switching())
    assert "; 4 breaks; " in _prepare(tmp_path)
    source = records.open_dataset(tmp_path / "set")
    assert source.table.number[:6].tolist() == [1, 2, 3, 4, 5, 6]
    for hold in (0, 3):
        index = clips.evaluation_clips(source.table, 6, hold=hold)
        assert index.rows[:2].tolist() == [[0, 1, 2, 2, 2, 2], [3, 4, 5, 5, 5, 5]]
    report = json.loads((tmp_path / "set/report.json").read_text())["videos"]["F001/T1"]
    assert (report["kept"], report["breaks"], report["lost"]) == (6, [4], [])


def test_a_jump_while_no_face_is_found_is_a_break_as_well(tmp_path, monkeypatch):
    class Away:
        def squares(self, frames, *, video, side):
            for place, frame in enumerate(frames):
                yield squares.Square(frame, None if place == 2 else frame.picture, 0)

    monkeypatch.setattr(parts, "cutter", lambda settings: Away())
    film = write_video(tmp_path / "a.mkv", [0, 40, 1080, 1120, 1160])
    unknown = np.full((5, 2), -1, np.int8)
    recording = recordings.Recording(
        "anna", "a", np.arange(1, 6), unknown, unknown, recordings.Film(film, first=1)
    )
    parts.cut(recording, parts.Settings(size=32), tmp_path / "part.npz")
    part = parts.read(tmp_path / "part.npz")
    assert (part.report.lost, part.report.breaks) == ([3], [4])


def test_no_clip_goes_on_where_the_clock_of_a_film_jumps(tmp_path):
    film = write_video(tmp_path / "a.mkv", [0, 40, 80, 120, 1160, 1200, 1240, 1280])
    unknown = np.full((8, 2), -1, np.int8)
    recording = recordings.Recording(
        "anna", "a", np.arange(1, 9), unknown, unknown, recordings.Film(film, first=1)
    )
    parts.cut(recording, parts.Settings(crop="center", size=32), tmp_path / "part.npz")
    part = parts.read(tmp_path / "part.npz")
    assert part.number.tolist() == [*range(1, 9)]
    assert (part.place - part.number).tolist() == [0] * 4 + [25] * 4
    assert part.report.breaks == [5]
    assert not part.breaks.any()


def test_where_every_second_frame_is_labelled_breaks_count_as_well(tmp_path):
    film = write_video(tmp_path / "a.mkv", [0, 40, 80, 120, 1160, 1200, 1240, 1280])
    unknown = np.full((4, 2), -1, np.int8)
    recording = recordings.Recording(  # the jump lies before frame 5, between 4 and 6
        "anna", "a", np.arange(2, 9, 2), unknown, unknown, recordings.Film(film, first=1)
    )
    parts.cut(recording, parts.Settings(crop="center", size=32), tmp_path / "part.npz")
    part = parts.read(tmp_path / "part.npz")
    assert part.number.tolist() == [2, 4, 6, 8]
    assert part.report.breaks == [6]


@pytest.fixture
def damaged(tmp_path, plan):
    """Two pictures of F001/T2 end midway."""
    files = [tmp_path / f"raw/Sequences(2D+3D)/F001/T2/{number}.jpg" for number in (12, 13)]
    whole = {file: file.read_bytes() for file in files}
    for file, data in whole.items():
        file.write_bytes(data[: len(data) // 2])
    return whole


def test_unreadable_pictures_are_refused_and_all_named(tmp_path, plan, damaged):
    with pytest.raises(InputError, match=r"12\.jpg: does not decode .* \(and 1 more, all in"):
        _prepare(tmp_path)
    assert not (tmp_path / "set").exists()
    listed = (tmp_path / "set.parts/unreadable.txt").read_text()
    assert [pathlib.Path(line.partition(":")[0]).name for line in listed.splitlines()] == [
        "12.jpg",
        "13.jpg",
    ]


def test_unreadable_pictures_in_a_folder_that_is_not_utf8_are_listed(tmp_path, plan, damaged):
    (tmp_path / "raw").rename(tmp_path / "caf\udce9")
    found = bp4d.find(tmp_path / "caf\udce9", tmp_path / "caf\udce9")
    with pytest.raises(InputError, match="and 1 more, all in"):
        prepare.prepare(tmp_path / "set", found, facs.BP4D, AS_IT_IS, source="bp4d", processes=1)
    listed = (tmp_path / "set.parts/unreadable.txt").read_bytes()
    assert listed.count(b"caf\xe9") == 2


def test_after_repair_only_the_damaged_video_is_done_anew(tmp_path, plan, damaged, monkeypatch):
    with pytest.raises(InputError):
        _prepare(tmp_path)
    for file, data in damaged.items():
        file.write_bytes(data)
    done, cut = [], parts.cut
    monkeypatch.setattr(
        parts,
        "cut",
        lambda recording, *rest: (done.append(recording.name), cut(recording, *rest)),
    )
    _prepare(tmp_path)
    assert done == ["F001/T2"]
    _assert_as_planned(records.open_dataset(tmp_path / "set"), plan)


def test_a_few_unreadable_pictures_may_be_skipped(tmp_path, plan, damaged, monkeypatch):
    with pytest.raises(InputError, match="this costs 2 frames, at most 0 may be skipped"):
        _prepare(tmp_path, skip=True)
    monkeypatch.setattr(prepare, "MOST_SKIPPED", 0.1)
    assert "2 without a picture (2 of them unreadable)" in _prepare(tmp_path, skip=True)
    left_out = {("F001", "T2", 12), ("F001", "T2", 13)}
    _assert_as_planned(records.open_dataset(tmp_path / "set"), plan, left_out)


@pytest.mark.long
def test_several_processes_make_the_same_records(tmp_path, plan, quick_compilation_elsewhere):
    _prepare(tmp_path)
    (tmp_path / "set").rename(tmp_path / "one")
    _prepare(tmp_path, processes=2)
    names = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert names == sorted(file.name for file in (tmp_path / "set").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "set" / name).read_bytes()


def test_a_trial_with_a_few_people(tmp_path, plan):
    assert "of 2 people in 3 videos" in _prepare(tmp_path, max_subjects=2)


def test_parts_cut_in_another_way_are_refused(tmp_path, plan, damaged):
    with pytest.raises(InputError):
        _prepare(tmp_path)
    with pytest.raises(InputError, match=r"set\.parts: was begun with other settings"):
        _prepare(tmp_path, parts.Settings(crop="none", size=32))


def test_parts_with_faces_of_another_size_are_refused(tmp_path):
    parts.claim(tmp_path, parts.Settings())
    parts.claim(tmp_path, parts.Settings())
    with pytest.raises(InputError, match="was begun with other settings"):
        parts.claim(tmp_path, parts.Settings(smallest_face=60))


def test_an_existing_set_is_used_as_it_is(tmp_path, plan, capsys):
    _prepare(tmp_path)
    before = (tmp_path / "set/index.npz").stat().st_mtime_ns
    assert _prepare(tmp_path) == ""
    assert "used as it is" in capsys.readouterr().out
    assert (tmp_path / "set/index.npz").stat().st_mtime_ns == before
    assert not (tmp_path / "set.parts").exists()
    with pytest.raises(InputError, match=r"differing: source"):
        _prepare(tmp_path, max_subjects=1)
    with pytest.raises(InputError, match="other settings is here already"):
        _prepare(tmp_path, parts.Settings(crop="none", size=32))


@pytest.mark.slow
def test_no_face_anywhere_is_refused(tmp_path, faces_extra):
    plan = _plan("F001/T1", count=2)
    raw_trees.write_bp4d(tmp_path / "raw", plan, paint=raw_trees.blobs)
    with pytest.raises(InputError, match="in which a face was found"):
        _prepare(tmp_path, parts.Settings(size=64))


def test_crops_describe_themselves(tmp_path):
    template = align.TEMPLATES["disfa"]
    assert squares.describe("mtcnn", template) == "mtcnn, template disfa"
    (tmp_path / "faces.csv").write_text("frame\n")
    described = squares.describe(f"csv:{tmp_path}/faces.csv", template)
    checksum = recordings.sha256(tmp_path / "faces.csv")[:8]
    assert described == f"csv {checksum}, template disfa"
    with pytest.raises(InputError, match="cannot be read"):
        squares.describe("csv:none.csv", template)
    assert squares.describe("1,2,3,3", template) == "1,2,3,3"


def test_a_second_preparation_of_the_same_set_is_refused(tmp_path, plan):
    (tmp_path / "set.parts").mkdir()
    with (tmp_path / "set.parts/lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="at work here; wait for it, or name another --out"):
            _prepare(tmp_path)
    assert "24 frames" in _prepare(tmp_path)


def test_a_full_disk_is_one_line_and_keeps_what_is_finished(tmp_path, plan):
    # A limit on the size of files stands in for the full disk.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(InputError, match="set: cannot be written"):
            _prepare(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "24 frames" in _prepare(tmp_path)


def test_a_place_that_cannot_be_written_is_refused(tmp_path, plan):
    (tmp_path / "set.parts").write_text("")
    with pytest.raises(InputError, match=r"set\.parts: cannot be written"):
        _prepare(tmp_path)


def test_labels_that_have_changed_make_another_set(tmp_path, plan):
    _prepare(tmp_path)
    file = tmp_path / "raw/AUCoding/AU_OCC/F001_T1.csv"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(InputError, match=r"made of other files \(AUCoding/AU_OCC/F001_T1.csv"):
        _prepare(tmp_path)


def test_recordings_of_one_name_are_refused(tmp_path, plan):
    found = bp4d.find(tmp_path / "raw", tmp_path / "raw")
    twice = found._replace(recordings=found.recordings + found.recordings[:1])
    with pytest.raises(InputError, match="F001/T1: two recordings have this name"):
        prepare.prepare(tmp_path / "set", twice, facs.BP4D, AS_IT_IS, source="bp4d", processes=1)


def test_nothing_in_common_is_said_with_the_reasons(tmp_path, plan, capsys):
    found = bp4d.find(tmp_path / "raw", tmp_path / "raw")
    nothing = found._replace(recordings=(), notes=("F009/T1: labels, but no pictures",))
    with pytest.raises(InputError, match="no recording in common"):
        prepare.prepare(tmp_path / "set", nothing, facs.BP4D, AS_IT_IS, source="bp4d")
    assert "F009/T1: labels, but no pictures" in capsys.readouterr().err


@pytest.mark.slow
def test_a_film_that_ends_early_costs_all_of_its_frames(tmp_path):
    plan = _plan("F001/T1", "F003/T1", count=20)
    raw_trees.write_bp4d(tmp_path / "raw", plan, images="avi", paint=SQUARES)
    file = tmp_path / "raw/Sequences(2D)/2F01_01.avi"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    with pytest.raises(InputError, match=r"2F01_01\.avi"):
        _prepare(tmp_path)
    with pytest.raises(InputError, match=r"this costs 1[0-9] frames, at most 0"):
        _prepare(tmp_path, skip=True)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "codec"), [("a.webm", "libvpx"), ("a.wmv", "wmv2")])
def test_half_a_download_of_a_film_is_told_of(tmp_path, name, codec):
    film = decoder_test.write(tmp_path / name, decoder_test.GREYS[:30], codec)
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    unknown = np.full((30, 2), -1, np.int8)
    recording = recordings.Recording(
        "anna", "a", np.arange(1, 31), unknown, unknown, recordings.Film(film, first=1)
    )
    parts.cut(recording, parts.Settings(crop="center", size=32), tmp_path / "part.npz")
    report = parts.read(tmp_path / "part.npz").report
    assert "the video is damaged" in report.unreadable[0]
    assert report.kept + report.unread == 30 and 0 < report.unread < 30


def test_a_picture_that_is_a_dead_link_is_unreadable(tmp_path, plan):
    file = tmp_path / "raw/Sequences(2D+3D)/F001/T1/2.jpg"
    file.unlink()
    file.symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(InputError, match=r"T1/2\.jpg: "):
        _prepare(tmp_path)


def test_people_with_more_pictures_than_tfds_can_hold_are_refused(tmp_path, plan, monkeypatch):
    """As soon as there are so many: other videos would be cut for nothing."""
    cut, done = parts.cut, []
    monkeypatch.setattr(parts, "cut", lambda video, *rest: [done.append(video), cut(video, *rest)])
    monkeypatch.setattr(prepare, "_MOST_BYTES", 8000)
    for _ in range(2):
        with pytest.raises(InputError, match="F001: has more than .* a person may have"):
            _prepare(tmp_path)
        assert [video.name for video in done] == ["F001/T1", "F001/T2"]


def test_landmarks_of_another_program_by_place_in_the_video(tmp_path):
    """DISFA counts from 0, tables of faces from 1: the second row is for the second frame."""
    levels = np.zeros((4, 12), int)
    subject = raw_trees.DisfaSubject("SN001", levels)
    raw_trees.write_disfa(tmp_path / "raw", [subject], paint=raw_trees.blobs)
    left_eyes = [20, 30, 40, 50]
    rows = [
        [number, x, 20, x + 20, 20, x + 10, 32, x, 40, x + 20, 40]
        for number, x in enumerate(left_eyes, start=1)
    ]
    names = [
        f"{p}_{a}"
        for p in ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
        for a in "xy"
    ]
    lines = [["frame", *names], *rows]
    (tmp_path / "faces.csv").write_text("\n".join(",".join(map(str, line)) for line in lines))
    settings = parts.Settings(crop=f"csv:{tmp_path}/faces.csv", size=32)
    found = disfa.find(tmp_path / "raw", tmp_path / "raw")
    prepare.prepare(
        tmp_path / "set", found, facs.DISFA, settings, source="disfa", processes=1, progress=False
    )
    source = records.open_dataset(tmp_path / "set")
    assert source.table.number.tolist() == [0, 1, 2, 3]
    shifts = [source.records[row]["transform"][2] for row in range(4)]
    assert np.all(np.diff(shifts) < 0)  # the face moves to the right


def test_pictures_numbered_from_1_get_no_labels_of_the_frame_before(tmp_path):
    """ffmpeg numbers pictures so, DISFA's labels are of frames from 0."""
    subject = raw_trees.DisfaSubject("SN001", np.zeros((3, 12), int))
    raw_trees.write_cropped_disfa(tmp_path / "raw", [subject], size=32)
    place = tmp_path / "raw/img/SN001"
    for number in (2, 1, 0):
        (place / f"{number}.png").rename(place / f"{number + 1}.png")
    found = disfa.find(tmp_path / "raw", tmp_path / "raw")
    with pytest.raises(InputError, match=r"SN001: .* 0 to 2, .* end in 1 to 3 \(1\.png\)"):
        prepare.prepare(tmp_path / "set", found, facs.DISFA, AS_IT_IS, source="disfa")
    assert not (tmp_path / "set.parts").exists()


def _prepare_own(tmp_path, *plan):
    if plan:
        raw_trees.write_folder(tmp_path / "own", plan)
    found, layout = folder.find(tmp_path / "own")
    settings = parts.Settings(crop="center", size=32)
    options = {"source": "own", "processes": 1, "progress": False}
    return prepare.prepare(tmp_path / "set", found, layout, settings, **options)


def _own(name, **changes):
    return raw_trees.OwnVideo(f"clips/{name}", [[0], [1]], aus=(1,), subject=name, **changes)


def test_labels_of_frames_beyond_the_end_of_a_film_are_refused_by_name(tmp_path):
    plan = _own("anna"), _own("ben", first=71, frames=2)
    with pytest.raises(
        InputError, match="clips/ben: labels are of the frames 71 to 72, but there are 2;"
    ):
        _prepare_own(tmp_path, *plan)


@pytest.mark.parametrize("name", ["caf\udce9", "a\n", "\x1b[2J"])
@pytest.mark.parametrize("file", ["{}.mp4", "a/{}_1.png"])
def test_names_that_records_cannot_hold_are_refused_before_the_work(
    tmp_path, name, file, monkeypatch
):
    monkeypatch.setattr(parts, "cut", pytest.fail)
    film = tmp_path / "own/anna" / file.format(name)
    film.parent.mkdir(parents=True)
    film.touch()
    table = film if film.suffix == ".mp4" else film.parent
    table.with_suffix(".csv").write_text("frame,AU01\n1,0\n")
    with pytest.raises(InputError, match="is not UTF-8, or holds a control character"):
        _prepare_own(tmp_path)


def test_a_name_with_the_blank_of_a_mac(tmp_path):
    """Its screen recordings have one before AM and PM."""
    plan = raw_trees.OwnVideo("anna/9.41\u202fAM", [[0], [1]], aus=(1,))
    assert "2 frames of 1 people" in _prepare_own(tmp_path, plan)


@pytest.mark.slow
def test_people_may_be_called_as_splits_are(tmp_path):
    names = ["01", "1e5", "_a_", "test", "train", "validation"]
    assert f"of {len(names)} people" in _prepare_own(tmp_path, *map(_own, names))
    source = records.open_dataset(tmp_path / "set")
    assert sorted(source.table.subjects) == names
    assert [source.record(row)["subject"].decode() for row in range(12)] == [
        name for name in names for _ in range(2)
    ]


@pytest.mark.parametrize(
    "names",
    [["all"], ["ALL"], ["_"], ["Anna", "anna"], ["a" * 101], ["01", "1"], ["P_7a", "p_007a"]],
)
def test_names_that_cannot_be_kept_apart_are_refused_before_the_work(tmp_path, names, monkeypatch):
    monkeypatch.setattr(parts, "cut", pytest.fail)
    with pytest.raises(InputError, match=f"subjects? '?{names[0][:99]}"):
        _prepare_own(tmp_path, *map(_own, names))
