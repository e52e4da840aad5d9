# SPDX-License-Identifier: Apache-2.0
"""Labelled frames in order, and the clips of T frames that are cut from them. numpy only.

No clip goes on where a video ends or breaks, or a frame is missing (`faces.pace`): from there to
the next frame there is no movement to be seen. Evaluation visits every frame once. Training draws
clips: each video `clips_per_video` times per epoch, from a random start (the release: once), or
where that is 0 evaluation's clips, every frame once, in random order. Frames
missing at a clip's end are replaced by its last frame and marked as not valid; so are a few missing
within it where that is asked for (`hold`).
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from mdhr_jax.faces import pace

AUGMENTATION = ("offset_x", "offset_y", "flip", "brightness", "contrast", "saturation", "order")
"""Columns of the augmentation of a clip."""
ORDERS = 6  # of brightness, contrast and saturation, one after the other


class Video(NamedTuple):
    """The labelled frames of one recording; fields as in `FrameTable`.

    None: no breaks, and places by the numbers, at the step that these show.
    """

    name: str
    subject: str
    number: Int[np.ndarray, " t"]
    labels: Int8[np.ndarray, "t n"]
    breaks: Bool[np.ndarray, " t"] | None = None
    place: Int[np.ndarray, " t"] | None = None


@dataclasses.dataclass(frozen=True)
class FrameTable:
    """What is known of `m` frames without looking at a picture; a video is a run of frames.

    Attributes:
      videos: name of each video, unique, in the order of the frames.
      subjects: the person in each video.
      video: position in `videos` of each frame's video, never decreasing.
      number: number of each frame in its recording.
      labels: 1 AU active, 0 not, -1 unknown.
      breaks: no movement leads from the frame before to this one, whatever their numbers: another
        face is followed, or the film was cut.
      place: of each frame in its video, increasing by one, and by one for each that is missing.
    """

    videos: tuple[str, ...]
    subjects: tuple[str, ...]
    video: Int[np.ndarray, " m"]
    number: Int[np.ndarray, " m"]
    labels: Int8[np.ndarray, "m n"]
    breaks: Bool[np.ndarray, " m"]
    place: Int[np.ndarray, " m"]

    def __len__(self) -> int:
        return len(self.video)

    @classmethod
    def from_videos(cls, videos: Sequence[Video]) -> "FrameTable":
        """The table of these videos, one after the other."""
        placed = [_placed(video) for video in videos]
        return cls(
            videos=tuple(video.name for video in videos),
            subjects=tuple(video.subject for video in videos),
            video=np.repeat(np.arange(len(videos)), [len(video.number) for video in videos]),
            number=np.concatenate([video.number for video in videos]),
            labels=np.concatenate([video.labels for video in videos]),
            breaks=np.concatenate([video.breaks for video in placed]),
            place=np.concatenate([video.place for video in placed]),
        )

    def to_videos(self) -> list[Video]:
        """The videos of the table in order, the inverse of `from_videos`."""
        return [
            Video(
                name,
                subject,
                self.number[start:stop],
                self.labels[start:stop],
                self.breaks[start:stop],
                self.place[start:stop],
            )
            for name, subject, start, stop in zip(
                self.videos, self.subjects, *self.bounds, strict=True
            )
        ]

    def by_number(self) -> "FrameTable":
        """The same with places by the frames' numbers alone."""
        return self.from_videos([video._replace(place=None) for video in self.to_videos()])

    @property
    def bounds(self) -> tuple[Int[np.ndarray, " v"], Int[np.ndarray, " v"]]:
        """First row and row after the last one of every video."""
        videos = np.arange(len(self.videos))
        return (
            np.searchsorted(self.video, videos, side="left"),
            np.searchsorted(self.video, videos, side="right"),
        )

    def rows_of(self, subjects: Sequence[str]) -> Int[np.ndarray, " k"]:
        """Rows of the frames that show one of `subjects`, in order."""
        shown = np.isin(np.array(self.subjects, str), np.array(list(subjects), str))
        return np.flatnonzero(shown[self.video])

    def take(self, rows: Int[np.ndarray, " k"]) -> "FrameTable":
        """The table of some rows (increasing); videos without a row are left out."""
        kept, video = np.unique(self.video[rows], return_inverse=True)
        return FrameTable(
            videos=tuple(self.videos[v] for v in kept),
            subjects=tuple(self.subjects[v] for v in kept),
            video=video,
            number=self.number[rows],
            labels=self.labels[rows],
            breaks=self.breaks[rows],
            place=self.place[rows],
        )


