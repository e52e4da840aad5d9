# SPDX-License-Identifier: Apache-2.0
"""The two files beside the records that tell the user what these were made of.

`report.json` holds a `parts.VideoReport` for every video and the notes of the source,
`sources.json` size and SHA-256 of every file that was read.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from mdhr_jax.data import stored
from mdhr_jax.data.builders import parts, recordings
from mdhr_jax.data.builders.recordings import RawSet
from mdhr_jax.errors import InputError

REPORT, SOURCES = "report.json", "sources.json"


def contents(finished: Mapping[str, parts.Part], raw: RawSet) -> dict[str, bytes]:
    """What stands in both files of a set that is made of these recordings."""
    report = {
        "notes": list(raw.notes),
        "videos": {name: dataclasses.asdict(part.report) for name, part in finished.items()},
    }
    states = {str(file): _state(file) for file in raw.labels}
    for part in finished.values():
        states |= part.files
    sources = {raw.place(pathlib.Path(file)): states[file] for file in sorted(states)}
    values = {REPORT: report, SOURCES: sources}
    return {name: (json.dumps(value, indent=1) + "\n").encode() for name, value in values.items()}


def _state(file: pathlib.Path) -> tuple[int, str]:
    """Size and SHA-256, as in `parts.Part.files`."""
    return file.stat().st_size, recordings.sha256(file)


def check_sources(out: pathlib.Path, raw: RawSet) -> None:
    """Compares labels by content, pictures by size, with those that the data set was made of.

    Raises:
      InputError: some of them are others.
    """
    known = read(out, SOURCES)
    labels = {raw.place(file): _state(file) for file in raw.labels}
    files = {raw.place(f): f for recording in raw.recordings for f in recording.source.files}
    changed = [name for name, state in labels.items() if known.get(name) != list(state)]
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


def read(path: pathlib.Path, name: str) -> dict[str, Any]:
    """What the file `REPORT` or `SOURCES` of a prepared data set says.

    Raises:
      InputError: it cannot be read, or says something else.
    """
    file = path / name
    try:
        content = stored.json_object(file.read_bytes())
        if not _FITS[name](content):
            raise ValueError("not what a preparation writes")
        return content
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{file}: cannot be read; data sets made by `mdhr prepare` have it"
        ) from error


def _is_report(report: Mapping[str, Any]) -> bool:
    return (
        isinstance(report.get("notes"), list)
        and isinstance(report.get("videos"), dict)
        and all(map(_is_video_report, report["videos"].values()))
    )


def _is_video_report(report: Any) -> bool:
    fields = {field.name for field in dataclasses.fields(parts.VideoReport)}
    if not (isinstance(report, dict) and report.keys() == fields):
        return False
    inner = [
        *report["missing"],
        *report["lost"],
        *report["breaks"],
        *report["several"],
        report["unread"],
    ]
    return all(type(number) is int for number in inner)


def _is_manifest(manifest: Mapping[str, Any]) -> bool:
    return all(isinstance(state, list) and len(state) == 2 for state in manifest.values())


_FITS = {REPORT: _is_report, SOURCES: _is_manifest}
