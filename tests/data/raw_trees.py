# SPDX-License-Identifier: Apache-2.0
"""Small raw data set trees of BP4D, DISFA and a user's own videos, written from a plan.

An independent reading of how these data sets are laid out: nothing here comes from the builders
or from `facs`, so that an error there cannot hide here.

A painter `paint(subject, video, count)` yields `count` uint8 `(h, w, 3)` RGB pictures. `video` is
the task of BP4D ("T1"), "LeftVideo" or "RightVideo" of DISFA, the name of a user's own video.
"""

import binascii
import csv
import dataclasses
import functools
import math
import pathlib
import re
import struct
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import av
import numpy as np
import skimage.data
from PIL import Image

type Painter = Callable[[str, str, int], Iterator[np.ndarray]]

BP4D_AUS = 1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24
BP4D_INTENSITY_AUS = 6, 10, 12, 14, 17
# Columns beside the frame number. Gaps in the numbers betray readers that count columns; the last
# column stands for the occlusion flag.
BP4D_COLUMNS = 1, 2, 4, 5, 6, 7, *range(9, 21), 22, 23, 24, 27, 28, 99
BP4D_VIDEO_CODES = {
    "T1": "01",
    "T2": "03",
    "T3": "07",
    "T4": "08",
    "T5": "09",
    "T6": "10",
    "T7": "11",
    "T8": "13",
}
BP4D_FPS = 25
DISFA_AUS = 1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26
DISFA_FPS = 20


# Plans.


@dataclasses.dataclass(frozen=True, eq=False)
class Bp4dVideo:
    """A recording of BP4D.

    Attributes:
      subject: "F001" or "M001" and so on.
      task: "T1" to "T8".
      first: number of the first coded frame.
      labels: `(m, 12)` of 0, 1 and 9 (unknown), columns as `BP4D_AUS`.
      uncoded_before: pictures before the coded ones, without a label row; of the AVI variant there
        are always `first - 1`.
      uncoded_after: pictures after the coded ones; negative where the pictures end too early.
      missing: coded frame numbers without a picture; not in the AVI variant.
      padding: width of the number in a file name, 0 for as it is; "mixed" for now 0, now 4.
      intensities: by AU of `BP4D_INTENSITY_AUS`, `(m,)` of 0 to 5 and 9 (unknown).
    """

    subject: str
    task: str
    first: int
    labels: np.ndarray
    uncoded_before: int = 0
    uncoded_after: int = 0
    missing: Collection[int] = frozenset()
    padding: int | str = 0
    intensities: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        _require(re.fullmatch(r"[FM]\d{3}", self.subject), f"subject {self.subject}")
        _require(self.task in BP4D_VIDEO_CODES, f"task {self.task}")
        _set(self, labels=_integers(self.labels, len(BP4D_AUS), (0, 1, 9)))
        _require(set(self.missing) <= set(self.numbers.tolist()), "missing frames are coded ones")
        for au, values in self.intensities.items():
            _require(au in BP4D_INTENSITY_AUS, f"intensity of AU {au}")
            _require(np.shape(values) == (len(self.labels),), f"intensities of AU {au}")

    @property
    def numbers(self):
        """`(m,)` coded frame numbers."""
        return self.first + np.arange(len(self.labels))

    def pictures(self, images="jpg"):
        """Range of the picture numbers; its i-th is the painter's i-th, which starts at 0."""
        start = 1 if images == "avi" else self.first - self.uncoded_before
        return range(start, self.first + len(self.labels) + self.uncoded_after)

    def has_picture(self, images="jpg"):
        """`(m,)` bool: coded frames that have a picture."""
        painted = self.pictures(images)
        return np.array([n in painted and n not in self.missing for n in self.numbers.tolist()])

    def file_name(self, number):
        """Name of a picture without its suffix."""
        width = number % 2 * 4 if self.padding == "mixed" else self.padding
        return f"{number:0{width}d}"


