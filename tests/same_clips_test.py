# SPDX-License-Identifier: Apache-2.0
"""Training, evaluation and prediction cut the same clips out of the same recording."""

import functools
import hashlib

import numpy as np
import pytest
from PIL import Image

from mdhr_jax.data import clips, index_file
from mdhr_jax.data.builders import parts, prepare, recordings
from mdhr_jax.faces import squares, video
from mdhr_jax.infer import predict
from tests.infer.predict_test import Brightness

SIZE = 4


def _picture(index):
    return np.full((SIZE, SIZE, 3), index, np.uint8)


class _Faces:
    """Finds the face of a list in each frame; None: none. Frames tell by their grey level."""

    def __init__(self, faces):
        self._faces = faces

    def squares(self, frames, *, video, side):
        for frame in frames:
            face = self._faces[frame.picture[0, 0, 0]]
            yield squares.Square(frame, None if face is None else frame.picture, face)


class _Decoder:
    """Stands in for the process that decodes a film with these times."""

    def __init__(self, file, times, rate):
        self._said = iter(
            [
                {"count": len(times), "rate": rate, "notes": []},
                *({"time": time, "shape": index} for index, time in enumerate(times)),
                {"end": True},
            ]
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def read(self):
        return next(self._said)

    def read_picture(self, shape):
        return _picture(shape)


def _film(tmp_path, monkeypatch, steps):
    """A film that stands still for so many steps between two frames."""
    file = tmp_path / "film.mp4"
    file.write_bytes(b"")
    decoder = functools.partial(_Decoder, times=(np.cumsum([0, *steps]) / 25).tolist(), rate=25.0)
    monkeypatch.setattr(video, "_Decoder", decoder)
    return file, recordings.Film(file, first=1), np.arange(1, len(steps) + 2)


def _pictures(tmp_path, monkeypatch, steps):
    """Pictures whose numbers go on by these steps."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    numbers = np.cumsum([1, *steps])
    files = {number: folder / f"f{number:04d}.png" for number in numbers.tolist()}
    for index, file in enumerate(files.values()):
        Image.fromarray(_picture(index)).save(file)
    return folder, recordings.Pictures(files), numbers


def _stored(recording, faces, tmp_path, monkeypatch):
    """The table of the set that is prepared of one recording, and what its rows show."""
    monkeypatch.setattr(parts, "cutter", lambda settings: _Faces(faces))
    parts.cut(recording, parts.Settings(size=SIZE, image_format="png"), tmp_path / "part.npz")
    part = parts.read(tmp_path / "part.npz")
    shown = np.flatnonzero(np.isin(recording.numbers, part.number))
    return clips.FrameTable.from_videos(prepare._videos([recording], {"a": part})), shown


def _predicted(source, faces, tmp_path, **model):
    """What a model sees in prediction, clip by clip."""
    model = Brightness(record_size=SIZE, **model)
    out = tmp_path / "out.csv"
    done = predict.predict(source, model, cutter=_Faces(faces), out=out, progress=False)
    assert done.frames == len(out.read_text().splitlines()) - 1 == len(faces)
    return [clip[0, :, 0, 0, 0].tolist() for clip in model.clips]


def _drawn(table, length, hold):
    """The clips that training draws."""
    settings = {"crop_offsets": range(1), "colour_jitter": 0.0, "seed": 0, "epoch": 0}
    settings |= {"clip_length": length, "clips_per_video": 2000, "hold": hold}
    index, _ = clips.training_clips(table, **settings)
    return {tuple(row) for row in index.rows.tolist()}


def _drawable(table, length, hold):
    """Every clip that begins with a frame and fits into its run; shorter runs are filled up."""
    whole = clips.evaluation_clips(table, 10_000, hold=hold)  # a run each
    for row, valid in zip(whole.rows, whole.valid, strict=True):
        run = row[: np.flatnonzero(valid)[-1] + 1]
        for start in np.flatnonzero(valid):
            if start <= max(len(run) - length, 0):
                clip = run[start : start + length].tolist()
                yield *clip, *clip[-1:] * (length - len(clip))


@pytest.mark.parametrize("lost", [0, 3])
def test_a_stored_table_keeps_its_places(tmp_path, lost):
    numbers, labels = np.arange(1, 7), np.zeros((6, 2), np.int8)
    place = numbers + np.repeat([0, lost], 3)
    video = clips.Video("a", "anna", numbers, labels, None, place)
    table = clips.FrameTable.from_videos([video])
    data = index_file.to_bytes(table)
    (tmp_path / "index.npz").write_bytes(data)
    with np.load(tmp_path / "index.npz") as arrays:  # what numbers tell is not stored, as ever
        assert ("place" in arrays) == (lost > 0)
    digest = hashlib.sha256(data).hexdigest()
    stored = index_file.read(tmp_path / "index.npz", digest, num_aus=2)
    assert np.diff(stored.place).tolist() == np.diff(place).tolist()
    assert len(clips.evaluation_clips(stored, 10, hold=2)) == 1 + (lost > 2)


@pytest.mark.parametrize("make", [_film, _pictures])
def test_all_three_see_the_same_clips(tmp_path, monkeypatch, make):
    for seed in range(25):
        folder = tmp_path / str(seed)
        folder.mkdir()
        _check_that_all_see_the_same(folder, monkeypatch, make, np.random.default_rng(seed))


def _check_that_all_see_the_same(tmp_path, monkeypatch, make, rng):
    steps = rng.choice([1, 1, 1, 1, 3, 4, 5, 40], rng.integers(1, 25))
    if make is _film:  # by the clock
        steps = steps + rng.uniform(-0.1, 0.1, len(steps))
        steps[rng.random(len(steps)) < 0.05] = -2.0
        steps[rng.random(len(steps)) < 0.05] = 3.5
    faces = rng.choice(np.array([None, 0, 1]), len(steps) + 1, p=[0.1, 0.85, 0.05]).tolist()
    faces[rng.integers(len(faces))] = 0
    hold, length, context = (int(rng.integers(*bounds)) for bounds in [(0, 6), (1, 7), (0, 3)])

    source, kept, numbers = make(tmp_path, monkeypatch, steps.tolist())
    unknown = np.full((len(numbers), 2), -1, np.int8)
    recording = recordings.Recording("anna", "a", numbers, unknown, unknown, kept)
    table, shown = _stored(recording, faces, tmp_path, monkeypatch)
    index = clips.evaluation_clips(table, length, context, hold=hold)
    seen = _predicted(source, faces, tmp_path, clip_length=length, hold=hold, context=context)
    assert shown[index.rows].tolist() == seen

    assert _drawn(table, length, hold) == set(_drawable(table, length, hold))
