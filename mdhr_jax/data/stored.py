# SPDX-License-Identifier: Apache-2.0
"""The form of a prepared data set on disk, and how it is read.

A directory holds one TFDS split per subject in ArrayRecord files, and one record per frame: encoded
picture, subject, video, frame number, AU vector. Beside them stand `metadata.json` (`Metadata`),
`index.npz` (`index_file`), the `FrameTable` of all records in their order, so that labels are read
without touching a picture, and `pictures.json` (`Digests`), which tells the pictures of each video
from others. `builders.frames` writes all of it.
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_generated_pb2 as tf_example

from mdhr_jax import facs
from mdhr_jax.data import clips, index_file, naming
from mdhr_jax.data.codecs import CODECS
from mdhr_jax.errors import InputError
from mdhr_jax.faces import limits

PICTURES, METADATA = "pictures.json", "metadata.json"
MOST_PIXELS = math.isqrt(limits.PIXELS)  # of a side


def _class_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__name__}"


# Classes of the features that records have, and the entry that describes a feature of each.
_FEATURES = {
    _class_name(kind): entry
    for kind, entry in (
        (tfds.features.Image, "image"),
        (tfds.features.Scalar, "tensor"),
        (tfds.features.Tensor, "tensor"),
        (tfds.features.Text, "text"),
    )
}
_NEEDED = {  # by everything that reads records
    "image": tfds.features.Image,
    "subject": tfds.features.Text,
    "video": tfds.features.Text,
    "frame": tfds.features.Scalar,
    "labels": tfds.features.Tensor,
}
_FEATURES_DICT = _class_name(tfds.features.FeaturesDict)


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a prepared data set says about itself.

    Attributes:
      builder: name and version of the builder.
      source: where labels and pictures come from, one line.
      seed: of everything random in it.
      layout: name for `facs.layout`.
      aus: the layout's.
      folds: test subjects of each fold.
      fps: frames per second of the clips.
      image_size: height and width of the square pictures, pixels.
      image_format: key of `CODECS`.
      index_sha256: of `index.npz`.
      crop: how faces were cut out of larger pictures; none, if they fill them.
      pictures_sha256: of `pictures.json`, the `Digests` of all videos; empty in earlier sets.
    """

    builder: str
    source: str
    seed: int
    layout: str
    aus: Sequence[facs.Au]
    folds: Sequence[Sequence[str]]
    fps: float
    image_size: int
    image_format: str
    index_sha256: str
    crop: str = "none"
    pictures_sha256: str = ""

    @property
    def fingerprint(self) -> str:
        """Tells data sets apart that differ in frames, labels, folds or pictures."""
        facts = {name: value for name, value in vars(self).items() if name != "source"}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


class Digests:
    """Digests of the encoded pictures of videos, made while these pass by in order."""

    def __init__(self):
        self._of_videos = collections.defaultdict(hashlib.sha256)

    def add(self, video: str, image: bytes) -> None:
        """The next picture of a video; its length tells where it ends."""
        self._of_videos[video].update(len(image).to_bytes(8, "little") + image)

    def by_video(self) -> dict[str, str]:
        """Of those so far."""
        return {video: digest.hexdigest()[:32] for video, digest in self._of_videos.items()}


class Stored(NamedTuple):
    """A prepared data set that was opened.

    Attributes:
      metadata: what it says of itself.
      table: all frames.
      records: of every row of the table what is stored, the encoded picture under `image`. Reading
        a damaged one raises RuntimeError.
      images: the encoded pictures alone, which are read much faster; empty where there is none.
    """

    metadata: Metadata
    table: clips.FrameTable
    records: Sequence
    images: Sequence


def read(path: str | pathlib.Path) -> Stored:
    """Open a prepared data set.

    Raises:
      InputError: there is no such directory, no data set in it, or it is damaged.
    """
    path = pathlib.Path(path)
    metadata = read_metadata(path)
    table = index_file.read(path / index_file.NAME, metadata.index_sha256, len(metadata.aus))
    try:
        _check_features(path)
        builder = tfds.builder_from_directory(path)
        everybody = _all_splits(list(builder.info.splits))
        records = builder.as_data_source(everybody, decoders={"image": tfds.decode.SkipDecoding()})
        lengths = [(name, split.num_examples) for name, split in builder.info.splits.items()]
    except Exception as error:  # TFDS documents no set of exceptions
        raise InputError(
            f"{path}: the data set is damaged, prepare it again ({_first_line(error)})"
        ) from error
    if lengths != list(collections.Counter(table.subjects[v] for v in table.video).items()):
        raise InputError(
            f"{path}: records and {index_file.NAME} do not belong together, prepare it again"
        )
    return Stored(metadata, table, records, _Images(records))


