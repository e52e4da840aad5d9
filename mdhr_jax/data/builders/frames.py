# SPDX-License-Identifier: Apache-2.0
"""The form of a prepared data set on disk, and the TFDS builder that every source shares.

A directory holds one TFDS split per subject in ArrayRecord files, and one record per frame: encoded
picture, subject, video, frame number, AU vector. Beside them stand `metadata.json` (`Metadata`),
`index.npz`, the `FrameTable` of all records in their order, so that labels are read without
touching a picture, and `pictures.json`, which tells the pictures of each video from others.
TensorFlow is never imported, since pictures are encoded here and not by TFDS.
"""

import abc
import collections
import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import math
import pathlib
import re
import shutil
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import simplejpeg
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image
from tensorflow_datasets.proto import tf_example_generated_pb2 as tf_example

from mdhr_jax import facs, files, locks
from mdhr_jax.data import clips, folds
from mdhr_jax.errors import InputError
from mdhr_jax.faces import limits
from mdhr_jax.progress import Bar

Picture = UInt8[np.ndarray, "h w c"]

_INDEX, _PICTURES, _METADATA = "index.npz", "pictures.json", "metadata.json"


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
_MOST_PIXELS = math.isqrt(limits.PIXELS)  # of a side
_PERSON = re.compile("_*[A-Za-z0-9][A-Za-z0-9_]*")
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_COLUMNS = tuple(field.name for field in dataclasses.fields(clips.FrameTable))


@dataclasses.dataclass(frozen=True)
class Codec:
    """A picture format: `(h, w, 3)` uint8 RGB to bytes and back.

    `encode` takes a quality of 1 to 100, which a format without loss ignores. `decode` raises
    ValueError. So does `decode_into`, which fills an array, also where that has another shape.
    """

    encode: Callable[[Picture, int], bytes]
    decode: Callable[[bytes], Picture]
    decode_into: Callable[[bytes, Picture], None]


def _decode_jpeg_into(data: bytes, out: Picture) -> None:
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    _check_shape((height, width, 3), out)
    simplejpeg.decode_jpeg(data, buffer=out)  # an array of its own would take half as long again


def _encode_png(picture: Picture, quality: int) -> bytes:
    del quality
    data = io.BytesIO()
    Image.fromarray(picture).save(data, format="png")
    return data.getvalue()


def _decode_png(data: bytes) -> Picture:
    try:
        return np.asarray(Image.open(io.BytesIO(data), formats=["png"]).convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        # PIL raises SyntaxError on a damaged chunk.
        raise ValueError(str(error)) from error


def _decode_png_into(data: bytes, out: Picture) -> None:
    picture = _decode_png(data)
    _check_shape(picture.shape, out)
    out[:] = picture


def _check_shape(shape: tuple[int, ...], out: Picture) -> None:
    if shape != out.shape:
        raise ValueError(f"it is {shape}, the data set says {out.shape}")


CODECS = {
    "jpeg": Codec(
        # Colours at half the resolution, as cameras store them: decodes about 1.3 times as fast.
        encode=lambda picture, quality: simplejpeg.encode_jpeg(
            np.ascontiguousarray(picture), quality=quality, colorsubsampling="420"
        ),
        decode=simplejpeg.decode_jpeg,
        decode_into=_decode_jpeg_into,
    ),
    "png": Codec(encode=_encode_png, decode=_decode_png, decode_into=_decode_png_into),
}


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a prepared data set says about itself.

    Attributes:
      builder: name and version of the builder.
      source: where labels and pictures come from, one line.
      seed: of everything random in it.
      layout: name for `facs.layout`.
      aus: the layout's AU numbers.
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
    aus: Sequence[int]
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
        said = {name: value for name, value in vars(self).items() if name != "source"}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


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


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Nothing of ours lies with TFDS, whose search leaves an empty folder in /tmp each time."""


class FrameBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes the frames of a `FrameTable`; a source of frames defines `examples`.

    TFDS holds one split in memory, at most 1000 MiB of encoded pictures: no subject may have more.

    Attributes:
      table: the frames, subject by subject.
      metadata: see `Metadata`.
      progress: moved on with every frame.
      digests: of the pictures written so far.
      extras: features that records of this source have beside those that all have.
    """

    extras: ClassVar[Mapping[str, tfds.features.FeatureConnector]] = {}

    def __init__(
        self, *, table: clips.FrameTable, metadata: Metadata, data_dir: str, progress: Bar
    ):
        self.table = table
        self.metadata = metadata
        self.progress = progress
        self.digests = Digests()
        super().__init__(data_dir=data_dir)

    @abc.abstractmethod
    def examples(self, recording: clips.Video) -> Iterator[Mapping[str, Any]]:
        """For each frame of a video of the table its encoded `image`, and its `extras`."""

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.metadata.image_size
        return _Info(
            builder=self,
            description=self.metadata.source,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(size, size, 3), encoding_format=self.metadata.image_format
                    ),
                    "subject": tfds.features.Text(),
                    "video": tfds.features.Text(),
                    "frame": tfds.features.Scalar(np.int32),
                    "labels": tfds.features.Tensor(
                        shape=self.table.labels.shape[1:], dtype=np.int8
                    ),
                    **self.extras,
                }
            ),
            metadata=tfds.core.MetadataDict(dataclasses.asdict(self.metadata)),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        by_subject = itertools.groupby(self.table.to_videos(), key=lambda video: video.subject)
        return {subject: self._generate_examples(list(videos)) for subject, videos in by_subject}

    def _generate_examples(self, videos: Sequence[clips.Video]) -> Iterator[tuple[int, dict]]:
        keys = itertools.count()  # integer keys keep the order
        for video in videos:
            rows = zip(self.examples(video), video.number, video.labels, strict=True)
            for example, number, labels in rows:
                self.progress.update()
                self.digests.add(video.name, example["image"])
                yield (
                    next(keys),
                    {
                        "subject": video.subject,
                        "video": video.name,
                        "frame": number,
                        "labels": labels,
                        **example,
                    },
                )


