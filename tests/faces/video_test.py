# SPDX-License-Identifier: Apache-2.0
import contextlib
import fractions
import json
import math
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from mdhr_jax import errors
from mdhr_jax.faces import decoder, limits, video

MEDIA = pathlib.Path(__file__).parents[3] / "shared/media"


def write_video(
    path, times, *, size=(64, 48), rotation=0, red_corner=False, container_format=None, clock=1000
):
    """Frames at these ticks of a clock: frame i is grey of level 6 i, its upper left part red."""
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(path, "w", format=container_format, options=options) as container:
        stream = container.add_stream("mpeg4", rate=25, bit_rate=4_000_000)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = fractions.Fraction(1, clock)
        stream.set_display_rotation(rotation)
        for i, time in enumerate(times):
            picture = np.full((*size[::-1], 3), 6 * i % 256, np.uint8)
            if red_corner:
                picture[:24, :32] = 255, 0, 0
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, fractions.Fraction(1, clock)
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


def decoders_refusal(path):
    """The error that the decoder sends, run in this process."""
    *_, last = decoder._messages(path)
    return json.loads(last)["error"]


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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("times", "after_a_jump"),
    [
        (range(0, 400, 40), []),
        ([0, 40, 120, 160, 200], []),  # one frame was lost
        ([0, 40, 80, 540, 580, 1700], [4, 6]),
        ([0, 400, 440, 480, 520, 560], [2]),  # right after the first
        ([0, 33, 67, 100, 133, 167], []),  # rounded
        ([0, 1, *range(34, 700, 33)], []),  # a first interval that is too short
        (  # from 30 to 10 per second: the container says 30
            [*range(0, 660, 33), *range(727, 2300, 100)],
            [*range(21, 37)],
        ),
    ],
)
def test_frames_after_a_jump_of_the_clock_do_not_follow(tmp_path, times, after_a_jump):
    frames = video.frames(write_video(tmp_path / "a.mp4", times))
    assert [frame.number for frame in frames if not frame.follows] == after_a_jump


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clock", "steps", "guess"),
    [
        (600, [20] * 30 + [25] * 30, 120),  # a phone in low light
        (60, [2, 3] * 30, 60),  # 24 per second on a screen
        (120, [3, 4, 5, 4] * 15, 120),
        (1000, [33, 67, 50, 100, 66, 34] * 10, 60),  # a call
    ],
)
def test_a_film_whose_pace_changes_goes_on(tmp_path, clock, steps, guess):
    path = write_video(tmp_path / "a.mp4", np.cumsum([0, *steps]).tolist(), clock=clock)
    with av.open(path) as container:
        assert container.streams.video[0].guessed_rate == guess
    assert all(frame.follows for frame in video.frames(path))


@pytest.mark.parametrize("steps", [[1, 1, 1, 30] * 15, [1] * 30 + [60] + [2] * 20])
def test_a_film_that_stands_still_at_times_does_not_go_on(tmp_path, steps):
    path = write_video(tmp_path / "a.mp4", np.cumsum([0, *steps]).tolist(), clock=30)
    missing = [frame.missing for frame in video.frames(path)]
    np.testing.assert_array_equal(missing, [0, *(step - 1 if step > 2 else 0 for step in steps)])


def test_where_a_number_of_frames_and_a_half_are_missing_nothing_can_be_held(tmp_path):
    folder = write_pictures(
        tmp_path / "in", {f"{name}.png": 0 for name in ("10", "20", "30", "44", "54", "84")}
    )
    assert [frame.missing for frame in video.frames(folder)] == [0, 0, 0, math.inf, 0, 2]


def test_missing_frames_are_counted(tmp_path):
    frames = video.frames(write_video(tmp_path / "a.mp4", [0, 40, 120, 160, 280, 321, 360, 1000]))
    assert [frame.missing for frame in frames] == [0, 0, 0, 0, 2, 0, 0, 15]
    assert [
        frame.missing
        for frame in video.frames(
            write_pictures(tmp_path / "in", {f"{name}.png": 0 for name in (2, 4, 6, 14, 16)})
        )
    ] == [0, 0, 0, 3, 0]


