# SPDX-License-Identifier: Apache-2.0
import resource
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import simplejpeg

from mdhr_jax import errors, facs
from mdhr_jax.data import records
from mdhr_jax.data.builders import rendered
from mdhr_jax.synth import video as renderer

SETTINGS = {
    "seed": 3,
    "subjects": 4,
    "videos_per_subject": 2,
    "frames_per_video": 5,
    "image_size": 16,
    "progress": False,
}


def build(out, layout=facs.BP4D, **changes):
    return rendered.build(out, layout, **(SETTINGS | changes))


def test_set_from_the_label_process(tmp_path, plain_renderer):
    source = build(tmp_path / "set")
    assert source.table.videos[:3] == ("S001/T1", "S001/T2", "S002/T1")
    assert source.folds == (("S001", "S004"), ("S002",), ("S003",))
    assert source.table.labels.shape == (40, 12)
    assert set(np.unique(source.table.labels)) == {0, 1}
    assert source.metadata.fps == 25.0
    assert source.metadata.seed == 3


def test_records_hold_what_the_table_says(source):
    builder_records = source.records
    for row in range(0, len(source.table), 3):
        record = builder_records[row]
        video = source.table.video[row]
        assert record["subject"].decode() == source.table.subjects[video]
        assert record["video"].decode() == source.table.videos[video]
        assert record["frame"] == source.table.number[row]
        np.testing.assert_array_equal(record["labels"], source.table.labels[row])


def test_set_from_lists_keeps_frame_numbers_unknown_labels_and_folds(source):
    table = source.table
    assert table.videos == table.subjects == ("SN001", "SN002", "SN003", "SN006")
    assert source.folds == (("SN003",), ("SN006",), ("SN001", "SN002"))
    np.testing.assert_array_equal(table.number[:10], [*range(7), 9, 10, 11])
    assert (table.labels[table.rows_of(["SN002"]), 0] == -1).all()


def test_pictures_are_rendered_frame_by_frame_in_order(source):
    rows = source.table.rows_of(["SN001"])
    grey = source.pictures(rows).mean((1, 2, 3))
    np.testing.assert_allclose(np.diff(grey), 3, atol=1)


def test_subjects_and_frames_of_lists_can_be_cut(tmp_path, plain_renderer, write_disfa_lists):
    source = rendered.build(
        tmp_path / "set",
        facs.DISFA,
        seed=0,
        lists=write_disfa_lists(tmp_path),
        subjects=["SN006", "SN001"],
        max_frames_per_video=4,
        image_size=16,
        progress=False,
    )
    assert source.table.videos == ("SN001", "SN006")
    assert source.folds == ((), ("SN006",), ("SN001",))
    np.testing.assert_array_equal(source.table.number, [*range(4)] * 2)


def test_long_videos_are_rendered_in_chunks(tmp_path, plain_renderer, monkeypatch):
    whole = build(tmp_path / "whole")
    monkeypatch.setattr(rendered, "_CHUNK", 2)
    chunked = build(tmp_path / "chunked")
    rows = np.arange(len(whole.table))
    np.testing.assert_array_equal(chunked.pictures(rows), whole.pictures(rows))


@pytest.mark.soak
def test_more_than_a_thousand_people(tmp_path, plain_renderer):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))  # as on macOS
    try:
        source = build(tmp_path / "set", subjects=1100, videos_per_subject=1, frames_per_video=1)
        assert source.records[1099]["subject"] == b"S1100"
        assert source.pictures(np.arange(1100)).shape == (1100, 16, 16, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_another_command_renders_is_left_to_it(tmp_path, plain_renderer, monkeypatch):
    pictures, refused = renderer.render_video, []

    def render(*labels, **settings):
        if not refused:
            with pytest.raises(errors.InputError, match="another command is at work here") as error:
                build(tmp_path / "set")
            refused.append(error)
        return pictures(*labels, **settings)

    monkeypatch.setattr(renderer, "render_video", render)
    assert len(build(tmp_path / "set").table) == 40
    assert refused
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_records_show_nearly_what_was_rendered(tmp_path, monkeypatch):
    picture = np.indices((16, 16, 3), np.uint8).sum(0, dtype=np.uint8) * 5
    monkeypatch.setattr(
        renderer, "render_video", lambda *_, frames, **__: [picture for _ in frames]
    )
    source = build(tmp_path / "set", subjects=1)
    difference = source.pictures(np.array([1]))[0] - picture.astype(int)
    assert 0 < np.abs(difference).max() <= 6


def test_nothing_stays_in_the_temporary_folder(tmp_path, plain_renderer, monkeypatch):
    elsewhere = tmp_path / "temporary"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    build(tmp_path / "set", subjects=1)
    assert not list(elsewhere.iterdir())


def test_jpeg_keeps_half_the_resolution_of_colours(tmp_path, plain_renderer):
    source = build(tmp_path / "set", subjects=1)
    assert simplejpeg.decode_jpeg_header(source.image(0))[3] == "420"


def test_finished_set_is_reused_with_the_same_settings(
    tmp_path, plain_renderer, monkeypatch, capsys
):
    build(tmp_path / "set")
    monkeypatch.setattr(renderer, "render_video", None)
    again = build(tmp_path / "set")
    assert len(again.table) == 40
    assert "already prepared with the same settings" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 4}, "seed"),
        ({"image_size": 32}, "image_size"),
        ({"frames_per_video": 6}, "frames and labels"),
    ],
)
def test_finished_set_with_other_settings_is_refused(tmp_path, plain_renderer, change, named):
    build(tmp_path / "set")
    with pytest.raises(errors.InputError, match=f"other settings.*differing: .*{named}"):
        build(tmp_path / "set", **change)


