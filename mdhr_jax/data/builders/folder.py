# SPDX-License-Identifier: Apache-2.0
"""A user's own videos and labels.

Labels are tables as text (`csv_files`, `label_tables`), one for all videos or one per video:

    video,frame,subject,AU01,AU12      clips/a.mp4,1,anna,0,1
    frame,subject,AU01,AU12            in a.csv, for a.mp4 or the folder a
    frame,success,AU01_c,AU12_c        the same as OpenFace writes it

Frames count from 1 in a video; a picture, alone or in a folder, has the number that ends its name,
alone and without one it is 1. Rows of success 0 show no face and are left out. Without a column
`subject` the person is the folder in which video or table lies. What lies there without labels is
named in a note.
"""

import collections
import dataclasses
import difflib
import pathlib
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from mdhr_jax import facs
from mdhr_jax.data import naming
from mdhr_jax.data.builders import label_tables, recordings
from mdhr_jax.data.builders.recordings import UNKNOWN, Film, Pictures, RawSet, Recording, Source
from mdhr_jax.errors import InputError
from mdhr_jax.faces.video import SUFFIXES as _FILMS

_TABLE = re.compile(r".*\.(csv|tsv)", re.IGNORECASE | re.DOTALL)


def find(root: pathlib.Path) -> tuple[RawSet, facs.AuLayout]:
    """The labelled recordings below a folder, and the layout of their AUs.

    Raises:
      InputError: there are no labels, a table is broken, tables disagree on the AUs, a video is
        missing, lies elsewhere, shows two people, or has two labels for one frame.
    """
    tables = {file: label_tables.read(file) for file, _ in recordings.named(root, _TABLE)}
    labels = {file: table for file, table in tables.items() if table.aus}
    aus = _common_aus(labels)
    videos = _Videos(root)
    for file, table in labels.items():
        videos.add(file, table.rows)
    for file, table in labels.items():
        videos.add_faceless(file, [row for row in table.rows if row.labels is None])
    notes = [f"{_below(root, file)}: {table.note}" for file, table in tables.items() if table.note]
    notes += _unread({_below(root, file): table.unread for file, table in labels.items()})
    others = [_below(root, file) for file, table in tables.items() if not (table.aus or table.note)]
    notes += _left_out("tables without a column such as AU01", others)
    taken = videos.recordings(len(aus))
    if not taken:
        reasons = f" ({'; '.join(notes)})" if notes else ""
        raise InputError(
            f"{root}: no CSV file with the columns frame and AU01, AU02, ... below it{reasons}"
        )
    notes += _left_out("videos or folders of pictures without labels", videos.unlabelled())
    layout = facs.layout(facs.own_name(aus))
    return RawSet(taken, tuple(notes), tuple(labels), (root,)), layout


def _common_aus(labels: Mapping[pathlib.Path, label_tables.LabelTable]) -> tuple[int, ...]:
    """The AUs of every table."""
    aus: tuple[int, ...] = ()
    for file, table in labels.items():
        aus = aus or table.aus
        if table.aus != aus:
            raise InputError(f"{file}: labels AUs {table.aus}, others {aus}; label the same ones")
    return aus


def _unread(columns: Mapping[str, tuple[str, ...]]) -> list[str]:
    """A note on the columns of each table that are not read, tables with the same ones at once."""
    alike = collections.defaultdict(list)
    for name, unread in columns.items():
        alike[unread].append(name)
    return [
        f"{recordings.few(names)}: not read are the columns {recordings.few(unread, most=20)}"
        for unread, names in alike.items()
        if unread
    ]


def _below(root: pathlib.Path, place: pathlib.Path) -> str:
    return place.relative_to(root).as_posix()


def _left_out(what: str, names: Sequence[str]) -> list[str]:
    return [f"{len(names)} {what}, left out: {recordings.few(names)}"] if names else []


