# SPDX-License-Identifier: Apache-2.0
"""From recordings to a data set: faces are cut out video by video, then written as records.

Every finished video is a file in `<out>.parts`: a killed preparation goes on where it was, and
several processes work side by side. What the user should know stands in two files beside the
records: `report.json`, a `VideoReport` for every video and the notes of the source, and
`sources.json`, size and SHA-256 of every file that was read.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mdhr_jax import facs, locks, workers
from mdhr_jax.data import clips, folds
from mdhr_jax.data.builders import frames, recordings
from mdhr_jax.data.builders.recordings import Found, Recording
from mdhr_jax.errors import InputError
from mdhr_jax.faces import align, squares, video
from mdhr_jax.progress import Bar

VERSION = "1.0.0"  # raise it when the same sources give other records
REPORT, SOURCES = "report.json", "sources.json"
MOST_SKIPPED = 0.01  # share of the frames that may be unreadable under `skip`
_QUALITY = 95  # of JPEG
_MOST_BYTES = 1000 << 20  # of a person's pictures: TFDS holds a split in memory
_SAME_FORMAT = {"jpeg": {".jpg", ".jpeg"}, "png": {".png"}}
_PARTS, _SETTINGS = ".parts", "settings.json"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How frames become the pictures in records.

    Attributes:
      crop: where the face is, as in `squares.parse`.
      template: how a found face lies in its square.
      size: of the square, pixels.
      image_format: key of `frames.CODECS`.
    """

    crop: str = "mtcnn"
    template: align.Template = align.TEMPLATES["bp4d"]
    size: int = 256
    image_format: str = "jpeg"


@dataclasses.dataclass(frozen=True)
class VideoReport:
    """What became of the labelled frames of one recording.

    Attributes:
      kept: how many are records.
      missing: numbers of those without a picture.
      lost: numbers of those in which no face was found.
      several: numbers of those that show more than one face; the largest is followed.
      unreadable: a line for every picture that does not decode, or for a film's early end.
      unread: how many frames that costs.
    """

    kept: int
    missing: list[int]
    lost: list[int]
    several: list[int]
    unreadable: list[str]
    unread: int


# One video.


@functools.cache
def _cutter(settings: Settings) -> squares.Cutter:
    return squares.parse(settings.crop, settings.template)


def cut(recording: Recording, settings: Settings, part: pathlib.Path) -> VideoReport:
    """Cuts the face out of the labelled frames of a recording and writes the file `part`."""
    unreadable: list[str] = []
    unread = 0
    origin: dict[int, tuple[int, pathlib.Path]] = {}  # by place: number and file

    def on_bad(error: InputError, count: int) -> None:
        nonlocal unread
        unreadable.append(str(error))
        unread += count

    def readable() -> Iterator[video.Frame]:
        for frame, number, file in recording.source.frames(recording.numbers, on_bad):
            origin[frame.number] = number, file
            yield frame

    kept: dict[str, list] = collections.defaultdict(list)
    several: list[int] = []
    checksum = functools.cache(recordings.sha256)
    cutter = _cutter(settings)
    for square in cutter.squares(readable(), video=recording.name, side=settings.size):
        number, file = origin[square.frame.number]
        several += [number] if square.others else []
        if square.picture is None:
            continue
        kept["image"].append(_encoded(square.picture, file, settings))
        kept["number"].append(number)
        kept["time"].append(np.nan if square.frame.time is None else square.frame.time)
        kept["transform"].append(_row(square.transform))
        kept["source"].append(checksum(file))
    read = {number for number, _ in origin.values()}
    report = VideoReport(
        kept=len(kept["image"]),
        missing=sorted(set(recording.numbers.tolist()) - read),
        lost=sorted(read - set(kept["number"])),
        several=several,
        unreadable=unreadable,
        unread=unread,
    )
    files = {
        str(file): [file.stat().st_size, checksum(file)] for file in {f for _, f in origin.values()}
    }
    _write_part(part, kept, {"report": dataclasses.asdict(report), "files": files})
    return report


