# SPDX-License-Identifier: Apache-2.0
import fractions
import io
import pathlib
import socket
import subprocess
import sys
import zlib

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from mdhr_jax import errors
from mdhr_jax.faces import video

MEDIA = pathlib.Path(__file__).parents[3] / "shared/media"


def write_video(path, times, *, rotation=0, red_corner=False, container_format=None):
    """64x48 frames at these times in ms: frame i is grey of level 6 i, its upper left part red."""
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(path, "w", format=container_format, options=options) as container:
        stream = container.add_stream("mpeg4", rate=25, bit_rate=4_000_000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = fractions.Fraction(1, 1000)
        stream.set_display_rotation(rotation)
        for i, time in enumerate(times):
            picture = np.full((48, 64, 3), 6 * i, np.uint8)
            if red_corner:
                picture[:24, :32] = 255, 0, 0
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, fractions.Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path, *, cover):
    with av.open(path, "w") as container:
        sound = container.add_stream("mp3", rate=16000, layout="mono")
        packets = []
        if cover:
            picture = container.add_stream("mjpeg", width=64, height=48, pix_fmt="yuvj420p")
            picture.disposition = Disposition.attached_pic
            packets = picture.encode(av.VideoFrame(64, 48, "yuvj420p")) + picture.encode()
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), "s16p", "mono")
        samples.rate = 16000
        container.mux(sound.encode(samples) + sound.encode() + packets)
    return path


def write_pictures(folder, levels, size=(8, 8)):
    folder.mkdir()
    for name, level in levels.items():
        Image.new("RGB", size, (level,) * 3).save(folder / name)
    return folder


def refusal(source):
    """The one line with which a source is refused."""
    with pytest.raises(errors.InputError) as refused:
        list(video.frames(source))
    message = str(refused.value)
    assert "\n" not in message
    return message


# Video files.


def test_a_video_gives_every_frame_once_in_order(tmp_path):
    frames = list(video.frames(write_video(tmp_path / "a.mp4", range(0, 37 * 40, 40))))
    assert [frame.number for frame in frames] == list(range(1, 38))
    levels = [frame.picture.mean() for frame in frames]
    np.testing.assert_allclose(levels, 6 * np.arange(37), atol=2)
    assert {frame.picture.shape for frame in frames} == {(48, 64, 3)}
    assert frames[0].picture.dtype == np.uint8


def test_times_are_those_of_the_file_at_a_variable_rate(tmp_path):
    times = [0, 40, 80, 500, 510, 1700]
    frames = video.frames(write_video(tmp_path / "a.mp4", times))
    np.testing.assert_allclose([1000 * frame.time for frame in frames], times, atol=0.5)


@pytest.mark.parametrize(
    ("rotation", "shape", "corner"),
    [(0, (48, 64), (0, 0)), (90, (64, 48), (-1, 0)), (-90, (64, 48), (0, -1)),
     (180, (48, 64), (-1, -1))],
)  # fmt: skip
def test_rotation_metadata_is_applied(tmp_path, rotation, shape, corner):
    # A phone held upright writes -90: turned clockwise, the upper left corner comes to the right.
    path = write_video(tmp_path / "a.mp4", [0, 40], rotation=rotation, red_corner=True)
    picture = next(video.frames(path)).picture
    assert picture.shape == (*shape, 3)
    red = (picture[..., 0] > 200) & (picture[..., 1] < 60)
    assert red[corner] and red.mean() == pytest.approx(1 / 4, abs=0.02)


@pytest.mark.parametrize(
    ("times", "after_a_jump"),
    [
        (range(0, 400, 40), []),
        ([0, 40, 120, 160, 200], []),  # one frame was lost
        ([0, 40, 80, 540, 580, 1700], [4, 6]),
        ([0, 33, 67, 100, 133, 167], []),  # rounded
        ([0, 1, *range(34, 700, 33)], [3]),  # a first interval that is too short
        (
            [*range(0, 330, 33), *range(400, 2000, 100)],
            [*range(11, 19)],
        ),  # from 30 to 10 per second
    ],
)
def test_frames_after_a_jump_of_the_clock_do_not_follow(tmp_path, times, after_a_jump):
    frames = video.frames(write_video(tmp_path / "a.mp4", times))
    assert [frame.number for frame in frames if not frame.follows] == after_a_jump


def test_a_clock_that_runs_backwards_is_a_jump():
    steps = video._Steps(2.1)
    assert [steps.follow(time) for time in (0.0, 0.1, 0.2, 0.1, 0.2, 0.2, None, 9.0)] == [
        *(True, True, True, False),
        *(True, True, True, True),
    ]


def test_colours_are_rgb(tmp_path):
    picture = next(video.frames(write_video(tmp_path / "a.mp4", [0], red_corner=True))).picture
    np.testing.assert_allclose(picture[8, 8], [255, 0, 0], atol=8)