def _check_features(path: pathlib.Path) -> None:
    """Refuses features that no builder of ours writes: TFDS imports the module of any class.

    Raises:
      ValueError: there are some.
      KeyError: one that all records have is not there.
    """
    description = json.loads((path / "features.json").read_text())
    features = description["featuresDict"]["features"]
    unknown = [
        name
        for name, feature in features.items()
        if feature.keys() != {"pythonClassName", _FEATURES.get(feature["pythonClassName"])}
    ]
    whole = {"pythonClassName": _FEATURES_DICT, "featuresDict": {"features": features}}
    if unknown or description != whole:
        strange = ascii(unknown or description)
        raise ValueError(f"features.json holds what no builder writes: {strange}")
    for name, kind in _NEEDED.items():
        if features[name]["pythonClassName"] != _class_name(kind):
            raise ValueError(f"features.json says of {name} what no builder writes")


class _Images(Sequence):
    """The encoded pictures of records, without the rest of these."""

    def __init__(self, records: Any):
        self._examples = records.data_source  # as they were serialised

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, row: int) -> bytes:  # type: ignore[override]  # nobody takes slices
        data = self._examples[row]
        try:
            example = tf_example.Example.FromString(data)
        except Exception as error:  # of protobuf, which is a dependency of TFDS alone
            raise RuntimeError("it is no example of TFDS") from error
        return b"".join(example.features.feature["image"].bytes_list.value)


def _all_splits(names: Sequence[str]) -> tfds.core.splits.AbstractSplit:
    """All splits one after the other, added pairwise: TFDS follows a sum by recursion.

    Its own "all" adds them in a row, which ends at Python's limit of a thousand people.
    """
    if len(names) == 1:
        return tfds.core.ReadInstruction(names[0])
    middle = len(names) // 2
    return _all_splits(names[:middle]) + _all_splits(names[middle:])


def read_metadata(path: pathlib.Path) -> Metadata:
    """What the data set in a directory says of itself.

    Raises:
      InputError: there is no data set.
    """
    if not path.is_dir():
        unfinished = incomplete(path).exists()
        reason = "its preparation was interrupted" if unfinished else "no such directory"
        raise InputError(f"{path}: {reason}; prepare the data set, e.g. with `mdhr synthesize`")
    file = path / METADATA
    try:
        metadata = Metadata(**json_object(file.read_bytes()))
        _check_metadata(metadata)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: no data set prepared by mdhr in this directory ({file.name} is missing or "
            "not ours); name another directory"
        ) from error
    return metadata


def _check_metadata(facts: Metadata) -> None:
    """Raises ValueError: what a file says is of another kind, or nothing that we write."""
    texts = facts.builder, facts.source, facts.layout, facts.crop, facts.image_format
    checksums = facts.index_sha256, facts.pictures_sha256
    people = [name for fold in facts.folds for name in fold]
    is_fine = (
        all(isinstance(text, str) and naming.is_name(text) for text in (*texts, *checksums))
        and facts.image_format in CODECS
        and all(type(number) is int for number in (facts.seed, facts.image_size))
        and all(facs.is_au(au) for au in facts.aus)
        and 0 < facts.image_size <= MOST_PIXELS
        and isinstance(facts.fps, int | float)
        and 0 < facts.fps < math.inf
        and all(isinstance(name, str) and naming.is_person(name) for name in people)
    )
    if not is_fine:
        raise ValueError("not what a builder writes")


def read_digests(path: pathlib.Path, metadata: Metadata) -> dict[str, str]:
    """Digests of the pictures by video; of none in a set of an earlier version.

    Raises:
      InputError: they are missing or damaged.
    """
    if not metadata.pictures_sha256:
        return {}
    file = path / PICTURES
    data = file.read_bytes() if file.exists() else b""
    with contextlib.suppress(ValueError):
        if hashlib.sha256(data).hexdigest() == metadata.pictures_sha256:
            return {video: str(digest) for video, digest in json_object(data).items()}
    raise InputError(f"{file}: missing or damaged, prepare the data set again")


def json_object(data: bytes) -> dict[str, Any]:
    """The object in a file of JSON.

    Raises:
      ValueError: it holds none.
    """
    try:
        value = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(value, dict):
        raise ValueError(f"is a {type(value).__name__}")
    return value


def incomplete(out: pathlib.Path) -> pathlib.Path:
    """Where a data set is written that is not whole yet."""
    return out.with_name(out.name + ".incomplete")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
