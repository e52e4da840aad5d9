# SPDX-License-Identifier: Apache-2.0
import contextlib
import dataclasses
import hashlib
import io
import json
import os
import resource
import shutil
import sys
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from mdhr_jax import errors, facs
from mdhr_jax.data import records
from mdhr_jax.data.builders import frames


@pytest.fixture
def copy(source, tmp_path):
    return shutil.copytree(source.path, tmp_path / "copy")


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


def test_missing_directory_is_refused(tmp_path):
    refused(tmp_path / "nothing", "no such directory")


def test_directory_without_a_data_set_is_refused(tmp_path):
    refused(tmp_path, "no data set prepared by mdhr")


def test_foreign_metadata_is_refused(copy):
    (copy / "metadata.json").write_text('{"name": "mnist"}')
    refused(copy, "not ours")


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": -5},
        {"image_size": 10**9},
        {"image_size": "16"},
        {"image_format": "gif"},
        {"image_format": []},
        {"layout": 7},
        {"aus": "x"},
        {"aus": 5},
        {"folds": 5},
        {"folds": [5]},
        {"folds": [["\x1b[2J"]]},
        {"fps": 0},
        {"fps": float("nan")},
        {"crop": "\x1b[2J"},
        {"seed": None},
    ],
)
def test_metadata_of_another_kind_are_refused(copy, changes):
    change_metadata(copy, **changes)
    refused(copy, "metadata.json is missing or not ours")


@pytest.mark.parametrize("data", ["[" * 100_000, "5", "[1]", "null"])
def test_json_that_says_something_else_is_refused(copy, data):
    (copy / "pictures.json").write_text(data)
    change_metadata(copy, pictures_sha256=hashlib.sha256(data.encode()).hexdigest())
    with pytest.raises(errors.InputError, match=r"pictures\.json: missing or damaged"):
        frames.read_digests(copy, frames.read_metadata(copy))
    (copy / "metadata.json").write_text(data)
    refused(copy, "metadata.json is missing or not ours")


@pytest.mark.parametrize("name", ["image", "subject", "video", "frame", "labels"])
def test_records_without_a_feature_of_all_are_refused(copy, name):
    file = copy / "features.json"
    said = json.loads(file.read_text())
    features = said["featuresDict"]["features"]
    features[name] = features["frame" if name == "labels" else "labels"]
    file.write_text(json.dumps(said))
    refused(copy, "damaged", name)
    del features[name]
    file.write_text(json.dumps(said))
    refused(copy, "damaged", name)


def test_records_of_another_shape_are_refused(copy):
    file = copy / "features.json"
    said = json.loads(file.read_text())
    said["featuresDict"]["features"]["labels"]["tensor"]["shape"] = {"dimensions": ["5"]}
    file.write_text(json.dumps(said))
    refused(copy, "record", "cannot be read", "labels")


def test_a_record_that_is_no_example_is_refused(source):
    class Garbage(list):
        data_source = (b"\xff",) * 30

    images = frames._Images(Garbage())
    with pytest.raises(errors.InputError, match="record 3 .*: cannot be read"):
        dataclasses.replace(source, images=images).record(3)


def test_damaged_index_is_refused(copy):
    with (copy / "index.npz").open("r+b") as file:
        file.seek(500)
        file.write(b"damage")
    refused(copy, "index.npz", "damaged")


def test_the_index_of_another_set_is_refused(copy):
    """Even where its checksum is right: people have another number of frames."""
    with np.load(copy / "index.npz") as arrays:
        shorter = {
            name: array[:-1] if name not in ("videos", "subjects") else array
            for name, array in arrays.items()
        }
    np.savez(copy / "index.npz", **shorter)
    digest = hashlib.sha256((copy / "index.npz").read_bytes()).hexdigest()
    change_metadata(copy, index_sha256=digest)
    refused(copy, "records and index.npz do not belong together")


def test_the_index_of_an_earlier_version_is_refused(copy):
    with np.load(copy / "index.npz") as arrays:
        earlier = {name: array for name, array in arrays.items() if name != "breaks"}
    np.savez(copy / "index.npz", **earlier)
    digest = hashlib.sha256((copy / "index.npz").read_bytes()).hexdigest()
    change_metadata(copy, index_sha256=digest)
    refused(
        copy, "index.npz: has no breaks, an earlier version made it; prepare the data set again"
    )


def _npz(**changes):
    arrays = {
        "videos": np.array(["a"]),
        "subjects": np.array(["a"]),
        "video": np.zeros(2, int),
        "number": np.arange(2),
        "labels": np.zeros((2, 8), np.int8),
        "breaks": np.zeros(2, bool),
    }
    data = io.BytesIO()
    np.savez(data, **arrays | changes)
    return data.getvalue()