def prepare(
    make: Callable[..., FrameBuilder],
    out: str | pathlib.Path,
    *,
    builder: str,
    table: clips.FrameTable,
    layout: facs.AuLayout,
    subject_folds: folds.Folds,
    image_size: int,
    image_format: str,
    seed: int,
    source: str,
    fps: float,
    progress: bool,
    crop: str = "none",
    beside: Mapping[str, str | bytes] = types.MappingProxyType({}),
) -> None:
    """Build a data set into the directory `out`, or keep the same one if it is there already.

    Everything is written to `<out>.incomplete`, by one command at a time, and renamed at the end:
    `out` is complete or absent. `make` makes the builder of a table, `beside` are more files to
    write, other arguments are as in `Metadata`.

    Raises:
      InputError: `out` holds something else, the layout is not known to `facs`, the picture
        format is unknown, a subject's name cannot name a file, a subject is in two folds, or
        another command makes `out`.
    """
    out = pathlib.Path(out).absolute()
    _check_settings(layout, image_size, image_format, table.subjects)
    folds.check_disjoint(subject_folds)
    index = _index_bytes(table)
    metadata = Metadata(
        builder=builder,
        source=source,
        seed=seed,
        layout=layout.name,
        aus=list(layout.aus),
        folds=[list(fold) for fold in subject_folds],
        fps=fps,
        image_size=image_size,
        image_format=image_format,
        index_sha256=hashlib.sha256(index).hexdigest(),
        crop=crop,
    )
    settings, partial = dataclasses.asdict(metadata), _incomplete(out)
    del settings["pictures_sha256"]  # known when they are written
    if is_made(out, settings):
        return
    with locks.alone(partial, "name another --out"):
        if is_made(out, settings):  # by the command that was at work until now
            return
        folder = partial / "set"
        shutil.rmtree(folder, ignore_errors=True)
        tfds.disable_progress_bar()
        with Bar(len(table), "frame", about=str(out), show=progress) as bar:
            writer = make(table=table, metadata=metadata, data_dir=str(folder), progress=bar)
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces downloads
                writer.download_and_prepare(file_format="array_record")
        written = pathlib.Path(writer.data_dir)
        pictures = json.dumps(writer.digests.by_video(), indent=1).encode()
        said = json.dumps(settings | {"pictures_sha256": hashlib.sha256(pictures).hexdigest()})
        for file, data in {_INDEX: index, _PICTURES: pictures, _METADATA: said, **beside}.items():
            files.write(written / file, data)
        written.rename(out)
    shutil.rmtree(partial, ignore_errors=True)


def read(
    path: str | pathlib.Path,
) -> tuple[Metadata, clips.FrameTable, Sequence, Sequence]:
    """Open a prepared data set: what it says of itself, its frames, and its records.

    Returns:
      Metadata; the table of all frames; and, row by row of the table, records that hold the
      encoded picture under `image`, and these pictures alone, which are read much faster (empty
      where there is none). Reading a damaged record raises RuntimeError.

    Raises:
      InputError: there is no such directory, no data set in it, or it is damaged.
    """
    path = pathlib.Path(path)
    metadata = read_metadata(path)
    index = _read_index(path, metadata)
    try:
        _check_features(path)
        builder = tfds.builder_from_directory(path)
        everybody = _all_splits(list(builder.info.splits))
        records = builder.as_data_source(everybody, decoders={"image": tfds.decode.SkipDecoding()})
        found = [(name, split.num_examples) for name, split in builder.info.splits.items()]
    except Exception as error:  # TFDS documents no set of exceptions
        raise InputError(
            f"{path}: the data set is damaged, prepare it again ({_first_line(error)})"
        ) from error
    if found != list(collections.Counter(index.subjects[v] for v in index.video).items()):
        raise InputError(f"{path}: records and {_INDEX} do not belong together, prepare it again")
    return metadata, index, records, _Images(records)