def test_a_film_without_a_rate_goes_on_at_that_of_its_packets(tmp_path):
    steps = np.random.default_rng(0).integers(20, 60, 40)
    path = write_video(tmp_path / "a.mkv", np.cumsum([0, *steps[:20], 1000, *steps[20:]]).tolist())
    data = path.read_bytes()
    rate = data.index(b"\x23\xe3\x83")  # Matroska's default duration; browsers write none
    length = data[rate + 3] & 0x7F
    nothing = bytes([0xEC, 0x80 | (length + 2), *[0] * (length + 2)])
    path.write_bytes(data[:rate] + nothing + data[rate + 4 + length :])
    with av.open(path) as container:
        assert container.streams.video[0].guessed_rate == 1000  # its clock's ticks
    assert [frame.number for frame in video.frames(path) if not frame.follows] == [22]


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
    monkeypatch.setattr(limits, "PIXELS", 64 * 48 - 1)
    assert "64x48 pixels are more than" in decoders_refusal(path)


def test_a_frame_that_is_larger_than_the_header_says_is_refused(tmp_path, monkeypatch):
    checked = []

    def check(file, width, height):
        checked.append((width, height))
        if len(checked) == 3:  # the header, and the first frame
            raise errors.InputError("the frame")

    monkeypatch.setattr(limits, "check_size", check)
    assert decoders_refusal(write_video(tmp_path / "a.mp4", [0, 40, 80])) == "the frame"
    assert checked == [(64, 48)] * 3


