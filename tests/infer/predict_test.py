# SPDX-License-Identifier: Apache-2.0
import csv
import dataclasses
import pathlib
import resource

import av
import numpy as np
import pytest
from PIL import Image

from mdhr_jax import errors, facs
from mdhr_jax.faces import align, crop, picture_files, squares, video
from mdhr_jax.faces.detect import Faces
from mdhr_jax.infer import predict

FACE = pathlib.Path(__file__).parents[3] / "shared/media/pyfeat_single_face.mp4"
LAYOUT = facs.DISFA
N = len(LAYOUT.aus)


@dataclasses.dataclass
class Brightness:
    """A stand-in whose score of AU i is the frame's red level / 255 plus i / 100; keeps its input.

    `broken` (a clip's number, from 0) spoils that clip's scores.
    """

    layout: facs.AuLayout = LAYOUT
    clip_length: int = 4
    record_size: int = 16
    context: int = 0
    hold: int = 0
    thresholds: np.ndarray = dataclasses.field(default_factory=lambda: np.full(N, 0.5))
    broken: int | None = None

    def __post_init__(self):
        self.clips = []

    def scores(self, frames):
        assert frames.dtype == np.uint8
        self.clips.append(frames)
        if len(self.clips) - 1 == self.broken:
            return np.full((*frames.shape[:2], N), np.nan, np.float32)
        levels = frames[..., 0].mean((2, 3)) / 255
        return (levels[..., None] + np.arange(N) / 100).astype(np.float32)


def write_folder(folder, levels, size=(16, 16)):
    """One picture per level, named by its number."""
    folder.mkdir()
    for i, level in enumerate(levels, start=1):
        Image.new("RGB", size, (level, 0, 0)).save(folder / f"{i}.png")
    return folder


def read(out):
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def run(source, out, model=None, text="none"):
    cutter = squares.parse(text, align.TEMPLATES["bp4d"])
    done = predict.predict(source, model or Brightness(), cutter=cutter, out=out, progress=False)
    assert done.frames == done.faces
    assert not done.photos
    return done.frames


@pytest.mark.parametrize("frames", [1, 3, 4, 5, 8, 11])
def test_there_is_one_row_per_frame_in_order(tmp_path, frames):
    levels = np.arange(frames) * 20
    source, out = write_folder(tmp_path / "in", levels.tolist()), tmp_path / "out.csv"
    assert run(source, out) == frames
    rows = read(out)
    assert [int(row["frame"]) for row in rows] == list(range(1, frames + 1))
    np.testing.assert_allclose([float(row["AU01_p"]) for row in rows], levels / 255, atol=1e-6)


