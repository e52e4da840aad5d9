# SPDX-License-Identifier: Apache-2.0
"""Rendered faces as a data set: labels from the label process or from lists, pictures painted."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from mdhr_jax import facs
from mdhr_jax.data import clips, codecs, folds, records
from mdhr_jax.data import lists as official_lists
from mdhr_jax.data.builders import frames
from mdhr_jax.errors import InputError
from mdhr_jax.synth import labels, scene, video

# Frames rendered at once: bounds the memory of long videos.
_CHUNK = 256


class Rendered(frames.FrameBuilder):
    """Faces painted by `mdhr_jax.synth` to the labels of the table."""

    # Raise it when the renderer's pictures change: a data set of another version is not reused.
    VERSION = tfds.core.Version("2.2.0")

    def examples(self, recording: clips.Video) -> Iterator[dict[str, bytes]]:
        """Render one video; cameras compress more or less."""
        name = self.metadata.seed, recording.subject, recording.name
        quality = int(scene.camera(*name, self.metadata.image_size).quality)
        encode = codecs.CODECS[self.metadata.image_format].encode
        return ({"image": encode(picture, quality)} for picture in self._pictures(recording))

    def _pictures(self, recording: clips.Video) -> Iterator[codecs.Picture]:
        """The pictures of one video, chunk by chunk."""
        length = len(recording.number)
        for first in range(0, length, _CHUNK):
            yield from video.render_video(
                facs.layout(self.metadata.layout),
                recording.labels,
                seed=self.metadata.seed,
                subject=recording.subject,
                video=recording.name,
                size=self.metadata.image_size,
                frames=range(first, min(first + _CHUNK, length)),
            )


def build(
    out: str | pathlib.Path,
    layout: facs.AuLayout,
    *,
    seed: int,
    subjects: int | Sequence[str] | None = None,
    videos_per_subject: int = 8,
    frames_per_video: int = 64,
    image_size: int = 256,
    lists: str | pathlib.Path | None = None,
    max_frames_per_video: int | None = None,
    progress: bool = True,
) -> records.FrameSource:
    """Render a data set into the directory `out` and open it.

    A complete data set with the same settings is used as it is; an interrupted one is begun anew.

    Args:
      out: directory to make.
      layout: AUs to label, known to `facs.layout`.
      seed: of labels, people and scenes.
      subjects: without lists how many people (S001, S002, ...) or their names; with lists the
        names to pick, None for everybody.
      videos_per_subject: without lists, recordings of each person (T1, T2, ...).
      frames_per_video: without lists, length of each recording.
      image_size: height and width, pixels.
      lists: directory of the official lists whose labels, frame numbers and folds are taken.
      max_frames_per_video: with lists, only the first frames of every video.
      progress: show a bar with the time left.

    Raises:
      InputError: a setting or a list is wrong, or `out` holds something else.
    """
    _check_positive(
        subjects=subjects if isinstance(subjects, int) else None,
        videos_per_subject=videos_per_subject,
        frames_per_video=frames_per_video,
        image_size=image_size,
        max_frames_per_video=max_frames_per_video,
    )
    labelled = (
        _sampled(layout, seed, subjects, videos_per_subject, frames_per_video)
        if lists is None
        else _listed(layout, lists, subjects, max_frames_per_video)
    )
    metadata = frames.describe(
        labelled.table,
        layout,
        labelled.folds,
        builder=f"{Rendered.name} {Rendered.VERSION}",
        source=f"rendered faces, labels from {labelled.by}",
        seed=seed,
        fps=layout.fps,
        image_size=image_size,
        image_format="jpeg",
    )
    frames.write(Rendered, out, labelled.table, metadata, progress=progress)
    return records.open_dataset(out)


def _check_positive(**settings: int | None) -> None:
    for name, value in settings.items():
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}: give at least 1")


class _Labelled(NamedTuple):
    """Frames without pictures, test subjects of each fold, and what has labelled them."""

    table: clips.FrameTable
    folds: folds.Folds
    by: str


def _sampled(
    layout: facs.AuLayout,
    seed: int,
    subjects: int | Sequence[str] | None,
    per_subject: int,
    num_frames: int,
) -> _Labelled:
    names = _subject_names(subjects)
    videos = [
        clips.Video(
            name=name,
            subject=subject,
            number=np.arange(num_frames),
            labels=labels.sample_labels(
                layout, seed=seed, subject=subject, video=name, num_frames=num_frames
            ),
        )
        for subject in names
        for name in (f"{subject}/T{task}" for task in range(1, per_subject + 1))
    ]
    table = clips.FrameTable.from_videos(videos)
    return _Labelled(table, folds.assign(layout, names), "the label process")


def _subject_names(subjects: int | Sequence[str] | None) -> list[str]:
    if not subjects:
        raise InputError("without lists, say how many subjects to render, or name them")
    if isinstance(subjects, int):
        return [f"S{number:03d}" for number in range(1, subjects + 1)]
    return list(subjects)


def _listed(
    layout: facs.AuLayout,
    root: str | pathlib.Path,
    subjects: int | Sequence[str] | None,
    max_frames: int | None,
) -> _Labelled:
    """The lists' videos grouped by subject, and the folds that the lists make of them."""
    if isinstance(subjects, int):
        raise InputError("with lists, name the subjects to render, or leave them out for all")
    tests, test_subjects = official_lists.read_test_sets(root, layout)
    known = sorted(subject for fold in test_subjects for subject in fold)
    missing = sorted(set(subjects or known) - set(known))
    if missing:
        raise InputError(
            f"{root}: subjects {', '.join(missing)} are not in the {layout.name} lists; "
            f"choose from {' '.join(known)}"
        )
    chosen = set(subjects or known)
    videos = [
        video._replace(
            number=video.number[:max_frames],
            labels=video.labels[:max_frames],
            breaks=None,
            place=None,
        )
        for test in tests
        for video in test.frames.to_videos()
        if video.subject in chosen
    ]
    videos.sort(key=lambda recording: recording.subject)
    kept = tuple(tuple(s for s in fold if s in chosen) for fold in test_subjects)
    table = clips.FrameTable.from_videos(videos)
    return _Labelled(table, kept, f"the official {layout.name} lists")