@dataclasses.dataclass(frozen=True, eq=False)
class DisfaSubject:
    """A person of DISFA, who has one recording per camera.

    Attributes:
      name: "SN001" and so on.
      intensities: `(m, 12)` of 0 to 5, columns as `DISFA_AUS`.
      frames: length of the video, by default m.
      absent: AUs without a label file.
      rows: by AU, number of rows in the label file where it is not m; rows too many hold 0.
      first_number: frame number in the first row of a label file; 1 in the real ones.
      missing: 0-based frames without a cropped picture; only of cropped trees.
    """

    name: str
    intensities: np.ndarray
    frames: int | None = None
    absent: Collection[int] = frozenset()
    rows: Mapping[int, int] = dataclasses.field(default_factory=dict)
    first_number: int = 1
    missing: Collection[int] = frozenset()

    def __post_init__(self):
        _require(re.fullmatch(r"SN\d{3}", self.name), f"subject {self.name}")
        _set(self, intensities=_integers(self.intensities, len(DISFA_AUS), range(6)))
        _require({*self.absent, *self.rows} <= set(DISFA_AUS), "AUs of label files")

    @property
    def length(self):
        """Number of frames of the video."""
        return len(self.intensities) if self.frames is None else self.frames

    def lines(self, au):
        """Rows of an AU's label file: frame number, intensity."""
        values = self.intensities[:, DISFA_AUS.index(au)].tolist()
        count = self.rows.get(au, len(values))
        values = values[:count] + [0] * (count - len(values))
        return list(enumerate(values, start=self.first_number))


@dataclasses.dataclass(frozen=True, eq=False)
class OwnVideo:
    """A video of a user.

    Attributes:
      name: of the file or folder, without suffix.
      labels: m rows of one value per AU: 0, 1, unknown as -1, 9 or None (an empty cell).
      aus: the columns.
      subject: name of the person.
      first: number of the first frame with a row, frames count from 1.
      frames: length of the video, by default up to the last row.
      failed: frame numbers at which OpenFace found no face: success and labels 0 in its table.
    """

    name: str
    labels: Sequence[Sequence[int | None]]
    aus: tuple[int, ...] = (1, 12)
    subject: str = ""
    first: int = 1
    frames: int | None = None
    failed: Collection[int] = frozenset()

    def __post_init__(self):
        _require(all(len(row) == len(self.aus) for row in self.labels), "one label per AU")
        _require({v for row in self.labels for v in row} <= {0, 1, -1, 9, None}, "label values")

    @property
    def numbers(self):
        """Frame numbers with a row."""
        return range(self.first, self.first + len(self.labels))

    @property
    def length(self):
        """Number of frames of the video."""
        return self.numbers.stop - 1 if self.frames is None else self.frames


def _require(holds, what):
    if not holds:
        raise ValueError(f"the plan is wrong: {what}")


def _set(plan, **values):
    for name, value in values.items():
        object.__setattr__(plan, name, value)


def _integers(values, columns, allowed):
    values = np.array(values, dtype=int)
    _require(values.ndim == 2 and values.shape[1] == columns, f"(m, {columns}), is {values.shape}")
    _require(np.isin(values, list(allowed)).all(), f"values {sorted(set(values.flat))}")
    return values


# Painters.


class Blob(NamedTuple):
    """What a picture of `blobs` says about itself."""

    subject: int  # index(name)
    video: int  # index(name)
    frame: int  # as painted, from 0


# Red exceeds blue, so that exchanged channels are found out.
_BRIGHT, _DARK = (240, 210, 150), (90, 50, 20)


def index(name):
    """Number of a subject or video in the pictures of `blobs`."""
    return zlib.crc32(name.encode()) % 2**16


def blobs(subject, video, count, *, size=(96, 128)):
    """Eight by eight cells that spell subject, video and frame number; `size` is height, width."""
    height, width = size
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 8 // width
    for frame in range(count):
        cells = _cells(Blob(index(subject), index(video), frame))
        bright = cells[rows][:, columns, None]
        yield np.where(bright, np.uint8(_BRIGHT), np.uint8(_DARK))


