# SPDX-License-Identifier: Apache-2.0
"""What films of many kinds become, in this process; `video_test` has the process of its own."""

import fractions
import json
import pathlib

import av
import numpy as np
import pytest
from av.stream import Disposition
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc

from mdhr_jax.faces import decoder, video

CASES = pathlib.Path(__file__).parents[1] / "cases"
GREYS = [np.full((48, 64, 3), level, np.uint8) for level in range(0, 240, 4)]


def write(
    path,
    pictures,
    codec="mpeg4",
    *,
    sound=None,
    prepare=lambda stream: None,
    change=lambda packet: None,
    **options,
):
    """A film of these pictures; `prepare` changes its track, `change` its packets."""
    movflags = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(path, "w", options=movflags) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        prepare(stream)
        packets = _sound(container, sound, len(pictures) / 25) if sound else []
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, fractions.Fraction(1, 25)
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
        ("a.mxf", "mpeg2video", None),
        ("a.gif", "gif", None),
        ("a.mjpeg", "mjpeg", None),
        ("a.y4m", "wrapped_avframe", None),
    ],
)
def test_a_film_that_ends_early_is_refused(tmp_path, name, codec, sound):
    noise = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8)
    pixels = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    whole = write(
        tmp_path / name,
        noise,
        codec,
        sound=sound,
        prepare=lambda stream: setattr(stream, "pix_fmt", pixels),
    )
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
        ("a.wmv", "wmv2", (48, 64), 90_000),
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


# What they look like.


