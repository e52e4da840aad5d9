# SPDX-License-Identifier: Apache-2.0
"""Every way in which a data set can be wrong is found, and a good one passes."""

import functools
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mdhr_jax import check_data, cli, facs
from mdhr_jax.data import clips, codecs, decoded, records
from mdhr_jax.data.builders import bp4d, frames, parts, prepare
from mdhr_jax.errors import InputError
from tests.data import raw_trees

SQUARES = functools.partial(raw_trees.blobs, size=(64, 64))
NAMES = ("F001/T1", "F003/T1", "M003/T5")


def _raw(root, paint=SQUARES, names=NAMES, **changes):
    rng = np.random.default_rng(0)
    plan = [
        raw_trees.Bp4dVideo(
            *name.split("/"), first=1, labels=rng.integers(0, 2, (8, 12)), **changes
        )
        for name in names
    ]
    raw_trees.write_bp4d(root, plan, paint=paint)
    return root


def _prepared(raw, out):
    settings = parts.Settings(crop="none", size=64)
    found = bp4d.find(raw, raw)
    prepare.prepare(out, found, facs.BP4D, settings, source="bp4d", processes=1, progress=False)
    return out


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return _raw(tmp_path_factory.mktemp("raw") / "bp4d")


@pytest.fixture(scope="module")
def good_set(raw, tmp_path_factory):
    return _prepared(raw, tmp_path_factory.mktemp("set") / "bp4d")


def _check(path, tmp_path, **options):
    return check_data.check(path, tmp_path / "check", progress=False, **options)


def test_a_good_set_passes_and_is_shown(good_set, raw, tmp_path):
    report, good = _check(good_set, tmp_path, sources=[raw])
    assert good
    assert "No problem was found." in report
    assert "24 frames of 3 people in 3 videos" in report
    assert (tmp_path / "check/report.md").read_text() == report
    with Image.open(tmp_path / "check/sheets/F003.png") as sheet:
        assert sheet.width == 8 * 128
        assert np.asarray(sheet.convert("L")).std() > 20


