# SPDX-License-Identifier: Apache-2.0
"""Who was learned from, and whether those who are tested are among them.

A name alone tells nobody: rendered people are S001, S002, ... for every seed, and two labs both
have a 01. A person is known by the name and one of the videos, that is by its pictures, or by its
frames and labels where these tell something: in another crop, pictures are others. Those of the
official folds of BP4D and DISFA are known by the name.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mdhr_jax.data import clips, records, stored

Videos = Mapping[str, Sequence[str]]
"""Digests of each person's videos."""


def videos(source: records.FrameSource, subjects: Sequence[str]) -> dict[str, list[str]]:
    """The videos of some people of a data set.

    Raises:
      InputError: the data set's digests are damaged.
    """
    pictures = stored.read_digests(source.path, source.metadata)
    digests: dict[str, list[str]] = collections.defaultdict(list)
    for video in source.table.take(source.table.rows_of(subjects)).to_videos():
        # Earlier sets have no digests, but a copy of one has the same index.
        index = f"{source.metadata.index_sha256} {video.name}"
        digests[video.subject] += _digests(video, pictures.get(video.name, index))
    return dict(digests)


def _digests(video: clips.Video, pictures: str) -> Iterator[str]:
    yield pictures
    if (video.labels != video.labels[0]).any():  # many have a film in which nothing happens
        labels = video.labels.astype("i1").tobytes()
        yield hashlib.sha256(video.number.astype("<i8").tobytes() + labels).hexdigest()[:32]


@dataclasses.dataclass(frozen=True)
class Seen:
    """Whom a model has learned from, or chosen on.

    Attributes:
      people: those who are known.
      unknown: what it was started from that does not say whom it has learned from.
    """

    people: Videos
    unknown: Sequence[str] = ()

    def with_others(self, other: "Seen") -> "Seen":
        """The people that either knows, with the videos of both."""
        names = dict.fromkeys([*self.people, *other.people])
        people = {
            name: sorted({*self.people.get(name, ()), *other.people.get(name, ())})
            for name in names
        }
        return Seen(people, [*dict.fromkeys([*self.unknown, *other.unknown])])

    def among(self, tested: Videos, official: Iterable[str]) -> tuple[list[str], list[str]]:
        """Names of those tested who were seen, and of those who only have the name of one.

        Args:
          tested: the people.
          official: names that stand for one person wherever they occur.
        """
        named = [name for name in tested if name in self.people]
        known = set(official)
        seen = [
            name
            for name in named
            if name in known or not set(self.people[name]).isdisjoint(tested[name])
        ]
        return seen, [name for name in named if name not in seen]


def listed(names: Sequence[str], most: int = 20) -> str:
    """`S001, S002, ...`, long lists cut."""
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more
