# SPDX-License-Identifier: Apache-2.0
"""Labelled recordings as they lie on a user's disk: what every source of frames is turned into."""

import contextlib
import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Int8

from mdhr_jax.errors import InputError
from mdhr_jax.faces import pace, picture_files, video
from mdhr_jax.machine.files import reading

UNKNOWN = -1  # label or intensity that nobody coded
# Of a Mac's archives, Windows, Synology's disks, and Linux's.
_SYSTEMS = {"__MACOSX", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "lost+found"}
_OTHER_PICTURES = {
    *(".avif", ".bmp", ".dng", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".pgm", ".ppm"),
    *(".tga", ".tif", ".tiff", ".webp"),
} - picture_files.SUFFIXES

type OnBad = Callable[[InputError, int], None]
"""Told why, and how many frames, cannot be read; they are left out."""


class Sourced(NamedTuple):
    """A frame, numbered by its place in the source; its number in the labels; and its file."""

    frame: video.Frame
    number: int
    file: pathlib.Path


@runtime_checkable
class Source(Protocol):
    """Where a recording's pictures are."""

    @property
    def files(self) -> tuple[pathlib.Path, ...]:
        """All of its files."""
        ...

    def frames(self, numbers: Int[np.ndarray, " m"], on_bad: OnBad) -> Iterator[Sourced]:
        """The frames of these (increasing) numbers that there are, in order."""
        ...


@dataclasses.dataclass(frozen=True)
class Pictures:
    """A picture file for every frame.

    Attributes:
      by_number: the file of each frame's number.
    """

    by_number: Mapping[int, pathlib.Path]

    @property
    def files(self) -> tuple[pathlib.Path, ...]:
        """See `Source`."""
        return tuple(self.by_number.values())

    def frames(self, numbers: Int[np.ndarray, " m"], on_bad: OnBad) -> Iterator[Sourced]:
        """See `Source`."""
        places = {number: place for place, number in enumerate(sorted(self.by_number), start=1)}
        shown = numbers[np.isin(numbers, list(places))]
        gaps = pace.gaps(shown, pace.step(numbers))
        missing = 0.0  # since the last one
        for number, gap in zip(shown.tolist(), gaps.tolist(), strict=True):
            missing += gap
            file = self.by_number[number]
            try:
                picture = picture_files.read(file)
            except InputError as error:
                on_bad(error, 1)
                missing += 1
            else:
                yield Sourced(video.Frame(places[number], None, picture, missing), number, file)
                missing = 0.0


@dataclasses.dataclass(frozen=True)
class Film:
    """A video file.

    Attributes:
      file: that ffmpeg reads.
      first: the number of its first frame.
    """

    file: pathlib.Path
    first: int

    @property
    def files(self) -> tuple[pathlib.Path, ...]:
        """See `Source`."""
        return (self.file,)

    def frames(self, numbers: Int[np.ndarray, " m"], on_bad: OnBad) -> Iterator[Sourced]:
        """See `Source`."""
        wanted = set(numbers.tolist())
        missing = 0.0  # since the last one
        try:
            for frame in video.frames(self.file):
                number = frame.number - 1 + self.first
                missing += frame.missing
                if number in wanted:
                    wanted.remove(number)
                    yield Sourced(frame._replace(missing=missing), number, self.file)
                    missing = 0.0
                if not wanted:
                    return
        except video.DecoderError:  # another time it may go well
            raise
        except InputError as error:
            on_bad(error, len(wanted))


def count(source: Source) -> int | None:
    """How many frames there are, of a film by its header; None where that does not tell."""
    if isinstance(source, Pictures):
        return len(source.by_number)
    with contextlib.suppress(InputError):  # a damaged film is told of when it is read
        return video.count(source.files[0])
    return None


@dataclasses.dataclass(frozen=True)
class Recording:
    """One person filmed once, with labels.

    Attributes:
      subject: who.
      name: of the recording, unique in the data set, such as F001/T1.
      numbers: of the labelled frames, increasing.
      labels: 1 AU active, 0 not, -1 unknown.
      intensities: 0 to 5, -1 unknown.
      source: where the pictures are.
      faceless: numbers of frames that show no face, as their labels say; these are left out.

    Raises:
      InputError: numbers do not increase.
    """

    subject: str
    name: str
    numbers: Int[np.ndarray, " m"]
    labels: Int8[np.ndarray, "m n"]
    intensities: Int8[np.ndarray, "m n"]
    source: Source
    faceless: Collection[int] = ()

    def __post_init__(self):
        falls = np.flatnonzero(np.diff(self.numbers) <= 0)
        if len(falls):
            before, after = self.numbers[falls[0] : falls[0] + 2]
            raise InputError(
                f"{self.name}: frame {after} comes after frame {before}; keep frames in the order "
                "of their numbers, each once"
            )


class RawSet(NamedTuple):
    """What is in a raw data set.

    Attributes:
      recordings: sorted by subject and name.
      notes: one line each on what is missing or does not fit together.
      labels: the label files.
      roots: the folders below which all of it lies.
    """

    recordings: tuple[Recording, ...]
    notes: tuple[str, ...]
    labels: tuple[pathlib.Path, ...]
    roots: tuple[pathlib.Path, ...]

    def place(self, file: pathlib.Path) -> str:
        """The file's name below the first root that contains it."""
        root = next(root for root in self.roots if file.is_relative_to(root))
        return file.relative_to(root).as_posix()


