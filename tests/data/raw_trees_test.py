# SPDX-License-Identifier: Apache-2.0
"""The writers of raw data sets themselves."""

import collections
import csv
import functools
import io
import itertools
import pathlib
import re

import av
import numpy as np
import pytest
from PIL import Image

from mdhr_jax.faces.mtcnn import cascade
from mdhr_jax.faces.video import Frame
from tests.data import raw_trees

SMALL = functools.partial(raw_trees.blobs, size=(48, 64))


def random_labels(count, values=(0, 1, 9), columns=12, seed=0):
    return np.random.default_rng(seed).choice(values, (count, columns))


def files(root, pattern="*"):
    return sorted(str(f.relative_to(root)) for f in root.rglob(pattern) if f.is_file())


def table(file):
    with file.open(newline="") as text:
        return list(csv.reader(text))


def decode(file):
    with av.open(file) as container:
        (stream,) = container.streams.video
        return [picture.to_ndarray(format="rgb24") for picture in container.decode(stream)]


def opened(file):
    return np.asarray(Image.open(file))


def blob(subject, video, frame):
    return raw_trees.index(subject), raw_trees.index(video), frame


# Painters.


@pytest.mark.parametrize("image_format", ["jpeg", "png"])
@pytest.mark.parametrize("factor", [1, 0.8, 0.5])
def test_blobs_survive_compression_and_shrinking(image_format, factor):
    for frame, picture in enumerate(SMALL("M018", "T8", 3)):
        data = io.BytesIO()
        Image.fromarray(picture).save(data, image_format, quality=90)
        image = Image.open(data)
        smaller = image.resize((round(image.width * factor), round(image.height * factor)))
        assert raw_trees.read_blobs(smaller) == blob("M018", "T8", frame)


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("mjpeg", "avi"), ("mjpeg", "mp4"), ("mpeg4", "avi"), ("mpeg4", "mp4"), ("cinepak", "avi")],
)
def test_every_frame_of_a_video_file_can_be_told(tmp_path, codec, suffix):
    file = tmp_path / f"video.{suffix}"
    raw_trees.write_video(file, SMALL("a", "b", 15), codec=codec, fps=20)
    pictures = decode(file)
    expected = [blob("a", "b", frame) for frame in range(15)]
    assert [raw_trees.read_blobs(picture) for picture in pictures] == expected
    halves = [Image.fromarray(picture).resize((32, 24)) for picture in pictures]
    assert [raw_trees.read_blobs(half) for half in halves] == expected
    with av.open(file) as container:
        (stream,) = container.streams.video
        assert (stream.codec_context.name, stream.average_rate) == (codec, 20)


def test_large_frame_numbers_can_be_told():
    (last,) = itertools.islice(SMALL("SN001", "LeftVideo", 4845), 4844, None)
    assert raw_trees.read_blobs(last).frame == 4844


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p[:, ::-1],
        lambda p: p[::-1],
        lambda p: p[..., ::-1],  # red and blue
        lambda p: p[8:40, 8:50],
        lambda p: p * 0 + 128,
        lambda p: p.transpose(1, 0, 2),
    ],
)
def test_other_pictures_are_no_blobs(change):
    (picture,) = SMALL("F001", "T1", 1)
    with pytest.raises(ValueError):
        raw_trees.read_blobs(change(picture))


def test_names_have_different_numbers():
    names = [f"{sex}{i:03d}" for sex in ("F", "M", "SN") for i in range(1, 33)]
    names += [f"T{i}" for i in range(1, 9)] + ["LeftVideo", "RightVideo"]
    assert len({raw_trees.index(name) for name in names}) == len(names)


@pytest.fixture(scope="module")
def detector(faces_extra):
    return cascade.Mtcnn(smallest_face=90)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(240, 320), (300, 700), (768, 1024)])
def test_astronaut_has_one_face_that_moves(tmp_path, size, detector):
    pictures = list(raw_trees.astronaut_faces("M003", "T4", 9, size=size))
    assert {picture.shape for picture in pictures} == {(*size, 3)}
    raw_trees.write_video(tmp_path / "a.avi", pictures)
    frames = [Frame(n, None, p) for n, p in enumerate(decode(tmp_path / "a.avi")[::4])]
    for frame, faces in zip((0, 4, 8), detector.detect(frames), strict=True):
        ((left, top, right, bottom),) = faces.boxes
        centre = raw_trees.astronaut_centre("M003", "T4", frame, size=size)
        np.testing.assert_allclose([(left + right) / 2, (top + bottom) / 2], centre, atol=5)
        assert bottom - top == pytest.approx(130, abs=15)
    moves = np.diff([raw_trees.astronaut_centre("M003", "T4", n) for n in range(99)], axis=0)
    assert 0 < np.abs(moves).max() <= 2


