# SPDX-License-Identifier: Apache-2.0
"""What is stored of a data set, but for its index, is opened as it was written, or refused."""

import hashlib
import json
import sys

import numpy as np
import pytest

from mdhr_jax import errors
from mdhr_jax.data import stored
from tests.data.records_test import change_metadata, refused


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
        stored.read_digests(copy, stored.read_metadata(copy))
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
