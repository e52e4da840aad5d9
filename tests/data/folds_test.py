# SPDX-License-Identifier: Apache-2.0
import pytest

from mdhr_jax import errors, facs
from mdhr_jax.data import folds


def test_official_subjects_keep_their_official_fold():
    assert folds.assign(facs.BP4D, ["F001", "M011", "F004", "M003"]) == (
        ("F004", "M003"),
        ("M011",),
        ("F001",),
    )


def test_other_subjects_are_dealt_out_evenly_whatever_their_order():
    names = [f"S{i:03d}" for i in range(1, 8)]
    dealt = folds.assign(facs.BP4D, names)
    assert dealt == folds.assign(facs.BP4D, names[::-1])
    assert sorted(len(fold) for fold in dealt) == [2, 2, 3]
    assert sorted(sum(dealt, ())) == names


def test_one_unofficial_subject_makes_an_even_split():
    assert folds.assign(facs.BP4D, ["F001", "F002", "S001"]) == (("F001",), ("F002",), ("S001",))


def test_layout_without_folds_gets_an_even_split():
    layout = facs.AuLayout("mine", (6,), (facs.Region("mid", facs.MIDDLE, (6,)),), True, 25.0)
    assert folds.assign(layout, ["b", "a"]) == (("a",), ("b",), ())


def test_training_subjects_are_the_test_subjects_of_the_other_folds():
    dealt = (("a",), ("b", "c"), ("d",))
    assert folds.split_subjects(dealt, 2, "test") == ("b", "c")
    assert folds.split_subjects(dealt, 2, "train") == ("a", "d")


@pytest.mark.parametrize("fold", [0, 4, -1])
def test_unknown_fold_is_refused(fold):
    with pytest.raises(
        errors.InputError, match=f"fold {fold} does not exist: choose one of 1 to 3"
    ):
        folds.split_subjects(facs.BP4D.folds, fold, "test")


def test_fold_without_people_is_refused():
    with pytest.raises(errors.InputError, match=r"fold 3 has no test subjects.*folds \[1, 2\]"):
        folds.split_subjects((("a",), ("b",), ()), 3, "test")


def test_subject_in_two_folds_is_refused_by_name():
    with pytest.raises(errors.InputError, match="subject b appears more than once"):
        folds.check_disjoint((("a", "b"), ("b",), ("c",)))


def test_subject_named_twice_is_refused_by_name():
    with pytest.raises(errors.InputError, match="subject S001 appears more than once"):
        folds.assign(facs.BP4D, ["S001", "S002", "S001"])


def test_official_folds_are_disjoint():
    for layout in facs.LAYOUTS.values():
        folds.check_disjoint(layout.folds)


@pytest.mark.parametrize("share", [0.2, 0.34, 0.5])
def test_held_out_people_are_a_share_of_the_training_people(share):
    people = {
        split: folds.split_subjects(facs.BP4D.folds, 2, split, share)
        for split in ("train", "held-out", "test")
    }
    together = [subject for split in people.values() for subject in split]
    assert sorted(together) == sorted(s for fold in facs.BP4D.folds for s in fold)
    learning = len(people["train"]) + len(people["held-out"])
    assert len(people["held-out"]) == round(share * learning)
    assert {subject[0] for subject in people["held-out"]} == {"F", "M"}
    assert people["train"] == tuple(
        s for s in folds.split_subjects(facs.BP4D.folds, 2, "train") if s in people["train"]
    )