# BP4D.


@pytest.fixture
def recordings():
    """Padding of three kinds, uncoded pictures, gaps, unknown labels and intensities."""
    return [
        raw_trees.Bp4dVideo("F001", "T1", 2440, random_labels(4), 2, 1, missing={2442}),
        raw_trees.Bp4dVideo("F001", "T2", 8, random_labels(5, seed=1), 1, padding="mixed"),
        raw_trees.Bp4dVideo(
            "M018",
            "T8",
            3,
            random_labels(2, seed=2),
            padding=4,
            intensities={6: np.array([5, 9]), 12: np.array([0, 2])},
        ),
    ]


def test_bp4d_has_these_files(tmp_path, recordings):
    root = raw_trees.write_bp4d(tmp_path, recordings, paint=SMALL)
    assert root == tmp_path
    pictures = {
        "F001/T1": ["2438", "2439", "2440", "2441", "2443", "2444"],
        "F001/T2": ["0007", "8", "0009", "10", "0011", "12"],
        "M018/T8": ["0003", "0004"],
    }
    expected = [
        f"Sequences(2D+3D)/{folder}/{stem}.{suffix}"
        for folder, stems in pictures.items()
        for stem in stems
        for suffix in ("jpg", "mtl", "obj")
    ]
    expected += [f"Sequences(2D+3D)/{folder}/Thumbs.db" for folder in pictures]
    for name in ("F001_T1", "F001_T2", "M018_T8"):
        expected += [f"{kind}Features/{name}.mat" for kind in ("2D", "3D")]
        expected += [f"AUCoding/AU_OCC/{name}.csv"]
    expected += [f"AUCoding/AU_INT/AU{au}/M018_T8_AU{au}.csv" for au in ("06", "12")]
    assert files(root) == sorted(expected)


def test_bp4d_pictures_show_their_number(tmp_path, recordings):
    root = raw_trees.write_bp4d(tmp_path, recordings, paint=SMALL, distractors=False)
    video = recordings[0]
    assert video.numbers.tolist() == [2440, 2441, 2442, 2443]
    assert video.has_picture().tolist() == [True, True, False, True]
    for file in (root / "Sequences(2D+3D)/F001/T1").iterdir():
        frame = video.pictures().index(int(file.stem))
        assert raw_trees.read_blobs(opened(file)) == blob("F001", "T1", frame)


@pytest.mark.parametrize("shuffled", [False, True])
def test_bp4d_labels_are_those_of_the_plan(tmp_path, recordings, shuffled):
    root = raw_trees.write_bp4d(tmp_path, recordings, paint=SMALL, shuffle_columns=shuffled)
    headers = []
    for video in recordings:
        header, *rows = table(root / f"AUCoding/AU_OCC/{video.subject}_{video.task}.csv")
        headers.append(header)
        columns = {int(name): i for i, name in enumerate(header)}
        assert len(columns) == len(header) > 13
        values = np.array(rows, int)
        np.testing.assert_array_equal(values[:, columns[0]], video.numbers)
        used = [columns[au] for au in (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)]
        np.testing.assert_array_equal(values[:, used], video.labels)
        assert set(values[:, 1:].flat) <= {0, 1, 9}
    assert {header[0] for header in headers} == {"0"}
    assert (headers[0] == headers[1]) != shuffled
    assert (headers[0] == sorted(headers[0], key=int)) != shuffled


def test_bp4d_intensities_have_no_header(tmp_path, recordings):
    raw_trees.write_bp4d(tmp_path, recordings, paint=SMALL)
    file = tmp_path / "AUCoding/AU_INT/AU06/M018_T8_AU06.csv"
    assert file.read_text() == "3,5\n4,9\n"


def test_older_bp4d_has_its_tables_in_au_coding(tmp_path, recordings):
    raw_trees.write_bp4d(
        tmp_path, recordings[:1], paint=SMALL, occ_folder="old", columns=range(1, 28)
    )
    assert files(tmp_path / "AUCoding") == ["F001_T1.csv"]
    first = (tmp_path / "AUCoding/F001_T1.csv").read_bytes().splitlines()[0]
    assert first == ",".join(map(str, range(28))).encode()