def test_directory_with_something_else_is_left_alone(tmp_path, plain_renderer):
    (tmp_path / "thesis.txt").write_text("work of years")
    with pytest.raises(errors.InputError, match="no data set prepared by mdhr"):
        build(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_interrupted_build_is_not_taken_for_a_data_set(tmp_path, plain_renderer, monkeypatch):
    def fails_in_the_third_video(layout, labels, *, subject, video, frames, size, seed):
        if video == "S002/T1":
            raise KeyboardInterrupt
        return np.zeros((len(frames), size, size, 3), np.uint8)

    with monkeypatch.context() as patch:
        patch.setattr(renderer, "render_video", fails_in_the_third_video)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "set")
    with pytest.raises(errors.InputError, match="interrupted"):
        records.open_dataset(tmp_path / "set")
    assert len(build(tmp_path / "set").table) == 40
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subjects": ["S001", "S001"]}, "subject S001 appears more than once"),
        ({"subjects": ["a/b"]}, "subject 'a/b': use letters, digits"),
        ({"subjects": None}, "say how many subjects"),
        ({"subjects": 0}, "subjects is 0"),
        ({"frames_per_video": 0}, "frames_per_video is 0"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, plain_renderer, changes, message):
    with pytest.raises(errors.InputError, match=message):
        build(tmp_path / "set", **changes)
    assert not list(tmp_path.iterdir())


def test_subjects_that_the_lists_do_not_know_are_refused(tmp_path, write_disfa_lists):
    lists = write_disfa_lists(tmp_path)
    with pytest.raises(
        errors.InputError, match="subjects SN099 are not in the disfa lists; choose"
    ):
        build(tmp_path / "set", facs.DISFA, lists=lists, subjects=["SN001", "SN099"])
    with pytest.raises(errors.InputError, match="with lists, name the subjects"):
        build(tmp_path / "set", facs.DISFA, lists=lists, subjects=2)


def test_unregistered_layout_is_refused(tmp_path, plain_renderer):
    layout = facs.AuLayout("mine", (6,), (facs.Region("mid", facs.MIDDLE, (6,)),), True, 25.0)
    with pytest.raises(errors.InputError, match="'mine' is unknown"):
        build(tmp_path / "set", layout)


@pytest.mark.slow
def test_rendered_faces_end_to_end(tmp_path):
    source = build(tmp_path / "set", subjects=1, frames_per_video=2, image_size=64)
    pictures = source.pictures(np.arange(4))
    assert pictures.std() > 10
    assert np.abs(np.diff(pictures.astype(int), axis=0)).mean() > 1


@pytest.mark.slow
def test_tensorflow_is_never_imported(tmp_path):
    code = f"""
import sys, numpy as np
from mdhr_jax import facs
from mdhr_jax.data import pipeline
from mdhr_jax.data.builders import rendered
from mdhr_jax.synth import video
video.render_video = lambda *_, frames, size, **__: np.zeros((len(frames), size, size, 3), np.uint8)
source = rendered.build({str(tmp_path / "set")!r}, facs.BP4D, seed=0, subjects=3,
                        videos_per_subject=1, frames_per_video=4, image_size=16, progress=False)
batches = pipeline.train_batches(source, fold=1, clip_length=2, batch_size=2, clips_per_video=1,
                                 seed=0, crop_offsets=range(1), colour_jitter=0.0)
assert next(batches)["frames"].shape == (2, 2, 16, 16, 3)
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
