# SPDX-License-Identifier: Apache-2.0
"""From recordings to a data set: faces are cut out video by video, then written as records.

Every finished video is a file in `<out>.parts` (`parts`): a killed preparation goes on where it
was, and several processes work side by side. What the user should know stands beside the records
(`reports`).
"""

import collections
import functools
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mdhr_jax import facs
from mdhr_jax.data import clips, folds, naming
from mdhr_jax.data.builders import frames, parts, recordings, reports
from mdhr_jax.data.builders.recordings import RawSet, Recording
from mdhr_jax.errors import InputError
from mdhr_jax.faces import pace, squares
from mdhr_jax.machine import files, locks, workers
from mdhr_jax.machine.progress import Bar

VERSION = "1.3.0"  # raise it when the same sources give other records
MOST_SKIPPED = 0.01  # share of the frames that may be unreadable under `skip`
_MOST_BYTES = 1000 << 20  # of a person's pictures: TFDS holds a split in memory
_PARTS = ".parts"
_REMEDY = "make space or name another --out, finished videos are kept"


class Prepared(frames.FrameBuilder, skip_registration=True):  # type: ignore[call-arg]  # of TFDS
    """Records made of finished parts, with the intensities of all labelled frames."""

    VERSION = tfds.core.Version(VERSION)

    def __init__(
        self,
        *,
        labelled: Sequence[Recording],
        finished: Mapping[str, parts.Part],
        **rest: Any,
    ):
        self.labelled = {recording.name: recording for recording in labelled}
        self.finished = finished
        self.extras = {
            "time": tfds.features.Scalar(np.float32),
            "transform": tfds.features.Tensor(shape=(4,), dtype=np.float32),
            "source": tfds.features.Text(),
            "intensities": tfds.features.Tensor(
                shape=rest["table"].labels.shape[1:], dtype=np.int8
            ),
        }
        super().__init__(**rest)

    def examples(self, recording: clips.Video) -> Iterator[dict[str, Any]]:
        """The frames of one part."""
        part, labelled = self.finished[recording.name], self.labelled[recording.name]
        intensities = labelled.intensities[_rows(labelled, part)]
        for row, image in enumerate(parts.images(part)):
            yield {
                "image": image,
                "time": part.time[row],
                "transform": part.transform[row],
                "source": part.source[row],
                "intensities": intensities[row],
            }


def _rows(recording: Recording, part: parts.Part) -> np.ndarray:
    """Which of the labelled frames have become pictures."""
    return np.searchsorted(recording.numbers, part.number)


def prepare(
    out: str | pathlib.Path,
    raw: RawSet,
    layout: facs.AuLayout,
    settings: parts.Settings,
    *,
    source: str,
    max_subjects: int | None = None,
    processes: int | None = None,
    skip: bool = False,
    progress: bool = True,
) -> str:
    """Make the data set `out` of these recordings.

    Args:
      out: directory to make; a preparation that was killed there goes on.
      raw: the recordings, sorted by subject.
      layout: their AUs.
      settings: how faces are cut out.
      source: what the data set says of its origin, one line.
      max_subjects: only the first so many people.
      processes: that work side by side; None: one per core.
      skip: leave unreadable pictures out, up to `MOST_SKIPPED` of all; otherwise refuse them.
      progress: show a bar with the time left.

    Returns:
      What was made of what, in a few lines; empty if the set was there already.

    Raises:
      InputError: pictures cannot be read, no face was found in any of them, nothing fits together,
        or `out` holds something else. What is finished stays in `<out>.parts`.
    """
    out = pathlib.Path(out).absolute()
    folder = out.with_name(out.name + _PARTS)
    chosen = _chosen(raw, max_subjects)
    facts = _facts(source, settings, chosen)
    if frames.is_made(out, facts | {"layout": layout.name}):
        reports.check_sources(out, raw)
        shutil.rmtree(folder, ignore_errors=True)
        return ""
    _check_detector(settings, chosen)
    with locks.alone(folder, "name another --out"), files.writing(out, _REMEDY):
        parts.claim(folder, settings)
        finished = _finished(chosen, settings, folder, processes or workers.cores(), progress)
        _refuse_unreadable(finished, folder, skip)
        _refuse_numbers_beyond(chosen, finished)
        table = clips.FrameTable.from_videos(_videos(chosen, finished))
        subject_folds = folds.assign(layout, tuple(dict.fromkeys(table.subjects)))
        fps = _fps(finished, layout)
        frames.write(
            functools.partial(Prepared, labelled=chosen, finished=finished),
            out,
            table,
            frames.describe(table, layout, subject_folds, seed=0, fps=fps, **facts),
            progress=progress,
            beside=reports.contents(finished, raw),
        )
    shutil.rmtree(folder, ignore_errors=True)
    return _summary(out, table, finished)