def test_tables_can_have_the_line_ends_of_windows(tmp_path, recordings):
    raw_trees.write_bp4d(tmp_path, recordings[:1], paint=SMALL, line_end="\r\n")
    text = (tmp_path / "AUCoding/AU_OCC/F001_T1.csv").read_bytes()
    assert text.count(b"\r\n") == text.count(b"\n") == 5


@pytest.mark.parametrize(("folder", "place"), [(None, "Sequences(2D)/"), ("", ""), ("a/b", "a/b/")])
def test_bp4d_videos_count_from_one(tmp_path, recordings, folder, place):
    video = recordings[2]
    options = dict(paint=SMALL, images="avi", folder=folder, distractors=False)
    raw_trees.write_bp4d(tmp_path, [video], **options)
    assert files(tmp_path, "*.avi") == [f"{place}2M18_13.avi"]
    pictures = decode(tmp_path / f"{place}2M18_13.avi")
    assert video.pictures("avi") == range(1, 5)
    assert [raw_trees.read_blobs(p).frame + 1 for p in pictures] == [1, 2, 3, 4]
    assert video.has_picture("avi").all()


def test_bp4d_video_names_have_the_code_of_the_task(tmp_path):
    videos = [raw_trees.Bp4dVideo("F023", f"T{i}", 1, np.zeros((1, 12))) for i in range(1, 9)]
    raw_trees.write_bp4d(tmp_path, videos, paint=SMALL, images="avi", folder="")
    codes = ("01", "03", "07", "08", "09", "10", "11", "13")
    assert files(tmp_path, "*.avi") == [f"2F23_{code}.avi" for code in codes]
    for code, video in zip(codes, videos, strict=True):
        (picture,) = decode(tmp_path / f"2F23_{code}.avi")
        assert raw_trees.read_blobs(picture) == blob("F023", video.task, 0)


def test_pictures_may_end_before_the_labels():
    video = raw_trees.Bp4dVideo("F001", "T1", 5, np.zeros((4, 12)), uncoded_after=-2)
    for images in ("jpg", "avi"):
        assert video.has_picture(images).tolist() == [True, True, False, False]


@pytest.mark.parametrize(("style", "folder"), [("img", "img/"), ("plain", "")])
def test_cropped_bp4d(tmp_path, recordings, style, folder):
    raw_trees.write_cropped_bp4d(tmp_path, recordings[:1], paint=SMALL, style=style)
    numbers = [2438, 2439, 2440, 2441, 2443, 2444]
    assert files(tmp_path) == [
        "AUCoding/AU_OCC/F001_T1.csv",
        *(f"{folder}F001/T1/{number}.jpg" for number in numbers),
    ]
    crop = opened(tmp_path / f"{folder}F001/T1/2443.jpg")
    assert crop.shape == (256, 256, 3)
    assert raw_trees.read_blobs(crop) == blob("F001", "T1", 5)


# DISFA.


@pytest.fixture
def people():
    """SN001 as in the set, SN010 with files that do not fit each other."""
    return [
        raw_trees.DisfaSubject("SN001", random_labels(3, range(6))),
        raw_trees.DisfaSubject(
            "SN010",
            random_labels(4, range(6), seed=1),
            frames=5,
            absent={26},
            rows={2: 3, 4: 6},
            first_number=0,
        ),
    ]


def label_files(people):
    aus = 1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26
    return [
        f"ActionUnit_Labels/{person.name}/{person.name}_au{au}.txt"
        for person in people
        for au in aus
        if au not in person.absent
    ]


