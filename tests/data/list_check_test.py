# SPDX-License-Identifier: Apache-2.0
import copy
import itertools
import json
import pathlib

import numpy as np
import pytest

from mdhr_jax import cli, facs
from mdhr_jax.data import folds, list_check, list_files

LAYOUT = facs.DISFA
FOLD = 2
GRAPHAU = pathlib.Path(__file__).parents[1] / "golden/graphau"


def golden_facts(golden, layout, fold):
    """What the golden files say, by the names that the package has for it."""
    name = f"{layout.name.upper()}_fold{fold}"
    clips = json.loads((golden / "clip_index.json").read_text())[name]
    weights = json.loads((golden / "class_weights.json").read_text())[name]["file"]
    region_lists = {
        split: clips["list_files"][
            list_files.NAMES["MDHR"][layout.name].file("region", fold, split)
        ]
        for split in ("train", "test")
    }
    return {
        "counts": {
            "train videos": clips["n_train_videos"],
            "train frames": clips["train_frames_total"],
            "train starts": clips["train_start_positions"],
            "test frames": clips["val_frames_real"],
            "test clips": clips["val_clips"],
            "test padding": clips["val_frames_padded"],
        },
        "class weights": dict(zip(layout.au_names, weights, strict=True)),
        "digests": {
            "train lists": clips["train_sha256"][:16],
            "test lists": clips["val_sha256"][:16],
            "train region ids": region_lists["train"]["sha256"][:16],
            "test region ids": region_lists["test"]["sha256"][:16],
        },
    }


def test_the_numbers_in_the_package_are_the_golden_ones(golden):
    for layout in (facs.BP4D, facs.DISFA):
        expected = [golden_facts(golden, layout, fold) for fold in (1, 2, 3)]
        assert list_check.released()[layout.name] == expected


def test_the_path_digests_in_the_package_are_me_graphau_s():
    golden = json.loads((GRAPHAU / "lists.json").read_text())
    digests = list_check.path_digests()
    for layout, fold in itertools.product((facs.BP4D, facs.DISFA), (1, 2, 3)):
        ours = {release: own[layout.name][fold - 1] for release, own in digests.items()}
        name = layout.name.upper()
        for split in list_files.SPLITS:
            expected = golden["lists"][f"{name}_{split}_fold{fold}"]
            digest = ours["ME-GraphAU"][f"{split} paths"]
            assert digest == expected["sha256"][:16]
            assert (digest == ours["MDHR"][f"{split} paths"]) == expected["same_as_mdhr"]
            counts = list_check.released()[layout.name][fold - 1]["counts"]
            assert counts[f"{split} frames"] == expected["entries"]
        weights = list_check.released()[layout.name][fold - 1]["class weights"]
        assert list(weights.values()) == golden["weights"][f"{name}_fold{fold}"]


@pytest.mark.slow
def test_official_lists_give_the_golden_numbers(official_lists, golden):
    facts = list_check.read(official_lists, LAYOUT, FOLD).facts
    for group, expected in golden_facts(golden, LAYOUT, FOLD).items():
        assert {name: facts[group][name] for name in expected} == expected


@pytest.mark.slow
def test_official_lists_with_another_number_are_not_the_release_s(official_lists, monkeypatch):
    other = copy.deepcopy(list_check.released())
    other["disfa"][1]["counts"]["train frames"] += 1
    other["disfa"][1]["class weights"]["AU09"] = 1.672843
    monkeypatch.setattr(list_check, "released", lambda: other)
    assert list(list_check.read(official_lists, LAYOUT, FOLD).problems()) == [
        "disfa fold 2: counts are not the release's: train frames 87209 instead of 87210",
        "disfa fold 2: class weights are not the release's: AU09 1.672842 instead of 1.672843",
    ]