def test_labels_are_counted(good_set, tmp_path):
    report, _ = _check(good_set, tmp_path)
    with np.load(good_set / "index.npz") as index:
        labels = index["labels"]
    active, inactive = (np.count_nonzero(labels[:, 0] == value) for value in (1, 0))
    (line,) = (line for line in report.splitlines() if line.startswith("| AU01"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["AU01", str(active), str(inactive), "0", f"{active / 24:.3f}"]


def test_left_out_frames_are_listed(tmp_path):
    raw = _raw(tmp_path / "raw", missing=frozenset({2, 3, 4, 7}))
    report, good = _check(_prepared(raw, tmp_path / "set"), tmp_path)
    assert good
    assert "12 labelled frames without a readable picture" in report
    assert "- F001/T1: missing 2-4 7" in report


def test_changed_and_missing_sources(good_set, raw, tmp_path):
    copy = tmp_path / "raw"
    shutil.copytree(raw, copy)
    changed, gone = (copy / f"Sequences(2D+3D)/F001/T1/{n}.jpg" for n in (3, 4))
    data = bytearray(changed.read_bytes())
    data[len(data) // 2] ^= 1
    changed.write_bytes(data)
    gone.unlink()
    with (copy / "AUCoding/AU_OCC/F001_T1.csv").open("a") as labels:
        labels.write("\n")
    report, good = _check(good_set, tmp_path, sources=[copy])
    assert not good
    assert "F001/T1/3.jpg: has changed" in report
    assert "F001/T1/4.jpg: is not in" in report
    assert "AU_OCC/F001_T1.csv: has changed" in report
    assert "Problems (3)" in report


def test_frames_that_a_camera_repeated_are_counted(tmp_path):
    def stuttering(subject, video, count):
        for place, picture in enumerate(SQUARES(subject, video, count)):
            if place not in (3, 4):
                last = picture
            yield last

    report, good = _check(
        _prepared(_raw(tmp_path / "raw", paint=stuttering), tmp_path / "set"), tmp_path
    )
    assert good
    assert "6 pictures equal the one before" in report  # two in each of three videos


def test_a_picture_under_two_people(tmp_path):
    def everybody_alike(subject, video, count):
        return SQUARES("F001", "T1", count)

    raw = _raw(tmp_path / "raw", paint=everybody_alike)
    report, good = _check(_prepared(raw, tmp_path / "set"), tmp_path)
    assert not good
    assert "- M003/T5: 8 of its pictures stand under F001, too" in report


def test_a_picture_in_two_videos(tmp_path):
    def always_alike(subject, video, count):
        return SQUARES(subject, "T1", count)

    raw = _raw(tmp_path / "raw", paint=always_alike, names=("F001/T1", "F001/T2", "F003/T1"))
    report, good = _check(_prepared(raw, tmp_path / "set"), tmp_path)
    assert not good
    assert "- F001/T2: 8 of its pictures stand in F001/T1, too" in report


def test_a_damaged_picture(good_set, tmp_path):
    copy = tmp_path / "set"
    shutil.copytree(good_set, copy)
    (shard,) = copy.glob("*F001*")
    data = shard.read_bytes()
    start = data.index(b"\xff\xd8\xff")
    shard.write_bytes(data[: start + 200] + bytes(300) + data[start + 500 :])
    report, good = _check(copy, tmp_path)
    assert not good
    assert "record 0 (video F001/T1, frame 1)" in report


def test_a_flipped_bit_among_the_decoded_pictures(good_set, tmp_path):
    copy = tmp_path / "set"
    shutil.copytree(good_set, copy)
    pictures = decoded.pictures(records.open_dataset(copy), progress=False)
    assert _check(copy, tmp_path)[1]
    with (copy / "decoded.npy").open("r+b") as file:
        file.seek(pictures.offset + 17 * pictures[0].nbytes + 4711)
        (value,) = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([value ^ 1]))
    report, good = _check(copy, tmp_path)
    assert not good
    assert "Problems (1)" in report
    assert "record 17: decoded.npy shows another picture; delete that file" in report


def test_an_au_that_never_occurs(tmp_path):
    raw = _raw(tmp_path / "raw")
    for file in (raw / "AUCoding/AU_OCC").iterdir():
        header, *rows = (line.split(",") for line in file.read_text().splitlines())
        column = header.index("12")
        silent = [[*row[:column], "0", *row[column + 1 :]] for row in rows]
        file.write_text("\n".join(",".join(row) for row in [header, *silent]))
    report, good = _check(_prepared(raw, tmp_path / "set"), tmp_path)
    assert not good
    assert "fold 1: AU12 never occurs in the training labels" in report


def test_counts_that_are_not_the_known_ones(tmp_path, plain_disfa):
    report, good = _check(plain_disfa, tmp_path)
    assert not good
    assert "fold 1: 18 test frames, the official lists have 43605" in report


@pytest.fixture
def plain_disfa(tmp_path):
    """All 27 people of DISFA with two frames each."""

    class Plain(frames.FrameBuilder, skip_registration=True):
        VERSION = "1.0.0"

        def examples(self, recording):
            for number in recording.number:
                grey = np.full((16, 16, 3), number, np.uint8)
                grey[0, :8, 0] = np.frombuffer(recording.name.encode().ljust(8), np.uint8)
                yield {"image": codecs.CODECS["png"].encode(grey, 0)}

    rng = np.random.default_rng(0)
    people = sorted(subject for fold in facs.DISFA.folds for subject in fold)
    videos = [
        clips.Video(name, name, np.arange(2), rng.integers(0, 2, (2, 8)).astype(np.int8))
        for name in people
    ]
    table = clips.FrameTable.from_videos(videos)
    metadata = frames.describe(
        table,
        facs.DISFA,
        facs.DISFA.folds,
        builder="plain 1.0.0",
        source="grey",
        seed=0,
        fps=20.0,
        image_size=16,
        image_format="png",
    )
    frames.write(Plain, tmp_path / "disfa", table, metadata, progress=False)
    return tmp_path / "disfa"


def test_the_command_says_it_with_its_exit_code(good_set, raw, tmp_path, capsys):
    out = tmp_path / "check"
    assert cli.main(["check-data", str(good_set), "--out", str(out), "--sources", str(raw)]) == 0
    assert "No problem" in capsys.readouterr().out
    assert cli.main(["check-data", str(good_set), "--out", str(out), "--sources", str(out)]) == 1
    assert cli.main(["check-data", str(tmp_path / "none"), "--out", str(out)]) == 2


def test_a_set_without_a_manifest_cannot_be_compared(good_set, raw, tmp_path, capsys):
    copy = tmp_path / "set"
    shutil.copytree(good_set, copy)
    (copy / "sources.json").unlink()
    out = tmp_path / "check"
    assert cli.main(["check-data", str(copy), "--out", str(out), "--sources", str(raw)]) == 2
    assert "made by `mdhr prepare`" in capsys.readouterr().err


VIDEO = {"kept": 8, "missing": [], "lost": [], "breaks": [], "several": [], "unreadable": []}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("report.json", {"notes": [], "videos": 5}),
        ("report.json", {"notes": None, "videos": {}}),
        ("report.json", {"notes": [], "videos": {"a": {}}}),
        ("report.json", {"notes": [], "videos": {"a": VIDEO | {"unread": None}}}),
        ("report.json", {"notes": [], "videos": {"a": VIDEO | {"unread": 0, "lost": ["1"]}}}),
        ("report.json", {"notes": [], "videos": {"a": VIDEO | {"unread": 0, "breaks": None}}}),
        ("report.json", []),
        ("sources.json", {"a": 5}),
        ("sources.json", {"a": [1]}),
    ],
)
def test_what_no_preparation_writes_is_refused(good_set, raw, tmp_path, name, said):
    copy = shutil.copytree(good_set, tmp_path / "set")
    (copy / name).write_text(json.dumps(said))
    with pytest.raises(InputError, match=f"{name}: cannot be read"):
        _check(copy, tmp_path, sources=[raw])


def test_the_report_changes_no_terminal(good_set, raw, tmp_path):
    copy = shutil.copytree(good_set, tmp_path / "set")
    (copy / "sources.json").write_text(json.dumps({"\x1b[2J": [1, "0"], "caf\udce9.csv": [1, "0"]}))
    report, good = _check(copy, tmp_path, sources=[raw])
    assert not good
    assert "- ?[2J: is not in" in report and "- caf?.csv: is not in" in report


def test_the_manifest_holds_no_place_of_this_machine(good_set, raw):
    for file in ("sources.json", "report.json", "metadata.json"):
        assert str(raw) not in (good_set / file).read_text()
    assert json.loads((good_set / "sources.json").read_text())
