# SPDX-License-Identifier: Apache-2.0
import json
import random
import re

import numpy as np
import pytest

from mdhr_jax import errors, facs
from mdhr_jax.data import list_files, lists

PATHS = ["F001/T1/7.jpg", "F001/T1/8.jpg", "F001/T2/07.jpg", "M002/T1/1.jpg"]
LABELS = np.eye(4, 12, dtype=int)


@pytest.fixture
def folder(tmp_path, write_lists):
    write_lists(tmp_path, facs.BP4D, 1, "train", PATHS, LABELS)
    return tmp_path / "BP4D_dataset"


def read(folder):
    return lists.read_fold(folder, facs.BP4D, 1, "train")


def rewrite(folder, kind, change):
    file = folder / list_files.NAMES["MDHR"]["bp4d"].file(kind, 1, "train")
    file.write_bytes(change(file.read_bytes()))
    return file


def refused(folder, file, line, *words):
    with pytest.raises(errors.InputError) as caught:
        read(folder)
    message = str(caught.value)
    assert message.startswith(f"{file}, line {line}: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_frames_of_two_level_paths(folder):
    fold = read(folder.parent)
    assert fold.paths == tuple(PATHS)
    assert fold.frames.videos == ("F001/T1", "F001/T2", "M002/T1")
    assert fold.frames.subjects == ("F001", "F001", "M002")
    np.testing.assert_array_equal(fold.frames.video, [0, 0, 1, 2])
    np.testing.assert_array_equal(fold.frames.number, [7, 8, 7, 1])
    np.testing.assert_array_equal(fold.frames.labels, LABELS)
    assert fold.frames.labels.dtype == np.int8


def test_frames_of_one_level_paths(tmp_path, write_lists):
    paths = ["SN001/SN001_0.png", "SN001/SN001_10.png", "SN010/5.png"]
    write_lists(tmp_path, facs.DISFA, 2, "test", paths, np.zeros((3, 8), int))
    frames = lists.read_fold(tmp_path, facs.DISFA, 2, "test").frames
    assert frames.videos == frames.subjects == ("SN001", "SN010")
    np.testing.assert_array_equal(frames.number, [0, 10, 5])


def test_windows_line_ends_byte_order_mark_and_missing_last_newline_are_accepted(folder):
    plain = read(folder)
    for kind in ("path", "label", "region"):
        rewrite(folder, kind, lambda data: data.replace(b"\n", b"\r\n").removesuffix(b"\r\n"))
        rewrite(folder, kind, lambda data: b"\xef\xbb\xbf" + data)
    changed = read(folder)
    assert changed.paths == plain.paths
    assert changed.frames.subjects == plain.frames.subjects
    np.testing.assert_array_equal(changed.frames.labels, plain.frames.labels)
    np.testing.assert_array_equal(changed.regions, plain.regions)


def test_unknown_labels_become_minus_one_and_excuse_their_region(folder):
    rewrite(folder, "label", lambda data: data.replace(b"1", b"9", 1).replace(b"0", b"-1", 1))
    labels = read(folder).frames.labels
    np.testing.assert_array_equal(labels[0, :3], [-1, -1, 0])


def test_region_list_may_be_absent(folder):
    expected = read(folder).regions
    (folder / "BP4D_train_sub_label_fold1.txt").unlink()
    np.testing.assert_array_equal(read(folder).regions, expected)


def test_missing_label_line_is_refused(folder):
    file = rewrite(folder, "label", lambda data: data[: data[:-1].rindex(b"\n") + 1])
    refused(folder, file, 4, "3 lines", "has 4")


def test_extra_region_line_is_refused(folder):
    file = rewrite(folder, "region", lambda data: data + b"0 0 0 0\n")
    refused(folder, file, 5, "5 lines", "has 4")


@pytest.mark.parametrize("value", [b"2", b"x", b"0.5", b"-9"])
def test_other_label_values_are_refused(folder, value):
    file = rewrite(folder, "label", lambda data: data.replace(b"1", value, 1))
    refused(folder, file, 1, repr(value.decode()), "column 1", "unknown")


def test_wrong_number_of_labels_is_refused(folder):
    file = rewrite(folder, "label", lambda data: data.replace(b"\n0 1", b"\n1", 1))
    refused(folder, file, 2, "11 labels", "12 AUs")


def test_broken_path_is_refused(folder):
    file = rewrite(folder, "path", lambda data: data.replace(b"F001/T1/8.jpg", b"8.jpg"))
    refused(folder, file, 2, "'8.jpg'")


def test_blank_line_is_refused(folder):
    file = rewrite(folder, "path", lambda data: data.replace(b"\n", b"\n\n", 1))
    refused(folder, file, 2, "not a frame path")


def test_region_that_contradicts_labels_is_refused(folder):
    file = rewrite(folder, "region", lambda data: data.replace(b"\n4 ", b"\n5 ", 1))
    refused(folder, file, 2, "'up' is 5", "makes it 4")


def test_interrupted_video_is_refused(folder):
    file = rewrite(folder, "path", lambda data: data.replace(b"M002/T1/1", b"F001/T1/9"))
    refused(folder, file, 4, "F001/T1", "interrupted")


@pytest.mark.parametrize("number", [b"7", b"6"])
def test_frames_twice_or_out_of_order_are_refused(folder, number):
    file = rewrite(
        folder, "path", lambda data: data.replace(b"T1/8.jpg", b"T1/" + number + b".jpg")
    )
    refused(folder, file, 2, f"frame {number.decode()} comes after frame 7", "once and in order")


def test_a_path_with_an_invisible_character_is_refused(folder):
    file = rewrite(folder, "path", lambda data: data.replace(b"F001/T2", b"F001/T\0", 1))
    refused(folder, file, 3, "is not a frame path")


def test_bytes_that_are_not_text_are_refused_with_their_line(folder):
    file = rewrite(folder, "path", lambda data: data.replace(b"T2", b"\xff2"))
    refused(folder, file, 3, "not text")


def test_empty_file_is_refused(folder):
    refused(folder, rewrite(folder, "label", lambda data: b""), 1, "empty")


def test_missing_file_and_directory_are_refused_by_name(folder):
    with pytest.raises(errors.InputError, match="BP4D_test_img_path_fold1.txt: cannot be read"):
        lists.read_fold(folder, facs.BP4D, 1, "test")
    with pytest.raises(errors.InputError, match="DISFA_dataset: no such directory"):
        lists.read_fold(folder.parent, facs.DISFA, 1, "test")


def test_layout_without_list_names_is_refused(folder):
    layout = facs.AuLayout("mine", (6,), (facs.Region("mid", facs.MIDDLE, (6,)),), True, 25.0)
    with pytest.raises(errors.InputError, match="'mine' has no official lists: choose one of bp4d"):
        lists.read_fold(folder, layout, 1, "test")


def test_subject_in_two_test_lists_is_refused_by_name(tmp_path, write_lists):
    for fold, paths in {1: PATHS, 2: ["F009/T1/1.jpg"], 3: PATHS[:1]}.items():
        write_lists(tmp_path, facs.BP4D, fold, "test", paths, LABELS[: len(paths)])
    with pytest.raises(errors.InputError, match="subject F001 appears more than once"):
        lists.read_test_sets(tmp_path, facs.BP4D)


@pytest.mark.parametrize(
    ("text", "line"),
    [("1 2\n", 1), ("1 " * 11 + "0", 1), ("1 " * 11 + "nan", 1), (" 1" * 12 + "\n1", 2)],
)
def test_broken_weights_are_refused(folder, text, line):
    file = folder / "BP4D_train_weight_fold1.txt"
    file.write_text(text)
    with pytest.raises(errors.InputError, match=re.escape(f"{file}, line {line}: ")):
        lists.read_weights(folder, facs.BP4D, 1)


def mutate(rng, data):
    position, length = rng.randrange(len(data) + 1), rng.randrange(4)
    noise = bytes(rng.choice(b"0129-/. \r\n\tx_F\x00\xc3\xb2\xff") for _ in range(rng.randrange(4)))
    return data[:position] + noise + data[position + length :]


@pytest.mark.slow
def test_random_mutations_are_read_or_refused_with_file_and_line(folder):
    rng = random.Random(0)
    kinds = ("path", "label", "region")
    original = {kind: rewrite(folder, kind, bytes).read_bytes() for kind in kinds}
    refusals = 0
    for _ in range(1000):
        kind = rng.choice(kinds)
        mutant = mutate(rng, original[kind])
        rewrite(folder, kind, lambda _, mutant=mutant: mutant)
        try:
            assert len(read(folder).frames) == len(read(folder).paths)
        except errors.InputError as error:
            refusals += 1
            assert re.match(
                rf"{re.escape(str(folder))}/BP4D_train_\w+\.txt, line \d+: ", str(error)
            )
            assert "\n" not in str(error)
        rewrite(folder, kind, lambda _, kind=kind: original[kind])
    assert 250 < refusals < 1000


def check_class_weights(official_lists, golden, layout, fold):
    weights = lists.read_fold(official_lists, layout, fold, "train").class_weights
    expected = json.loads((golden / "class_weights.json").read_text())
    name = f"{layout.name.upper()}_fold{fold}"
    np.testing.assert_allclose(weights, expected[name]["from_train_label"], rtol=1e-9)
    np.testing.assert_allclose(weights, lists.read_weights(official_lists, layout, fold), atol=6e-7)


def test_official_training_labels_give_the_official_weights(official_lists, golden):
    check_class_weights(official_lists, golden, facs.DISFA, 1)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [facs.BP4D, facs.DISFA], ids=lambda layout: layout.name)
@pytest.mark.parametrize("fold", [1, 2, 3])
def test_official_weights_of_every_fold(official_lists, golden, layout, fold):
    check_class_weights(official_lists, golden, layout, fold)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [facs.BP4D, facs.DISFA], ids=lambda layout: layout.name)
def test_official_lists_hold_the_folds_of_the_layout(official_lists, layout):
    _, subjects = lists.read_test_sets(official_lists, layout)
    assert [sorted(fold) for fold in subjects] == [sorted(fold) for fold in layout.folds]