def _encoded(picture: frames.Picture, file: pathlib.Path, settings: Settings) -> bytes:
    """The picture as a record keeps it: the file itself, where that shows nothing else."""
    codec = frames.CODECS[settings.image_format]
    if settings.crop == "none" and file.suffix.lower() in _SAME_FORMAT[settings.image_format]:
        data = file.read_bytes()
        with contextlib.suppress(ValueError):  # a colour mode that records do not have
            if np.array_equal(codec.decode(data), picture):
                return data
    return codec.encode(picture, _QUALITY)


def _row(transform: align.Similarity | None) -> np.ndarray:
    return np.full(4, np.nan, np.float32) if transform is None else transform.row()


def _write_part(part: pathlib.Path, kept: dict[str, list], said: dict) -> None:
    unfinished = part.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        np.savez(
            file,
            images=np.frombuffer(b"".join(kept["image"]), np.uint8),
            ends=np.cumsum([len(image) for image in kept["image"]], dtype=np.int64),
            number=np.array(kept["number"], np.int64),
            time=np.array(kept["time"], np.float64),
            transform=np.array(kept["transform"], np.float32).reshape(-1, 4),
            source=np.array(kept["source"], "S64"),
            said=np.array(json.dumps(said)),
        )
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(part)


def _said(part: pathlib.Path) -> dict[str, Any]:
    with np.load(part) as arrays:
        return json.loads(str(arrays["said"]))


# The data set.


class Prepared(frames.FrameBuilder, skip_registration=True):
    """Records made of finished parts."""

    VERSION = tfds.core.Version(VERSION)

    def __init__(self, *, parts: dict[str, pathlib.Path], intensities: dict, **rest: Any):
        self.parts = parts
        self.intensities = intensities
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
        with np.load(self.parts[recording.name]) as arrays:
            part = {name: arrays[name] for name in arrays.files}
        data, stops = part["images"].tobytes(), part["ends"].tolist()
        for row, (start, stop) in enumerate(zip([0, *stops], stops, strict=False)):
            yield {
                "image": data[start:stop],
                "time": part["time"][row],
                "transform": part["transform"][row],
                "source": part["source"][row].decode(),
                "intensities": self.intensities[recording.name][row],
            }


