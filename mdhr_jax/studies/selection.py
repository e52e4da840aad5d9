# SPDX-License-Identifier: Apache-2.0
"""A few frames of a test fold that are worth showing: by name, or chosen by their labels."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from mdhr_jax.data import clips, records
from mdhr_jax.errors import InputError

NEAR = 5  # frames before and after one whose changes of labels count for it


@dataclasses.dataclass(frozen=True)
class TestFold:
    """The frames of a test fold. Rows count within it.

    Attributes:
      source: the data set.
      fold: from 1.
      rows: row of each frame in the data set.
      table: subjects, videos, numbers and labels.
      index: the clips of evaluation.
    """

    source: records.FrameSource
    fold: int
    rows: Int[np.ndarray, " m"]
    table: clips.FrameTable
    index: clips.Clips

    @property
    def people(self) -> list[str]:
        """The person in each frame."""
        return [self.table.subjects[video] for video in self.table.video]

    def name(self, row: int) -> str:
        """`VIDEO:NUMBER` of a frame."""
        return f"{self.table.videos[self.table.video[row]]}:{self.table.number[row]}"

    def find(self, name: str) -> int:
        """The row of the frame `VIDEO:NUMBER`.

        Raises:
          InputError: no such video in this fold, or no such frame in it.
        """
        video, _, number = name.rpartition(":")
        if video not in self.table.videos:
            raise InputError(
                f"frame {name!r}: test fold {self.fold} of {self.source.path} has no video "
                f"{video!r}; write VIDEO:NUMBER with one of its {len(self.table.videos)} videos, "
                f"{_some(self.table.videos)}"
            )
        own = self.table.video == self.table.videos.index(video)
        rows = np.flatnonzero(own & (self.table.number.astype(str) == number))
        if not len(rows):
            numbers = self.table.number[own]
            raise InputError(
                f"frame {name!r}: video {video} has no frame {number!r}; its {len(numbers)} frames "
                f"have numbers from {numbers.min()} to {numbers.max()}"
            )
        return int(rows[0])

    def clip(self, row: int) -> tuple[int, int]:
        """In which clip a frame is evaluated, and at which of the t places."""
        clip, place = np.argwhere((self.index.scored == row) & self.index.valid)[0]
        return int(clip), int(place)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def open_fold(
    source: records.FrameSource, fold: int, *, clip_length: int, context: int
) -> TestFold:
    """The test frames of a fold, in the clips of `pipeline.eval_batches`.

    Raises:
      InputError: no such fold, or nobody is tested in it.
    """
    rows = source.rows(fold, "test")
    table = source.table.take(rows)
    index = clips.evaluation_clips(table, clip_length, context, hold=source.hold)
    return TestFold(source, fold, rows, table, index)


def choose(interest: Float[np.ndarray, "m n"], people: Sequence[str], count: int) -> list[int]:
    """The most interesting frames one after the other, at most one of a person.

    What an AU adds to a frame's interest is divided by one more than it had in those before.

    Args:
      interest: how much each AU makes each frame worth showing.
      people: the person in each frame.
      count: how many, if there are as many people.
    """
    owner = np.array(people)
    free = np.ones(len(owner), bool)
    shown = np.zeros(interest.shape[1])
    chosen: list[int] = []
    while free.any() and len(chosen) < count:
        best = int(np.argmax(np.where(free, interest @ (1 / (1 + shown)), -1)))
        chosen.append(best)
        shown += interest[best]
        free &= owner != owner[best]
    return chosen


def label_changes(test: TestFold) -> Float[np.ndarray, "m n"]:
    """Beginnings and ends of AUs within `NEAR` frames of each frame in its clip, near ones most."""
    labels = test.table.labels[test.index.scored] == 1
    changes = (labels[:, 1:] != labels[:, :-1]).astype(np.float64)
    frame, change = np.arange(labels.shape[1])[:, None], np.arange(changes.shape[1])[None] + 0.5
    nearness = np.maximum(1 - np.abs(frame - change) / NEAR, 0)
    near = np.einsum("tj,bjn->btn", nearness, changes)
    interest = np.zeros(test.table.labels.shape)
    interest[test.index.scored[test.index.valid]] = near[test.index.valid]
    return interest


def active_regions(test: TestFold) -> Float[np.ndarray, "m n"]:
    """1 for each region with active AUs, in equal shares to them."""
    active = test.table.labels == 1
    same_region = 1 - test.source.layout.cross_region
    return active / np.maximum(active @ same_region, 1)