def _placed(video: Video) -> Video:
    """The same with breaks and places."""
    breaks = np.zeros(len(video.number), bool) if video.breaks is None else video.breaks
    if video.place is not None:
        return video._replace(breaks=breaks)
    place, apart = pace.places(video.number)
    return video._replace(breaks=breaks | apart, place=place)


@dataclasses.dataclass(frozen=True)
class Clips:
    """Clips of `t` frames, and `s - t` neighbours of theirs, as rows of a `FrameTable`.

    Attributes:
      rows: row of each of the t frames, after and before their neighbours in the video; past the
        ends of a clip's run of frames the first or last one, repeated.
      valid: of the t frames, False for repeated ones.
    """

    rows: Int[np.ndarray, "b s"]
    valid: Bool[np.ndarray, "b t"]

    @property
    def scored(self) -> Int[np.ndarray, "b t"]:
        """Rows of the t frames alone."""
        context = (self.rows.shape[1] - self.valid.shape[1]) // 2
        return self.rows[:, context : context + self.valid.shape[1]]

    def __len__(self) -> int:
        return len(self.rows)


class _Timeline(NamedTuple):
    """The frames of a table at an even pace: a missing one is the one before it, held.

    Attributes:
      rows: which frame is seen, at every position.
      held: whether it stands for a missing one.
      starts: first position of every run of frames without a gap.
      stops: position after the last one of every run.
    """

    rows: Int[np.ndarray, " p"]
    held: Bool[np.ndarray, " p"]
    starts: Int[np.ndarray, " r"]
    stops: Int[np.ndarray, " r"]


def _timeline(table: FrameTable, hold: int) -> _Timeline:
    """Bridges up to `hold` missing frames in a row; where more are missing a run ends."""
    missing = np.diff(table.place) - 1
    breaks = (np.diff(table.video) != 0) | table.breaks[1:] | (missing > hold)
    shown = 1 + np.append(np.where(breaks, 0, missing), 0)  # positions of each frame
    first = np.append(0, shown.cumsum())
    edges = first[np.concatenate([[0], np.flatnonzero(breaks) + 1, [len(table)]])]
    held = np.ones(first[-1], bool)
    held[first[:-1]] = False
    return _Timeline(np.repeat(np.arange(len(table)), shown), held, edges[:-1], edges[1:])


def evaluation_clips(
    table: FrameTable, clip_length: int, context: int = 0, *, hold: int = 0
) -> Clips:
    """Every frame of `table` once, in consecutive clips inside runs of frames without a gap.

    Each clip carries `context` more frames of its run before and after it. Up to `hold` missing
    frames in a row are no gap.
    """
    line = _timeline(table, hold)
    return _clips(line, *_consecutive(line, clip_length), clip_length, context)


