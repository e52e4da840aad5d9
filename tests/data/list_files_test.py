# SPDX-License-Identifier: Apache-2.0
import re

import numpy as np
import pytest

from mdhr_jax import errors, facs
from mdhr_jax.data import list_files, lists
from mdhr_jax.data.builders import listed

PATHS = ["SN003/0.png", "SN003/1.png", "SN004/12.png"]
LABELS = np.eye(3, len(facs.DISFA.aus), dtype=int) + np.eye(3, len(facs.DISFA.aus), 2, dtype=int)
RELATIONS = "DISFA_train_AU_relation_fold1.txt"


@pytest.fixture
def folder(tmp_path, write_lists):
    write_lists(tmp_path, facs.DISFA, 1, "train", PATHS, LABELS, release="ME-GraphAU")
    return tmp_path / "DISFA/list"


def read(root):
    return lists.read_fold(root, facs.DISFA, 1, "train")


def refused(root, message):
    with pytest.raises(errors.InputError, match=message) as caught:
        read(root)
    assert "\n" not in str(caught.value)


def test_the_releases_differ_in_the_names_of_files_and_of_disfa_s_frames(folder, write_lists):
    assert {file.name for file in folder.iterdir()} == {
        *("DISFA_train_img_path_fold1.txt", "DISFA_train_label_fold1.txt", RELATIONS)
    }
    assert (folder / RELATIONS).read_text().split("\n")[0] == "3 2 3" + " 2" * 5 + " 1 0 1" + (
        " 0" * 5
    ) + " 3 2 3" + " 2" * 5 + (" 1 0 1" + " 0" * 5) * 5
    other = folder.parents[1] / "other"
    paths = list_files.frame_names(PATHS, "MDHR")
    assert paths == ["SN003/SN003_0.png", "SN003/SN003_1.png", "SN004/SN004_12.png"]
    assert list_files.frame_names(paths, "ME-GraphAU") == PATHS
    write_lists(other, facs.DISFA, 1, "train", paths, LABELS)
    ours, theirs = read(folder.parents[1]), read(other)
    assert ours.paths == tuple(PATHS) and theirs.paths == tuple(paths)
    np.testing.assert_array_equal(ours.frames.labels, theirs.frames.labels)
    np.testing.assert_array_equal(ours.regions, theirs.regions)
    assert ours.frames.videos == theirs.frames.videos == ("SN003", "SN004")


def test_frames_of_bp4d_have_one_name_in_all_releases():
    for release in list_files.NAMES:
        assert list_files.frame_names(["F001/T1/2440.jpg"], release) == ["F001/T1/2440.jpg"]


def test_whose_lists_they_are_is_told_from_the_files(folder, tmp_path, write_lists):
    for root in (tmp_path, folder.parent, folder):
        found = list_files.find(root, facs.DISFA)
        assert (found.path, found.release) == (folder, "ME-GraphAU")
        assert list_files.find_folds(root, facs.DISFA) == (1,)
        assert list_files.find_folds(root, facs.BP4D) == ()
    write_lists(tmp_path, facs.BP4D, 2, "test", ["F001/T1/1.jpg"], np.zeros((1, 12), int))
    assert list_files.find(tmp_path, facs.BP4D).release == "MDHR"
    assert list_files.find(tmp_path / "BP4D_dataset", facs.BP4D).release == "MDHR"


def test_two_releases_at_once_are_refused(folder, tmp_path, write_lists):
    write_lists(tmp_path, facs.DISFA, 1, "train", PATHS, LABELS)
    refused(tmp_path, "holds disfa lists twice, in .*DISFA/list and in .*DISFA_dataset; name one")
    assert read(folder).paths == tuple(PATHS)


def test_a_kind_of_list_that_the_release_has_not_is_refused(folder):
    found = list_files.find(folder, facs.DISFA)
    with pytest.raises(errors.InputError, match="lists of ME-GraphAU, which has no region lists"):
        found.file("region", 1, "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("3 2 3", "3 0 3"),
            "1: the relation of AU01 and AU02 is 0, .*_label_fold1.txt makes it 2",
        ),
        (("3 2 3", "3 4 3"), "1: '3 4 3.* are not the 64 relations of AUs"),
        (("3 2 3", "2 3"), "1: '2 3.* are not the 64 relations of AUs"),
        (("\n", "\n\n"), "2: '' are not the 64 relations"),
    ],
)
def test_relations_that_contradict_the_labels_are_refused(folder, change, message):
    file = folder / RELATIONS
    file.write_text(file.read_text().replace(*change, 1))
    refused(folder, f"^{re.escape(str(file))}, line {message}")


def test_relations_of_another_length_are_refused_and_may_be_absent(folder):
    file = folder / RELATIONS
    file.write_text("\n".join(file.read_text().splitlines()[:2]))
    refused(folder, "line 3: this file has 2 lines, DISFA_train_label_fold1.txt has 3")
    file.unlink()
    assert len(read(folder).paths) == 3


def test_an_unknown_label_excuses_its_relations(folder):
    file = folder / "DISFA_train_label_fold1.txt"
    file.write_text(file.read_text().replace("1", "-1", 1))
    np.testing.assert_array_equal(read(folder).frames.labels[0], [-1, 0, 1, 0, 0, 0, 0, 0])
    file.write_text(file.read_text().replace("0", "1", 1))
    refused(folder, "line 1: the relation of AU02 and AU02 is 0, .* makes it 3")


def test_cut_pictures_are_found_by_me_graphau_s_lists(tmp_path, write_lists):
    for fold, subject in enumerate(("SN003", "SN006", "SN001"), start=1):
        paths = [f"{subject}/{number}.png" for number in (0, 1)]
        labels = LABELS[:2]
        write_lists(tmp_path, facs.DISFA, fold, "test", paths, labels, release="ME-GraphAU")
        (tmp_path / "DISFA/img" / subject).mkdir(parents=True)
        (tmp_path / "DISFA/img" / paths[1]).touch()
    found = listed.find(tmp_path, tmp_path / "DISFA", facs.DISFA)
    assert [recording.subject for recording in found.recordings] == ["SN001", "SN003", "SN006"]
    for recording in found.recordings:
        file = tmp_path / "DISFA/img" / recording.subject / "1.png"
        assert recording.source.files == (file,)