def test_a_video_that_does_not_end_is_refused(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", range(0, 400, 40))
    monkeypatch.setattr(limits, "FRAMES", 9)
    assert "a.mp4: more than 9 frames" in decoders_refusal(path)


@pytest.mark.slow
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


def decode_with(monkeypatch, *, slow=0, **limit):
    """Lets the decoder run with other limits, or take some seconds for every frame."""
    program = (
        "import json, sys, time\n"
        "from mdhr_jax.faces import decoder, limits\n"
        f"vars(limits).update({limit})\n"
        "shown = decoder._shown\n"
        f"decoder._shown = lambda *frame: time.sleep({slow}) or shown(*frame)\n"
        "decoder.main()\n"
    )
    monkeypatch.setattr(video, "_DECODER", (sys.executable, "-c", program))


@pytest.mark.slow
def test_a_decoder_that_takes_too_long_is_given_up(tmp_path, monkeypatch):
    decode_with(monkeypatch, slow=60, SECONDS=1)
    message = refusal(write_video(tmp_path / "a.mp4", [0, 40]))
    assert "a.mp4: cannot be decoded (no frame came for 60 s)" in message


@pytest.mark.slow
def test_a_reader_may_take_its_time(tmp_path, monkeypatch):
    decode_with(monkeypatch, SECONDS=1)
    numbers = []
    for frame in video.frames(write_video(tmp_path / "a.mp4", [0, 40, 80])):
        time.sleep(1.2)
        numbers.append(frame.number)
    assert numbers == [1, 2, 3]


@pytest.mark.slow
def test_a_decoder_that_needs_too_much_memory_is_refused(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", [0, 40], size=(4000, 3000))
    assert len(list(video.frames(path))) == 2
    decode_with(monkeypatch, MEMORY=160 * 2**20)
    assert "a.mp4: takes more than" in refusal(path)


def test_a_decoder_that_breaks_down_takes_nothing_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_DECODER", (sys.executable, "-c", "import os; os.abort()"))
    message = refusal(write_video(tmp_path / "a.mp4", [0, 40]))
    assert "a.mp4: cannot be decoded (its decoder broke down with code -6)" in message


def decoders(path):
    """The decoders of this film that run, by what the system says of their commands."""
    found = []
    for file in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = file.read_bytes()
            if b"faces.decoder" in command and bytes(path) in command:
                found.append(int(file.parent.name))
    return found


def test_no_decoder_is_left_behind(tmp_path):
    path = write_video(tmp_path / "a.mp4", range(0, 400, 40))
    frames = video.frames(path)
    next(frames)
    assert len(decoders(path)) == 1
    frames.close()
    assert not decoders(path)


@pytest.mark.slow
def test_a_decoder_that_is_killed_within_a_frame_is_told_of(tmp_path):
    path = write_video(tmp_path / "a.mp4", range(0, 400, 40), size=(640, 480))
    frames = video.frames(path)
    next(frames)
    time.sleep(0.5)  # until it waits with the next frame half sent
    os.kill(decoders(path)[0], signal.SIGKILL)
    with pytest.raises(video.DecoderError, match=r"a\.mp4: cannot be decoded \(its decoder was ki"):
        list(frames)


def test_python_files_beside_a_film_are_not_executed(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", [0, 40])
    for name in ("av", "signal", "json", "numpy", "mdhr_jax"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(f'{__name__} was executed')\n")
    monkeypatch.chdir(tmp_path)
    assert len(list(video.frames(path))) == 2


@pytest.mark.parametrize("way", ["environment", "path"])
def test_packages_are_found_where_this_process_finds_them(tmp_path, way):
    """Through PYTHONPATH, as modules of clusters have it, or on a path that a notebook changes."""
    path = write_video(tmp_path / "a.mp4", [0, 40])
    (tmp_path / "av.py").write_text("raise SystemExit('a file beside the film was executed')\n")
    places = [str(pathlib.Path(video.__file__).parents[2]), *filter(None, sys.path)]
    program = (
        f"import sys; sys.path += {places if way == 'path' else []}\n"
        "from mdhr_jax.faces import video\n"
        f"assert len(list(video.frames({str(path)!r}))) == 2"
    )
    subprocess.run(
        [getattr(sys, "_base_executable", sys.executable), "-c", program],  # has no packages
        env=os.environ | {"PYTHONPATH": ":".join(["", *places]) if way == "environment" else ""},
        cwd=tmp_path,
        check=True,
    )


def test_a_terminal_s_signals_are_not_for_the_decoder(tmp_path):
    path = write_video(tmp_path / "a.mp4", range(0, 400, 40))
    frames = video.frames(path)
    next(frames)
    (decoder_id,) = decoders(path)
    assert os.getpgid(decoder_id) != os.getpgid(0)
    frames.close()


def test_a_lower_limit_of_the_system_s_is_kept(tmp_path):
    path = write_video(tmp_path / "a.mp4", [0, 40])
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31))\n"
        "from mdhr_jax.faces import video\n"
        f"assert len(list(video.frames({str(path)!r}))) == 2"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_decoder_ends_with_its_reader(tmp_path):
    path = write_video(tmp_path / "a.mp4", range(0, 400, 40), size=(640, 480))
    program = f"from mdhr_jax.faces import video; next(video.frames({str(path)!r})); input()"
    reader = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    while not decoders(path):
        time.sleep(0.05)
    reader.kill()
    reader.communicate()
    for _ in range(200):
        if not decoders(path):
            return
        time.sleep(0.05)
    pytest.fail("the decoder goes on")


@pytest.mark.slow
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
        (["1", "900", "901", "902"], [2]),
        (["3", "90"], [2]),
        (["a_010", "a_020", "a_030", "a_044", "a_054"], [4]),
        (["a_008", "a_010", "a_012", "a_016"], [4]),  # every second frame was kept
        (["f1_2", "f1_3", "f2_1", "f2_2"], [3]),
        (["a", "b", "c", "d"], []),
    ],
)
def test_pictures_after_a_gap_in_their_numbers_do_not_follow(tmp_path, names, after_a_gap):
    folder = write_pictures(tmp_path / "in", {f"{name}.png": 0 for name in names})
    frames = video.frames(folder)
    assert [frame.number for frame in frames if not frame.follows] == after_a_gap


def test_a_folder_without_pictures_is_refused(tmp_path):
    assert "holds no picture" in refusal(tmp_path)
    with pytest.raises(errors.InputError, match="holds no picture"):
        video.count(tmp_path)