def _facts(source: str, settings: parts.Settings, chosen: Sequence[Recording]) -> dict[str, Any]:
    """What the data set will say of itself, as far as it is known before a picture is read."""
    people = len({recording.subject for recording in chosen})
    return {
        "builder": f"{Prepared.name} {VERSION}",
        "source": f"{source} of {people} people",
        "image_size": settings.size,
        "image_format": settings.image_format,
        "crop": squares.describe(settings.crop, settings.template),
    }


def _fps(finished: Mapping[str, parts.Part], layout: facs.AuLayout) -> float:
    """Frames per second of the records by their times; where they have none, by their numbers."""
    times, numbers = (
        np.concatenate([np.diff(each) for each in columns])
        for columns in zip(*((part.time, part.number) for part in finished.values()), strict=True)
    )
    known = times[times > 0]
    if len(known):
        return round(float(1 / np.median(known)), 2)
    return layout.fps / float(np.median(numbers)) if len(numbers) else layout.fps


def _chosen(raw: RawSet, most: int | None) -> list[Recording]:
    """The recordings of the first so many people, after a look at their names; says the notes."""
    print(*raw.notes, sep="\n", end="\n" if raw.notes else "", file=sys.stderr)
    if not raw.recordings:
        raise InputError("labels and pictures have no recording in common; see the notes above")
    names = [recording.name for recording in raw.recordings]
    repeated = [name for name, count in collections.Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"{repeated[0]}: two recordings have this name; rename one")
    people = list(dict.fromkeys(recording.subject for recording in raw.recordings))[:most]
    naming.check_people(people)
    chosen = [recording for recording in raw.recordings if recording.subject in people]
    _check_names(raw, chosen)
    recordings.check_numbers(chosen)
    return chosen


def _check_names(raw: RawSet, chosen: Sequence[Recording]) -> None:
    """Raises InputError: records cannot hold the name of a recording or of one of its files."""
    for recording in chosen:
        for name in (recording.name, *map(raw.place, recording.source.files)):
            if not naming.is_name(name):
                raise InputError(
                    f"{ascii(name)}: is not UTF-8, or holds a control character; rename the file "
                    "or folder"
                )


def _check_detector(settings: parts.Settings, chosen: Sequence[Recording]) -> None:
    """Before hours of work: does a detector with a file know every recording?

    Those without one are left to the workers: making them starts JAX, which would take the GPU's
    memory here.
    """
    if ":" in settings.crop:
        cutter: Any = parts.cutter(settings)  # `squares.Found`
        for recording in chosen:
            cutter.detectors(recording.name)


def _finished(
    chosen: Sequence[Recording],
    settings: parts.Settings,
    folder: pathlib.Path,
    processes: int,
    progress: bool,
) -> dict[str, parts.Part]:
    """The part of every recording; those that are not there yet are cut.

    Raises:
      InputError: as `parts.cut`; or a person has too many pictures, as soon as there are so many.
    """
    places = {recording.name: parts.place(folder, recording) for recording in chosen}
    todo = [recording for recording in chosen if not places[recording.name].exists()]
    sizes: collections.Counter[str] = collections.Counter()
    for recording in chosen:
        if places[recording.name].exists():
            _count(recording, places[recording.name], sizes)
    jobs = [(recording, settings, places[recording.name]) for recording in todo]
    total, left = (sum(len(each.numbers) for each in some) for some in (chosen, todo))
    with Bar(total, "frame", initial=total - left, about="faces", show=progress) as bar:
        for recording, _, file in workers.pooled(parts.cut, jobs, processes):
            bar.update(len(recording.numbers))
            _count(recording, file, sizes)
    return {name: parts.read(file) for name, file in places.items()}