def check_numbers(chosen: Sequence[Recording]) -> None:
    """Whether the numbers of labels, also of those left out, and of pictures are of one count.

    Raises:
      InputError: a recording's labels and pictures have no number in common; or one would fit the
        other if it began where that begins, as where one counts from 0 and the other from 1.
    """
    both = [
        (
            recording,
            sorted({*recording.numbers.tolist(), *recording.faceless}),
            sorted(recording.source.by_number),
            recording.source.by_number,
        )
        for recording in chosen
        if isinstance(recording.source, Pictures) and recording.source.by_number
    ]
    agreed = any(labels[0] == pictures[0] for _, labels, pictures, _ in both)
    for recording, labels, pictures, by_number in both:
        if _apart(labels, pictures, agreed):
            raise InputError(
                f"{recording.name}: labels are of the frames {labels[0]} to {labels[-1]}, the "
                f"pictures' names end in {pictures[0]} to {pictures[-1]} "
                f"({by_number[pictures[0]].name}); number both from the same "
                "frame on"
            )


def _apart(labels: Sequence[int], pictures: Sequence[int], agreed: bool) -> bool:
    """Does one count begin elsewhere? `agreed`: in other recordings they begin with one number."""
    there_are, start = set(pictures), pictures[0] - labels[0]
    moved = [number + start for number in labels]
    if moved == pictures:
        return start != 0
    here, there = len(there_are.intersection(labels)), len(there_are.intersection(moved))
    if {labels[0], pictures[0]} != {0, 1} or here == len(labels):
        return here == 0
    # The first picture alone may be missing where others are numbered as their labels are.
    return there > here or not agreed


def unmatched(labels: Collection[str], pictures: Collection[str]) -> tuple[str, ...]:
    """A note on each recording that has only labels, or only pictures."""
    return (
        *(f"{name}: labels, but no pictures" for name in sorted(set(labels) - set(pictures))),
        *(f"{name}: pictures, but no labels" for name in sorted(set(pictures) - set(labels))),
    )


def few(names: Sequence[str], most: int = 3) -> str:
    """The first of many names, and how many there are beside."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def put[Value](by_name: dict[str, Value], name: str, value: Value, what: str) -> None:
    """Adds what was found of a recording.

    Raises:
      InputError: something of it was found before.
    """
    if by_name.setdefault(name, value) is not value:
        raise InputError(
            f"{name}: found twice, last in {what}; keep copies out of the folders that are searched"
        )


def sha256(file: pathlib.Path) -> str:
    """Checksum of a file's bytes, hexadecimal."""
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def walk(root: pathlib.Path) -> Iterator[tuple[pathlib.Path, list[str]]]:
    """Every folder from `root` down, and the names of its files; links are followed, once.

    What systems and programs put beside a user's files is not seen (`is_of_systems`).

    Raises:
      InputError: a folder cannot be read.
    """
    seen = set()
    for folder, inner, files in root.walk(follow_symlinks=True, on_error=_refuse_folder):
        inner[:] = sorted(name for name in inner if not is_of_systems(name))
        place = folder.stat()
        if (place.st_dev, place.st_ino) in seen:
            inner.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        yield folder, sorted(name for name in files if not is_of_systems(name))


def _refuse_folder(error: OSError) -> None:
    with reading(error.filename):
        raise error


def is_of_systems(name: str) -> bool:
    """Whether a file or folder is hidden, as a Mac's `._a.csv`, or another system's own."""
    return name.startswith((".", "~$")) or name in _SYSTEMS


def named(root: pathlib.Path, name: re.Pattern) -> Iterator[tuple[pathlib.Path, re.Match]]:
    """The files from `root` down whose whole names match, those in deeper folders later."""
    for folder, files in walk(root):
        for file in files:
            if match := name.fullmatch(file):
                yield folder / file, match


def numbered_pictures(folder: pathlib.Path, files: Sequence[str]) -> dict[int, pathlib.Path]:
    """The pictures among a folder's files by the number that ends their names: 07, SN001_12.

    Raises:
      InputError: two pictures have the same number, or one is of a kind that is not read.
    """
    by_number: dict[int, pathlib.Path] = {}
    unread: dict[int, pathlib.Path] = {}
    for name in files:
        file = folder / name
        number = picture_files.number(file)
        if number is None or is_of_systems(name):
            continue
        if is_unread_picture(file):
            unread[number] = file
        elif is_picture(file):
            other = by_number.setdefault(number, file)
            if other != file:
                raise InputError(
                    f"{folder}: {other.name} and {name} are both frame {number}; remove one of them"
                )
    for number in unread.keys() - by_number.keys():
        refuse_unread(unread[number])
    return by_number


def is_picture(file: pathlib.Path) -> bool:
    """Whether its ending is one of pictures that are read."""
    return file.suffix.lower() in picture_files.SUFFIXES and not is_of_systems(file.name)


def is_unread_picture(file: pathlib.Path) -> bool:
    """Whether its ending is one of pictures that are not read here."""
    return file.suffix.lower() in _OTHER_PICTURES


def refuse_unread(file: pathlib.Path) -> None:
    """Raises InputError: the picture is of a kind that is not read."""
    read = ", ".join(sorted(picture_files.SUFFIXES))
    raise InputError(f"{file}: pictures of this kind are not read, only {read}; convert it")
