# SPDX-License-Identifier: Apache-2.0
"""Is a prepared data set what it should be? (`mdhr check-data`)

A problem is anything that would change a result: pictures that do not decode, records that
contradict the index, counts that are not the known ones, a picture under two people or in two
videos, an AU that never occurs in a training split, sources that have changed, decoded pictures
that are not those of the records. The rest is told as well: frames per fold, labels per AU, what
was left out, and a sheet of pictures per person to look at.
"""

import collections
import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from PIL import Image, ImageDraw

from mdhr_jax.data import clips, decoded, list_check, naming, records, stored
from mdhr_jax.data.builders import recordings, reports
from mdhr_jax.errors import InputError
from mdhr_jax.machine import files, locks
from mdhr_jax.machine.progress import Bar
from mdhr_jax.report import markdown

_SHOWN = 20  # problems or videos listed in the terminal and in the report
_SHEET_COLUMNS, _SHEET_ROWS, _THUMB, _CAPTION = 8, 4, 128, 14


@dataclasses.dataclass
class Findings:
    """What a look at every record has shown.

    Attributes:
      problems: what would change a result, a line each.
      same: frames whose pictures are equal to the one before.
    """

    problems: list[str]
    same: int


def check(
    path: str | pathlib.Path,
    out: str | pathlib.Path,
    *,
    sources: Sequence[str | pathlib.Path] = (),
    progress: bool = True,
) -> tuple[str, bool]:
    """Look at every record of a data set.

    Args:
      path: its directory.
      out: directory for `report.md` and `sheets/`.
      sources: folders from which it was made; their files are compared with its manifest.
      progress: show a bar with the time left.

    Returns:
      The report, and whether there is no problem.

    Raises:
      InputError: there is no data set, or `out` cannot be written.
    """
    source, out = records.open_dataset(path), pathlib.Path(out)
    findings = _look(source, progress)
    findings.problems += _count_problems(source)
    findings.problems += _label_problems(source)
    if sources:
        findings.problems += _changed(
            source.path, [pathlib.Path(root) for root in sources], progress
        )
    report = naming.shown(_report(source, findings))
    with files.writing(out), locks.in_turn(out):
        (out / "sheets").mkdir(exist_ok=True)
        files.write(out / "report.md", report)
        for subject in dict.fromkeys(source.table.subjects):
            _sheet(source, subject).save(out / "sheets" / f"{subject}.png")
    return report, not findings.problems


# What may be wrong.


def _look(source: records.FrameSource, progress: bool) -> Findings:
    """Reads every record, decodes its picture, and compares it with `decoded.npy`."""
    table, cached = source.table, decoded.existing(source)
    problems, same = [], 0
    owner: dict[bytes, int] = {}
    shared: collections.Counter[tuple[str, str]] = collections.Counter()
    before, digests = b"", stored.Digests()
    picture = np.empty((source.image_size, source.image_size, 3), np.uint8)
    with Bar(len(table), "frame", about=str(source.path), show=progress) as bar:
        for row in range(len(table)):
            video = int(table.video[row])
            try:
                record = source.record(row)
                source.decode(row, record["image"], picture)
            except InputError as error:
                problems.append(str(error))
                continue
            if cached is not None and not np.array_equal(cached[row], picture):
                problems.append(
                    f"record {row}: decoded.npy shows another picture; delete that file"
                )
            problems += _contradictions(source, row, record)
            digests.add(table.videos[video], record["image"])
            digest = hashlib.sha256(record["image"]).digest()
            same += digest == before
            before = digest
            other = owner.setdefault(digest, video)
            if other != video:
                shared[table.videos[video], _whose(table, other, video)] += 1
            bar.update()
    problems += [
        f"{video}: {count} of its pictures stand {whose}, too"
        for (video, whose), count in shared.items()
    ]
    pictures = digests.by_video()
    problems += [
        f"{video}: its pictures are not those that were written"
        for video, digest in stored.read_digests(source.path, source.metadata).items()
        if pictures.get(video) != digest
    ]
    return Findings(problems, same)


