# SPDX-License-Identifier: Apache-2.0
"""Who was learned from, and whether those who are tested are among them. numpy only.

A name alone tells nobody: rendered people are S001, S002, ... for every seed, and two labs both
have a 01. A person is known by the name and the frames and labels of the videos, in whatever way
these were cut to pictures; those of the official folds of BP4D and DISFA by the name.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence

from mdhr_jax.data import clips

Videos = Mapping[str, Sequence[str]]
"""Of each person a digest per video."""


def videos(table: clips.FrameTable) -> dict[str, list[str]]:
    """The people of a table, in the order of their frames."""
    found: dict[str, list[str]] = collections.defaultdict(list)
    for video in table.to_videos():
        content = hashlib.sha256(video.number.astype("<i8").tobytes())
        content.update(video.labels.astype("i1").tobytes())
        found[video.subject].append(content.hexdigest()[:16])
    return dict(found)


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
        """Those of both."""
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