def read_blobs(picture):
    """The `Blob` of a compressed or resized picture.

    Raises:
      ValueError: the picture is another one, was cropped, flipped, or its channels exchanged.
    """
    picture = np.asarray(picture, dtype=np.float32)
    levels = _cell_levels(picture.mean(axis=2))
    if np.ptp(levels) < 40:
        raise ValueError("no blobs in the picture")
    if picture[..., 0].mean() < picture[..., 2].mean() + 20:
        raise ValueError("not the colours of blobs: are red and blue exchanged?")
    bright = levels > (levels.min() + levels.max()) / 2
    blob = Blob(*struct.unpack(">HHH", np.packbits(bright).tobytes()[:6]))
    if (_cells(blob) != bright).any():
        raise ValueError("the blobs' checksum is wrong: another picture, cropped or flipped?")
    return blob


def _cells(blob):
    """`(8, 8)` bool: three numbers of 16 bits and their checksum."""
    data = struct.pack(">HHH", *blob)
    data += struct.pack(">H", binascii.crc_hqx(data, 0xFFFF))
    return np.unpackbits(np.frombuffer(data, np.uint8)).reshape(8, 8).astype(bool)


def _cell_levels(grey):
    """Mean of the inner half of each cell, away from the neighbours' blur."""

    def inner(cell, length):
        start, stop = (cell + 0.25) * length / 8, (cell + 0.75) * length / 8
        return slice(math.floor(start), math.ceil(stop))

    height, width = grey.shape
    return np.array(
        [[grey[inner(i, height), inner(j, width)].mean() for j in range(8)] for i in range(8)]
    )


def astronaut_faces(subject, video, count, *, size=(240, 320)):
    """One face, about 100 x 130 pixels, that moves by at most a pixel or so per frame.

    Args:
      subject: decides how bright the picture is.
      video: decides with the subject where the motion starts.
      count: number of pictures.
      size: height, width; at least `(200, 200)`.
    """
    scene, (face_x, face_y) = _astronaut()
    scene = np.uint8(scene * (0.8 + 0.2 * index(subject) / 2**16))
    height, width = size
    # A margin of grey, for frames larger than the scene.
    margins = ((height, height), (width, width), (0, 0))
    scene = np.pad(scene, margins, constant_values=128)
    for frame in range(count):
        x, y = astronaut_centre(subject, video, frame, size=size)
        top, left = face_y + height - y, face_x + width - x
        yield scene[top : top + height, left : left + width].copy()


def astronaut_centre(subject, video, frame, *, size=(240, 320)):
    """Column and row of the face's centre in a picture of `astronaut_faces`."""
    phase = index(subject + video)
    x = size[1] // 2 + round(8 * math.sin(frame / 9 + phase))
    y = size[0] // 2 + round(5 * math.sin(frame / 7 + phase))
    return x, y


@functools.cache
def _astronaut():
    """The picture with a face 130 pixels high, and column and row of the face's centre."""
    image = Image.fromarray(skimage.data.astronaut())
    scale = 1.2
    scene = image.resize((round(image.width * scale), round(image.height * scale)))
    return np.asarray(scene), (round(223 * scale), round(117 * scale))


# BP4D.


