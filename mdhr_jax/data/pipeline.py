# SPDX-License-Identifier: Apache-2.0
"""Batches of clips for training and evaluation (Grain).

Batch i is a function of the arguments and i alone, whatever the number of threads: a run resumes by
starting at its step. Pictures stay as they are stored, uint8; the device crops and normalises them.
Where the device holds all pictures already (`FrameSource.by_row`), `frames` is `(b, s)` int32:
their rows in the data set.
"""

import collections
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, SupportsIndex

import grain
import numpy as np

from mdhr_jax import facs
from mdhr_jax.data import clips, records

# Each thread has its batch's pictures read by all cores (`records`): the second begins a batch
# while the first waits for the last of another. The buffer counts batches, those being read among
# them: two of 64 clips of 16 frames of 256 x 256 pixels are 400 MB.
READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)

Batch = dict[str, np.ndarray]


def steps_per_epoch(
    source: records.FrameSource,
    *,
    fold: int,
    clip_length: int,
    clips_per_video: int,
    batch_size: int,
) -> int:
    """Batches that hold one epoch of `clips.training_clips`, rounded up.

    Raises:
      InputError: no such fold, or nobody in its training part.
    """
    table = source.table.take(source.rows(fold, "train"))
    count = clips.clips_per_epoch(table, clip_length, clips_per_video, hold=source.hold)
    return -(-count // batch_size)


def train_batches(
    source: records.FrameSource,
    *,
    fold: int,
    clip_length: int,
    batch_size: int,
    clips_per_video: int,
    seed: int,
    crop_offsets: range,
    colour_jitter: float,
    context: int = 0,
    start_step: int = 0,
    micro_batches: int = 1,
    part: range | None = None,
) -> Iterator[Batch]:
    """Random clips of the training videos, without end, cut into full batches.

    Epochs (`clips.training_clips`) follow each other without a break: a batch may begin in one
    epoch and end in the next.

    Args:
      source: the data set.
      fold: cross-validation fold, from 1.
      clip_length: T, frames.
      batch_size: clips per batch.
      clips_per_video: clips of every video in an epoch; 0: every frame once.
      seed: of order, starts and augmentation.
      crop_offsets: where a crop may begin, in x and in y, pixels.
      colour_jitter: largest change of brightness, contrast and saturation.
      context: frames before and after a clip that come with it, pictures only.
      start_step: batches to leave out at the beginning.
      micro_batches: equal parts of a batch that come clip by clip in turn: clips 0, 3, 1, 4, 2, 5
        of six for 2 of them.
      part: which clips of every batch to read; all of them when None.

    Returns:
      Batches of `frames` uint8 `(b, t + 2 context, h, w, 3)`, `labels` int32 `(b, t, n)` in {0, 1},
      `mask` bool `(b, t, n)` (label known, frame not padding), `augment` float32 `(b, 7)`
      (`clips.AUGMENTATION`).

    Raises:
      InputError: no such fold, or nobody in its training part; while iterating, a picture that
        cannot be read.
    """
    epochs = _TrainingClips(
        source,
        source.rows(fold, "train"),
        clip_length=clip_length,
        clips_per_video=clips_per_video,
        crop_offsets=crop_offsets,
        colour_jitter=colour_jitter,
        context=context,
        seed=seed,
    )
    batches = grain.MapDataset.source(epochs).batch(batch_size)[start_step:]
    order = np.arange(batch_size).reshape(micro_batches, -1).T.ravel()
    in_turn = batches.map(lambda batch: {name: values[order] for name, values in batch.items()})
    return _read(in_turn, source, part)


def eval_batches(
    source: records.FrameSource,
    *,
    fold: int,
    split: str = "test",
    clip_length: int,
    batch_size: int,
    context: int = 0,
    part: range | None = None,
) -> Iterator[Batch]:
    """Every frame of a split once, in consecutive clips (`clips.evaluation_clips`).

    The last batch is filled with clips that are not valid, so that all have one shape. Arguments
    are as in `train_batches`; with a `part`, only the frames in it come.

    Returns:
      Batches of `frames`, `labels`, `mask` as in `train_batches`, `valid` bool `(b, t)` (a frame of
      the split, not padding) and `row` int32 `(b, t)`, the frame's position in the split:
      `scores[batch["row"][valid]] = predicted[valid]` puts predictions in the order of
      `source.table.take(source.rows(fold, split))`.

    Raises:
      InputError: no such fold, or nobody in that part of it; while iterating, a picture that cannot
        be read.
    """
    rows = source.rows(fold, split)
    index = clips.evaluation_clips(source.table.take(rows), clip_length, context, hold=source.hold)
    data = _EvaluationClips(source, rows, index, batch_size)
    return _read(grain.MapDataset.source(data).batch(batch_size), source, part)


def ahead[Placed](
    batches: Iterable[Batch], put: Callable[[Batch], Placed]
) -> Iterator[tuple[Batch, Placed]]:
    """Batches beside what `put` makes of them, which is always done for one batch more.

    So the devices get a batch while they work on the one before it. An error waits for its turn:
    the batches before it come first.
    """
    waiting: collections.deque[tuple[Batch, Placed]] = collections.deque()
    try:
        for batch in batches:
            waiting.append((batch, put(batch)))
            if len(waiting) > 1:
                yield waiting.popleft()
    except Exception:
        yield from waiting
        raise
    yield from waiting


def _read(
    batches: grain.MapDataset[Batch], source: records.FrameSource, part: range | None
) -> Iterator[Batch]:
    """A part of every batch, with its pictures in place of their rows, ahead of its use."""
    own = slice(part.start, part.stop) if part else slice(None)

    def show(batch: Batch) -> Batch:
        batch = {name: values[own] for name, values in batch.items()}
        return batch if source.by_row else batch | {"frames": source.pictures(batch["frames"])}

    return iter(batches.map(show).to_iter_dataset(READ_OPTIONS))


class _TrainingClips:
    """Random access to the endless stream of training clips, their frames as rows."""

    def __init__(
        self,
        source: records.FrameSource,
        rows: np.ndarray,
        *,
        clip_length: int,
        clips_per_video: int,
        **drawing: Any,
    ):
        self._source = source
        self._rows = rows
        self._table = source.table.take(rows)
        self._clips_per_epoch = clips.clips_per_epoch(
            self._table, clip_length, clips_per_video, hold=source.hold
        )
        draw = functools.partial(
            clips.training_clips,
            self._table,
            clip_length=clip_length,
            clips_per_video=clips_per_video,
            hold=source.hold,
            mirror=not any(map(facs.side, source.layout.aus)),
            **drawing,
        )
        self._epoch = functools.lru_cache(maxsize=4)(lambda epoch: draw(epoch=epoch))

    def __len__(self) -> int:
        return 2**48  # as good as endless

    def __getitem__(self, position: SupportsIndex) -> Batch:
        epoch, index = divmod(int(position), self._clips_per_epoch)
        drawn, augment = self._epoch(epoch)
        clip = _clip(self._source, self._rows, drawn, index)
        return {**clip, "augment": augment[index]}


class _EvaluationClips:
    """Random access to the evaluation clips, as rows, filled up to whole batches."""

    def __init__(
        self, source: records.FrameSource, rows: np.ndarray, index: clips.Clips, batch_size: int
    ):
        self._source = source
        self._rows = rows
        filler = ((0, -len(index) % batch_size), (0, 0))
        self._index = clips.Clips(
            rows=np.pad(index.rows, filler), valid=np.pad(index.valid, filler)
        )

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, position: SupportsIndex) -> Batch:
        clip = _clip(self._source, self._rows, self._index, int(position))
        row = self._index.scored[position].astype(np.int32)
        return {**clip, "valid": self._index.valid[position], "row": row}


def _clip(
    source: records.FrameSource, split_rows: np.ndarray, index: clips.Clips, position: int
) -> Batch:
    """Rows and labels of a clip of an index whose rows count within `split_rows`."""
    labels = source.table.labels[split_rows[index.scored[position]]]
    return {
        "frames": split_rows[index.rows[position]].astype(np.int32),
        "labels": (labels == 1).astype(np.int32),
        "mask": (labels >= 0) & index.valid[position][:, None],
    }
