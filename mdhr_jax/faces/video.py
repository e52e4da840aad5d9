# SPDX-License-Identifier: Apache-2.0
"""The frames of a video file, or of a folder of pictures, one after the other.

A source is a file that ffmpeg reads, or a folder with one JPEG or PNG per frame, ordered by the
numbers in their names (2.jpg before 10.jpg). Frames come upright: rotation metadata is applied.
"""

import collections
import contextlib
import functools
import pathlib
import re
import statistics
import sys
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import av
import numpy as np
import simplejpeg
from av.stream import Disposition
from av.video.stream import VideoStream
from jaxtyping import UInt8
from PIL import Image, ImageOps

from mdhr_jax.errors import InputError

SUFFIXES = {".jpg", ".jpeg", ".png"}
MAX_PIXELS = 28_000_000  # of a frame; larger ones are refused by their header (300 MB to decode)
MAX_FRAMES = 2_000_000  # of a video, most of a day
_MAX_BYTES = 64_000_000  # of a picture file
_ORIENTATION = 0x0112  # EXIF
# What libjpeg says of headers before the picture, which follows whole.
_HARMLESS = re.compile("unknown JFIF revision|extraneous bytes before marker 0x(c.|d[abd])")
_PLAYLISTS = {"hls", "concat", "dash", "imf"}  # files that name other files


class Frame(NamedTuple):
    """One decoded frame.

    Attributes:
      number: position in the source, from 1.
      time: seconds, the presentation time that the file states; None where it states none.
      picture: RGB.
      follows: False where frames are missing before it: no movement leads from the last one here.
    """

    number: int
    time: float | None
    picture: UInt8[np.ndarray, "h w 3"]
    follows: bool = True


class _Steps:
    """Tells a jump from the usual step between frames.

    Args:
      most: usual steps that are no jump.
    """

    def __init__(self, most: float):
        self._most, self._last = most, None
        self._recent = collections.deque(maxlen=15)

    def follow(self, position: float | None) -> bool:
        """Whether this position comes a usual step after the last one; unknown ones do."""
        last, self._last = self._last, position
        if last is None or position is None:
            return True
        step = position - last
        usual = statistics.median(self._recent or [step])
        if step > 0:  # jumps as well: after a change of rate the new step becomes the usual one
            self._recent.append(step)
        return 0 <= step <= self._most * usual


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
        return len(_pictures(source))
    with _opened(source) as stream:
        duration, rate = stream.container.duration, stream.average_rate
        estimate = round(duration / av.time_base * rate) if duration and rate else None
        return stream.frames or estimate


# Video files.


@contextlib.contextmanager
def _opened(file: pathlib.Path) -> Iterator[VideoStream]:
    if not file.exists():
        raise InputError(f"{file}: no such file or folder; name a video or a folder of pictures")
    try:
        # A playlist must not make ffmpeg fetch things from elsewhere.
        container = av.open(f"file:{file}", options={"protocol_whitelist": "file"})
    except av.FFmpegError as error:
        raise InputError(
            f"{file}: cannot be opened as a video ({error.strerror}); restore or convert the file"
        ) from error
    with container:
        if container.format.name in _PLAYLISTS:
            raise InputError(f"{file}: is a list of videos; name one of them")
        yield _moving_picture(container.streams.video, file)


def _moving_picture(streams: tuple[VideoStream, ...], file: pathlib.Path) -> VideoStream:
    """The first stream in a known codec that is not the cover picture of a sound file."""
    for stream in streams:
        if stream.codec_context and not stream.disposition & Disposition.attached_pic:
            _check_size(file, stream.width, stream.height)
            stream.thread_type = "AUTO"
            return stream
    raise InputError(
        f"{file}: holds no video that can be decoded; name a video file, or convert this one"
    )


def _video_frames(file: pathlib.Path) -> Iterator[Frame]:
    number, steps = 0, _Steps(2.1)  # times are rounded; one lost frame is bridged
    with _opened(file) as stream:
        try:
            for packet in stream.container.demux(stream):
                decoded = packet.decode()
                # ffmpeg conceals damage and ends quietly where a file was cut off.
                if packet.is_corrupt or any(picture.is_corrupt for picture in decoded):
                    raise _damaged(file, number, "data are missing")
                for picture in decoded:
                    _check_size(file, picture.width, picture.height)
                    number += 1
                    if number > MAX_FRAMES:
                        raise InputError(f"{file}: more than {MAX_FRAMES} frames; cut it in pieces")
                    follows = steps.follow(picture.time)
                    yield Frame(number, picture.time, _upright(picture), follows)
        except av.FFmpegError as error:
            raise _damaged(file, number, error.strerror) from error
    if number == 0:
        raise InputError(f"{file}: holds no frame; name a video with frames")


