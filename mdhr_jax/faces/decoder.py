# SPDX-License-Identifier: Apache-2.0
"""The frames of a video file, decoded in a process of its own by `python -m`.

Video codecs are large and written in C: a hostile file can take this process down, and no more. Its
memory is limited, and so is the time that it spends on a frame. What it sends through a pipe
(`Connection.send_bytes`) is a JSON object each time: `count`, `rate` and `notes` first; for every
frame its `time` and `shape`, followed by its bytes; then `end`, or an `error` to be shown. `video`
reads it.
"""

import contextlib
import heapq
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
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter
from av.video.stream import VideoStream

from mdhr_jax.errors import InputError
from mdhr_jax.faces import cut_off, limits

_TICKS = 210  # "frames per second" from which on a header tells the clock's ticks, as ffmpeg has it
_SLOWER = 1.5  # steps of a header's rate that most frames take if it is not theirs
_PROBED = 1000  # packets
_PLAYLISTS = {"hls", "concat", "dash", "imf"}  # files that name other files
_STATE_THE_END = {"matroska,webm", "asf"}  # on their clock, instead of how long they take
_MOST_B_FRAMES = 16  # in a row; a frame may be decoded so many before it is shown
_ABOUT_SQUARE = 0.01  # by which a pixel's shape may miss 1, as that of 854x480 shown as 16:9
_HDR = {ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67}  # PQ and HLG
_reformatter = VideoReformatter()  # of HDR: keeps its tables from frame to frame


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
    """The first track, of those that are meant to be shown if the file says which."""
    tracks = _tracks(streams)
    tiled = any(stream.disposition & Disposition.dependent for stream in streams)
    if tiled and not any(track.disposition & Disposition.default for track in tracks):
        raise InputError(
            f"{file}: is a picture in tiles (HEIC), which cannot be put together here; convert it "
            "to JPEG or PNG"
        )
    if not tracks:
        raise InputError(
            f"{file}: holds no video that can be decoded; name a video file, or convert this one"
        )
    taken = max(tracks, key=lambda track: bool(track.disposition & Disposition.default))
    limits.check_size(file, taken.width, taken.height)
    taken.thread_type = "AUTO"
    return taken


def _tracks(streams: tuple[VideoStream, ...]) -> list[VideoStream]:
    """Those in a known codec, but for the cover pictures of sound files and parts of pictures."""
    no_film = Disposition.attached_pic | Disposition.dependent
    return [
        stream for stream in streams if stream.codec_context and not stream.disposition & no_film
    ]


def _notes(stream: VideoStream) -> list[str]:
    """What a user should know of the film."""
    tracks = [track.index for track in _tracks(stream.container.streams.video)]
    if len(tracks) == 1:
        return []
    number = tracks.index(stream.index) + 1
    return [f"video track {number} of {len(tracks)} is read, {stream.width}x{stream.height} pixels"]


def _container(stream: VideoStream) -> InputContainer:
    return stream.container  # type: ignore[return-value]  # all that are read here are inputs


def _count(stream: VideoStream) -> int | None:
    """About how many frames there are, by the header; None where it does not tell."""
    container = _container(stream)
    duration = container.duration
    if duration and container.format.name in _STATE_THE_END:
        duration -= container.start_time or 0
    # The average is too high for DV, the other one for films of variable rate.
    rates = [rate for rate in (stream.average_rate, stream.guessed_rate) if rate]
    estimate = round(duration / av.time_base * min(rates)) if duration and rates else 0
    return stream.frames or max(estimate, 0) or None


class _Clock:
    """Tells when frames are shown.

    Some containers (AVI), and some programs in others, do not state it: what they give as the times
    of presentation goes on from packet to packet, in the order of decoding. The frame that is shown
    as the n-th then has the n-th of these times.

    Args:
      stream: the moving picture.
      first: its first packets.
    """

    def __init__(self, stream: VideoStream, first: list[Packet]):
        times = [packet.pts for packet in first if packet.size]
        reordered = stream.codec_context.reorder_depth > 0
        self._counts = reordered and times == sorted(time for time in times if time is not None)
        self._begun = False
        self._waiting: list[float] = []

    def decodes(self, packet: Packet) -> None:
        """Notes the time of a packet that goes to the decoder, from the first that it can show."""
        self._begun |= packet.is_keyframe
        shown = self._begun and not packet.is_discard
        if self._counts and shown and packet.pts is not None:
            heapq.heappush(self._waiting, float(packet.pts * packet.time_base))

    def time(self, frame: av.VideoFrame) -> float | None:
        """Of the frame that is shown next, in seconds."""
        return heapq.heappop(self._waiting) if self._waiting else frame.time