def test_frames_are_decoded_when_they_are_asked_for(tmp_path):
    path = write_video(tmp_path / "a.mp4", range(0, 37 * 40, 40))
    path.write_bytes(path.read_bytes()[:-200])
    assert next(video.frames(path)).number == 1  # the damage lies further on


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_count_of_a_video_is_near(tmp_path, name):
    path = write_video(tmp_path / name, range(0, 37 * 40, 40))
    assert abs(video.count(path) - 37) <= 1


def test_count_is_unknown_where_the_container_says_nothing(tmp_path):
    path = write_video(tmp_path / "raw", range(0, 200, 40), container_format="m4v")
    assert video.count(path) is None
    assert len(list(video.frames(path))) == 5


def test_a_missing_source_is_refused(tmp_path):
    assert "no such file or folder" in refusal(tmp_path / "none.mp4")


@pytest.mark.parametrize("data", [b"", b"this is no video\n" * 50])
def test_a_file_that_is_no_video_is_refused(tmp_path, data):
    (tmp_path / "a.mp4").write_bytes(data)
    assert "a.mp4: cannot be opened as a video" in refusal(tmp_path / "a.mp4")


@pytest.mark.parametrize("cover", [False, True])
def test_a_sound_file_is_refused_with_or_without_a_cover_picture(tmp_path, cover):
    path = write_sound(tmp_path / "a.mp3", cover=cover)
    with av.open(path) as container:
        assert len(container.streams.video) == cover
    assert "holds no video that can be decoded" in refusal(path)


def test_a_video_in_an_unknown_codec_is_refused(tmp_path):
    path = write_video(tmp_path / "a.avi", [0, 40])
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"QQQQ"))
    assert "holds no video that can be decoded" in refusal(path)


def test_a_video_without_frames_is_refused(tmp_path):
    path = write_video(tmp_path / "a.avi", [0, 40])
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"movi") + 4])
    assert "a.avi: holds no frame" in refusal(path)


def test_a_video_that_was_cut_off_is_refused(tmp_path):
    path = write_video(tmp_path / "a.mp4", range(0, 37 * 40, 40))
    path.write_bytes(path.read_bytes()[:-5])
    assert "the video is damaged" in refusal(path)


def test_a_video_with_overwritten_data_is_refused(tmp_path):
    path = write_video(tmp_path / "a.mp4", range(0, 37 * 40, 40), red_corner=True)
    data = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, 400, np.uint8).tobytes()
    path.write_bytes(data[:-400] + noise)
    assert "the video is damaged" in refusal(path)