def prepare(
    out: str | pathlib.Path,
    found: Found,
    layout: facs.AuLayout,
    settings: Settings,
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
      found: the recordings, sorted by subject.
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
    chosen = _chosen(found, max_subjects)
    people = len({recording.subject for recording in chosen})
    statement = {
        "builder": f"{Prepared.name} {VERSION}",
        "source": f"{source} of {people} people",
        "image_size": settings.size,
        "image_format": settings.image_format,
        "crop": squares.describe(settings.crop, settings.template),
    }
    if frames.is_there(out):
        frames.check_same(out, statement | {"layout": layout.name})
        _check_sources(out, found)
        shutil.rmtree(folder, ignore_errors=True)
        return ""
    _check_detector(settings, chosen)
    with locks.alone(folder, "name another --out"), _writing(out):
        _claim(folder, settings)
        parts = {recording.name: _part(folder, recording) for recording in chosen}
        _cut_all(chosen, settings, parts, processes or workers.cores(), progress)
        said = {name: _said(part) for name, part in parts.items()}
        _refuse_unreadable(said, parts, folder, skip)
        videos, intensities = _kept_videos(chosen, parts)
        table = clips.FrameTable.from_videos(videos)
        frames.prepare(
            functools.partial(Prepared, parts=parts, intensities=intensities),
            out,
            table=table,
            layout=layout,
            subject_folds=folds.assign(layout, tuple(dict.fromkeys(table.subjects))),
            seed=0,
            progress=progress,
            beside=_beside(said, found),
            **statement,
        )
        shutil.rmtree(folder)
    return _summary(out, table, [entry["report"] for entry in said.values()])


def _chosen(found: Found, most: int | None) -> list[Recording]:
    """The recordings of the first so many people, after a look at their names; says the notes."""
    print(*found.notes, sep="\n", end="\n" if found.notes else "", file=sys.stderr)
    if not found.recordings:
        raise InputError("labels and pictures have no recording in common; see the notes above")
    names = [recording.name for recording in found.recordings]
    repeated = [name for name, count in collections.Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"{repeated[0]}: two recordings have this name; rename one")
    people = list(dict.fromkeys(recording.subject for recording in found.recordings))[:most]
    return [recording for recording in found.recordings if recording.subject in people]


def _check_detector(settings: Settings, chosen: Sequence[Recording]) -> None:
    """Before hours of work: does a detector with a file know every recording?

    Those without one are left to the workers: making them starts JAX, which would take the GPU's
    memory here.
    """
    if ":" in settings.crop:
        cutter = _cutter(settings)
        for recording in chosen:
            cutter.detectors(recording.name)


def _check_sources(out: pathlib.Path, found: Found) -> None:
    """Compares labels by content, pictures by size, with those that the data set was made of.

    Raises:
      InputError: some of them are others.
    """
    known = json.loads((out / SOURCES).read_text())
    labels = {found.place(file): _state(file) for file in found.labels}
    files = {found.place(f): f for recording in found.recordings for f in recording.source.files}
    changed = [name for name, state in labels.items() if known.get(name) != state]
    changed += [name for name, f in files.items() if name in known and _size(f) != known[name][0]]
    if changed:
        raise InputError(
            f"{out}: was made of other files ({changed[0]} and {len(changed) - 1} more differ); "
            "choose another directory or delete this one"
        )


def _size(file: pathlib.Path) -> int:
    """In bytes; of a file that cannot be read, 0."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


@contextlib.contextmanager
def _writing(out: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written ({error.strerror or error}); make space or name another "
            "--out, finished videos are kept"
        ) from error


def _summary(out: pathlib.Path, table: clips.FrameTable, reports: Sequence[dict]) -> str:
    kinds = ("missing", "lost", "several")
    counts = {kind: sum(len(report[kind]) for report in reports) for kind in kinds}
    unreadable = sum(report["unread"] for report in reports)
    people = len(set(table.subjects))
    return (
        f"{out}: {len(table)} frames of {people} people in {len(table.videos)} videos; left out: "
        f"{counts['missing']} without a picture ({unreadable} of them unreadable), "
        f"{counts['lost']} without a face; {counts['several']} show more than one face"
    )


def _claim(folder: pathlib.Path, settings: Settings) -> None:
    """Makes the folder of parts, or checks that those in it were cut in the same way."""
    said = squares.describe(settings.crop, settings.template)
    wanted = json.dumps([VERSION, said, settings.size, settings.image_format])
    file = folder / _SETTINGS
    if file.exists() and file.read_text() != wanted:
        raise InputError(
            f"{folder}: was begun with other settings; use those again, or delete this folder to "
            "begin anew"
        )
    file.write_text(wanted)


def _part(folder: pathlib.Path, recording: Recording) -> pathlib.Path:
    """A file for the recording as it is now: other labels or files make another one."""
    identity = hashlib.sha256(recording.numbers.astype("<i8").tobytes())
    identity.update(os.fsencode(recording.name))
    for file in recording.source.files:
        with contextlib.suppress(OSError):  # what cannot be read is told when it is read
            state = file.stat()
            identity.update(os.fsencode(file) + b"%d %d" % (state.st_size, state.st_mtime_ns))
    return folder / f"{identity.hexdigest()[:32]}.npz"


def _cut_all(
    chosen: Sequence[Recording],
    settings: Settings,
    parts: dict[str, pathlib.Path],
    processes: int,
    progress: bool,
) -> None:
    todo = [recording for recording in chosen if not parts[recording.name].exists()]
    total = sum(len(recording.numbers) for recording in chosen)
    left = sum(len(recording.numbers) for recording in todo)
    jobs = [(recording, settings, parts[recording.name]) for recording in todo]
    with Bar(total, "frame", initial=total - left, about="faces", show=progress) as bar:
        for recording in _done(jobs, min(processes, len(jobs))):
            bar.update(len(recording.numbers))


def _done(
    jobs: Sequence[tuple[Recording, Settings, pathlib.Path]], processes: int
) -> Iterator[Recording]:
    """Does the jobs and says which recording is finished."""
    if processes <= 1:
        for job in jobs:
            cut(*job)
            yield job[0]
        return
    places = workers.CONTEXT.SimpleQueue()
    for place in workers.shares(processes):
        places.put(place)
    with ProcessPoolExecutor(
        processes, mp_context=workers.CONTEXT, initializer=workers.take_one, initargs=(places,)
    ) as pool:
        futures = {pool.submit(cut, *job): job[0] for job in jobs}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BrokenProcessPool as error:
            raise InputError(
                "a process was killed, perhaps for want of memory; the same command goes on, with "
                "fewer --processes if it happens again"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _refuse_unreadable(
    said: dict[str, dict], parts: dict[str, pathlib.Path], folder: pathlib.Path, skip: bool
) -> None:
    reports = {name: entry["report"] for name, entry in said.items()}
    broken = [name for name, report in reports.items() if report["unreadable"]]
    lines = [line for name in broken for line in reports[name]["unreadable"]]
    most = int(MOST_SKIPPED * sum(map(_frames_of, reports.values()))) if skip else 0
    unread = sum(report["unread"] for report in reports.values())
    if unread <= most:
        return
    file = folder / "unreadable.txt"
    file.write_text("\n".join(lines) + "\n")
    for name in broken:  # they are done anew when the pictures are mended
        parts[name].unlink()
    more = f" (and {len(lines) - 1} more, all in {file})" if len(lines) > 1 else ""
    limit = f"; this costs {unread} frames, at most {most} may be skipped" if skip else ""
    raise InputError(f"{lines[0]}{more}{limit}")


def _frames_of(report: dict) -> int:
    return report["kept"] + len(report["missing"]) + len(report["lost"])


def _kept_videos(
    chosen: Sequence[Recording], parts: dict[str, pathlib.Path]
) -> tuple[list[clips.Video], dict[str, np.ndarray]]:
    """Videos with the frames that have become pictures, and their intensities."""
    videos, intensities = [], {}
    sizes: collections.Counter[str] = collections.Counter()
    for recording in chosen:
        with np.load(parts[recording.name]) as arrays:
            rows = np.searchsorted(recording.numbers, arrays["number"])
            sizes[recording.subject] += int(arrays["ends"][-1]) if len(rows) else 0
        if len(rows):
            intensities[recording.name] = recording.intensities[rows]
            videos.append(
                clips.Video(
                    recording.name,
                    recording.subject,
                    recording.numbers[rows],
                    recording.labels[rows],
                )
            )
    if not videos:
        raise InputError(
            "no labelled frame has a picture in which a face was found; look at the pictures, or "
            "state with --crop where the face is"
        )
    largest, size = sizes.most_common(1)[0]
    if size > _MOST_BYTES:
        raise InputError(
            f"{largest}: {size >> 20} MiB of pictures are more than the {_MOST_BYTES >> 20} that a "
            "person may have; choose a smaller --size, or divide the person's videos"
        )
    return videos, intensities


def _beside(said: dict[str, dict], found: Found) -> dict[str, bytes]:
    report = {
        "notes": list(found.notes),
        "videos": {name: entry["report"] for name, entry in said.items()},
    }
    files = {str(file): _state(file) for file in found.labels}
    files |= {file: state for entry in said.values() for file, state in entry["files"].items()}
    sources = {found.place(pathlib.Path(file)): files[file] for file in sorted(files)}
    written = {REPORT: report, SOURCES: sources}
    return {name: (json.dumps(value, indent=1) + "\n").encode() for name, value in written.items()}


def _state(file: pathlib.Path) -> list[int | str]:
    return [file.stat().st_size, recordings.sha256(file)]