def _huge():
    """A table whose first column claims 2^62 numbers that are not there."""
    header = io.BytesIO()
    description = {"descr": "<i8", "fortran_order": False, "shape": (2**62,)}
    np.lib.format.write_array_header_2_0(header, description)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("videos.npy", header.getvalue())
    return data.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        _huge(),
        _npz()[:-40],
        _npz(number=np.array([{}, {}], object)),
        _npz(number=np.arange(3)),
        _npz(video=np.array([1, 0])),
        _npz(video=np.array([0, 1])),
        _npz(labels=np.zeros((2, 8), np.float32)),
        _npz(videos=np.array([[["a"]]])),
        _npz(labels=np.zeros((2, 5), np.int8)),
        _npz(labels=np.full((2, 8), 7, np.int8)),
        _npz(place=np.array([1, 0])),
        _npz(place=np.array([0, 0])),
        _npz(number=np.array([1, 0])),
        _npz(videos=np.array(["\x1b[2J"])),
        _npz(subjects=np.array(["../../../a"])),  # names a file of `check-data`
        _npz(subjects=np.array(["a\n"])),
        _npz(subjects=np.array([""])),
        _npz(subjects=np.array(["a" * 101])),
    ],
)
def test_an_index_that_is_no_table_is_refused_even_where_its_checksum_is_right(copy, data):
    (copy / "index.npz").write_bytes(data)
    change_metadata(copy, index_sha256=hashlib.sha256(data).hexdigest())
    refused(copy, "index.npz", "prepare the data set again")


def test_damaged_description_is_refused(copy):
    (copy / "dataset_info.json").write_text('{"name":')
    refused(copy, "damaged")


FEATURES = "tensorflow_datasets.core.features"
TENSOR = {"shape": {}, "dtype": "int32"}
NAMED = {"pythonClassName": "planted.Any", "tensor": TENSOR}


def _within(kind, **entry):
    return {"pythonClassName": f"{FEATURES}.{kind}", **entry}


def _dict_of(**features):
    return _within("features_dict.FeaturesDict", featuresDict={"features": features})


@pytest.mark.parametrize(
    "features",
    [
        NAMED,
        {"type": "planted.Any", "content": {}},
        _dict_of(frame=NAMED),
        _dict_of(frame={"python_class_name": "planted.Any", "tensor": TENSOR}),
        _dict_of(frame={"type": "planted.Any", "content": {}}),
        _dict_of(frame=_dict_of(inner=NAMED)),
        _dict_of(frame=_within("sequence_feature.Sequence", sequence={"feature": NAMED})),
        _dict_of(frame=_within("dataset_feature.Dataset", dataset={"feature": NAMED})),
        _dict_of(frame=_within("tensor_feature.Tensor", jsonFeature={"json": "{}"})),
        _dict_of() | {"python_class_name": "planted.Any"},
        _dict_of() | {"type": "planted.Any", "content": {}},
        _within(
            "features_dict.FeaturesDict",
            jsonFeature={"json": '{"frame": {"type": "planted.Any", "content": {}}}'},
        ),
        [NAMED],
    ],
)
def test_a_module_that_a_set_names_is_not_imported(copy, monkeypatch, features):
    (copy / "planted.py").write_text("import pathlib\npathlib.Path('CANARY').touch()\n")
    monkeypatch.syspath_prepend(str(copy))
    monkeypatch.chdir(copy)
    file = copy / "features.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps(features))
    refused(copy, "damaged")
    assert not (copy / "CANARY").exists() and "planted" not in sys.modules

    said["featuresDict"]["features"]["more"] = features
    file.write_text(json.dumps(said))
    refused(copy, "damaged")
    assert not (copy / "CANARY").exists() and "planted" not in sys.modules


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


def test_a_record_of_huge_dimensions_is_refused_by_its_header(source):
    data = io.BytesIO()
    Image.new("1", (16, 16)).save(data, "png")
    sides = (14000).to_bytes(4, "big") * 2
    header = b"IHDR" + sides + data.getvalue()[24:29]
    bomb = data.getvalue()[:12] + header + zlib.crc32(header).to_bytes(4, "big")
    metadata = dataclasses.replace(source.metadata, image_format="png")
    images = [bomb + data.getvalue()[33:]] * 30
    broken = dataclasses.replace(source, images=images, metadata=metadata)
    with pytest.raises(errors.InputError, match="record 8 .*does not decode as png"):
        broken.pictures(np.array([8]))


def test_picture_of_another_size_is_refused(source):
    for size in (8, 32):
        metadata = dataclasses.replace(source.metadata, image_size=size)
        with pytest.raises(
            errors.InputError,
            match=rf"decode .*it is .16, 16, 3., the data set says .{size}, {size}, 3",
        ):
            dataclasses.replace(source, metadata=metadata).pictures(np.array([0]))


@pytest.mark.parametrize("image_format", ["jpeg", "png"])
def test_pictures_keep_the_bits_of_the_plain_decoder(source, image_format):
    codec = frames.CODECS[image_format]
    noise = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), np.uint8)
    metadata = dataclasses.replace(source.metadata, image_format=image_format)
    images = [codec.encode(picture, 80) for picture in noise]
    found = dataclasses.replace(source, images=images, metadata=metadata)
    rows = np.arange(30)[::-1].reshape(2, 3, 5)
    pictures = found.pictures(rows)
    assert pictures.shape == (2, 3, 5, 16, 16, 3)
    for row, picture in zip(rows.ravel(), pictures.reshape(-1, 16, 16, 3), strict=True):
        np.testing.assert_array_equal(picture, codec.decode(images[row]))


def test_the_image_of_a_record_is_the_one_among_all_that_is_stored(source):
    for row in (0, 29):
        assert source.image(row) == source.records[row]["image"]