def _whose(table: clips.FrameTable, other: int, video: int) -> str:
    """Where the pictures of a video were seen before: a second person is what matters first."""
    if table.subjects[other] != table.subjects[video]:
        return f"under {table.subjects[other]}"
    return f"in {table.videos[other]}"


def _contradictions(
    source: records.FrameSource, row: int, record: Mapping[str, Any]
) -> Iterator[str]:
    table = source.table
    video = table.video[row]
    expected = {
        "video": table.videos[video],
        "subject": table.subjects[video],
        "frame": int(table.number[row]),
        "labels": table.labels[row].tolist(),
    }
    actual = {
        "video": record["video"].decode(),
        "subject": record["subject"].decode(),
        "frame": int(record["frame"]),
        "labels": np.asarray(record["labels"]).tolist(),
    }
    for name, value in expected.items():
        if actual[name] != value:
            yield f"record {row}: {name} {actual[name]!r}, the index says {value!r}"


def _known_frames(source: records.FrameSource) -> list[int | None]:
    """Test frames in the official lists of each fold that has all of its people."""
    released = list_check.released().get(source.layout.name)
    if released is None:
        return [None] * len(source.folds)
    return [
        int(facts["counts"]["test frames"]) if set(official) == set(people) else None
        for facts, official, people in zip(released, source.layout.folds, source.folds, strict=True)
    ]


def _count_problems(source: records.FrameSource) -> Iterator[str]:
    counts = zip(_frames_per_fold(source), _known_frames(source), strict=True)
    for number, (count, expected) in enumerate(counts, start=1):
        if expected not in (None, count):
            yield f"fold {number}: {count} test frames, the official lists have {expected}"
    if (source.path / reports.REPORT).exists():
        for name, video in reports.read(source.path, reports.REPORT)["videos"].items():
            if video["unread"]:
                yield f"{name}: {video['unread']} frames were skipped, their pictures do not decode"


def _frames_per_fold(source: records.FrameSource) -> list[int]:
    return [len(source.table.rows_of(subjects)) for subjects in source.folds]


def _label_problems(source: records.FrameSource) -> Iterator[str]:
    for number in range(1, len(source.folds) + 1):
        learning = [people for fold, people in enumerate(source.folds, 1) if fold != number]
        rows = source.table.rows_of([subject for people in learning for subject in people])
        if not len(rows):  # a trial with a few people
            continue
        active = (source.table.labels[rows] == 1).any(axis=0)
        for name in np.array(source.layout.au_names)[~active]:
            yield f"fold {number}: {name} never occurs in the training labels, it has no weight"


def _changed(path: pathlib.Path, roots: Sequence[pathlib.Path], progress: bool) -> Iterator[str]:
    """Source files that are gone or not what they were."""
    manifest = reports.read(path, reports.SOURCES)
    with Bar(len(manifest), "file", about="sources", show=progress) as bar:
        for name, (size, checksum) in manifest.items():
            file = next((root / name for root in roots if (root / name).is_file()), None)
            if file is None:
                yield f"{name}: is not in {', '.join(map(str, roots))} any more"
            elif file.stat().st_size != size or recordings.sha256(file) != checksum:
                yield f"{name}: has changed since the data set was made"
            bar.update()


# The report.


def _report(source: records.FrameSource, findings: Findings) -> str:
    table, metadata = source.table, source.metadata
    people = len(set(table.subjects))
    sections = [
        f"# {source.path.name}\n",
        f"{metadata.source}; made by {metadata.builder}, faces cut by: {metadata.crop}, "
        f"{metadata.image_size} pixels, {metadata.image_format}. {len(table)} frames of {people} "
        f"people in {len(table.videos)} videos; {findings.same} pictures equal the one before.\n",
        _fold_table(source),
        _label_table(source),
        _left_out(source.path),
        _listed("Problems", findings.problems) or "No problem was found.\n",
    ]
    return "\n".join(section for section in sections if section)