@pytest.mark.parametrize(
    ("camera", "suffix", "side"),
    [
        ("Videos_LeftCamera", "_comp.avi", "LeftVideo"),
        ("Video_RightCamera", "_comp.avi", "RightVideo"),
        ("Videos_RightCamera", "_Comp.avi", "RightVideo"),
    ],
)
def test_disfa(tmp_path, people, camera, suffix, side):
    raw_trees.write_disfa(tmp_path, people, paint=SMALL, camera=camera, suffix=suffix)
    videos = [f"{camera}/{side}{name}{suffix}" for name in ("SN001", "SN010")]
    landmarks = [
        f"Landmark_Points/{name}/tmp_frame_lm/{name}_{frame:04d}_lm.mat"
        for name, count in (("SN001", 3), ("SN010", 5))
        for frame in range(count)
    ]
    expected = [*videos, *landmarks, *label_files(people), f"{camera}/Thumbs.db"]
    assert files(tmp_path) == sorted(expected)
    for name, video, count in zip(("SN001", "SN010"), videos, (3, 5), strict=True):
        found = [raw_trees.read_blobs(picture) for picture in decode(tmp_path / video)]
        assert found == [blob(name, side, frame) for frame in range(count)]
        with av.open(tmp_path / video) as container:
            assert container.streams.video[0].average_rate == 20


def test_disfa_labels_are_those_of_the_plan(tmp_path, people):
    raw_trees.write_disfa(tmp_path, people, paint=SMALL, distractors=False)
    assert len(files(tmp_path)) == 2 + 12 + 11
    folder = tmp_path / "ActionUnit_Labels"
    for column, au in enumerate((1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)):
        rows = table(folder / f"SN001/SN001_au{au}.txt")
        values = people[0].intensities[:, column]
        assert rows == [[str(n), str(value)] for n, value in enumerate(values, 1)]
    rows = {au: np.array(table(folder / f"SN010/SN010_au{au}.txt"), int) for au in (1, 2, 4)}
    assert {au: values[:, 0].tolist() for au, values in rows.items()} == {
        1: [0, 1, 2, 3],
        2: [0, 1, 2],
        4: [0, 1, 2, 3, 4, 5],
    }
    intensities = people[1].intensities
    np.testing.assert_array_equal(rows[2][:, 1], intensities[:3, 1])
    np.testing.assert_array_equal(rows[4][:, 1], [*intensities[:, 2], 0, 0])


def test_disfa_can_have_the_codec_of_the_sample(tmp_path, people):
    raw_trees.write_disfa(tmp_path, people[:1], paint=SMALL, codec="cinepak")
    pictures = decode(tmp_path / "Videos_LeftCamera/LeftVideoSN001_comp.avi")
    assert [raw_trees.read_blobs(picture).frame for picture in pictures] == [0, 1, 2]


@pytest.mark.parametrize(
    ("style", "name"),
    [
        ("plain", "SN001/{}.png"),
        ("img", "img/SN001/{}.png"),
        ("img_o", "img_o/SN001/SN001_{}.png"),
    ],
)
def test_cropped_disfa_counts_from_zero(tmp_path, style, name):
    person = raw_trees.DisfaSubject("SN001", random_labels(3, range(6)), missing={1})
    raw_trees.write_cropped_disfa(tmp_path, [person], paint=SMALL, style=style)
    assert files(tmp_path) == sorted([*label_files([person]), name.format(0), name.format(2)])
    crop = opened(tmp_path / name.format(2))
    assert crop.shape == (256, 256, 3)
    assert raw_trees.read_blobs(crop) == blob("SN001", "LeftVideo", 2)


# A user's own videos.


@pytest.fixture
def own():
    return [
        raw_trees.OwnVideo("talk", [[0, 1], [1, None], [-1, 9]], subject="ann", frames=4),
        raw_trees.OwnVideo("walk", [[1], [0]], aus=(12,), subject="bob", first=2),
    ]


def test_one_table_of_all_own_videos(tmp_path, own):
    raw_trees.write_folder(tmp_path, own, paint=SMALL)
    assert files(tmp_path) == ["labels.csv", "talk.mp4", "walk.mp4"]
    assert (tmp_path / "labels.csv").read_text().splitlines() == [
        "video,frame,subject,AU01,AU12",
        "talk,1,ann,0,1",
        "talk,2,ann,1,",
        "talk,3,ann,-1,9",
        "walk,2,bob,,1",
        "walk,3,bob,,0",
    ]
    for video, count in zip(own, (4, 3), strict=True):
        found = [raw_trees.read_blobs(p) for p in decode(tmp_path / f"{video.name}.mp4")]
        assert found == [blob(video.subject, video.name, frame) for frame in range(count)]