@dataclasses.dataclass(frozen=True)
class _Video:
    """A film, a picture or a folder of pictures, and what tables say of it.

    Attributes:
      subject: who.
      name: what tables call it.
      first: the line that names it first.
      source: its pictures.
      labels: of each frame.
      files: the table that labels each frame.
      faceless: the frames that tables say show no face.
    """

    subject: str
    name: str
    first: str
    source: Source
    labels: dict[int, list[int]] = dataclasses.field(default_factory=dict)
    files: dict[int, pathlib.Path] = dataclasses.field(default_factory=dict)
    faceless: set[int] = dataclasses.field(default_factory=set)


class _Videos:
    """The labelled videos below a folder, each once, by whatever names tables call them."""

    def __init__(self, root: pathlib.Path):
        self._root = root
        self._by_name: dict[str, _Video] = {}
        self._by_place: dict[tuple[int, int], _Video] = {}

    def add(self, file: pathlib.Path, rows: Sequence[label_tables.FrameLabels]) -> None:
        """Adds the labels of a table."""
        for row in rows:
            if row.labels is None:
                continue
            name = _video_name(self._root, file, row)
            video = self._find(_subject(name, row), name, row.place)
            if row.frame in video.labels:
                raise InputError(
                    f"{row.place}: frame {row.frame} of {video.name} has been labelled before, in "
                    f"{video.files[row.frame]}; keep one of them"
                )
            video.labels[row.frame], video.files[row.frame] = row.labels, file

    def add_faceless(self, file: pathlib.Path, rows: Sequence[label_tables.FrameLabels]) -> None:
        """Adds the numbers of a table's frames without a face, of videos that have labels."""
        for row in rows:
            if video := self._by_name.get(_video_name(self._root, file, row)):
                video.faceless.add(row.frame)

    def _find(self, subject: str, name: str, first: str) -> _Video:
        if name not in self._by_name:
            place = _place(self._root, name)
            self._by_name[name] = self._by_place.setdefault(
                _identity(place), _Video(subject, name, first, _source(self._root, place))
            )
        video = self._by_name[name]
        if video.subject != subject:
            raise InputError(
                f"{first}: {name} shows {subject}, but {video.subject} in {video.first}; give each "
                "person a video or folder, or name pictures one by one, such as photos/12.jpg"
            )
        return video

    def recordings(self, aus: int) -> tuple[Recording, ...]:
        """All of them, by person and name, with labels of so many AUs."""
        videos = sorted(self._by_place.values(), key=lambda video: (video.subject, video.name))
        return tuple(_recording(video, aus) for video in videos)

    def unlabelled(self) -> list[str]:
        """Names of the films and folders of pictures that no table names."""
        return [
            _below(self._root, place)
            for place, parts in _shown(self._root)
            if not any(part.exists() and _identity(part) in self._by_place for part in parts)
        ]


def _shown(root: pathlib.Path) -> Iterator[tuple[pathlib.Path, Collection[pathlib.Path]]]:
    """Films and folders of numbered pictures, and the files or folders that tables may name."""
    for folder, names in recordings.walk(root):
        files = [folder / name for name in names]
        pictures = [file for file in files if recordings.is_picture(file)]
        if any(file.stem[-1:].isdigit() for file in pictures):
            yield folder, (folder, *pictures)
        yield from ((file, (file,)) for file in files if file.suffix.lower() in _FILMS)


def _identity(place: pathlib.Path) -> tuple[int, int]:
    """The same for all names of a file or folder."""
    state = place.stat()
    return state.st_dev, state.st_ino


def _video_name(root: pathlib.Path, file: pathlib.Path, row: label_tables.FrameLabels) -> str:
    if row.video is None:
        return _below(root, file.with_suffix(""))
    path = pathlib.PurePath(row.video)
    if "\\" in row.video and not (root / path).exists():
        path = pathlib.PureWindowsPath(row.video)
    if not naming.is_name(row.video) or not path.stem.strip(".") or path.anchor:
        raise InputError(f"{row.place}: {row.video!r} names no video in {root}")
    return path.as_posix()


