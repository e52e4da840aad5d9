# SPDX-License-Identifier: Apache-2.0
"""The frames of a video file, or of a folder of pictures, one after the other.

A source is a file that ffmpeg reads, or a folder with one JPEG or PNG per frame, ordered by the
numbers in their names (2.jpg before 10.jpg). Frames come as they are to be seen: upright, in square
pixels, without HDR.
"""

import collections
import contextlib
import itertools
import json
import math
import multiprocessing
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from mdhr_jax.errors import InputError
from mdhr_jax.faces import limits, picture_files

# -P: a film's folder may hold Python files.
_DECODER = (sys.executable, "-P", "-m", "mdhr_jax.faces.decoder")


class Frame(NamedTuple):
    """One decoded frame.

    Attributes:
      number: position in the source, from 1.
      time: seconds, the presentation time that the file states; None where it states none.
      picture: RGB.
      missing: how many frames are missing before it; infinite where its clock goes back, or not on
        by a whole number of steps.
      follows: False where that are too many: no movement leads from the last one here.
    """

    number: int
    time: float | None
    picture: UInt8[np.ndarray, "h w 3"]
    missing: float = 0.0
    follows: bool = True


class _Steps:
    """Tells gaps from the usual step between frames.

    Args:
      most: usual steps that are no gap.
    """

    def __init__(self, most: float):
        self._most, self._last = most, None
        self._recent = collections.deque(maxlen=15)

    def gap(self, position: float | None) -> tuple[float, bool]:
        """`Frame.missing` and `Frame.follows` at the next position; unknown ones follow."""
        last, self._last = self._last, position
        if last is None or position is None:
            return 0.0, True
        step = position - last
        if step < 0:
            return math.inf, False
        usual = statistics.median(self._recent or [step])
        if step > 0:  # gaps as well: after a change of rate the new step becomes the usual one
            self._recent.append(step)
        follows = step <= self._most * usual
        steps = step / usual if usual else 1.0
        missing = max(round(steps) - 1, 0)
        return (float(missing) if follows or abs(steps - round(steps)) < 0.2 else math.inf), follows


def frames(source: str | pathlib.Path) -> Iterator[Frame]:
    """Every frame of a video file or of a folder of pictures, decoded when it is asked for.

    Raises:
      InputError: there is nothing to decode in the source, or a frame is damaged or too large.
    """
    source = pathlib.Path(source)
    return _folder_frames(source) if source.is_dir() else _video_frames(source)


def count(source: str | pathlib.Path) -> int | None:
    """About how many frames there are, without decoding; None where a file does not tell.

    Raises:
      InputError: the source cannot be opened.
    """
    source = pathlib.Path(source)
    if source.is_dir():
        return len(picture_files.in_folder(source))
    with _Decoder(source) as decoder:
        return decoder.read()["count"]


def _folder_frames(folder: pathlib.Path) -> Iterator[Frame]:
    steps = _Steps(1.0)  # every second frame may have been kept, or every tenth
    for number, file in enumerate(picture_files.in_folder(folder), start=1):
        named = re.search("[0-9]{1,9}$", file.stem)
        gap = steps.gap(float(named[0]) if named else None)
        yield Frame(number, None, picture_files.read(file), *gap)


def _video_frames(file: pathlib.Path) -> Iterator[Frame]:
    steps = _Steps(2.1)  # times are rounded; one lost frame is bridged
    with _Decoder(file) as decoder:
        for note in decoder.read()["notes"]:
            print(f"{file}: {note}", file=sys.stderr)
        for number in itertools.count(1):
            said = decoder.read()
            if "end" in said:
                return
            picture = decoder.read_picture(said["shape"])
            yield Frame(number, said["time"], picture, *steps.gap(said["time"]))


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
            said = json.loads(self._pipe.recv_bytes())
        if "error" in said:
            raise InputError(said["error"])
        return said

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