@pytest.mark.long
def test_all_six_folds_are_exact(official_lists, capsys):
    assert cli.main(["check-lists", str(official_lists)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "all six folds: exact"


@pytest.mark.long
def test_all_six_folds_are_exact_in_me_graphau_s_form(official_lists, tmp_path, capsys):
    for layout, fold in itertools.product((facs.BP4D, facs.DISFA), (1, 2, 3)):
        theirs = list_files.find(official_lists, layout)
        ours = list_files.NAMES["ME-GraphAU"][layout.name]
        folder = tmp_path / ours.folders[0]
        folder.mkdir(parents=True, exist_ok=True)
        for kind, split in itertools.product(("path", "label", "weight"), list_files.SPLITS):
            text = theirs.file(kind, fold, "train" if kind == "weight" else split).read_text()
            lines = list_files.frame_names(text.splitlines(), "ME-GraphAU")
            (folder / ours.file(kind, fold, split)).write_text("\n".join(lines) + "\n")
    assert cli.main(["check-lists", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert output.splitlines()[-1] == "all six folds: exact"
    bp4d, _, disfa = output.partition("disfa, lists of ME-GraphAU")
    assert bp4d.count("same lines") == 12 and "same frames" not in bp4d
    assert disfa.count("same frames") == disfa.count("same lines") == 6

    for file in tmp_path.glob("*/list/*_label_*"):
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:5]))
    assert cli.main(["check-lists", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    problems = output.partition("not exact:\n")[2].splitlines()
    assert [line.partition(": ")[2].partition(":")[0] for line in problems] == 6 * [
        "the label lists are examples of a few rows"
    ]
    assert "region id" not in output


def people(split):
    return folds.split_subjects(LAYOUT.folds, FOLD, split)


def frames(*subjects):
    """Two frames of each: every AU active, no AU active."""
    return [f"{subject}/{subject}_{number}.png" for subject in subjects for number in (1, 2)]


def labels(paths):
    return np.repeat([[path.endswith("_1.png")] for path in paths], len(LAYOUT.aus), 1).astype(int)


@pytest.fixture
def root(tmp_path, write_lists):
    """Consistent lists of one fold: the official people, two frames of each."""
    for split in ("train", "test"):
        paths = frames(*people(split))
        write_lists(tmp_path, LAYOUT, FOLD, split, paths, labels(paths))
    list_file(tmp_path, "weight").write_text("1.000000 " * len(LAYOUT.aus))
    return tmp_path


def list_file(root, kind, split="train"):
    return list_files.find(root, LAYOUT).file(kind, FOLD, split)


def inconsistencies(root):
    """What is reported besides that these are not the release's lists, without the fold."""
    found = list(list_check.read(root, LAYOUT, FOLD).problems())
    own = [problem for problem in found if "not the release's" not in problem]
    assert len(found) == len(own) + 3  # counts, weights, digests
    return [problem.removeprefix("disfa fold 2: ") for problem in own]


def test_label_lists_that_are_examples_leave_paths_and_weights_to_check(tmp_path, write_lists):
    """As in the repository of ME-GraphAU, which may not give the labels away."""
    for split in list_files.SPLITS:
        paths = list_files.frame_names(frames(*people(split)), "ME-GraphAU")
        write_lists(
            tmp_path, LAYOUT, FOLD, split, paths, labels(frames(*people(split))), "ME-GraphAU"
        )
        for kind in ("label", "relation"):
            file = list_file(tmp_path, kind, split)
            file.write_text("".join(file.read_text().splitlines(keepends=True)[:5]))
    list_file(tmp_path, "weight").write_text("1.000000\t" * len(LAYOUT.aus))
    fold = list_check.read(tmp_path, LAYOUT, FOLD)
    assert fold.facts["counts"]["train frames"] == 36
    examples, counts, weights, digests = fold.problems()
    assert examples.endswith("examples of a few rows: paths and weights alone are checked")
    assert "train frames 36 instead of 87209" in counts
    assert "AU01 1.0 instead of 1.390215" in weights
    assert "train paths" in digests and "lists" not in digests
    assert fold.likeness("train", "MDHR") == "other frames"


def test_consistent_lists_have_no_inconsistency(root):
    assert inconsistencies(root) == []


def test_somebody_trained_on_and_tested_is_reported(root, write_lists):
    paths = frames(*people("train"), people("test")[0])
    write_lists(root, LAYOUT, FOLD, "train", paths, labels(paths))
    assert inconsistencies(root) == [
        "SN006 is in both the train and the test list",
        "SN006 is in the train list, but not of this split",
    ]


def test_people_who_are_missing_are_reported(root, write_lists):
    paths = frames(*people("test")[2:])
    write_lists(root, LAYOUT, FOLD, "test", paths, labels(paths))
    assert inconsistencies(root) == ["SN006 and 1 more are missing from the test list"]


def test_a_wrong_class_weight_is_reported(root):
    file = list_file(root, "weight")
    file.write_text(file.read_text().replace("1.000000", "1.000002", 1))
    assert inconsistencies(root) == [
        "the weight list is not what the train labels give: AU01 1.000002 instead of 1.0"
    ]


def test_lists_of_another_size_fail_with_their_table(root, capsys):
    assert cli.main(["check-lists", str(root)]) == 1
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["bp4d:", "no", "lists", "here"] in shown
    assert "2 18 18 36 0 9 9 18 9 126 0".split() in shown
    # All AUs or none: ids 0 and 7 in the regions of three AUs, 0 and 3 in that of two.
    for row in ("0 9 9 9", "1 0 0 0", "3 0 9 0", "7 9 9"):
        assert row.split() in shown
    assert ["not", "exact:"] in shown
    (counts,) = [line for line in shown if "counts" in line]
    assert " ".join(counts).endswith("test clips 9 instead of 2727, test padding 126 instead of 27")


@pytest.mark.parametrize(
    ("kind", "change", "expected"),
    [
        ("label", lambda text: text[2:], "1: 7 labels, but the layout has 8 AUs"),
        ("label", lambda text: text[text.index("\n") + 1 :], "36: this file has 35 lines"),
        ("region", lambda text: text.replace("7", "6", 1), "1: region 'up' is 6"),
        ("path", lambda text: text.replace("/", "", 1), "1: 'SN"),
        ("weight", lambda text: text.replace("1", "x", 1), "1: could not convert string"),
    ],
)
def test_a_damaged_list_is_refused_with_file_and_line(root, kind, change, expected, capsys):
    file = list_file(root, kind)
    file.write_text(change(file.read_text()))
    assert expected in refused(root, capsys).removeprefix(f"{file}, line ")


def test_a_missing_list_is_refused_by_name(root, capsys):
    file = list_file(root, "weight")
    file.unlink()
    assert refused(root, capsys).startswith(f"{file}: cannot be read")


def test_labels_that_give_no_class_weight_are_refused(root, write_lists, capsys):
    paths = frames(*people("train"))
    write_lists(root, LAYOUT, FOLD, "train", paths, labels(paths) * (np.arange(8) != 4))
    line = refused(root, capsys)
    assert line.startswith(f"{list_file(root, 'label')}: AUs at positions [4] never occur")


def test_directories_without_lists_are_refused(tmp_path, capsys):
    assert "no such directory" in refused(tmp_path / "gone", capsys)
    assert "holds no official lists; give the directory with BP4D" in refused(tmp_path, capsys)


def refused(root, capsys):
    """The one line that wrong input leaves on stderr."""
    assert cli.main(["check-lists", str(root)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("mdhr check-lists: ")