def _fold_table(source: records.FrameSource) -> str:
    known = ("-" if count is None else count for count in _known_frames(source))
    lines = [
        [str(number), str(len(people)), str(frames), str(official)]
        for number, (people, frames, official) in enumerate(
            zip(source.folds, _frames_per_fold(source), known, strict=True), start=1
        )
    ]
    return markdown.table(["fold", "test people", "test frames", "official lists"], lines)


def _label_table(source: records.FrameSource) -> str:
    labels = source.table.labels
    lines = [
        [name, *(str(np.count_nonzero(column == value)) for value in (1, 0, -1)), _rate(column)]
        for name, column in zip(source.layout.au_names, labels.T, strict=True)
    ]
    return markdown.table(["AU", "active", "not", "unknown", "rate"], lines)


def _rate(column: Int[np.ndarray, " m"]) -> str:
    known = column[column >= 0]
    return f"{(known == 1).mean():.3f}" if len(known) else "n/a"


def _left_out(path: pathlib.Path) -> str:
    """What `mdhr prepare` left out; nothing for sets made otherwise."""
    if not (path / reports.REPORT).exists():
        return ""
    report = reports.read(path, reports.REPORT)
    lines = [line for name, video in report["videos"].items() for line in _of_video(name, video)]
    videos = list(report["videos"].values())
    totals = {kind: sum(_count(video[kind]) for video in videos) for kind in _KINDS}
    total = ", ".join(f"{totals[kind]} {text}" for kind, text in _KINDS.items())
    return (
        f"Left out or doubtful: {total}.\n\n"
        + _listed("By video", lines)
        + _listed("Notes", report["notes"])
    )


_BY_FRAME = "missing", "lost", "breaks", "several"
_KINDS = {
    "missing": "labelled frames without a readable picture",
    "lost": "frames without a face",
    "breaks": "frames at which another face is followed or the film's clock jumped",
    "several": "frames with more than one face, the largest is followed",
    "unread": "frames whose pictures do not decode",
}


def _count(entry: list | int) -> int:
    return entry if isinstance(entry, int) else len(entry)


def _of_video(name: str, video: Mapping[str, Any]) -> Iterator[str]:
    parts = [f"{kind} {_ranges(video[kind])}" for kind in _BY_FRAME if video[kind]]
    if parts:
        yield f"{name}: {'; '.join(parts)}"


def _ranges(numbers: Sequence[int]) -> str:
    """1, 2, 3, 7 as 1-3 7."""
    runs = np.split(np.array(numbers), np.flatnonzero(np.diff(numbers) != 1) + 1)
    return " ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _listed(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    more = [f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    shown = [f"- {line}" for line in [*lines[:_SHOWN], *more]]
    return "\n".join([f"{title} ({len(lines)}):", "", *shown, ""])


def _sheet(source: records.FrameSource, subject: str) -> Image.Image:
    """Pictures from all over a person's frames, with video and number."""
    rows = source.table.rows_of([subject])
    spread = np.linspace(0, len(rows) - 1, _SHEET_COLUMNS * _SHEET_ROWS).astype(int)
    chosen = rows[np.unique(spread)]
    lines = -(-len(chosen) // _SHEET_COLUMNS)
    sheet = Image.new("RGB", (_SHEET_COLUMNS * _THUMB, lines * (_THUMB + _CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, row in enumerate(chosen.tolist()):
        x, y = place % _SHEET_COLUMNS * _THUMB, place // _SHEET_COLUMNS * (_THUMB + _CAPTION)
        try:
            picture = Image.fromarray(source.pictures(np.array([row]))[0])
        except InputError:  # reported with the problems
            continue
        sheet.paste(picture.resize((_THUMB, _THUMB)), (x, y + _CAPTION))
        video = source.table.videos[source.table.video[row]].rpartition("/")[2]
        draw.text((x + 2, y + 1), f"{video} {source.table.number[row]}", "black")
    return sheet
