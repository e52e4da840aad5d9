# SPDX-License-Identifier: Apache-2.0
"""The frames of a video file, or of a folder of pictures, one after the other.

A source is a file that ffmpeg reads, a picture, or a folder with one picture per frame, ordered by
the numbers in their names (2.jpg before 10.jpg). Frames come as they are to be seen: upright, in
square pixels, without HDR.
"""

import contextlib
import itertools
import json
import math
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from mdhr_jax.errors import InputError
from mdhr_jax.faces import limits, pace, picture_files

SUFFIXES = {  # of films
    *(".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".m2ts", ".m2v", ".m4v"),
    *(".mjpeg", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".qt"),
    *(".rm", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
}
# -P: a film's folder may hold Python files.
_DECODER = (sys.executable, "-P", "-m", "mdhr_jax.faces.decoder")


class Frame(NamedTuple):
    """One decoded frame.

    Attributes:
      number: position in the source, from 1.
      time: seconds, the presentation time that the file states; None where it states none.
      picture: RGB.
      missing: how many frames are missing before it, as in `pace.missing`.
      lost: how many a film has lost so far, of those that can be counted.
      named: the number in its picture's name, if that is what tells a film's pictures apart.
    """

    number: int
    time: float | None
    picture: UInt8[np.ndarray, "h w 3"]
    missing: float = 0.0
    lost: int = 0
    named: int | None = None

    @property
    def known_as(self) -> int:
        """The number that users know it by."""
        return self.number if self.named is None else self.named

    @property
    def follows(self) -> bool:
        """Whether it is the next one after that before it."""
        return self.missing == 0


def frames(source: str | pathlib.Path) -> Iterator[Frame]:
    """Every frame of a video file or of a folder of pictures, decoded when it is asked for.

    Raises:
      InputError: there is nothing to decode in the source, or a frame is damaged or too large.
    """
    source = pathlib.Path(source)
    pictures = picture_files.of(source)
    return _picture_frames(pictures) if pictures else _video_frames(source)


def count(source: str | pathlib.Path) -> int | None:
    """About how many frames there are, without decoding; None where a file does not tell.

    Raises:
      InputError: the source cannot be opened.
    """
    source = pathlib.Path(source)
    pictures = picture_files.of(source)
    if pictures:
        return len(pictures)
    with _Decoder(source) as decoder:
        return decoder.read()["count"]


def _picture_frames(files: Sequence[pathlib.Path]) -> Iterator[Frame]:
    named: Sequence[int | None] = picture_files.numbers(files) or [None] * len(files)
    # Every second frame may have been kept, or every tenth. Pictures without numbers follow.
    numbers = np.array([picture_files.number(file) for file in files], float)  # None: NaN
    known = numbers[~np.isnan(numbers)]
    gaps = pace.gaps(numbers, pace.step(known)) if len(known) else np.zeros(len(files))
    each = zip(files, gaps.tolist(), named, strict=True)
    for number, (file, missing, name) in enumerate(each, start=1):
        yield Frame(number, None, picture_files.read(file), missing, named=name)


def _video_frames(file: pathlib.Path) -> Iterator[Frame]:
    before, lost = None, 0
    with _Decoder(file) as decoder:
        header = decoder.read()
        rate = header["rate"]
        for note in header["notes"]:
            print(f"{file}: {note}", file=sys.stderr)
        for number in itertools.count(1):
            message = decoder.read()
            if "end" in message:
                return
            picture, time = decoder.read_picture(message["shape"]), message["time"]
            dated = None not in (before, time)
            missing = pace.missing_by_clock(time - before, rate) if dated else 0.0
            lost += int(missing) if math.isfinite(missing) else 0
            yield Frame(number, time, picture, missing, lost)
            before = time


def _places() -> str:
    """Where this process finds packages, but for the folder it runs in, which may be a film's."""
    here = pathlib.Path.cwd()
    places = [place for place in sys.path if pathlib.Path(place).resolve() != here]
    return os.pathsep.join([*places, str(pathlib.Path(__file__).parents[2])])


class DecoderError(InputError):
    """The decoder broke down; the machine may be to blame as well as the film."""


class _Decoder:
    """The process that decodes a video file (`faces/decoder.py`)."""

    def __init__(self, file: pathlib.Path):
        self._file = file
        self._pipe, writer = multiprocessing.Pipe(duplex=False)
        with writer:
            self._process = subprocess.Popen(
                [*_DECODER, str(writer.fileno()), str(file)],
                pass_fds=[writer.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": _places()},
                process_group=0,  # Ctrl-C and Ctrl-Z are for the one that reads
            )

    def __enter__(self) -> "_Decoder":
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.wait()

    def read(self) -> dict:
        """What it says next; InputError for what it refuses, or when it breaks down."""
        with self._watched():
            message = json.loads(self._pipe.recv_bytes())
        if "error" in message:
            raise InputError(message["error"])
        return message

    def read_picture(self, shape: list[int]) -> UInt8[np.ndarray, "h w 3"]:
        """The picture that follows."""
        picture = np.empty(shape, np.uint8)
        with self._watched():
            self._pipe.recv_bytes_into(picture.data.cast("B"))
        return picture

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:  # between two messages, or within one
            code = self._process.wait()
            reason = {
                -signal.SIGALRM: f"no frame came for {limits.SECONDS} s",
                -signal.SIGKILL: "its decoder was killed, perhaps for want of memory",
            }.get(code, f"its decoder broke down with code {code}")
            raise DecoderError(
                f"{self._file}: cannot be decoded ({reason}); restore or convert the file"
            ) from error