def test_a_video_of_huge_frames_is_refused_before_decoding(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", [0, 40])
    monkeypatch.setattr(video, "MAX_PIXELS", 64 * 48 - 1)
    assert "64x48 pixels are more than" in refusal(path)


def test_a_frame_that_is_larger_than_the_header_says_is_refused(tmp_path, monkeypatch):
    checked = []

    def check(file, width, height):
        checked.append((width, height))
        if len(checked) == 3:  # the header, and the first frame
            raise errors.InputError("the frame")

    monkeypatch.setattr(video, "_check_size", check)
    assert refusal(write_video(tmp_path / "a.mp4", [0, 40, 80])) == "the frame"
    assert checked == [(64, 48)] * 3


def test_a_video_that_does_not_end_is_refused(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", range(0, 400, 40))
    monkeypatch.setattr(video, "MAX_FRAMES", 9)
    assert "a.mp4: more than 9 frames" in refusal(path)


@pytest.mark.parametrize("name", ["a.m3u8", "a.ffconcat", "a.mp4"])
@pytest.mark.parametrize("kind", ["hls", "concat"])
@pytest.mark.parametrize("target", ["http", "absolute", "file", "above"])
def test_playlists_fetch_nothing(tmp_path, name, kind, target):
    """Neither from a server nor from elsewhere on the disk."""
    secret = write_video(tmp_path / "secret.mp4", [0, 40])
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        address = {
            "http": f"http://127.0.0.1:{server.getsockname()[1]}/secret.mp4",
            "absolute": str(secret),
            "file": f"file://{secret}",
            "above": "../secret.mp4",
        }[target]
        playlist = {
            "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n",
            "concat": f"ffconcat version 1.0\nfile '{address}'\n",
        }[kind]
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / name).write_text(playlist)
        refusal(tmp_path / "in" / name)
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.skipif(not MEDIA.is_dir(), reason="real videos (../shared/media) are not here")
@pytest.mark.parametrize("name", ["single_face.mp4", "no_face.mp4", "face_noface.mov"])
def test_real_videos_give_as_many_frames_as_a_plain_decoder(name):
    path = MEDIA / f"pyfeat_{name}"
    with av.open(path) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert [frame.time for frame in video.frames(path)] == times
    assert abs(video.count(path) - len(times)) <= 3  # an edit list may hide frames


# Folders of pictures.


def test_pictures_come_in_the_order_of_their_numbers(tmp_path):
    names = ["f1_2.png", "f1_10.png", "f2_1.png", "f10_0.png"]
    levels = dict(zip(names, range(0, 40, 10), strict=True))
    folder = write_pictures(tmp_path / "in", dict(sorted(levels.items())))
    frames = list(video.frames(folder))
    assert [frame.picture[0, 0, 0] for frame in frames] == [0, 10, 20, 30]
    assert [frame.number for frame in frames] == [1, 2, 3, 4]
    assert {frame.time for frame in frames} == {None}
    assert video.count(folder) == 4


def test_other_files_in_the_folder_are_not_frames(tmp_path):
    folder = write_pictures(tmp_path / "in", {"1.JPG": 0, "2.jpeg": 0})
    (folder / "labels.txt").write_text("1 0\n")
    (folder / "._1.jpg").write_bytes(b"written by a desktop")
    assert video.count(folder) == 2
    assert len(list(video.frames(folder))) == 2


@pytest.mark.parametrize(
    ("names", "after_a_gap"),
    [
        (["1", "2", "3", "4"], []),
        (["1", "2", "900", "901"], [3]),
        (["a_008", "a_010", "a_012", "a_016"], [4]),  # every second frame was kept
        (["f1_2", "f1_3", "f2_1", "f2_2"], [3]),
        (["a", "b", "c", "d"], []),
    ],
)
def test_pictures_after_a_gap_in_their_numbers_do_not_follow(tmp_path, names, after_a_gap):
    folder = write_pictures(tmp_path / "in", {f"{name}.png": 0 for name in names})
    frames = video.frames(folder)
    assert [frame.number for frame in frames if not frame.follows] == after_a_gap


UPRIGHT = np.array([[0, 40, 80], [120, 160, 200]], np.uint8)


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, UPRIGHT),
        (2, UPRIGHT[:, ::-1]),
        (3, UPRIGHT[::-1, ::-1]),
        (4, UPRIGHT[::-1]),
        (5, UPRIGHT.T),
        (6, np.rot90(UPRIGHT)),  # the stored left edge is the upper one
        (7, UPRIGHT[::-1, ::-1].T),
        (8, np.rot90(UPRIGHT, -1)),
    ],
)
def test_exif_rotation_is_applied(tmp_path, orientation, stored):
    exif = Image.Exif()
    exif[0x0112] = orientation
    blocks = np.kron(stored, np.ones((16, 16), np.uint8))
    Image.fromarray(blocks).convert("RGB").save(tmp_path / "1.jpg", exif=exif, quality=95)
    shown = video.read_picture(tmp_path / "1.jpg")[8::16, 8::16]
    np.testing.assert_allclose(shown[..., 0], UPRIGHT, atol=4)


def test_what_is_converted_is_said_once(tmp_path, capsys):
    video._say.cache_clear()
    folder = write_pictures(tmp_path / "in", {})
    for name in ("1.png", "2.png"):
        Image.new("L", (8, 8)).save(folder / name)
    assert len(list(video.frames(folder))) == 2
    assert capsys.readouterr().err == "pictures of mode L become 8-bit RGB\n"


@pytest.mark.parametrize(
    ("name", "mode", "value"),
    [("1.png", "L", 200), ("1.png", "RGBA", (200, 200, 200, 9)), ("1.png", "I;16", 200 * 256),
     ("1.png", "LA", (200, 9)), ("1.png", "P", 5), ("1.png", "1", 1), ("1.jpg", "L", 200),
     ("1.jpg", "CMYK", (55, 55, 55, 0))],
)  # fmt: skip
def test_every_kind_of_picture_becomes_8_bit_rgb(tmp_path, name, mode, value):
    folder = write_pictures(tmp_path / "in", {})
    image = Image.new(mode, (8, 8), value)
    if mode == "P":
        image.putpalette([0] * 15 + [200] * 3)
    image.save(folder / name)
    picture = next(video.frames(folder)).picture
    assert picture.shape == (8, 8, 3) and picture.dtype == np.uint8
    np.testing.assert_allclose(picture, 255 if mode == "1" else 200, atol=1)


