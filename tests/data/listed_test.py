# SPDX-License-Identifier: Apache-2.0
"""Official lists with trees of pictures already cut."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from mdhr_jax import cli, facs
from mdhr_jax.data import list_check, lists, records
from mdhr_jax.data.builders import listed
from mdhr_jax.errors import InputError
from tests.conftest import SHARED

PEOPLE = ("F004", "F003", "F001")  # one per fold


def _write_lists(root, path="{subject}/T1/{number}.jpg"):
    """The three test lists, two frames of one person each."""
    folder = root / "BP4D_dataset"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for fold, subject in enumerate(PEOPLE, start=1):
        paths = [path.format(subject=subject, number=number) for number in (7, 8)]
        labels = [" ".join(map(str, row)) for row in rng.integers(0, 2, (2, 12))]
        (folder / f"BP4D_test_img_path_fold{fold}.txt").write_text("\n".join(paths))
        (folder / f"BP4D_test_label_fold{fold}.txt").write_text("\n".join(labels))
    return root


def _picture(number):
    grey = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(grey).resize((256, 256)).save(data, "jpeg", quality=80)
    return data.getvalue()


def _write_pictures(root, numbers=(7, 8)):
    for subject in PEOPLE:
        folder = root / subject / "T1"
        folder.mkdir(parents=True)
        for number in numbers:
            (folder / f"{number}.jpg").write_bytes(_picture(number))
    return root


@pytest.mark.parametrize("beginning", ["", "img"])
def test_pictures_become_records_byte_by_byte(tmp_path, beginning, capsys):
    lists_root = _write_lists(tmp_path / "lists")
    _write_pictures(tmp_path / "tree" / beginning)
    command = ["prepare", "bp4d", "--lists", lists_root, "--cropped", tmp_path / "tree"]
    command += ["--out", tmp_path / "set", "--processes", "1"]
    assert cli.main(list(map(str, command))) == 0
    assert "6 frames of 3 people in 3 videos" in capsys.readouterr().out
    source = records.open_dataset(tmp_path / "set")
    assert source.folds == (("F004",), ("F003",), ("F001",))
    assert source.table.videos == ("F001/T1", "F003/T1", "F004/T1")
    assert [source.record(row)["image"] for row in (0, 1)] == [_picture(7), _picture(8)]


def test_pictures_that_are_missing_leave_gaps(tmp_path):
    found = listed.find(
        _write_lists(tmp_path / "lists"), _write_pictures(tmp_path / "tree", [8]), facs.BP4D
    )
    for recording in found.recordings:
        assert recording.numbers.tolist() == [7, 8]
        frames = recording.source.frames(recording.numbers, pytest.fail)
        assert [number for _, number, _ in frames] == [8]


@pytest.mark.parametrize(
    "path",
    ["../{subject}/{number}.jpg", "{subject}/../../x/{number}.jpg", "/{subject}/{number}.jpg"],
)
def test_names_that_lead_out_of_the_tree_are_refused(tmp_path, path):
    tree = _write_pictures(tmp_path / "tree")
    with pytest.raises(InputError, match=r"path_fold1\.txt, line 1: .* is not a frame path"):
        listed.find(_write_lists(tmp_path / "lists", path), tree, facs.BP4D)


def test_links_that_lead_out_of_the_tree_are_refused(tmp_path):
    tree = _write_pictures(tmp_path / "tree")
    (tmp_path / "elsewhere").mkdir()
    (tree / "F003/T1").rename(tmp_path / "elsewhere/T1")
    (tree / "F003/T1").symlink_to(tmp_path / "elsewhere/T1")
    with pytest.raises(InputError, match="outside"):
        listed.find(_write_lists(tmp_path / "lists"), tree, facs.BP4D)


def test_a_picture_that_is_a_link_out_of_the_tree_is_refused(tmp_path):
    tree = _write_pictures(tmp_path / "tree")
    (tree / "F003/T1/8.jpg").rename(tmp_path / "8.jpg")
    (tree / "F003/T1/8.jpg").symlink_to(tmp_path / "8.jpg")
    with pytest.raises(InputError, match=r"8\.jpg: the lists name a place outside"):
        listed.find(_write_lists(tmp_path / "lists"), tree, facs.BP4D)


def test_a_tree_that_begins_elsewhere_is_refused(tmp_path):
    (tmp_path / "tree").mkdir()
    with pytest.raises(InputError, match=r"holds no folder F004, alone or in img"):
        listed.find(_write_lists(tmp_path / "lists"), tmp_path / "tree", facs.BP4D)


@pytest.mark.soak
@pytest.mark.parametrize("layout", [facs.BP4D, facs.DISFA], ids=lambda layout: layout.name)
def test_official_lists_with_a_tree_of_links_have_the_known_counts(tmp_path, layout):
    """Every listed frame is a hard link to one of a hundred pictures: counts are under test."""
    root = SHARED / "official_lists"
    if not root.exists():
        pytest.skip("needs ../shared")
    pool = [tmp_path / f"{number}.picture" for number in range(100)]
    for number, file in enumerate(pool):
        Image.fromarray(np.full((32, 32, 3), number, np.uint8)).save(
            file, "png" if layout is facs.DISFA else "jpeg"
        )
    tests, _ = lists.read_test_sets(root, layout)
    for number, path in enumerate(path for test in tests for path in test.paths):
        file = tmp_path / "tree" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        os.link(pool[number % 100], file)
    command = ["prepare", layout.name, "--lists", root, "--cropped", tmp_path / "tree"]
    command += ["--out", tmp_path / "set", "--size", "32"]
    assert cli.main(list(map(str, command))) == 0
    source = records.open_dataset(tmp_path / "set")
    expected = [fold["counts"]["test frames"] for fold in list_check.released()[layout.name]]
    assert [len(source.table.rows_of(people)) for people in source.folds] == expected
    for test, people in zip(tests, source.folds, strict=True):
        for subject in people:
            ours = source.table.labels[source.table.rows_of([subject])]
            videos = [v for v in test.frames.to_videos() if v.subject == subject]
            ordered = sorted(videos, key=lambda video: video.name)
            np.testing.assert_array_equal(ours, np.concatenate([v.labels for v in ordered]))