def _subject(video: str, row: label_tables.FrameLabels) -> str:
    subject = pathlib.PurePath(video).parent.name if row.subject is None else row.subject
    if not re.fullmatch("[A-Za-z0-9_]+", subject):
        raise InputError(
            f"{row.place}: person {subject!r} of {video}; name each person in a column subject, "
            "with letters, digits and _, so that nobody is trained on and tested"
        )
    return subject


def _recording(video: _Video, aus: int) -> Recording:
    numbers = sorted(video.labels)
    if isinstance(video.source, Film) and 0 in video.faceless.union(numbers):
        raise InputError(
            f"{video.name}: its table has a frame 0, but frames of a video count from 1; add 1 to "
            "each number"
        )
    return Recording(
        subject=video.subject,
        name=video.name,
        numbers=np.array(numbers),
        labels=np.array([video.labels[number] for number in numbers], np.int8),
        intensities=np.full((len(numbers), aus), UNKNOWN, np.int8),
        source=video.source,
        faceless=frozenset(video.faceless),
    )


def _source(root: pathlib.Path, place: pathlib.Path) -> Source:
    if place.is_dir():
        files = sorted(file.name for file in place.iterdir())
        pictures = recordings.numbered_pictures(place, files)
        if not pictures and _holds_pictures(place):
            raise InputError(f"{place}: no picture's name ends in a number, as 12.jpg or a_12.png")
        for file in pictures.values():
            _inside(root, file)
        return Pictures(pictures)
    if recordings.is_unread_picture(place) and place.suffix.lower() not in _FILMS:
        recordings.refuse_unread(place)
    if recordings.is_picture(place):
        return Pictures(recordings.numbered_pictures(place.parent, [place.name]) or {1: place})
    return Film(place, first=1)


def _place(root: pathlib.Path, video: str) -> pathlib.Path:
    """The film, picture or folder of that name; a film may be named without its ending."""
    place = _inside(root, _on_disk(root, video))
    if place.is_file():
        return place
    beside = sorted(place.parent.iterdir()) if place.parent.is_dir() else []
    matching = [
        file
        for file in beside
        if _plain(file.stem) == _plain(place.name) and file.suffix.lower() in _FILMS
    ]
    if place.is_dir() and (not matching or _holds_pictures(place)):
        matching.append(place)
    if len(matching) != 1:
        listed = ", ".join(file.name for file in matching) or f"nothing{_near(place)}"
        raise InputError(f"{place}: expected one video or folder of that name, found {listed}")
    return _inside(root, matching[0])


def _holds_pictures(folder: pathlib.Path) -> bool:
    return any(recordings.is_picture(file) for file in folder.iterdir())


def _on_disk(root: pathlib.Path, video: str) -> pathlib.Path:
    """The place, in the Unicode form in which its names are written there, where they exist."""
    place = root
    for part in pathlib.PurePath(video).parts:
        if not (place / part).exists() and place.is_dir():
            same = [file.name for file in place.iterdir() if _plain(file.name) == _plain(part)]
            part = same[0] if len(same) == 1 else part
        place /= part
    return place


def _plain(name: str) -> str:
    """The same for both forms of letters with marks: Macs part the two."""
    return unicodedata.normalize("NFC", name)


def _near(place: pathlib.Path) -> str:
    """What lies there, best under a similar name."""
    while not place.parent.is_dir():
        place = place.parent
    names = {
        file.name.casefold(): file.name
        for file in sorted(place.parent.iterdir())
        if file.is_dir() or recordings.is_picture(file) or file.suffix.lower() in _FILMS
    }
    close = difflib.get_close_matches(place.name.casefold(), names, n=1) or names
    listed = recordings.few([names[name] for name in close])
    return f"; {place.parent} holds {listed}" if listed else ""


def _inside(root: pathlib.Path, place: pathlib.Path) -> pathlib.Path:
    if not place.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{place}: lies outside {root}; name videos by their place in it")
    return place