def test_16_bit_colours_become_8_bit(tmp_path):
    levels = np.array([[0, 200 * 256 + 255, 65535]], ">u2")
    rows = b"".join(b"\0" + row.repeat(3).tobytes() for row in levels)
    chunks = {
        b"IHDR": (3).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes([16, 2, 0, 0, 0]),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    data = b"".join(
        len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")
        for name, body in chunks.items()
    )
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    picture = video.read_picture(tmp_path / "1.png")
    assert picture.tolist() == [[[0] * 3, [200] * 3, [255] * 3]]


@pytest.mark.parametrize("name", ["2.jpg", "2.png"])
def test_a_picture_that_was_cut_off_is_refused_by_name(tmp_path, name):
    folder = write_pictures(tmp_path / "in", {"1.png": 0})
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(folder / name)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    assert f"{name}: does not decode as JPEG or PNG" in refusal(folder)
    assert f"{len(data) // 2} bytes" in refusal(folder)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("left_out", [slice(1 / 2, 1), slice(1 / 3, 2 / 3)])
def test_a_jpeg_with_a_hole_is_refused_rather_than_filled_with_grey(tmp_path, mode, left_out):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).convert(mode)
    picture.save(tmp_path / "1.jpg")
    data = (tmp_path / "1.jpg").read_bytes()
    start, stop = int(left_out.start * len(data)), int(left_out.stop * len(data))
    (tmp_path / "1.jpg").write_bytes(
        data[:start] + data[stop:].removesuffix(b"\xff\xd9") + b"\xff\xd9"
    )
    with pytest.raises(errors.InputError, match=r"1\.jpg: does not decode"):
        video.read_picture(tmp_path / "1.jpg")


def test_a_damaged_picture_of_a_stereo_camera_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    first, second = (Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)) for _ in "12")
    first.save(tmp_path / "1.jpg", format="MPO", save_all=True, append_images=[second])
    assert video.read_picture(tmp_path / "1.jpg").shape == (64, 64, 3)
    data = bytearray((tmp_path / "1.jpg").read_bytes())
    data[1500:1700] = bytes(200)
    (tmp_path / "1.jpg").write_bytes(data)
    with pytest.raises(errors.InputError, match="does not decode"):
        video.read_picture(tmp_path / "1.jpg")


def test_oddities_of_a_jpeg_s_header_are_no_damage(tmp_path):
    Image.new("RGB", (64, 64), (9, 9, 9)).save(tmp_path / "1.jpg")
    data = (tmp_path / "1.jpg").read_bytes()
    version = data.index(b"JFIF\0") + 5
    (tmp_path / "1.jpg").write_bytes(data[:version] + b"\3\1" + data[version + 2 :])
    assert video.read_picture(tmp_path / "1.jpg").mean() == 9
    scan = data.index(b"\xff\xda")
    (tmp_path / "1.jpg").write_bytes(data[:scan] + b"\0\0" + data[scan:])
    assert video.read_picture(tmp_path / "1.jpg").mean() == 9


@pytest.mark.parametrize("name", ["1.jpg", "1.png"])
def test_the_largest_picture_takes_less_than_300_mb(tmp_path, name):
    side = int(video.MAX_PIXELS**0.5)
    Image.new("RGB", (side, side), (9, 9, 9)).save(tmp_path / name)
    program = (
        "import pathlib, sys\n"
        "from mdhr_jax.faces import video\n"
        "status = pathlib.Path('/proc/self/status')\n"
        "peak = lambda: int(status.read_text().partition('VmHWM:')[2].split()[0])\n"
        "before = peak()\n"
        "assert video.read_picture(pathlib.Path(sys.argv[1])).mean() == 9\n"
        "print((peak() - before) / 1000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / name], capture_output=True, text=True, check=True
    )
    assert 100 < float(done.stdout) < 300


@pytest.mark.parametrize("kind", ["GIF", "BMP", None])
def test_a_picture_of_another_format_is_refused_by_name(tmp_path, kind):
    folder = write_pictures(tmp_path / "in", {"1.png": 0})
    data = io.BytesIO()
    if kind:
        Image.new("RGB", (8, 8)).save(data, kind)
    (folder / "2.jpg").write_bytes(data.getvalue())
    assert "2.jpg: does not decode as JPEG or PNG" in refusal(folder)


@pytest.mark.parametrize("size", [(8001, 8000), (10000, 9000), (20000, 10000)])
def test_a_huge_picture_is_refused_by_its_header(tmp_path, size):
    folder = write_pictures(tmp_path / "in", {"1.png": 0})
    data = (folder / "1.png").read_bytes()
    header = b"IHDR" + b"".join(side.to_bytes(4, "big") for side in size) + data[24:29]
    checksum = zlib.crc32(header).to_bytes(4, "big")
    (folder / "1.png").write_bytes(data[:12] + header + checksum + data[33:])
    message = refusal(folder)
    assert "1.png" in message and "pixels" in message


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "1.png").open("wb") as file:
        file.truncate(65_000_000)
    with pytest.raises(errors.InputError, match=r"1\.png: more than 64 MB"):
        video.read_picture(tmp_path / "1.png")


def test_a_folder_without_pictures_is_refused(tmp_path):
    assert "holds no picture" in refusal(tmp_path)
    with pytest.raises(errors.InputError, match="holds no picture"):
        video.count(tmp_path)