def write_bp4d(
    root,
    videos,
    *,
    paint=blobs,
    images="jpg",
    occ_folder="AU_OCC",
    folder=None,
    columns=BP4D_COLUMNS,
    shuffle_columns=False,
    codec="mjpeg",
    distractors=True,
    line_end="\n",
    seed=0,
):
    """BP4D as it is distributed.

    Args:
      root: folder of the data set.
      videos: plans, `Bp4dVideo`.
      paint: painter.
      images: "jpg" for a folder of pictures per video, "avi" for one video file each.
      occ_folder: "AU_OCC", or "old" for label tables that lie directly in `AUCoding`.
      folder: where the pictures or video files lie, "" for the root; "Sequences(2D+3D)" of
        pictures and "Sequences(2D)" of video files by default.
      columns: of the label tables beside the frame number, at least `BP4D_AUS`.
      shuffle_columns: AU columns in random order, another in each table.
      codec: of the AVIs.
      distractors: write files beside that are not for a builder.
      line_end: of the tables.
      seed: of the unused columns and their order.

    Returns:
      The root, as a path.
    """
    root = pathlib.Path(root)
    for video in videos:
        if images == "avi":
            _write_bp4d_avi(root, video, paint, folder, codec)
        else:
            place = root / ("Sequences(2D+3D)" if folder is None else folder)
            _write_bp4d_pictures(place, video, paint, distractors=distractors)
        if distractors:
            for kind in ("2DFeatures", "3DFeatures"):
                _write_junk(root / kind / f"{video.subject}_{video.task}.mat")
    table = dict(columns=columns, shuffle=shuffle_columns, line_end=line_end, seed=seed)
    _write_au_coding(root / "AUCoding", videos, occ_folder, **table)
    return root


def write_cropped_bp4d(
    root,
    videos,
    *,
    paint=blobs,
    style="img",
    size=256,
    occ_folder="AU_OCC",
    columns=BP4D_COLUMNS,
    line_end="\n",
    seed=0,
):
    """Crops of BP4D at `img/F001/T1/2440.jpg`, style "plain" without `img/`; labels as raw."""
    root = pathlib.Path(root)
    place = {"img": root / "img", "plain": root}[style]
    for video in videos:
        _write_bp4d_pictures(place, video, paint, size=size)
    table = dict(columns=columns, shuffle=False, line_end=line_end, seed=seed)
    _write_au_coding(root / "AUCoding", videos, occ_folder, **table)
    return root


def _write_bp4d_pictures(place, video, paint, *, size=None, distractors=False):
    place = place / video.subject / video.task
    for number, picture in _painted(paint, video.subject, video.task, video.pictures()):
        if number in video.missing:
            continue
        file = place / f"{video.file_name(number)}.jpg"
        _write_picture(file, picture, size)
        if distractors:
            _write_junk(file.with_suffix(".obj"))
            _write_junk(file.with_suffix(".mtl"))
    if distractors:
        _write_junk(place / "Thumbs.db")


def _write_bp4d_avi(root, video, paint, folder, codec):
    _require(not video.missing, "a video file has no gaps")
    name = f"2{video.subject[0]}{video.subject[2:]}_{BP4D_VIDEO_CODES[video.task]}.avi"
    pictures = _painted(paint, video.subject, video.task, video.pictures("avi"))
    file = root / ("Sequences(2D)" if folder is None else folder) / name
    write_video(file, (picture for _, picture in pictures), codec=codec, fps=BP4D_FPS)


def _write_au_coding(place, videos, occ_folder, *, columns, shuffle, line_end, seed):
    _require(set(BP4D_AUS) <= set(columns), "columns of the label tables")
    tables = {"AU_OCC": place / "AU_OCC", "old": place}[occ_folder]
    for video in videos:
        name = f"{video.subject}_{video.task}"
        rng = np.random.default_rng([seed, index(video.subject), index(video.task)])
        order = rng.permutation(columns).tolist() if shuffle else list(columns)
        values = {au: rng.choice([0, 1, 9], len(video.labels)) for au in columns}
        values |= dict(zip(BP4D_AUS, video.labels.T, strict=True))
        rows = np.column_stack([video.numbers, *(values[au] for au in order)]).tolist()
        _write_table(tables / f"{name}.csv", [[0, *order], *rows], line_end)
        for au, intensities in video.intensities.items():
            rows = zip(video.numbers.tolist(), np.asarray(intensities).tolist(), strict=True)
            file = place / "AU_INT" / f"AU{au:02d}" / f"{name}_AU{au:02d}.csv"
            _write_table(file, rows, line_end)