@pytest.mark.parametrize(
    ("as_video", "names"),
    [(True, ["a.csv", "a.mp4"]), (False, ["a.csv", "a/0001.jpg", "a/0002.jpg"])],
)
def test_a_table_of_each_own_video(tmp_path, as_video, names):
    video = raw_trees.OwnVideo("a", [[0, 1], [1, 0]])
    options = dict(one_csv=False, as_video=as_video, codec="mjpeg")
    raw_trees.write_folder(tmp_path, [video], paint=SMALL, **options)
    assert files(tmp_path) == names
    assert (tmp_path / "a.csv").read_text() == "frame,AU01,AU12\n1,0,1\n2,1,0\n"


def test_the_table_may_name_video_files(tmp_path, own):
    for as_video, names in ((True, {"talk.mp4", "walk.mp4"}), (False, {"talk", "walk"})):
        options = dict(as_video=as_video, video_column="file")
        raw_trees.write_folder(tmp_path, own, paint=SMALL, **options)
        assert {row[0] for row in table(tmp_path / "labels.csv")[1:]} == names


def test_own_pictures_count_from_one(tmp_path, own):
    raw_trees.write_folder(tmp_path, own, paint=SMALL, as_video=False)
    assert files(tmp_path / "walk") == ["0001.jpg", "0002.jpg", "0003.jpg"]
    assert raw_trees.read_blobs(opened(tmp_path / "walk/0003.jpg")).frame == 2


def test_own_table_as_openface_writes_it(tmp_path):
    video = raw_trees.OwnVideo("a", [[0, 1], [1, 1], [1, 0]], failed={2})
    raw_trees.write_folder(tmp_path, [video], paint=SMALL, one_csv=False, headers="openface")
    assert (tmp_path / "a.csv").read_text().splitlines() == [
        "frame, face_id, timestamp, confidence, success, AU01_c, AU12_c",
        "1, 0, 0.000, 0.98, 1, 0.00, 1.00",
        "2, 0, 0.040, 0.00, 0, 0.00, 0.00",
        "3, 0, 0.080, 0.98, 1, 1.00, 0.00",
    ]


def test_openface_table_with_intensities(tmp_path, own):
    options = dict(one_csv=False, headers="openface", openface_r=True)
    raw_trees.write_folder(tmp_path, own[1:], paint=SMALL, **options)
    header, first, _ = table(tmp_path / "walk.csv")
    assert header[5:] == [" AU12_r", " AU12_c"]
    assert re.fullmatch(r" \d\.\d\d", first[5]) and first[6] == " 1.00"


# The helper as a whole.


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: raw_trees.Bp4dVideo("X001", "T1", 1, np.zeros((1, 12))), "X001"),
        (lambda: raw_trees.Bp4dVideo("F001", "T9", 1, np.zeros((1, 12))), "T9"),
        (lambda: raw_trees.Bp4dVideo("F001", "T1", 1, np.zeros((1, 8))), r"\(m, 12\)"),
        (lambda: raw_trees.Bp4dVideo("F001", "T1", 1, np.full((1, 12), -1)), "values"),
        (lambda: raw_trees.Bp4dVideo("F001", "T1", 1, np.zeros((1, 12)), missing={2}), "missing"),
        (lambda: raw_trees.DisfaSubject("SN1", np.zeros((1, 12))), "SN1"),
        (lambda: raw_trees.DisfaSubject("SN001", np.zeros((1, 12)), absent={7}), "AUs"),
        (lambda: raw_trees.OwnVideo("a", [[1]]), "one label per AU"),
        (lambda: raw_trees.OwnVideo("a", [[1, 2]]), "label values"),
    ],
)
def test_wrong_plans_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_what_a_layout_cannot_hold_is_refused(tmp_path, recordings, own):
    with pytest.raises(ValueError, match="no gaps"):
        raw_trees.write_bp4d(tmp_path, recordings, paint=SMALL, images="avi")
    with pytest.raises(ValueError, match="one table per video"):
        raw_trees.write_folder(tmp_path, own, paint=SMALL, headers="openface")


def test_the_same_plan_gives_the_same_bytes(tmp_path, recordings):
    contents = collections.defaultdict(set)
    for name in ("a", "b"):
        root = raw_trees.write_bp4d(tmp_path / name, recordings, shuffle_columns=True)
        for file in files(root):
            contents[file].add((root / file).read_bytes())
    assert {len(versions) for versions in contents.values()} == {1}


def test_the_helper_shares_nothing_with_the_builders():
    source = pathlib.Path(raw_trees.__file__).read_text()
    assert "mdhr_jax" not in source