@pytest.mark.parametrize(
    ("name", "codec", "size", "pixel", "shape"),
    [
        ("a.mp4", "libx264", (48, 64), "16/9", (48, 114)),
        ("a.mkv", "mpeg4", (48, 64), "16/9", (48, 114)),
        ("a.ts", "mpeg2video", (48, 64), "4/3", (48, 64 * 4 // 3)),
        ("a.mov", "dvvideo", (576, 720), "64/45", (576, 1024)),
        ("a.mp4", "mpeg4", (48, 64), "3/4", (48, 48)),
        ("a.mp4", "mpeg4", (48, 86), "256/257", (48, 86)),  # that comes of rounding
    ],
)
def test_pixels_become_square(tmp_path, name, codec, size, pixel, shape):
    picture = np.zeros((*size, 3), np.uint8)
    picture[:, size[1] // 4 : size[1] // 2] = 255

    def prepare(stream):
        stream.codec_context.sample_aspect_ratio = fractions.Fraction(pixel)

    path = write(tmp_path / name, [picture] * 30, codec, prepare=prepare)
    shown = first(path)
    assert shown.shape == (*shape, 3)
    bright = np.flatnonzero(shown[size[0] // 2, :, 0] > 128) / shape[1]
    np.testing.assert_allclose([bright[0], bright[-1]], [1 / 4, 1 / 2], atol=0.03)


UPRIGHT = np.array([[0, 40, 80], [120, 160, 200]], np.uint8)
ONE = 2**16


@pytest.mark.parametrize(
    ("a", "b", "c", "d", "stored"),
    [
        (1, 0, 0, 1, UPRIGHT),
        (-1, 0, 0, 1, UPRIGHT[:, ::-1]),  # a front camera
        (-1, 0, 0, -1, UPRIGHT[::-1, ::-1]),
        (1, 0, 0, -1, UPRIGHT[::-1]),
        (0, 1, 1, 0, UPRIGHT.T),
        (0, 1, -1, 0, np.rot90(UPRIGHT)),  # a telephone that is held upright
        (0, -1, -1, 0, UPRIGHT[::-1, ::-1].T),
        (0, -1, 1, 0, np.rot90(UPRIGHT, -1)),
        (0, 0, 0, 0, UPRIGHT),  # nonsense
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_films_are_turned_and_mirrored(tmp_path, name, a, b, c, d, stored):
    matrix = [a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 2**30]
    blocks = np.kron(stored, np.ones((16, 16), np.uint8))[..., None].repeat(3, axis=2)
    path = write(
        tmp_path / name, [blocks] * 2, prepare=lambda stream: stream.set_display_matrix(matrix)
    )
    np.testing.assert_allclose(first(path)[8::16, 8::16, 0], UPRIGHT, atol=4)


def test_frames_of_a_film_may_differ_in_size(tmp_path):
    sizes = [(48, 64), (48, 64), (24, 32), (96, 64), (48, 64)]
    with av.open(tmp_path / "a.mkv", "w") as container:
        stream = container.add_stream("mjpeg", rate=25, width=64, height=48, pix_fmt="yuvj420p")
        for number, (height, width) in enumerate(sizes):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
            encoder.time_base = fractions.Fraction(1, 25)
            frame = av.VideoFrame(width, height, "yuvj420p")
            frame.pts = number
            for packet in [*encoder.encode(frame), *encoder.encode()]:
                packet.stream = stream
                container.mux(packet)
    shapes = [frame["shape"] for frame in said(tmp_path / "a.mkv")[1:-1]]
    assert shapes == [[*size, 3] for size in sizes]


def _pq(light):
    """SMPTE ST 2084: from nits to the signal."""
    power = (light / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def _hlg(light):
    """ARIB STD-B67 on a display of 1,000 nits: from nits to the signal."""
    luminance = np.maximum(light @ [0.2627, 0.6780, 0.0593], 1e-6)[..., None] / 1000
    scene = light / 1000 * luminance ** (1 / 1.2 - 1)
    bright = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-6)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("curve", "signal"),
    [
        (ColorTrc.ARIB_STD_B67, _hlg),
        pytest.param(ColorTrc.SMPTE2084, _pq, marks=pytest.mark.slow),
    ],
)
def test_hdr_looks_as_the_same_scene_without(tmp_path, curve, signal):
    """Diffuse white lies at 203 nits (ITU-R BT.2408): colours of skin, grey, white, and a lamp."""
    shown = np.array(
        [[[224, 172, 105], [141, 85, 36], [241, 194, 125]],
         [[128, 128, 128], [255, 255, 255], [60, 40, 30]]], np.uint8,
    )  # fmt: skip
    wider = np.array(  # from the primaries of BT.709 to those of BT.2020
        [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    )
    light = 203 * (shown / 255) ** 2.4 @ wider.T
    light[1, 1] *= 4
    coded = np.round(np.clip(signal(light), 0, 1) * 65535).astype(np.uint16)
    blocks = np.kron(coded, np.ones((32, 32, 1), np.uint16))
    frame = av.VideoFrame.from_ndarray(blocks, format="rgb48le").reformat(
        format="yuv420p10le", dst_colorspace=Colorspace.BT2020, dst_color_range="MPEG"
    )
    screen = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"  # 1,000 nits
    settings = (
        f"log-level=none:crf=4:colorprim=bt2020:transfer={int(curve)}:colormatrix=bt2020nc:"
        f"range=limited:master-display={screen}"
    )
    path = tmp_path / "a.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx265", rate=25, options={"x265-params": settings})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries = curve, ColorPrimaries.BT2020
        context.colorspace, context.color_range = 9, 1  # BT.2020, limited
        for frame.pts in range(3):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    np.testing.assert_allclose(first(path)[16::32, 16::32].astype(int), shown, atol=4)


# Which of its tracks is taken.


@pytest.mark.parametrize(("taken", "size"), [(1, (48, 64)), (2, (32, 32))])
def test_which_of_two_video_tracks_is_taken_is_said(tmp_path, capfd, taken, size):
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as container:
        streams = []
        for number, (height, width) in enumerate([(48, 64), (32, 32)], start=1):
            stream = container.add_stream(
                "mpeg4", rate=25, width=width, height=height, pix_fmt="yuv420p"
            )
            stream.disposition = Disposition.default if number == taken else Disposition(0)
            streams.append(stream)
        for stream in streams:
            frame = av.VideoFrame(stream.width, stream.height, "yuv420p")
            frame.pts = 0
            container.mux([*stream.encode(frame), *stream.encode()])
    assert [frame.picture.shape for frame in video.frames(path)] == [(*size, 3)]
    note = f"{path}: video track {taken} of 2 is read, {size[1]}x{size[0]} pixels\n"
    assert capfd.readouterr().err == note


def test_a_picture_in_tiles_is_refused():
    path = CASES / "heic_tiles/iphone_grid.heic"
    refusal = said(path)[0]["error"]
    assert f"{path}: is a picture in tiles" in refusal and "convert it to JPEG" in refusal


def test_a_picture_in_one_piece_is_read(tmp_path):
    path = write(tmp_path / "a.avif", [np.full((64, 96, 3), 100, np.uint8)], "libsvtav1")
    assert times(path) == [0]
    shown = first(path)
    assert shown.shape == (64, 96, 3) and np.abs(shown - 100.0).max() < 4
