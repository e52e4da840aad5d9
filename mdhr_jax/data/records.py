# SPDX-License-Identifier: Apache-2.0
"""Reading a prepared data set: labels of all frames at once, pictures by random access."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from mdhr_jax import facs
from mdhr_jax.data import clips, folds
from mdhr_jax.data.builders import frames
from mdhr_jax.errors import InputError

_REMEDY = "prepare the data set again"


@dataclasses.dataclass(frozen=True)
class FrameSource:
    """A prepared data set.

    Attributes:
      path: its directory.
      metadata: picture size, folds, frame rate, origin (`frames.Metadata`).
      layout: its AUs.
      table: subject, video, number and labels of every frame; row i is record i.
      records: encoded pictures, read when asked for.
      held_out: share of each fold's training subjects that are a split of their own.
      hold: so many missing frames in a row do not end a clip (`clips`).
      decoded: all pictures (`data.decoded`), if they are not to be read from the records.
      by_row: batches name frames by their rows instead of showing them (`pipeline`).
    """

    path: pathlib.Path
    metadata: frames.Metadata
    layout: facs.AuLayout
    table: clips.FrameTable
    records: Sequence
    held_out: float = 0.0
    hold: int = 0
    decoded: UInt8[np.ndarray, "m h w 3"] | None = None
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
        try:
            record = self.records[row]
        except RuntimeError as error:
            raise InputError(f"{self._where(row)}: cannot be read ({error}); {_REMEDY}") from error
        if not record["image"]:  # ArrayRecord reads past the end of some cut-off files
            raise InputError(f"{self._where(row)}: cannot be read (it is empty); {_REMEDY}")
        return record

    def pictures(self, rows: Int[np.ndarray, " t"]) -> UInt8[np.ndarray, "t h w c"]:
        """Decoded RGB pictures of some frames.

        Raises:
          InputError: a record cannot be read or decoded, or has another size.
        """
        if self.decoded is not None:
            return self.decoded[rows]
        size = self.image_size
        out = np.empty((len(rows), size, size, 3), np.uint8)
        for picture, row in zip(out, rows.tolist(), strict=True):
            picture[:] = self.decode(row, self.record(row)["image"])
        return out

    def decode(self, row: int, data: bytes) -> UInt8[np.ndarray, "h w c"]:
        """The picture of one frame, given as it was encoded.

        Raises:
          InputError: it does not decode, or has another size.
        """
        try:
            picture = frames.CODECS[self.metadata.image_format].decode(data)
        except ValueError as error:
            raise InputError(
                f"{self._where(row)}: the picture does not decode as "
                f"{self.metadata.image_format} ({error}); {_REMEDY}"
            ) from error
        if picture.shape != (self.image_size, self.image_size, 3):
            raise InputError(
                f"{self._where(row)}: the picture is {picture.shape}, the data set says "
                f"{self.image_size} x {self.image_size} RGB; {_REMEDY}"
            )
        return picture

    def _where(self, row: int) -> str:
        video, number = self.table.videos[self.table.video[row]], self.table.number[row]
        return f"{self.path}, record {row} (video {video}, frame {number})"


def open_dataset(path: str | pathlib.Path) -> FrameSource:
    """Open the prepared data set in a directory.

    Raises:
      InputError: there is none, it is damaged, its AU layout is not the one known under that
        name, or a subject is in two folds.
    """
    metadata, table, records = frames.read(path)
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
    source = FrameSource(pathlib.Path(path), metadata, layout, table, records)
    # A cut-off file shows here, not after an hour of training.
    for subject in dict.fromkeys(table.subjects):
        source.record(int(table.rows_of([subject])[-1]))
    return source