def _damaged(file: pathlib.Path, number: int, reason: str) -> InputError:
    return InputError(
        f"{file}, after frame {number}: the video is damaged ({reason}); restore it, or cut it "
        "before the damage"
    )


def _upright(picture: av.VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
    quarter_turns = round(picture.rotation / 90)  # counterclockwise
    return np.rot90(picture.to_ndarray(format="rgb24"), quarter_turns)


# Folders of pictures.


def _folder_frames(folder: pathlib.Path) -> Iterator[Frame]:
    steps = _Steps(1.0)  # every second frame may have been kept, or every tenth
    for number, file in enumerate(_pictures(folder), start=1):
        named = re.search("[0-9]{1,9}$", file.stem)
        follows = steps.follow(float(named[0]) if named else None)
        yield Frame(number, None, read_picture(file), follows)


def _pictures(folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        files = list(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot read the folder ({error.strerror})") from error
    shown = [file for file in files if not file.name.startswith(".")]
    pictures = [file for file in shown if file.suffix.lower() in SUFFIXES]
    if not pictures:
        raise InputError(
            f"{folder}: holds no picture ({', '.join(sorted(SUFFIXES))}); name a folder with one "
            "picture per frame, or a video file"
        )
    return sorted(pictures, key=lambda file: (_natural_order(file.name), file.name))


def _natural_order(name: str) -> list[tuple[str, int]]:
    pairs = re.findall("([^0-9]*)([0-9]*)", name)
    return [(text, int(digits or -1)) for text, digits in pairs]


def read_picture(file: pathlib.Path) -> UInt8[np.ndarray, "h w 3"]:
    """A JPEG or PNG file as RGB, upright.

    Raises:
      InputError: it does not decode to its end, or is too large.
    """
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise InputError(
                f"{file}: more than {_MAX_BYTES // 10**6} MB are no picture of a face; remove it"
            )
        return _decoded(file)
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{file}: does not decode as JPEG or PNG ({_length(file)}{error}); restore or remove "
            "the picture"
        ) from error


def _length(file: pathlib.Path) -> str:
    with contextlib.suppress(OSError):
        return f"{file.stat().st_size} bytes, "
    return ""


def _decoded(file: pathlib.Path) -> UInt8[np.ndarray, "h w 3"]:
    # A picture is decoded or refused; Pillow's warnings would say it twice.
    with (
        warnings.catch_warnings(action="ignore"),
        Image.open(file, formats=("JPEG", "PNG")) as picture,
    ):
        _check_size(file, *picture.size)
        if picture.format != "PNG":  # JPEG, or MPO, which is several of them
            _check_jpeg(file, picture.mode)
        return _rgb(picture)


def _check_jpeg(file: pathlib.Path, mode: str) -> None:
    """Raises ValueError for damage that Pillow would fill with grey."""
    try:
        simplejpeg.decode_jpeg(file.read_bytes(), "CMYK" if mode == "CMYK" else "GRAY")
    except ValueError as error:
        if not _HARMLESS.search(str(error)):
            raise


def _rgb(picture: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    if picture.getexif().get(_ORIENTATION, 1) != 1:
        _say("are turned as their EXIF data say")
        ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode != "RGB":
        _say(f"of mode {picture.mode} become 8-bit RGB")
        picture = _eight_bits(picture).convert("RGB")
    return np.asarray(picture)


@functools.cache
def _say(what: str) -> None:
    """Once in a process, not for every picture."""
    print(f"pictures {what}", file=sys.stderr)


def _eight_bits(picture: Image.Image) -> Image.Image:
    # 16-bit grey PNG: Pillow would cut every level above 255 to white.
    if picture.mode.startswith("I"):
        return picture.point(lambda level: level / 256)
    return picture


def _check_size(file: pathlib.Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{file}: {width}x{height} pixels are more than {MAX_PIXELS // 10**6} megapixels; "
            "make the pictures smaller"
        )
