# SPDX-License-Identifier: Apache-2.0
"""What a run has learned from: the file `data.json` in its directory."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from mdhr_jax import facs
from mdhr_jax.data import records
from mdhr_jax.data.people import Seen, Videos
from mdhr_jax.errors import InputError
from mdhr_jax.machine import files, notes

_FILE = "data.json"


@dataclasses.dataclass(frozen=True)
class Learned:
    """What a run has learned from.

    Attributes:
      builder: of the data set, name and version.
      index: SHA-256 of the data set's frames and labels.
      crop: how faces were cut out.
      aus: in the order of the scores.
      fps: frames per second of the clips.
      fingerprint: of the data set, its pictures included; empty in runs of earlier versions.
      people: whom it has learned from; None in runs of earlier versions.
      unknown: as in `people.Seen`.
    """

    builder: str
    index: str
    crop: str
    aus: Sequence[facs.Au]
    fps: float
    fingerprint: str = ""
    people: Videos | None = None
    unknown: Sequence[str] = ()

    def has_same_data(self, other: "Learned") -> bool:
        """Whether both are of one data set, as far as both say."""
        compared = ["builder", "index", "crop", "aus", "fps"]
        if self.fingerprint and other.fingerprint:
            compared.append("fingerprint")
        return all(getattr(self, name) == getattr(other, name) for name in compared)

    @classmethod
    def of(cls, source: records.FrameSource, seen: Seen) -> "Learned":
        """Of a run that learns from these people of a data set."""
        metadata = source.metadata
        return cls(
            builder=metadata.builder,
            index=metadata.index_sha256,
            crop=metadata.crop,
            aus=list(source.layout.aus),
            fps=metadata.fps,
            fingerprint=metadata.fingerprint,
            people=seen.people,
            unknown=list(seen.unknown),
        )


def read(path: pathlib.Path) -> Learned | None:
    """What a run has learned from; None for a weight file and a converted run.

    Raises:
      InputError: `data.json` is damaged.
    """
    file = path / _FILE
    if not file.exists():
        return None
    try:
        facts = json.loads(file.read_text())
        return Learned(**facts)
    except (RecursionError, TypeError, ValueError) as error:
        raise InputError(
            f"{file}: does not say what the run was trained on; bring back a copy of it, or train "
            "again"
        ) from error


def write(workdir: pathlib.Path, learned: Learned) -> None:
    """Says in a run what it learns from."""
    text = json.dumps(dataclasses.asdict(learned), indent=2)
    files.write(workdir / _FILE, f"{text}\n")


def check(workdir: pathlib.Path, learned: Learned) -> None:
    """Refuses to go on with another data set, wherever it lies; says what cannot be checked.

    Raises:
      InputError: the run was begun with another data set, or `data.json` is damaged.
    """
    old = read(workdir)
    if old is None:
        notes.once(
            f"{workdir}: has no {_FILE}: whether this is the data set that it has learned from "
            "cannot be checked"
        )
        return
    if not old.fingerprint:
        notes.once(
            f"{workdir}: an earlier version began this run and kept no digest of the pictures: "
            "whether they are the same cannot be checked"
        )
    if not old.has_same_data(learned):
        raise InputError(
            f"{workdir}: this run was begun with another data set (other frames, labels, crops or "
            "pictures); use that one again or another --workdir"
        )
