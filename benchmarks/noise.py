# SPDX-License-Identifier: Apache-2.0
"""A data set of noise as large as asked for, made where it is measured.

    python benchmarks/noise.py --out DIR [--frames 98000] [--size 256]

Nothing is in it to learn. To whatever reads it, it is a prepared set like any other: the people,
recordings and folds of BP4D (41 people, 328 recordings), one record a frame, JPEG pictures with as
many bytes as those of faces (10 KB of 256 x 256 pixels). Pictures repeat after 251, so that a
hundred thousand take seconds; a reader decodes each anew.
"""

import argparse
import functools
import pathlib
import sys
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from mdhr_jax import facs
from mdhr_jax.data import clips, codecs
from mdhr_jax.data.builders import frames
from mdhr_jax.errors import InputError

RECORDINGS = 8  # of each person
DISTINCT = 251  # pictures, a prime: no two recordings begin alike
CELL, QUALITY = 4, 18  # pixels of a grey level, and of JPEG: bytes as of a face


class Noise(frames.FrameBuilder):
    """Pictures of noise."""

    VERSION = tfds.core.Version("1.0.0")

    def examples(self, recording: clips.Video) -> Iterator[dict[str, bytes]]:
        """The next of the distinct pictures, again and again."""
        first = self.table.videos.index(recording.name) * len(recording.number)
        length = len(recording.number)
        return ({"image": self._pictures[(first + n) % DISTINCT]} for n in range(length))

    @functools.cached_property
    def _pictures(self) -> list[bytes]:
        rng, size = np.random.default_rng(0), self.metadata.image_size
        cells = rng.integers(0, 256, (DISTINCT, -(-size // CELL), -(-size // CELL), 3), np.uint8)
        encode = codecs.CODECS[self.metadata.image_format].encode
        return [
            encode(each.repeat(CELL, 0).repeat(CELL, 1)[:size, :size], QUALITY) for each in cells
        ]


def build(out: pathlib.Path, count: int, size: int) -> None:
    """Writes the set, of `count` frames at least.

    Raises:
      InputError: the place is taken.
    """
    layout, rng = facs.BP4D, np.random.default_rng(1)
    people = [name for fold in layout.folds for name in fold]
    length = -(-count // (len(people) * RECORDINGS))
    table = clips.FrameTable.from_videos(
        [
            clips.Video(
                name=f"{person}/T{task}",
                subject=person,
                number=np.arange(length),
                labels=rng.integers(0, 2, (length, len(layout.aus)), np.int8),
            )
            for person in people
            for task in range(1, RECORDINGS + 1)
        ]
    )
    metadata = frames.describe(
        table,
        layout,
        layout.folds,
        builder=f"noise {Noise.VERSION}",
        source="noise, nothing to learn",
        seed=0,
        fps=layout.fps,
        image_size=size,
        image_format="jpeg",
    )
    frames.write(Noise, out, table, metadata, progress=False)


def main() -> int:
    """Writes it; 2 where that is refused."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="directory to make")
    parser.add_argument("--frames", type=int, default=98_000)
    parser.add_argument("--size", type=int, default=256, help="pixels")
    asked = parser.parse_args()
    try:
        build(asked.out, asked.frames, asked.size)
    except InputError as error:
        print(f"noise: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