# DISFA.


def write_disfa(
    root,
    subjects,
    *,
    paint=blobs,
    camera="Videos_LeftCamera",
    suffix="_comp.avi",
    codec="mjpeg",
    distractors=True,
    line_end="\n",
):
    """DISFA as it is distributed, one camera; a second call adds the other.

    Args:
      root: folder of the data set.
      subjects: plans, `DisfaSubject`.
      paint: painter; its video is "LeftVideo" or "RightVideo".
      camera: folder of the videos; also seen: "Video_RightCamera", "Videos_RightCamera". Its
        name says which side.
      suffix: of the videos; also seen: "_Comp.avi".
      codec: of the videos; "cinepak" was seen in a sample.
      distractors: write landmarks and other files beside that are not for a builder.
      line_end: of the label files.

    Returns:
      The root, as a path.
    """
    root = pathlib.Path(root)
    side = "LeftVideo" if "left" in camera.lower() else "RightVideo"
    for subject in subjects:
        _require(not subject.missing, "a video file has no gaps")
        pictures = _painted(paint, subject.name, side, range(subject.length))
        file = root / camera / f"{side}{subject.name}{suffix}"
        write_video(file, (picture for _, picture in pictures), codec=codec, fps=DISFA_FPS)
        if distractors:
            _write_landmarks(root / "Landmark_Points", subject)
    if distractors:
        _write_junk(root / camera / "Thumbs.db")
    _write_disfa_labels(root / "ActionUnit_Labels", subjects, line_end)
    return root


def write_cropped_disfa(root, subjects, *, paint=blobs, style="img", size=256, line_end="\n"):
    """Crops of DISFA of the left camera, frames from 0, labels as in the raw set.

    The first frame of SN001 is `SN001/0.png` in style "plain", `img/SN001/0.png` in style "img",
    `img_o/SN001/SN001_0.png` in style "img_o".
    """
    root = pathlib.Path(root)
    place, prefix = {"plain": ("", ""), "img": ("img", ""), "img_o": ("img_o", "{}_")}[style]
    for subject in subjects:
        name = subject.name
        for number, picture in _painted(paint, name, "LeftVideo", range(subject.length)):
            if number not in subject.missing:
                file = root / place / name / f"{prefix.format(name)}{number}.png"
                _write_picture(file, picture, size)
    _write_disfa_labels(root / "ActionUnit_Labels", subjects, line_end)
    return root


def _write_disfa_labels(place, subjects, line_end):
    for subject in subjects:
        for au in set(DISFA_AUS) - set(subject.absent):
            file = place / subject.name / f"{subject.name}_au{au}.txt"
            _write_table(file, subject.lines(au), line_end)


def _write_landmarks(place, subject):
    for frame in range(subject.length):
        _write_junk(place / subject.name / "tmp_frame_lm" / f"{subject.name}_{frame:04d}_lm.mat")


# A user's own videos.