def _rate(stream: VideoStream, file: pathlib.Path) -> float | None:
    """Frames per second by the header, unless it tells none or the frames come slower than that.

    Browsers record without a rate. Where the pace changes, as a phone's does in low light or that
    of a recorded screen, ffmpeg states the rate of the grid on which all times lie.
    """
    declared = float(stream.guessed_rate or stream.average_rate or 0)
    step = _step(file)
    if 0 < declared < _TICKS and declared * step < _SLOWER:
        return declared
    return 1 / step if step > 0 else None


def _step(file: pathlib.Path) -> float:
    """Seconds from one frame to the next by the first packets, the median; 0: they do not tell.

    Two frames alone do not.
    """
    times: list[int] = []
    with _opened(file) as probed:
        clock = float(probed.time_base or 0)
        with contextlib.suppress(av.FFmpegError):  # decoding will tell
            packets = itertools.islice(_container(probed).demux(probed), _PROBED)
            times.extend(packet.pts for packet in packets if packet.pts is not None)
    steps = np.diff(sorted(times)) * clock
    return float(np.median(steps)) if len(steps) > 1 else 0.0


def _decode(stream: VideoStream, file: pathlib.Path) -> Iterator[Decoded]:
    """Every frame, as it is to be seen.

    Raises:
      InputError: a frame is damaged or too large, there are too many or none, or the film ends
        before its container says.
    """
    number = 0
    packets = _container(stream).demux(stream)
    try:
        first = list(itertools.islice(packets, _MOST_B_FRAMES + 2))
        clock = _Clock(stream, first)
        for packet in itertools.chain(first, packets):
            clock.decodes(packet)
            frames = packet.decode()
            # ffmpeg conceals damage.
            if packet.is_corrupt or any(frame.is_corrupt for frame in frames):
                raise _damaged(file, number, "data are missing")
            for frame in frames:
                limits.check_size(file, frame.width, frame.height)
                number += 1
                if number > limits.FRAMES:
                    raise InputError(f"{file}: more than {limits.FRAMES} frames; cut it in pieces")
                yield Decoded(clock.time(frame), _shown(frame, stream, file))
    except MemoryError:  # as an FFmpegError, too
        raise
    except av.FFmpegError as error:
        raise _damaged(file, number, error.strerror) from error
    if number == 0:
        raise InputError(f"{file}: holds no frame; name a video with frames")
    if cut_off.is_cut_off(file, stream.container.format.name):
        raise _damaged(file, number, "it ends early")


def _damaged(file: pathlib.Path, number: int, reason: str | None) -> InputError:
    return InputError(
        f"{file}, after frame {number}: the video is damaged ({reason}); restore it, or cut it "
        "before the damage"
    )


def _shown(frame: av.VideoFrame, stream: VideoStream, file: pathlib.Path) -> np.ndarray:
    """A frame as it is to be seen: in square pixels, the colours of BT.709, upright."""
    shape = float(stream.sample_aspect_ratio or 1)
    width = frame.width if abs(shape - 1) < _ABOUT_SQUARE else max(round(frame.width * shape), 1)
    limits.check_size(file, width, frame.height)
    return _upright(_rgb(frame, width), frame)


def _rgb(frame: av.VideoFrame, width: int) -> np.ndarray:
    if frame.color_trc not in _HDR:
        return frame.to_ndarray(format="rgb24", width=width)
    # A copy, for it does not state the screen of its makers: PyAV would show it on that one.
    light = av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb48le"), format="rgb48le")
    light.color_trc, light.color_primaries = frame.color_trc, frame.color_primaries
    shown = _reformatter.reformat(
        light,
        width=width,
        format="rgb24",
        dst_color_trc=ColorTrc.BT709,
        dst_color_primaries=ColorPrimaries.BT709,
    )
    return shown.to_ndarray()


def _upright(picture: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """A picture turned and mirrored as its display matrix says, by quarter turns."""
    if Type.DISPLAYMATRIX not in frame.side_data:
        return picture
    # A pixel at (x, y) is shown at (a x + c y, b x + d y), but for where the picture begins.
    a, b, _, c, d = np.frombuffer(frame.side_data[Type.DISPLAYMATRIX], np.int32)[:5].tolist()
    if abs(a) + abs(d) < abs(b) + abs(c):
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


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
            yield _json(count=_count(stream), rate=_rate(stream, file), notes=_notes(stream))
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


def _json(**facts: Any) -> bytes:
    return json.dumps(facts).encode()


if __name__ == "__main__":
    main()