def training_clips(
    table: FrameTable,
    *,
    clip_length: int,
    clips_per_video: int,
    crop_offsets: range,
    colour_jitter: float,
    seed: int,
    epoch: int,
    context: int = 0,
    hold: int = 0,
    mirror: bool = True,
) -> tuple[Clips, Float[np.ndarray, "b 7"]]:
    """The clips of one epoch in random order, and how each of them is augmented.

    A pure function of its arguments. The draws are raw 64-bit words of a counter-based generator
    keyed by `(seed, epoch)`: numpy keeps those the same for ever, `Generator` methods it does not.
    A clip may start at every frame where it fits into a run of successive frames of its video, and
    where a shorter run begins. The release would go on over missing frames; the official lists have
    none.

    Args:
      table: frames of the training subjects.
      clip_length: T, frames.
      clips_per_video: clips of every video in an epoch; 0: those that hold every frame once.
      crop_offsets: where a crop may begin, in x and in y, pixels.
      colour_jitter: largest change of brightness, contrast and saturation.
      seed: of the run, >= 0.
      epoch: counted from 0.
      context: frames of the run before and after a clip that it carries.
      hold: so many missing frames in a row are no gap.
      mirror: half of the clips; else none, as AUs of one side would change it.

    Returns:
      The clips, and per clip the columns `AUGMENTATION`: offsets out of `crop_offsets`, flip 0 or
      1, colour factors around 1, which of the `ORDERS` they have.
    """
    line = _timeline(table, hold)
    count = clips_per_epoch(table, clip_length, clips_per_video, hold=hold)
    generator = np.random.Philox(key=np.array([seed, epoch], np.uint64))
    draws = generator.random_raw((count, 8))
    order, start, *crop, flip = (draws[:, i] for i in range(5))
    in_turn = np.argsort(order, kind="stable")
    if clips_per_video:
        video = np.repeat(np.arange(len(table.videos)), clips_per_video)[in_turn]
        run, first = _drawn(table, line, video, start, clip_length)
    else:
        run, first = (places[in_turn] for places in _consecutive(line, clip_length))

    low, high = 1 - colour_jitter, 1 + colour_jitter
    jitter = low + (high - low) * (draws[:, 5:] >> 11) * 2.0**-53
    offsets = [crop_offsets.start + _below(draw, len(crop_offsets)) for draw in crop]
    colours = _below(generator.random_raw(count), ORDERS)
    flips = _below(flip, 2) if mirror else np.zeros(count)
    augment = np.column_stack([*offsets, flips, jitter, colours]).astype(np.float32)
    return _clips(line, run, first, clip_length, context), augment


def clips_per_epoch(
    table: FrameTable, clip_length: int, clips_per_video: int, *, hold: int = 0
) -> int:
    """How many clips `training_clips` draws of these frames."""
    if clips_per_video:
        return len(table.videos) * clips_per_video
    return len(_consecutive(_timeline(table, hold), clip_length)[0])


def _drawn(
    table: FrameTable, line: _Timeline, video: np.ndarray, start: np.ndarray, clip_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Run and first position of a clip of each of these videos, at random."""
    last = np.maximum(line.stops - clip_length, line.starts)  # where a clip of each run may start
    shown = np.flatnonzero(~line.held)
    shown = shown[shown <= last[np.searchsorted(line.starts, shown, side="right") - 1]]
    of_video = np.bincount(table.video[line.rows[shown]])
    first = shown[(np.cumsum(of_video) - of_video)[video] + _below(start, of_video[video])]
    return np.searchsorted(line.starts, first, side="right") - 1, first


def _consecutive(line: _Timeline, clip_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Run and first position of the clips that hold every frame once."""
    clips_per_run = -(-(line.stops - line.starts) // clip_length)
    run = np.repeat(np.arange(len(line.starts)), clips_per_run)
    earlier = np.cumsum(clips_per_run) - clips_per_run
    return run, line.starts[run] + (np.arange(len(run)) - earlier[run]) * clip_length


def _below(words: np.ndarray, bound: np.ndarray | int) -> np.ndarray:
    # The bias of the remainder is below bound / 2^64.
    return (words % np.asarray(bound, np.uint64)).astype(np.int64)


def _clips(
    line: _Timeline, run: np.ndarray, first: np.ndarray, clip_length: int, context: int
) -> Clips:
    """Clips that begin at the positions `first` of these runs."""
    start, stop = line.starts[run][:, None], line.stops[run][:, None]
    positions = first[:, None] + np.arange(-context, clip_length + context)
    seen = np.clip(positions, start, stop - 1)
    valid = (positions < stop) & ~line.held[seen]
    return Clips(rows=line.rows[seen], valid=valid[:, context : context + clip_length])