def write_folder(
    root,
    videos,
    *,
    paint=blobs,
    one_csv=True,
    headers="ours",
    as_video=True,
    codec="mpeg4",
    fps=25,
    video_column="stem",
    openface_r=False,
    line_end="\n",
):
    """A user's own videos with labels.

    Args:
      root: folder of the data set.
      videos: plans, `OwnVideo`.
      paint: painter.
      one_csv: one table `labels.csv` of all videos; otherwise `NAME.csv` of each.
      headers: "ours" for `video,frame,subject,AU01,...`, without `video` in the table of one
        video and without `subject` where no plan names one; "openface" for `frame, face_id,
        timestamp, confidence, success, AU01_c, ...`, which only exists as a table of one video.
      as_video: `NAME.mp4`; otherwise pictures `NAME/0001.jpg`.
      codec: "mpeg4" or "mjpeg".
      fps: frame rate.
      video_column: "stem", or "file" for names with their suffix.
      openface_r: columns `AU01_r` of random intensities before those of `AU01_c`.
      line_end: of the tables.

    Returns:
      The root, as a path.
    """
    root = pathlib.Path(root)
    suffix = ".mp4" if as_video else ""
    for video in videos:
        pictures = _painted(paint, video.subject, video.name, range(1, video.length + 1))
        if as_video:
            frames = (picture for _, picture in pictures)
            write_video(root / f"{video.name}{suffix}", frames, codec=codec, fps=fps)
        else:
            for number, picture in pictures:
                _write_picture(root / video.name / f"{number:04d}.jpg", picture)
    if headers == "openface":
        _require(not one_csv, "OpenFace writes one table per video: one_csv=False")
        for video in videos:
            table = _openface_table(video, fps, openface_r)
            _write_table(root / f"{video.name}.csv", table, line_end)
    elif one_csv:
        table = _own_table(videos, suffix if video_column == "file" else "")
        _write_table(root / "labels.csv", table, line_end)
    else:
        for video in videos:
            rows = [row[1:] for row in _own_table([video], "")]
            _write_table(root / f"{video.name}.csv", rows, line_end)
    return root


def _own_table(videos, suffix):
    aus = sorted({au for video in videos for au in video.aus})
    with_subject = any(video.subject for video in videos)
    header = ["video", "frame", "subject"] if with_subject else ["video", "frame"]
    rows = [header + [f"AU{au:02d}" for au in aus]]
    for video in videos:
        for number, labels in zip(video.numbers, video.labels, strict=True):
            values = dict(zip(video.aus, labels, strict=True))
            row = [f"{video.name}{suffix}", number, video.subject][: len(header)]
            rows.append(row + [values.get(au) for au in aus])  # csv writes None as an empty cell
    return rows


def _openface_table(video, fps, with_intensities):
    rng = np.random.default_rng(index(video.name))
    header = ["frame", "face_id", "timestamp", "confidence", "success"]
    if with_intensities:
        header += [f"AU{au:02d}_r" for au in video.aus]
    rows = [header + [f"AU{au:02d}_c" for au in video.aus]]
    for number, labels in zip(video.numbers, video.labels, strict=True):
        found = number not in video.failed
        row = [number, 0, f"{(number - 1) / fps:.3f}", "0.98" if found else "0.00", int(found)]
        if with_intensities:
            row += [f"{value * found:.2f}" for value in rng.uniform(0, 5, len(video.aus))]
        rows.append(row + ["" if v is None else f"{v * found:.2f}" for v in labels])
    return [[row[0], *(f" {cell}" for cell in row[1:])] for row in rows]  # ", " between cells


# Files.


def write_video(path, pictures, *, codec="mjpeg", fps=25):
    """A video file of high quality: "mjpeg", "mpeg4" or "cinepak" (sides multiples of 4)."""
    pixels = {"mjpeg": "yuvj420p", "mpeg4": "yuv420p", "cinepak": "rgb24"}[codec]
    quality = {} if codec == "cinepak" else {"qmin": "1", "qmax": "2"}
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = None
    with av.open(path, "w") as container:
        for picture in pictures:
            if stream is None:
                height, width = picture.shape[:2]
                stream = container.add_stream(codec, rate=fps, options=quality)
                stream.width, stream.height, stream.pix_fmt = width, height, pixels
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        _require(stream, "a video has frames")
        container.mux(stream.encode())


def _painted(paint, subject, video, numbers):
    """Pairs of number and picture."""
    return zip(numbers, paint(subject, video, len(numbers)), strict=True)


def _write_picture(file, picture, size=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture)
    if size:
        image = image.resize((size, size))
    image.save(file, **({"quality": 95} if file.suffix == ".jpg" else {}))


def _write_table(file, rows, line_end):
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as text:
        csv.writer(text, lineterminator=line_end).writerows(rows)


def _write_junk(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"not for a builder")
