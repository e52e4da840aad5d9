# SPDX-License-Identifier: Apache-2.0
"""Reading a prepared data set: labels of all frames at once, pictures by random access."""

import contextlib
import dataclasses
import errno
import functools
import os
import pathlib
import resource
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from mdhr_jax import facs
from mdhr_jax.data import clips, codecs, folds, stored
from mdhr_jax.errors import InputError
from mdhr_jax.machine import notes, workers

_REMEDY = "prepare the data set again"
_CHUNK = 8  # frames that a thread reads at a time
_LEAST_THREADS = 4  # of which some wait for the disk


@dataclasses.dataclass(frozen=True)
class FrameSource:
    """A prepared data set.

    Attributes:
      path: its directory.
      metadata: picture size, folds, frame rate, origin (`stored.Metadata`).
      layout: its AUs.
      table: subject, video, number and labels of every frame; row i is record i.
      records: all that is stored of each frame, read when asked for.
      images: the encoded pictures alone, likewise.
      held_out: share of each fold's training subjects that are a split of their own.
      hold: so many missing frames in a row do not end a clip (`clips`).
      decoded: fills an array with the pictures of some rows (`decoded.read`), if they are not to
        be read from the records.
      by_row: batches name frames by their rows instead of showing them (`pipeline`).
    """

    path: pathlib.Path
    metadata: stored.Metadata
    layout: facs.AuLayout
    table: clips.FrameTable
    records: Sequence
    images: Sequence
    held_out: float = 0.0
    hold: int = 0
    decoded: Callable[[Int[np.ndarray, " t"], UInt8[np.ndarray, "t h w 3"]], None] | None = None
    by_row: bool = False

    @property
    def folds(self) -> folds.Folds:
        """Test subjects of each fold."""
        return tuple(tuple(fold) for fold in self.metadata.folds)

    @property
    def image_size(self) -> int:
        """Height and width of the pictures."""
        return self.metadata.image_size

    def rows(self, fold: int, split: str) -> Int[np.ndarray, " m"]:
        """Rows of the frames in `split` of `fold` (`folds.split_subjects`), in order.

        Raises:
          InputError: no such fold, or nobody in it.
        """
        return self.table.rows_of(folds.split_subjects(self.folds, fold, split, self.held_out))

    def record(self, row: int) -> Mapping[str, Any]:
        """All that is stored of one frame, the picture as it was encoded.

        Raises:
          InputError: the record cannot be read.
        """
        self.image(row)  # refuses what cannot be read
        try:
            return self.records[row]
        except Exception as error:  # TFDS documents no set of exceptions
            reason = str(error).partition("\n")[0][:200]
            raise InputError(f"{self._where(row)}: cannot be read ({reason}); {_REMEDY}") from error

    def image(self, row: int) -> bytes:
        """The picture of one frame as it was encoded.

        Raises:
          InputError: the record cannot be read.
        """
        try:
            image = self.images[row]
        except RuntimeError as error:
            remedy = _REMEDY
            if os.strerror(errno.EMFILE) in str(error):
                remedy = "it keeps a file open for each person: raise the limit with `ulimit -n`"
            raise InputError(f"{self._where(row)}: cannot be read ({error}); {remedy}") from error
        if not image:  # ArrayRecord reads past the end of some cut-off files
            raise InputError(f"{self._where(row)}: cannot be read (it is empty); {_REMEDY}")
        return image

    def pictures(self, rows: Int[np.ndarray, "*b"]) -> UInt8[np.ndarray, "*b h w 3"]:
        """Decoded RGB pictures of some frames, read by all cores.

        Raises:
          InputError: a record cannot be read or decoded, or has another size.
        """
        size = self.image_size
        out = np.empty((*rows.shape, size, size, 3), np.uint8)
        flat, filled = rows.ravel(), out.reshape(-1, size, size, 3)
        starts = range(0, len(flat), _CHUNK)
        done = _threads().map(
            self._read,
            [flat[start : start + _CHUNK] for start in starts],
            [filled[start : start + _CHUNK] for start in starts],
        )
        for _ in done:  # raises what a thread raised
            pass
        return out

    def _read(self, rows: Int[np.ndarray, " t"], out: UInt8[np.ndarray, "t h w 3"]) -> None:
        if self.decoded is not None:
            self.decoded(rows, out)
            return
        for row, picture in zip(rows.tolist(), out, strict=True):
            self.decode(row, self.image(row), picture)

    def decode(self, row: int, image: bytes, out: UInt8[np.ndarray, "h w 3"]) -> None:
        """Fills `out` with the picture of one frame, given as it was encoded.

        Raises:
          InputError: it does not decode, or has another size.
        """
        try:
            codecs.CODECS[self.metadata.image_format].decode_into(image, out)
        except ValueError as error:
            raise InputError(
                f"{self._where(row)}: the picture does not decode as "
                f"{self.metadata.image_format} ({error}); {_REMEDY}"
            ) from error

    def _where(self, row: int) -> str:
        video, number = self.table.videos[self.table.video[row]], self.table.number[row]
        return f"{self.path}, record {row} (video {video}, frame {number})"


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Threads that read pictures, for as long as the process lives."""
    return ThreadPoolExecutor(max(_LEAST_THREADS, workers.cores()), "pictures")


def open_dataset(path: str | pathlib.Path) -> FrameSource:
    """Open the prepared data set in a directory.

    Raises:
      InputError: there is none, it is damaged, its AU layout is not the one known under that
        name, or a subject is in two folds.
    """
    data = stored.read(path)
    metadata, table = data.metadata, data.table
    try:
        layout = facs.layout(metadata.layout)
    except ValueError as error:
        raise InputError(f"{path}: {error}; or register it in facs.LAYOUTS") from error
    if list(layout.aus) != list(metadata.aus):
        raise InputError(
            f"{path}: made with layout {metadata.layout!r} and AUs {list(metadata.aus)}, but that "
            f"layout has the AUs {list(layout.aus)} here; prepare the set again"
        )
    folds.check_disjoint(metadata.folds)
    if not metadata.pictures_sha256:
        notes.once(
            f"{path}: an earlier version made it and kept no digest of its pictures: whether they "
            "are the ones that a run has learned from cannot be checked"
        )
    source = FrameSource(pathlib.Path(path), metadata, layout, table, data.records, data.images)
    people = dict.fromkeys(table.subjects)
    _allow_open_files(len(people))
    # A cut-off file shows here, not after an hour of training.
    for subject in people:
        source.record(int(table.rows_of([subject])[-1]))
    return source


def _allow_open_files(more: int) -> None:
    """Raises the soft limit by so many, as far as the system lets every process.

    A thousand people are as many open files, the usual limit is 1,024, on macOS 256.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = soft + more if hard == resource.RLIM_INFINITY else min(soft + more, hard)
    if soft != resource.RLIM_INFINITY:
        with contextlib.suppress(ValueError):  # macOS has a limit below "unlimited"
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
