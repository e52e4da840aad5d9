# SPDX-License-Identifier: Apache-2.0
"""What films of many kinds become, in this process; `video_test` has the process of its own."""

import fractions
import json
import pathlib

import av
import numpy as np
import pytest

from mdhr_jax.faces import decoder

CASES = pathlib.Path(__file__).parents[1] / "cases"
GREYS = [np.full((48, 64, 3), level, np.uint8) for level in range(0, 240, 4)]


def write(
    path,
    pictures,
    codec="mpeg4",
    *,
    pixels="yuv420p",
    sound=None,
    rate=25,
    prepare=lambda stream: None,
    change=lambda packet: None,
    **options,
):
    """A film of these pictures; `prepare` changes its track, `change` its packets."""
    movflags = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(path, "w", options=movflags) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        prepare(stream)
        packets = _sound(container, sound, len(pictures) / rate) if sound else []
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, fractions.Fraction(1, rate)
            packets += stream.encode(frame)
        for packet in [*packets, *stream.encode()]:
            change(packet)
            container.mux(packet)
    return path


def _sound(container, codec, seconds):
    track = container.add_stream(codec, rate=48000, layout="stereo")
    noise = np.random.default_rng(0).integers(-999, 999, (1, round(2 * 48000 * seconds)))
    samples = av.AudioFrame.from_ndarray(noise.astype(np.int16), format="s16", layout="stereo")
    samples.rate, samples.pts = 48000, 0
    return [*track.encode(samples), *track.encode()]


def said(path):
    """The messages of a film's decoder, but for the pictures."""
    return [json.loads(part) for part in decoder._messages(path) if isinstance(part, bytes)]


def times(path):
    """When its frames are shown; the film is read to its end."""
    *frames, end = said(path)[1:]
    assert end == {"end": True}
    return [frame["time"] for frame in frames]


def first(path):
    """Its first picture."""
    with decoder._opened(path) as stream:
        return next(decoder._decode(stream, path)).picture


# Where it ends.


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [
        ("a.webm", "libvpx", "libopus"),
        ("a.mkv", "libx264", "aac"),
        ("a.mkv", "mpeg4", None),
        ("a.mp4", "libx264", "aac"),
        ("a.mov", "mpeg4", "pcm_s16le"),
        ("a.avi", "libx264", "libmp3lame"),
        ("a.avi", "mpeg4", None),
        ("a.ts", "libx264", "aac"),
        ("a.flv", "flv", "aac"),
        ("a.wmv", "wmv2", None),
        ("a.ogg", "libvpx", "libopus"),
    ],
)
def test_a_film_that_ends_early_is_refused(tmp_path, name, codec, sound):
    noise = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8)
    whole = write(tmp_path / name, noise, codec, sound=sound)
    assert len(times(whole)) == 30
    data = whole.read_bytes()
    part = tmp_path / f"part.{name}"
    for share in (0.3, 0.5, 0.61, 0.8, 0.97):
        part.write_bytes(data[: int(share * len(data)) | 1])
        refusal = said(part)[-1].get("error", "")
        assert f"{part}" in refusal, share
        assert "it ends early" in refusal or "is damaged" in refusal


def test_a_stream_ends_where_it_ends(tmp_path):
    """A recording of a browser does not say where; half of one may end within a frame."""
    options = {"live": "1"}
    path = tmp_path / "a.webm"
    with av.open(path, "w", options=options) as container:
        stream = container.add_stream("libvpx", rate=25, width=64, height=48, pix_fmt="yuv420p")
        for number, picture in enumerate(GREYS):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert len(times(path)) == len(GREYS)
    path.write_bytes(path.read_bytes()[:-50])
    assert "it ends early" in said(path)[-1]["error"]


# When its frames are shown.


def _decoded_is_shown(packet):
    packet.pts = packet.dts


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("a.avi", lambda packet: None),
        ("a.mkv", _decoded_is_shown),
        ("a.flv", _decoded_is_shown),
        ("a.mp4", lambda packet: None),
        ("a.ts", lambda packet: None),
    ],
)
@pytest.mark.parametrize("settings", ["bframes=2", "bframes=8:b-pyramid=strict:b-adapt=0"])
def test_frames_that_are_decoded_before_others_have_the_times_of_showing(
    tmp_path, name, change, settings
):
    path = write(
        tmp_path / name, GREYS, "libx264", change=change, **{"x264-params": settings, "qp": "5"}
    )
    with av.open(path) as container:
        assert container.streams.video[0].codec_context.reorder_depth
    np.testing.assert_allclose(np.diff(times(path)), 1 / 25, atol=0.0011)
    with decoder._opened(path) as stream:
        levels = [frame.picture.mean() for frame in decoder._decode(stream, path)]
    np.testing.assert_allclose(levels, np.arange(0, 240, 4), atol=3)


@pytest.mark.parametrize(
    ("name", "codec", "size", "first"),
    [
        ("a.dv", "dvvideo", (576, 720), 0),
        ("a.mkv", "mpeg4", (48, 64), 90_000),
        ("a.mp4", "mpeg4", (48, 64), 90_000),
    ],
)
def test_the_count_is_near_whatever_the_clock_begins_with(tmp_path, name, codec, size, first):
    """That of raw DV has 60,000 steps a second; a camera may go on with the clock of its tape."""

    def change(packet):
        packet.pts += first / 25 / packet.time_base
        packet.dts += first / 25 / packet.time_base

    path = write(
        tmp_path / name,
        [np.zeros((*size, 3), np.uint8)] * 50,
        codec,
        sound="pcm_s16le" if codec == "dvvideo" else None,
        change=change if first else lambda packet: None,
    )
    assert abs(said(path)[0]["count"] - 50) <= 1
    assert times(path)[0] == pytest.approx(first / 25)