def _check_features(path: pathlib.Path) -> None:
    """Refuses features that no builder of ours writes: TFDS imports the module of any class.

    Raises:
      ValueError: there are some.
      KeyError: one that all records have is not there.
    """
    said = json.loads((path / "features.json").read_text())
    features = said["featuresDict"]["features"]
    unknown = [
        name
        for name, feature in features.items()
        if feature.keys() != {"pythonClassName", _FEATURES.get(feature["pythonClassName"])}
    ]
    whole = {"pythonClassName": _FEATURES_DICT, "featuresDict": {"features": features}}
    if unknown or said != whole:
        raise ValueError(f"features.json holds what no builder writes: {ascii(unknown or said)}")
    for name, kind in _NEEDED.items():
        if features[name]["pythonClassName"] != _class_name(kind):
            raise ValueError(f"features.json says of {name} what no builder writes")


class _Images(Sequence):
    """The encoded pictures of records, without the rest of these."""

    def __init__(self, records: Sequence):
        self._examples = records.data_source  # as they were serialised

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, row: int) -> bytes:
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


def _check_settings(
    layout: facs.AuLayout, image_size: int, image_format: str, subjects: Sequence[str]
) -> None:
    try:
        known = facs.layout(layout.name)
    except ValueError as error:
        raise InputError(f"{error}; or register it in facs.LAYOUTS, readers look it up") from error
    if known != layout:
        raise InputError(f"layout {layout.name!r} is another one in facs.LAYOUTS; rename yours")
    if not 0 < image_size <= _MOST_PIXELS:
        raise InputError(f"pictures of {image_size} pixels: choose 1 to {_MOST_PIXELS}")
    if image_format not in CODECS:
        raise InputError(f"image format {image_format!r}: choose one of {', '.join(CODECS)}")
    check_people(subjects)


def check_people(subjects: Sequence[str]) -> None:
    """Whether TFDS splits, and files on any system, can be called by these names.

    Raises:
      InputError: one cannot, or two differ in capital letters or leading zeros alone.
    """
    alike: dict[str, str] = {}
    for subject in subjects:
        if not _is_person(subject):
            raise InputError(
                f"subject {subject[:99]!r}: use letters, digits and _ only, as in S001, at most 100"
            )
        if subject.lower() == "all":
            raise InputError(
                f"subject {subject!r}: means everybody in TFDS; name the person otherwise"
            )
        plain = re.sub("(?<![0-9])0+(?=[0-9])", "", subject.lower())
        other = alike.setdefault(plain, subject)
        if other != subject:
            raise InputError(
                f"subjects {other} and {subject}: differ in capital letters or leading zeros "
                "alone; if it is one person, write the name in one way, else name them otherwise"
            )


def _is_person(name: str) -> bool:
    """Whether a TFDS split, and a file in any folder, can be called so."""
    return _PERSON.fullmatch(name) is not None and len(name) <= 100


def is_name(name: str) -> bool:
    """Whether records and terminals can show a name: without control characters, and Unicode."""
    return not _UNFIT.search(name)


def shown(text: str) -> str:
    """The same lines, with ? for what names must not hold."""
    return "\n".join(_UNFIT.sub("?", line) for line in text.split("\n"))