def _refuse_unreadable(
    finished: Mapping[str, parts.Part], folder: pathlib.Path, skip: bool
) -> None:
    reports = [part.report for part in finished.values()]
    unread = sum(report.unread for report in reports)
    most = int(MOST_SKIPPED * sum(report.labelled for report in reports)) if skip else 0
    if unread <= most:
        return
    lines = [line for report in reports for line in report.unreadable]
    file = folder / "unreadable.txt"
    files.write(file, os.fsencode("\n".join(lines) + "\n"))  # whatever bytes the names are of
    for part in finished.values():
        if part.report.unreadable:  # it is done anew when the pictures are mended
            part.file.unlink()
    more = f" (and {len(lines) - 1} more, all in {file})" if len(lines) > 1 else ""
    limit = f"; this costs {unread} frames, at most {most} may be skipped" if skip else ""
    raise InputError(f"{lines[0]}{more}{limit}")


def _refuse_numbers_beyond(chosen: Sequence[Recording], finished: Mapping[str, parts.Part]) -> None:
    """Raises InputError: a recording has none of the frames that its labels are of."""
    beyond = [
        recording
        for recording in chosen
        if len(finished[recording.name].report.missing) == len(recording.numbers)
        and not finished[recording.name].report.unread
    ]
    if beyond:
        numbers, shown = beyond[0].numbers, recordings.count(beyond[0].source)
        others = f" (and {len(beyond) - 1} more such recordings)" if beyond[1:] else ""
        raise InputError(
            f"{beyond[0].name}: labels are of the frames {numbers[0]} to {numbers[-1]}, but "
            f"{'none of them is there' if shown is None else f'there are {shown}'}{others}; mend "
            "or remove these labels"
        )


def _videos(chosen: Sequence[Recording], finished: Mapping[str, parts.Part]) -> list[clips.Video]:
    """The recordings with the frames that have become pictures."""
    videos = []
    for recording in chosen:
        rows = _rows(recording, finished[recording.name])
        if len(rows):
            number, labels = recording.numbers[rows], recording.labels[rows]
            part, every = finished[recording.name], pace.step(recording.numbers)
            place, apart = pace.places(part.place, every)
            videos.append(
                clips.Video(
                    recording.name, recording.subject, number, labels, part.breaks | apart, place
                )
            )
    if not videos:
        raise InputError(
            "no labelled frame has a picture in which a face was found; look at the pictures, or "
            "state with --crop where the face is"
        )
    return videos


def _count(recording: Recording, file: pathlib.Path, sizes: collections.Counter[str]) -> None:
    """Adds the part of a recording to its person's."""
    sizes[recording.subject] += parts.read(file).size
    if sizes[recording.subject] > _MOST_BYTES:
        raise InputError(
            f"{recording.subject}: has more than the {_MOST_BYTES >> 20} MiB of pictures that a "
            "person may have; choose a smaller --size, or divide the person's videos"
        )


def _summary(out: pathlib.Path, table: clips.FrameTable, finished: Mapping[str, parts.Part]) -> str:
    reports = [part.report for part in finished.values()]
    missing, lost, breaks, several = (
        sum(len(numbers) for numbers in column)
        for column in zip(*((r.missing, r.lost, r.breaks, r.several) for r in reports), strict=True)
    )
    unread = sum(report.unread for report in reports)
    people = len(set(table.subjects))
    return (
        f"{out}: {len(table)} frames of {people} people in {len(table.videos)} videos; left out: "
        f"{missing} without a picture ({unread} of them unreadable), {lost} without a face; "
        f"{breaks} breaks; {several} show more than one face{_nothing_left(finished)}"
    )


def _nothing_left(finished: Mapping[str, parts.Part]) -> str:
    """The recordings that are not in the set at all."""
    names = [name for name, part in finished.items() if not part.report.kept]
    return f"; nothing is left of {recordings.few(names)}" if names else ""
