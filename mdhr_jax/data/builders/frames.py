# SPDX-License-Identifier: Apache-2.0
"""The TFDS builder that every source of frames shares: writes data sets (`data.stored`).

TensorFlow is never imported, since pictures are encoded here and not by TFDS.
"""

import abc
import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import pathlib
import shutil
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mdhr_jax import facs
from mdhr_jax.data import clips, folds, index_file, naming, stored
from mdhr_jax.errors import InputError
from mdhr_jax.machine import files, locks
from mdhr_jax.machine.progress import Bar


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Nothing of ours lies with TFDS, whose search leaves an empty folder in /tmp each time."""


class FrameBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # of TFDS
    """Writes the frames of a `FrameTable`; a source of frames defines `examples`.

    TFDS holds one split in memory, at most 1000 MiB of encoded pictures: no subject may have more.

    Attributes:
      table: the frames, subject by subject.
      metadata: see `stored.Metadata`.
      progress: moved on with every frame.
      digests: of the pictures written so far.
      extras: features that records of this source have beside those that all have.
    """

    extras: Mapping[str, tfds.features.FeatureConnector] = {}

    def __init__(
        self, *, table: clips.FrameTable, metadata: stored.Metadata, data_dir: str, progress: Bar
    ):
        self.table = table
        self.metadata = metadata
        self.progress = progress
        self.digests = stored.Digests()
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


def describe(
    table: clips.FrameTable, layout: facs.AuLayout, subject_folds: folds.Folds, **settings: Any
) -> stored.Metadata:
    """What a data set of these frames will say of itself, but for its pictures.

    Args:
      table: all frames.
      layout: their AUs.
      subject_folds: test subjects of each fold.
      **settings: the other attributes of `stored.Metadata`.

    Raises:
      InputError: the layout is not known to `facs`, a subject's name cannot name a file, or a
        subject is in two folds.
    """
    metadata = stored.Metadata(
        layout=layout.name,
        aus=list(layout.aus),
        folds=[list(fold) for fold in subject_folds],
        index_sha256=hashlib.sha256(index_file.to_bytes(table)).hexdigest(),
        **settings,
    )
    _check_layout(layout)
    if not 0 < metadata.image_size <= stored.MOST_PIXELS:
        raise InputError(
            f"pictures of {metadata.image_size} pixels: choose 1 to {stored.MOST_PIXELS}"
        )
    naming.check_people(table.subjects)
    folds.check_disjoint(subject_folds)
    return metadata


def _check_layout(layout: facs.AuLayout) -> None:
    try:
        known = facs.layout(layout.name)
    except ValueError as error:
        raise InputError(f"{error}; or register it in facs.LAYOUTS, readers look it up") from error
    if known != layout:
        raise InputError(f"layout {layout.name!r} is another one in facs.LAYOUTS; rename yours")


def write(
    make: Callable[..., FrameBuilder],
    out: str | pathlib.Path,
    table: clips.FrameTable,
    metadata: stored.Metadata,
    *,
    progress: bool,
    beside: Mapping[str, str | bytes] = types.MappingProxyType({}),
) -> None:
    """Write a data set into the directory `out`, or keep the same one if it is there already.

    Everything is written to `<out>.incomplete`, by one command at a time, and renamed at the end:
    `out` is complete or absent.

    Args:
      make: makes the builder of a table.
      out: the directory.
      table: all frames.
      metadata: what `describe` says of them.
      progress: show a bar with the time left.
      beside: names and contents of more files to write.

    Raises:
      InputError: `out` holds something else, or another command makes it.
    """
    out = pathlib.Path(out).absolute()
    facts, partial = dataclasses.asdict(metadata), stored.incomplete(out)
    del facts["pictures_sha256"]  # known when they are written
    if is_made(out, facts):
        return
    with locks.alone(partial, "name another --out"):
        if is_made(out, facts):  # by the command that was at work until now
            return
        folder = partial / "set"
        shutil.rmtree(folder, ignore_errors=True)
        tfds.disable_progress_bar()
        with Bar(len(table), "frame", about=str(out), show=progress) as bar:
            builder = make(table=table, metadata=metadata, data_dir=str(folder), progress=bar)
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces downloads
                builder.download_and_prepare(file_format="array_record")
        written = pathlib.Path(builder.data_dir)
        pictures = json.dumps(builder.digests.by_video(), indent=1).encode()
        facts["pictures_sha256"] = hashlib.sha256(pictures).hexdigest()
        contents: dict[str, str | bytes] = {
            index_file.NAME: index_file.to_bytes(table),
            stored.PICTURES: pictures,
            stored.METADATA: json.dumps(facts),
        }
        for name, data in (contents | dict(beside)).items():
            files.write(written / name, data)
        written.rename(out)
    shutil.rmtree(partial, ignore_errors=True)


def is_made(out: pathlib.Path, expected: Mapping[str, Any]) -> bool:
    """Whether the data set is there already, and says of itself what is expected.

    Raises:
      InputError: the place is taken, by something else or a data set that differs; it says in what.
    """
    if not (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        return False
    existing = dataclasses.asdict(stored.read_metadata(out))
    differing = ", ".join(key for key in expected if existing[key] != expected[key])
    if differing:
        raise InputError(
            f"{out}: a data set with other settings is here already (differing: "
            f"{differing.replace('index_sha256', 'frames and labels')}); choose another directory "
            "or delete this one"
        )
    shutil.rmtree(
        stored.incomplete(out), ignore_errors=True
    )  # of a process killed after the renaming
    print(f"{out}: already prepared with the same settings, used as it is")
    return True
