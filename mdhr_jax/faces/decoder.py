# SPDX-License-Identifier: Apache-2.0
"""The frames of a video file, decoded in a process of its own by `python -m`.

Video codecs are large and written in C: a hostile file can take this process down, and no more. Its
memory is limited, and so is the time that it spends on a frame. What it sends through a pipe
(`Connection.send_bytes`) is a JSON object each time: `count` and `rate` first; for every frame its
`time` and `shape`, followed by its bytes; then `end`, or an `error` to be shown. `video` reads it.
"""

import contextlib
import itertools
import json
import pathlib
import resource
import signal
import sys
from collections.abc import Buffer, Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import av
import numpy as np
from av.stream import Disposition
from av.video.stream import VideoStream

from mdhr_jax.errors import InputError
from mdhr_jax.faces import limits

_TICKS = 210  # "frames per second" from which on a header tells the clock's ticks, as ffmpeg has it
_PROBED = 1000  # packets
_PLAYLISTS = {"hls", "concat", "dash", "imf"}  # files that name other files


class Decoded(NamedTuple):
    """A frame: its presentation time in seconds, None where the file states none, and RGB bytes."""

    time: float | None
    picture: np.ndarray


@contextlib.contextmanager
def _opened(file: pathlib.Path) -> Iterator[VideoStream]:
    """The moving picture of a video file.

    Raises:
      InputError: there is no such file, or no video in it that can be decoded.
    """
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
            limits.check_size(file, stream.width, stream.height)
            stream.thread_type = "AUTO"
            return stream
    raise InputError(
        f"{file}: holds no video that can be decoded; name a video file, or convert this one"
    )


def _count(stream: VideoStream) -> int | None:
    """About how many frames there are, by the header; None where it does not tell."""
    duration, rate = stream.container.duration, stream.average_rate
    estimate = round(duration / av.time_base * rate) if duration and rate else None
    return stream.frames or estimate


def _rate(stream: VideoStream, file: pathlib.Path) -> float | None:
    """Frames per second by the header; where that tells none, by the times of the first packets.

    Browsers record without a rate. Two frames alone show none.
    """
    said = float(stream.guessed_rate or stream.average_rate or 0)
    if 0 < said < _TICKS:
        return said
    with _opened(file) as probed:
        packets = itertools.islice(probed.container.demux(probed), _PROBED)
        times = sorted(packet.pts for packet in packets if packet.pts is not None)
        steps = np.diff(times) * float(probed.time_base or 0)
    step = np.median(steps) if len(steps) > 1 else 0
    return float(1 / step) if step > 0 else None


def _decode(stream: VideoStream, file: pathlib.Path) -> Iterator[Decoded]:
    """Every frame, upright.

    Raises:
      InputError: a frame is damaged or too large, or there are too many or none.
    """
    number = 0
    try:
        for packet in stream.container.demux(stream):
            frames = packet.decode()
            # ffmpeg conceals damage and ends quietly where a file was cut off.
            if packet.is_corrupt or any(frame.is_corrupt for frame in frames):
                raise _damaged(file, number, "data are missing")
            for frame in frames:
                limits.check_size(file, frame.width, frame.height)
                number += 1
                if number > limits.FRAMES:
                    raise InputError(f"{file}: more than {limits.FRAMES} frames; cut it in pieces")
                yield Decoded(frame.time, _upright(frame))
    except MemoryError:  # as an FFmpegError, too
        raise
    except av.FFmpegError as error:
        raise _damaged(file, number, error.strerror) from error
    if number == 0:
        raise InputError(f"{file}: holds no frame; name a video with frames")


def _damaged(file: pathlib.Path, number: int, reason: str) -> InputError:
    return InputError(
        f"{file}, after frame {number}: the video is damaged ({reason}); restore it, or cut it "
        "before the damage"
    )


def _upright(frame: av.VideoFrame) -> np.ndarray:
    quarter_turns = round(frame.rotation / 90)  # counterclockwise
    return np.rot90(frame.to_ndarray(format="rgb24"), quarter_turns)


def main() -> None:
    """Sends what is in the file `argv[2]` to the pipe with the descriptor `argv[1]`."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    memory = limits.MEMORY if most == resource.RLIM_INFINITY else min(limits.MEMORY, most)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    signal.alarm(limits.SECONDS)  # ends this process
    with (
        Connection(int(sys.argv[1]), readable=False) as out,
        contextlib.suppress(BrokenPipeError),  # nobody reads on
    ):
        for message in _messages(pathlib.Path(sys.argv[2])):
            signal.alarm(0)  # the reader may take its time
            out.send_bytes(message)
            signal.alarm(limits.SECONDS)


def _messages(file: pathlib.Path) -> Iterator[Buffer]:
    try:
        with _opened(file) as stream:
            yield _json(count=_count(stream), rate=_rate(stream, file))
            for time, picture in _decode(stream, file):
                yield _json(time=time, shape=picture.shape)
                yield np.ascontiguousarray(picture).data.cast("B")
            yield _json(end=True)
    except InputError as error:
        yield _json(error=str(error))
    except MemoryError:
        yield _json(
            error=f"{file}: takes more than {limits.MEMORY // 2**30} GB to decode; convert it"
        )


def _json(**said: Any) -> bytes:
    return json.dumps(said).encode()


if __name__ == "__main__":
    main()
