# SPDX-License-Identifier: Apache-2.0
import contextlib
import dataclasses
import json
import os
import resource

import numpy as np
import pytest

from mdhr_jax import errors, facs
from mdhr_jax.data import records, stored


def change_metadata(path, **changes):
    file = path / "metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refused(path, *words):
    with pytest.raises(errors.InputError) as caught:
        records.open_dataset(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    for word in words:
        assert word in message


def test_opening_finds_what_was_built(source, copy):
    again = records.open_dataset(copy)
    assert again.layout is facs.DISFA
    assert again.folds == source.folds
    np.testing.assert_array_equal(again.table.labels, source.table.labels)
    rows = np.array([20, 3, 3])
    np.testing.assert_array_equal(again.pictures(rows), source.pictures(rows))
    assert again.record(3)["image"] == source.record(3)["image"]


def test_rows_of_a_split_are_its_subjects_frames_in_order(source):
    np.testing.assert_array_equal(source.rows(3, "test"), np.arange(16))
    np.testing.assert_array_equal(source.rows(3, "train"), np.arange(16, 30))


@pytest.fixture
def at_the_limit():
    """A limit of 256 open files, of which two are left."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    with contextlib.ExitStack() as held:
        while held.enter_context(open(os.devnull)).fileno() < 255 - 2:
            pass
        yield
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_there_may_be_more_people_than_open_files(source, at_the_limit):
    again = records.open_dataset(source.path)
    assert len(set(again.table.subjects)) == 4
    assert again.pictures(np.arange(30)).shape == (30, 16, 16, 3)


def test_more_people_than_the_system_has_files_for_are_refused(source, at_the_limit, monkeypatch):
    monkeypatch.setattr(resource, "setrlimit", _raising_value_error)
    with pytest.raises(errors.InputError, match="Too many open files.* person: .* `ulimit -n`"):
        records.open_dataset(source.path)


def _raising_value_error(*limits):
    raise ValueError("not allowed to raise maximum limit")


def test_records_of_another_shape_are_refused(copy):
    file = copy / "features.json"
    said = json.loads(file.read_text())
    said["featuresDict"]["features"]["labels"]["tensor"]["shape"] = {"dimensions": ["5"]}
    file.write_text(json.dumps(said))
    refused(copy, "record", "cannot be read", "labels")


def test_a_record_that_is_no_example_is_refused(source):
    class Garbage(list):
        data_source = (b"\xff",) * 30

    images = stored._Images(Garbage())
    with pytest.raises(errors.InputError, match="record 3 .*: cannot be read"):
        dataclasses.replace(source, images=images).record(3)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b""])
def test_cut_off_records_are_refused_when_opened(copy, damage):
    file = next(copy.glob("*SN003*"))
    file.write_bytes(damage(file.read_bytes()))
    refused(copy, "video SN003, frame 4", "cannot be read")


def test_missing_records_are_refused_when_opened(copy):
    next(copy.glob("*SN003*")).unlink()
    refused(copy, "video SN003", "cannot be read")


def test_subject_in_two_folds_is_refused_by_name(copy):
    change_metadata(copy, folds=[["SN001"], ["SN001"], []])
    with pytest.raises(errors.InputError, match="subject SN001 appears more than once"):
        records.open_dataset(copy)


def test_other_aus_under_a_known_name_are_refused(copy):
    change_metadata(copy, aus=[1, 2, 4, 6, 9, 12, 25, 27])
    refused(copy, "'disfa'", "27]", "26]")


def test_aus_of_one_side_are_read(copy):
    aus = [1, 2, 4, 6, 9, 12, 25, "L12"]
    change_metadata(copy, layout=facs.own_name(aus), aus=aus)
    assert list(records.open_dataset(copy).layout.aus) == aus
    change_metadata(copy, aus=[*aus[:-1], "left 12"])
    refused(copy, "not ours")


def test_aus_in_another_order_are_refused(copy):
    change_metadata(copy, aus=[2, 1, 4, 6, 9, 12, 25, 26])
    refused(copy, "'disfa'", "[2, 1, 4")


def test_unknown_layout_is_refused(copy):
    change_metadata(copy, layout="mine")
    refused(copy, "'mine'", "'mine' is unknown")


@pytest.mark.parametrize("image_format", ["jpeg", "png"])
def test_picture_that_does_not_decode_is_refused_with_its_place(source, image_format):
    metadata = dataclasses.replace(source.metadata, image_format=image_format)
    for data in (b"not a picture", source.record(8)["image"][:-40]):
        broken = dataclasses.replace(source, images=[data] * 30, metadata=metadata)
        with pytest.raises(
            errors.InputError,
            match=f"record 8 .video SN001, frame 10.*does not decode as {image_format}",
        ):
            broken.pictures(np.array([8]))


def test_picture_of_another_size_is_refused(source):
    for size in (8, 32):
        metadata = dataclasses.replace(source.metadata, image_size=size)
        with pytest.raises(
            errors.InputError,
            match=rf"decode .*it is .16, 16, 3., the data set says .{size}, {size}, 3",
        ):
            dataclasses.replace(source, metadata=metadata).pictures(np.array([0]))


def test_the_image_of_a_record_is_the_one_among_all_that_is_stored(source):
    for row in (0, 29):
        assert source.image(row) == source.records[row]["image"]
