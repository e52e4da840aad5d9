# SPDX-License-Identifier: Apache-2.0
import fractions
import io
import pathlib
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


def test_exif_rotation_is_applied(tmp_path):
    folder = write_pictures(tmp_path / "in", {})
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored left edge is the upper one
    Image.new("RGB", (8, 6)).save(folder / "1.jpg", exif=exif)
    assert next(video.frames(folder)).picture.shape == (8, 6, 3)


@pytest.mark.parametrize(
    ("name", "mode", "value"),
    [("1.png", "L", 200), ("1.png", "RGBA", (200, 200, 200, 9)), ("1.png", "I;16", 200 * 256),
     ("1.png", "LA", (200, 9)), ("1.jpg", "L", 200), ("1.jpg", "CMYK", (55, 55, 55, 0))],
)  # fmt: skip
def test_every_kind_of_picture_becomes_8_bit_rgb(tmp_path, name, mode, value):
    folder = write_pictures(tmp_path / "in", {})
    Image.new(mode, (8, 8), value).save(folder / name)
    picture = next(video.frames(folder)).picture
    assert picture.shape == (8, 8, 3) and picture.dtype == np.uint8
    np.testing.assert_allclose(picture, 200, atol=1)


@pytest.mark.parametrize("name", ["2.jpg", "2.png"])
def test_a_picture_that_was_cut_off_is_refused_by_name(tmp_path, name):
    folder = write_pictures(tmp_path / "in", {"1.png": 0})
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(folder / name)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    assert f"{name}: does not decode as JPEG or PNG" in refusal(folder)


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