def test_columns_are_scores_and_decisions_of_the_layout(tmp_path):
    run(write_folder(tmp_path / "in", [120]), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes().decode() == (
        "frame,timestamp,AU01_p,AU02_p,AU04_p,AU06_p,AU09_p,AU12_p,AU25_p,AU26_p,"
        "AU01_c,AU02_c,AU04_c,AU06_c,AU09_c,AU12_c,AU25_c,AU26_c\n"
        "1,0.000000,0.470588,0.480588,0.490588,0.500588,0.510588,0.520588,0.530588,0.540588,"
        "0,0,0,1,1,1,1,1\n"
    )


def test_an_au_is_active_from_the_threshold_on(tmp_path):
    source = write_folder(tmp_path / "in", [50, 51, 52])
    run(source, tmp_path / "out.csv", Brightness(thresholds=np.full(N, 51 / 255, np.float32)))
    assert [row["AU01_c"] for row in read(tmp_path / "out.csv")] == ["0", "1", "1"]


def test_the_last_clip_is_filled_up_with_its_last_frame(tmp_path):
    model = Brightness()
    run(write_folder(tmp_path / "in", [0, 10, 20, 30, 40, 50]), tmp_path / "out.csv", model)
    assert {clip.shape for clip in model.clips} == {(1, 4, 16, 16, 3)}
    seen = [clip[0, :, 0, 0, 0].tolist() for clip in model.clips]
    assert seen == [[0, 10, 20, 30], [40, 50, 50, 50]]


def test_the_model_sees_the_crop_at_its_record_size(tmp_path):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (48, 64, 3), np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(picture).save(tmp_path / "in" / "1.png")
    model = Brightness(record_size=20, clip_length=1)
    run(tmp_path / "in", tmp_path / "out.csv", model, "30,10,20,20")
    np.testing.assert_array_equal(model.clips[0][0, 0], picture[10:30, 30:50])
    run(tmp_path / "in", tmp_path / "out.csv", model, "center")
    assert model.clips[1].shape == (1, 1, 20, 20, 3)


def test_pictures_without_times_are_dated_by_the_layout(tmp_path):
    run(write_folder(tmp_path / "in", [0] * 5), tmp_path / "out.csv")
    times = [row["timestamp"] for row in read(tmp_path / "out.csv")]
    assert times == ["0.000000", "0.050000", "0.100000", "0.150000", "0.200000"]  # DISFA: 20 fps


def test_a_video_keeps_its_own_times(tmp_path):
    times = [0, 40, 500, 540, 2000]
    with av.open(tmp_path / "a.mkv", "w") as container:  # Matroska counts milliseconds
        stream = container.add_stream("mpeg4", rate=1000, width=64, height=64, pix_fmt="yuv420p")
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert run(tmp_path / "a.mkv", tmp_path / "out.csv") == 5
    shown = [row["timestamp"] for row in read(tmp_path / "out.csv")]
    assert shown == ["0.000000", "0.040000", "0.500000", "0.540000", "2.000000"]


def test_no_more_than_a_clip_is_read_ahead(tmp_path, monkeypatch):
    decoded, model = [], Brightness()
    frames = video.frames

    def counted(source):
        for frame in frames(source):
            decoded.append(frame.number)
            assert len(decoded) <= 4 * (len(model.clips) + 1)
            yield frame

    monkeypatch.setattr(video, "frames", counted)
    assert run(write_folder(tmp_path / "in", [0] * 13), tmp_path / "out.csv", model) == 13


def test_the_bar_counts_frames(tmp_path, capsys):
    source = write_folder(tmp_path / "in", [0] * 6)
    cutter = squares.Stated(crop.whole)
    predict.predict(source, Brightness(), cutter=cutter, out=tmp_path / "out.csv", progress=True)
    assert "6/6" in capsys.readouterr().err


@pytest.mark.skipif(not FACE.exists(), reason="the real video (../shared/media) is not here")
def test_a_real_video_gives_one_row_per_decoded_frame(tmp_path):
    with av.open(FACE) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert run(FACE, tmp_path / "out.csv", Brightness(clip_length=16), "center") == len(times)
    rows = read(tmp_path / "out.csv")
    np.testing.assert_allclose([float(row["timestamp"]) for row in rows], times, atol=1e-6)


class Scripted:
    """A cutter that finds the faces of a list, None where there is none."""

    def __init__(self, *faces):
        self.faces = faces

    def squares(self, frames, *, video, side):
        for frame, face in zip(frames, self.faces, strict=True):
            yield squares.Square(frame, None if face is None else frame.picture, face)


def test_frames_without_a_face_have_empty_cells_and_end_the_clip(tmp_path):
    source, model = write_folder(tmp_path / "in", [0, 10, 20, 30, 40, 50, 60]), Brightness()
    cutter = Scripted(0, 0, None, None, 0, 1, 1)
    done = predict.predict(source, model, cutter=cutter, out=tmp_path / "out.csv", progress=False)
    assert done == (7, 5, None, False, 0, (6,), 0)
    seen = [clip[0, :, 0, 0, 0].tolist() for clip in model.clips]
    assert seen == [[0, 10, 10, 10], [40, 40, 40, 40], [50, 60, 60, 60]]
    rows = read(tmp_path / "out.csv")
    assert [row["frame"] for row in rows] == list("1234567")
    for row in rows:
        cells = {row[f"{au}_{kind}"] for au in LAYOUT.au_names for kind in "pc"}
        assert (cells == {""}) == (row["frame"] in "34")


def test_up_to_hold_frames_without_a_face_are_held_and_their_cells_empty(tmp_path):
    source, model = write_folder(tmp_path / "in", [0, 10, 20, 30, 40, 50]), Brightness(hold=1)
    cutter = Scripted(0, None, 0, None, None, 0)
    predict.predict(source, model, cutter=cutter, out=tmp_path / "out.csv", progress=False)
    seen = [clip[0, :, 0, 0, 0].tolist() for clip in model.clips]
    assert seen == [[0, 0, 20, 20], [50, 50, 50, 50]]
    rows = read(tmp_path / "out.csv")
    assert [(row["frame"], row["AU01_p"] != "") for row in rows] == [
        *[("1", True), ("2", False), ("3", True), ("4", False), ("5", False), ("6", True)]
    ]


class Crowded:
    """A detector of as many faces as the picture's level says."""

    def detect(self, frames, near=None):
        (frame,) = frames
        count = int(frame.picture[0, 0, 0])
        corner = np.array([[20.0 * face, 0] for face in range(count)]).reshape(-1, 2)
        boxes = np.hstack([corner, corner + 10])
        points = np.array([[2, 3], [8, 3], [5, 6], [3, 8], [7, 8]])
        return [Faces(boxes, np.full(count, 0.9), corner[:, None] + points)]


def test_of_photos_each_stands_alone_and_each_face_has_a_row(tmp_path):
    photos = tmp_path / "in"
    photos.mkdir()
    for name, faces in {"ben.png": 2, "anna_07.png": 1, "nobody.png": 0}.items():
        Image.new("RGB", (64, 64), (faces, 0, 0)).save(photos / name)
    model = Brightness(context=2)
    cutter = squares.Found(lambda name: Crowded(), align.TEMPLATES["bp4d"])
    out = tmp_path / "out.csv"
    done = predict.predict(photos, model, cutter=cutter, out=out, progress=False)
    assert (done.frames, done.faces, done.photos, done.several) == (3, 2, True, 1)
    rows = read(out)
    assert [tuple(row.values())[:4] for row in rows] == [
        ("7", "", "anna_07.png", "1"),
        ("", "", "ben.png", "1"),
        ("", "", "ben.png", "2"),
        ("", "", "nobody.png", ""),
    ]
    assert [row["AU01_p"] != "" for row in rows] == [True, True, True, False]
    assert all((clip == clip[:, :1]).all() for clip in model.clips)


@pytest.mark.parametrize(("photos", "clips"), [(None, 1), (False, 1), (True, 3)])
def test_numbered_pictures_are_a_film_unless_told_otherwise(tmp_path, photos, clips):
    source, model = write_folder(tmp_path / "in", [0, 10, 20]), Brightness()
    cutter, out = squares.Stated(crop.whole), tmp_path / "out.csv"
    predict.predict(source, model, cutter=cutter, out=out, progress=False, photos=photos)
    assert len(model.clips) == clips
    assert [row["frame"] for row in read(out)] == ["1", "2", "3"]
    assert ("picture" in read(out)[0]) == bool(photos)


@pytest.mark.parametrize(
    ("names", "sizes", "film"),
    [
        (["IMG_7.jpg", "IMG_008.JPG", "IMG_9.png"], [16, 16, 16], True),
        (["Anna_0001.png", "Anna_0002.png", "Ben_0001.png"], [16, 16, 16], False),
        (["IMG_100.jpg", "IMG_101.jpg", "IMG_102.jpg"], [16, 16, 24], False),
        (["1.png", "2.png", "folder.png"], [16, 16, 16], False),
    ],
)
def test_what_is_taken_for_a_film(tmp_path, names, sizes, film):
    (tmp_path / "in").mkdir()
    for name, size in zip(names, sizes, strict=True):
        Image.new("RGB", (size, size)).save(tmp_path / "in" / name)
    cutter, out = squares.Stated(crop.whole), tmp_path / "out.csv"
    done = predict.predict(tmp_path / "in", Brightness(), cutter=cutter, out=out, progress=False)
    assert done.photos != film


def test_a_picture_is_a_photo(tmp_path):
    source, out = tmp_path / "IMG_1234.PNG", tmp_path / "out.csv"
    Image.new("RGB", (64, 64), (3, 0, 0)).save(source)
    cutter = squares.Found(lambda name: Crowded(), align.TEMPLATES["bp4d"])
    done = predict.predict(source, Brightness(), cutter=cutter, out=out, progress=False)
    assert (done.frames, done.faces, done.photos) == (1, 1, True)
    rows = [tuple(row.values())[:4] for row in read(out)]
    assert rows == [("1234", "", "IMG_1234.PNG", face) for face in "123"]


def test_pictures_keep_their_numbers_and_are_dated_by_them(tmp_path):
    source = write_folder(tmp_path / "in", [0, 10, 20, 30])
    for number, new in ((4, "a_0011"), (3, "a_0010"), (2, "a_001"), (1, "a_0")):
        (source / f"{number}.png").rename(source / f"{new}.png")
    cutter, out = Scripted(0, 0, None, 1), tmp_path / "out.csv"
    done = predict.predict(source, Brightness(), cutter=cutter, out=out, progress=False)
    rows = [(row["frame"], row["timestamp"]) for row in read(out)]
    assert rows == [("0", "0.000000"), ("1", "0.050000"), ("10", "0.500000"), ("11", "0.550000")]
    assert done.changes == (11,)
    assert done.fps is None


@pytest.mark.parametrize("name", ["3.jpg", "03.png"])
def test_two_pictures_of_a_number_are_no_film(tmp_path, results, name):
    source = write_folder(tmp_path / "in", [0] * 3)
    Image.new("RGB", (16, 16)).save(source / name)
    assert_refused(source, results, "are both frame 3; remove one of them, or add --photos")


def test_a_film_is_no_photos(tmp_path, results):
    (tmp_path / "a.mp4").write_bytes(b"a video")
    cutter, out = squares.Stated(crop.whole), results / "out.csv"
    with pytest.raises(errors.InputError, match="a.mp4: is no picture"):
        predict.predict(
            tmp_path / "a.mp4", Brightness(), cutter=cutter, out=out, progress=False, photos=True
        )


def test_every_kind_of_picture_in_a_folder_has_a_row_or_is_named(tmp_path, capsys):
    picture_files._say.cache_clear()
    source = tmp_path / "in"
    source.mkdir()
    for level, name in enumerate(["1.jpg", "2.webp", "3.bmp", "4.png", "5.JPEG"]):
        Image.new("RGB", (16, 16), (50 * level,) * 3).save(source / name)
    for name in ("6.heic", "7.tif", "8.gif", "labels.csv", ".DS_Store"):
        (source / name).write_bytes(b"")
    assert run(source, tmp_path / "out.csv") == 5
    scores = [float(row["AU01_p"]) for row in read(tmp_path / "out.csv")]
    np.testing.assert_allclose(scores, np.arange(5) * 50 / 255, atol=0.01)
    line = f"{source}: left out 6.heic, 7.tif, 8.gif and 1 more; pictures end in .bmp, .jpeg, "
    assert capsys.readouterr().err.startswith(line)


def test_a_missing_number_ends_the_clip(tmp_path):
    source, model = write_folder(tmp_path / "in", [0, 10, 20, 30, 40]), Brightness()
    for number, new in ((5, 901), (4, 900)):
        (source / f"{number}.png").rename(source / f"{new}.png")
    assert run(source, tmp_path / "out.csv", model) == 5
    seen = [clip[0, :, 0, 0, 0].tolist() for clip in model.clips]
    assert seen == [[0, 10, 20, 20], [30, 40, 40, 40]]


def test_half_a_step_too_many_ends_the_clip_as_well(tmp_path):
    source, model = write_folder(tmp_path / "in", [0, 10, 20, 30, 40]), Brightness()
    for number, new in ((5, 54), (4, 44), (3, 30), (2, 20), (1, 10)):
        (source / f"{number}.png").rename(source / f"{new}.png")
    assert run(source, tmp_path / "out.csv", model) == 5
    seen = [clip[0, :, 0, 0, 0].tolist() for clip in model.clips]
    assert seen == [[0, 10, 20, 20], [30, 40, 40, 40]]


def test_a_few_missing_numbers_are_bridged_when_the_model_was_trained_so(tmp_path):
    levels = np.arange(0, 200, 20)
    source, model = write_folder(tmp_path / "in", levels.tolist()), Brightness(hold=2)
    for number, new in ((10, 15), (9, 11), (8, 10)):  # two are missing, then three
        (source / f"{number}.png").rename(source / f"{new}.png")
    assert run(source, tmp_path / "out.csv", model) == 10
    seen = [clip[0, :, 0, 0, 0].tolist() for clip in model.clips]
    assert seen == [[0, 20, 40, 60], [80, 100, 120, 120], [120, 140, 160, 160], [180] * 4]
    scores = [float(row["AU01_p"]) for row in read(tmp_path / "out.csv")]
    np.testing.assert_allclose(scores, levels / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.mp4", "mpeg4", 50), ("a.avi", "libx264", 25)],  # B-frames, without times of showing
)
def test_the_frame_rate_is_told(tmp_path, name, codec, rate):
    with av.open(tmp_path / name, "w") as container:
        stream = container.add_stream(codec, rate=rate, width=64, height=64, pix_fmt="yuv420p")
        for _ in range(9):
            container.mux(stream.encode(av.VideoFrame(64, 64, "rgb24")))
        container.mux(stream.encode())
    cutter = squares.Stated(crop.whole)
    done = predict.predict(
        tmp_path / name, Brightness(), cutter=cutter, out=tmp_path / "out.csv", progress=False
    )
    assert done.fps == pytest.approx(rate, rel=1e-3)
    assert done.gaps == 0
    times = [float(row["timestamp"]) for row in read(tmp_path / "out.csv")]
    np.testing.assert_allclose(np.diff(times), 1 / rate, atol=1e-6)


def test_scores_are_never_outside_0_and_1(tmp_path):
    class Rounded(Brightness):
        def scores(self, frames):
            return np.where(super().scores(frames) > 0.5, 1 + 1e-6, -1e-6)

    run(write_folder(tmp_path / "in", [0, 255]), tmp_path / "out.csv", Rounded())
    scores = [row["AU01_p"] for row in read(tmp_path / "out.csv")]
    assert scores == ["0.000000", "1.000000"]


# What goes wrong leaves no trace.


def assert_refused(source, folder, message, model=None, text="none"):
    """One line with `message`; no new and no changed file in `folder`, earlier result or not."""
    for earlier in (None, "an earlier result\n"):
        if earlier:
            (folder / "out.csv").write_text(earlier)
        before = {file: file.read_text() for file in folder.iterdir()}
        with pytest.raises(errors.InputError, match=message) as refused:
            run(source, folder / "out.csv", model and model(), text)
        assert "\n" not in str(refused.value)
        assert {file: file.read_text() for file in folder.iterdir()} == before


@pytest.fixture
def results(tmp_path):
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def test_a_picture_that_breaks_midway_leaves_the_earlier_result(tmp_path, results):
    source = write_folder(tmp_path / "in", [0] * 6)
    data = (source / "6.png").read_bytes()
    (source / "6.png").write_bytes(data[: len(data) // 2])
    assert_refused(source, results, "6.png: does not decode")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        pytest.param("a.mp4", "mpeg4", {"movflags": "faststart"}, marks=pytest.mark.slow),
        ("a.webm", "libvpx", {}),
    ],
)
def test_a_video_that_breaks_midway_leaves_the_earlier_result(
    tmp_path, results, name, codec, options
):
    path = tmp_path / name
    with av.open(path, "w", options=options) as container:
        stream = container.add_stream(codec, rate=25, width=64, height=64, pix_fmt="yuv420p")
        for _ in range(20):
            container.mux(stream.encode(av.VideoFrame(64, 64, "rgb24")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes()[:-5])
    assert_refused(path, results, "the video is damaged")


def test_a_missing_source_is_refused(tmp_path, results):
    assert_refused(tmp_path / "none.mp4", results, "no such file or folder")


def test_a_crop_that_does_not_fit_is_refused_with_the_frame(tmp_path, results):
    source = write_folder(tmp_path / "in", [0] * 5)
    Image.new("RGB", (16, 12)).save(source / "6.png")
    assert_refused(source, results, "in, frame 6: the picture is 16x12 pixels, not square")
    assert_refused(source, results, "in, frame 6: the crop ends at", text="0,0,16,16")


def test_scores_that_are_not_finite_are_refused(tmp_path, results):
    source = write_folder(tmp_path / "in", [0] * 6)
    assert_refused(
        source, results, "frames 5 to 6: .* not between 0 and 1", lambda: Brightness(broken=1)
    )


def test_an_interrupt_leaves_the_earlier_result(tmp_path, results):
    class Interrupted(Brightness):
        def scores(self, frames):
            raise KeyboardInterrupt

    (results / "out.csv").write_text("an earlier result\n")
    with pytest.raises(KeyboardInterrupt):
        run(write_folder(tmp_path / "in", [0]), results / "out.csv", Interrupted())
    assert [file.name for file in results.iterdir()] == ["out.csv"]
    assert (results / "out.csv").read_text() == "an earlier result\n"


def test_a_full_disk_leaves_the_earlier_result(tmp_path, results):
    # A limit on the size of files stands in for the full disk.
    source = write_folder(tmp_path / "in", [0] * 40)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        assert_refused(source, results, "out.csv: cannot be written")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("place", ["file/out.csv", "folder", "x" * 300])
def test_a_result_that_cannot_be_written_is_refused_before_decoding(tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    source = write_folder(tmp_path / "in", [0])
    monkeypatch.setattr(video, "frames", lambda source: pytest.fail("decoded"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(errors.InputError, match="cannot be written|no regular file"):
        run(source, tmp_path / place)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_source_is_never_overwritten(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"a video")
    with pytest.raises(errors.InputError, match="is the source itself"):
        run(tmp_path / "a.mp4", tmp_path / "." / "a.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == b"a video"


@pytest.mark.parametrize("frames", [1, 4, 6, 9])
def test_clips_come_with_their_neighbours_and_repeated_ends(frames):
    numbers = list(range(frames))
    clips = list(predict._clips(iter(numbers), 4, 3))
    assert [frame for clip, _ in clips for frame in clip] == numbers
    for start, (clip, read) in zip(range(0, frames, 4), clips, strict=True):
        assert clip == numbers[start : start + 4]
        assert read == np.clip(np.arange(start - 3, start + 7), 0, frames - 1).tolist()