def is_made(out: pathlib.Path, wanted: Mapping[str, Any]) -> bool:
    """Whether the data set is there already, and says of itself what is wanted.

    Raises:
      InputError: the place is taken, by something else or a data set that differs; it says in what.
    """
    if not (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        return False
    existing = dataclasses.asdict(read_metadata(out))
    differing = ", ".join(key for key in wanted if existing[key] != wanted[key])
    if differing:
        raise InputError(
            f"{out}: a data set with other settings is here already (differing: "
            f"{differing.replace('index_sha256', 'frames and labels')}); choose another directory "
            "or delete this one"
        )
    shutil.rmtree(_incomplete(out), ignore_errors=True)  # of a process killed after the renaming
    print(f"{out}: already prepared with the same settings, used as it is")
    return True


def _incomplete(out: pathlib.Path) -> pathlib.Path:
    return out.with_name(out.name + ".incomplete")


def _index_bytes(table: clips.FrameTable) -> bytes:
    columns = {name: getattr(table, name) for name in _COLUMNS}
    counted = table.by_number()
    if all(np.array_equal(columns[name], getattr(counted, name)) for name in ("breaks", "place")):
        del columns["place"]  # the frames' numbers tell it
    data = io.BytesIO()
    np.savez(data, **columns)
    return data.getvalue()


def _read_index(path: pathlib.Path, metadata: Metadata) -> clips.FrameTable:
    file = path / _INDEX
    data = file.read_bytes() if file.exists() else b""
    if hashlib.sha256(data).hexdigest() != metadata.index_sha256:
        raise InputError(f"{file}: missing or damaged, prepare the data set again")
    try:
        with np.load(io.BytesIO(data)) as arrays:
            columns = {name: arrays[name] for name in _COLUMNS if name in arrays}
    except Exception as error:  # NumPy documents no set of exceptions
        raise InputError(f"{file}: is no table of frames, prepare the data set again") from error
    placed = "place" in columns
    if not placed and "number" in columns:
        columns["place"] = columns["number"]
    if missing := [name for name in _COLUMNS if name not in columns]:
        raise InputError(
            f"{file}: has no {', '.join(missing)}, an earlier version made it; prepare the data "
            "set again"
        )
    if not _is_table(**columns, aus=len(metadata.aus)):
        raise InputError(f"{file}: its columns do not go together, prepare the data set again")
    names = {name: tuple(columns[name].tolist()) for name in ("videos", "subjects")}
    table = clips.FrameTable(**columns | names)
    return table if placed else table.by_number()


def json_object(data: bytes) -> dict[str, Any]:
    """What a file of JSON says by names.

    Raises:
      ValueError: it is none.
    """
    try:
        said = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(said, dict):
        raise ValueError(f"is a {type(said).__name__}")
    return said


def read_digests(path: pathlib.Path, metadata: Metadata) -> dict[str, str]:
    """Digests of the pictures by video; of none in a set of an earlier version.

    Raises:
      InputError: they are missing or damaged.
    """
    if not metadata.pictures_sha256:
        return {}
    file = path / _PICTURES
    data = file.read_bytes() if file.exists() else b""
    with contextlib.suppress(ValueError):
        if hashlib.sha256(data).hexdigest() == metadata.pictures_sha256:
            return {video: str(digest) for video, digest in json_object(data).items()}
    raise InputError(f"{file}: missing or damaged, prepare the data set again")


def _is_table(
    videos: np.ndarray,
    subjects: np.ndarray,
    video: np.ndarray,
    number: np.ndarray,
    labels: np.ndarray,
    breaks: np.ndarray,
    place: np.ndarray,
    aus: int,
) -> bool:
    """Whether columns of a file are those of a `FrameTable` of so many AUs."""
    kinds = "".join(c.dtype.kind for c in (videos, subjects, video, number, labels, breaks, place))
    return (
        kinds == "UUiiibi"
        and videos.ndim == video.ndim == 1
        and labels.shape[1:] == (aus,)
        and subjects.shape == videos.shape
        and video.shape == number.shape == breaks.shape == place.shape == labels.shape[:1]
        and bool(np.all((video >= 0) & (video < len(videos))))
        and bool(np.all(np.diff(video) >= 0))
        and bool(np.all((np.diff(place) > 0) | (np.diff(video) > 0)))
        and bool(np.all((labels >= -1) & (labels <= 1)))
        and all(map(_is_person, subjects.tolist()))
        and all(map(is_name, videos.tolist()))
    )


def read_metadata(path: pathlib.Path) -> Metadata:
    """What the data set in a directory says of itself.

    Raises:
      InputError: there is no data set.
    """
    if not path.is_dir():
        unfinished = _incomplete(path).exists()
        reason = "its preparation was interrupted" if unfinished else "no such directory"
        raise InputError(f"{path}: {reason}; prepare the data set, e.g. with `mdhr synthesize`")
    file = path / _METADATA
    try:
        metadata = Metadata(**json_object(file.read_bytes()))
        _check_metadata(metadata)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: no data set prepared by mdhr in this directory ({file.name} is missing or "
            "not ours); name another directory"
        ) from error
    return metadata


def _check_metadata(said: Metadata) -> None:
    """Raises ValueError: what a file says is of another kind, or nothing that we write."""
    texts = said.builder, said.source, said.layout, said.crop, said.image_format
    checksums = said.index_sha256, said.pictures_sha256
    is_fine = (
        all(isinstance(text, str) and is_name(text) for text in (*texts, *checksums))
        and said.image_format in CODECS
        and all(type(number) is int for number in (said.seed, said.image_size, *said.aus))
        and 0 < said.image_size <= _MOST_PIXELS
        and isinstance(said.fps, int | float)
        and 0 < said.fps < math.inf
        and all(isinstance(name, str) and _is_person(name) for fold in said.folds for name in fold)
    )
    if not is_fine:
        raise ValueError("not what a builder writes")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
