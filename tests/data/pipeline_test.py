# SPDX-License-Identifier: Apache-2.0
import dataclasses
import itertools
import subprocess
import sys
from concurrent import futures

import grain
import numpy as np
import pytest

from mdhr_jax import errors
from mdhr_jax.data import pipeline, records

TRAINING = {
    "fold": 1,
    "clip_length": 4,
    "batch_size": 2,
    "clips_per_video": 1,
    "seed": 5,
    "crop_offsets": range(9),
    "colour_jitter": 0.4,
}


def train(source, count, **changes):
    batches = pipeline.train_batches(source, **(TRAINING | changes))
    return list(itertools.islice(batches, count))


def equal(first, second):
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def evaluate(source, **changes):
    settings = {"fold": 3, "clip_length": 4, "batch_size": 4}
    return list(pipeline.eval_batches(source, **(settings | changes)))


def test_training_batch_has_the_promised_shapes_and_types(source):
    (batch,) = train(source, 1)
    found = {key: (value.shape, value.dtype.name) for key, value in batch.items()}
    assert found == {
        "frames": ((2, 4, 16, 16, 3), "uint8"),
        "labels": ((2, 4, 8), "int32"),
        "mask": ((2, 4, 8), "bool"),
        "augment": ((2, 7), "float32"),
    }


def test_training_stream_shows_every_video_once_per_epoch_in_full_batches(source):
    # Fold 1 trains on SN001, SN002 and SN006: 3 clips per epoch, 2 per batch. The stand-in's grey
    # level at the start of a clip tells the people apart.
    clips = np.concatenate([batch["frames"] for batch in train(source, 30, clip_length=12)])
    grey = np.round(clips[:, 0].mean((1, 2, 3))).reshape(20, 3)
    for epoch in grey:
        assert len(set(epoch)) == 3
    assert len(np.unique(grey, axis=0)) > 1


def test_training_never_shows_test_subjects(source):
    test_rows = set(source.rows(1, "test").tolist())
    asked = []

    class Watched(type(source)):
        def pictures(self, rows):
            asked.extend(rows.ravel().tolist())
            return super().pictures(rows)

    watched = Watched(**{f.name: getattr(source, f.name) for f in dataclasses.fields(source)})
    train(watched, 20)
    assert asked and not test_rows.intersection(asked)


def test_unknown_labels_and_padding_are_masked_in_training(source):
    batches = train(source, 12, fold=2, clip_length=8)  # SN001 7 and 3, SN002 6, SN003 5 frames
    labels = np.concatenate([batch["labels"] for batch in batches])
    mask = np.concatenate([batch["mask"] for batch in batches])
    assert set(np.unique(labels)) == {0, 1}
    known_frames = mask[..., 1].sum(1)
    assert set(known_frames) == {7, 3, 6, 5}
    assert (mask[known_frames == 6, :, 0] == 0).all()  # SN002's first AU is unknown
    assert (labels[known_frames == 6, :, 0] == 0).all()
    assert (mask[known_frames != 6, 0, 0] == 1).all()


@pytest.mark.parametrize(("hold", "step"), [(1, 1), (2, 3)])
def test_clips_go_on_over_as_many_missing_frames_as_the_data_set_holds(source, hold, step):
    """Of SN001, whose frames 7 and 8 are missing."""
    held = dataclasses.replace(source, hold=hold, by_row=True)
    for batches in (train(held, 40), evaluate(held)):
        numbers = held.table.number[np.concatenate([batch["frames"] for batch in batches])]
        assert np.diff(numbers, axis=1).max() == step


def test_resumed_stream_continues_bit_equal(source):
    equal(train(source, 7)[4:], train(source, 3, start_step=4))


def test_micro_batches_are_the_parts_of_a_batch_clip_by_clip_in_turn(source):
    (batch,), (dealt,) = (train(source, 1, batch_size=6, micro_batches=count) for count in (1, 2))
    in_order = {name: np.concatenate([x[0::2], x[1::2]]) for name, x in dealt.items()}
    equal([in_order], [batch])
    (own,) = train(source, 1, batch_size=6, micro_batches=2, part=range(2, 4))
    equal([own], [{name: x[2:4] for name, x in dealt.items()}])


@pytest.mark.parametrize("threads", [1, 5])
@pytest.mark.parametrize("batches", [0, 1, 5])
def test_stream_does_not_depend_on_the_number_of_threads(source, monkeypatch, threads, batches):
    expected = train(source, 6, clip_length=12)
    options = grain.ReadOptions(num_threads=batches, prefetch_buffer_size=3)
    monkeypatch.setattr(pipeline, "READ_OPTIONS", options)
    with futures.ThreadPoolExecutor(threads) as pool:
        monkeypatch.setattr(records, "_threads", lambda: pool)
        equal(train(source, 6, clip_length=12), expected)


def test_a_batch_is_put_while_the_one_before_it_is_in_use():
    put = []
    ahead = pipeline.ahead(iter(range(4)), lambda batch: put.append(batch) or -batch)
    for batch, placed in ahead:
        assert placed == -batch
        assert put == list(range(min(batch + 2, 4)))
    assert put == [0, 1, 2, 3]
    assert list(pipeline.ahead([], put.append)) == []


@pytest.mark.parametrize("good", range(4))
def test_an_error_comes_after_the_batches_before_it(good):
    def batches():
        yield from range(good)
        raise errors.InputError("broken")

    seen = []
    with pytest.raises(errors.InputError, match="broken"):
        for batch, _ in pipeline.ahead(batches(), str):
            seen.append(batch)
    assert seen == list(range(good))


@pytest.mark.slow
def test_a_process_that_fails_between_two_batches_ends(source):
    code = """
import sys
import numpy as np
from mdhr_jax.data import pipeline, records
source = records.open_dataset(sys.argv[1])
batches = pipeline.train_batches(source, fold=1, clip_length=4, batch_size=64, clips_per_video=1,
                                 seed=5, crop_offsets=range(9), colour_jitter=0.4)
for batch, placed in pipeline.ahead(batches, np.asarray):
    raise KeyError("what a step may raise")
"""
    command = [sys.executable, "-c", code, str(source.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "KeyError: 'what a step may raise'"


def test_another_seed_gives_another_stream(source):
    one, other = train(source, 3), train(source, 3, seed=6)
    assert any((a["augment"] != b["augment"]).any() for a, b in zip(one, other, strict=True))


def test_stream_can_be_entered_very_late(source):
    (batch,) = train(source, 1, start_step=10_000_000)
    assert batch["mask"].any()


def test_read_buffers_are_bounded():
    # Grain's own default keeps 500 batches.
    assert pipeline.READ_OPTIONS.prefetch_buffer_size <= 4


def test_steps_per_epoch_rounds_up(source):
    settings = {"fold": 1, "clip_length": 4, "clips_per_video": 3}  # 3 training videos
    assert pipeline.steps_per_epoch(source, batch_size=9, **settings) == 1
    assert pipeline.steps_per_epoch(source, batch_size=4, **settings) == 3
    every_frame = settings | {"clip_length": 1, "clips_per_video": 0}
    frames = len(source.rows(1, "train"))
    assert pipeline.steps_per_epoch(source, batch_size=1, **every_frame) == frames


def test_evaluation_shows_every_frame_once_and_fills_the_last_batch(source):
    batches = evaluate(source)  # runs of 7, 3 (SN001, with a gap) and 6 frames: 5 clips
    assert [batch["frames"].shape for batch in batches] == [(4, 4, 16, 16, 3)] * 2
    joined = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    valid = joined["valid"]
    np.testing.assert_array_equal(valid.sum(1), [4, 3, 3, 4, 2, 0, 0, 0])
    np.testing.assert_array_equal(joined["row"][valid], np.arange(16))
    table = source.table.take(source.rows(3, "test"))
    np.testing.assert_array_equal(joined["labels"][valid], table.labels == 1)
    np.testing.assert_array_equal(joined["mask"][valid], table.labels >= 0)
    assert not joined["mask"][~valid].any()
    np.testing.assert_array_equal(joined["frames"][valid], source.pictures(source.rows(3, "test")))


def test_evaluation_rows_count_within_the_split(source):
    (batch,) = evaluate(source, fold=2)
    np.testing.assert_array_equal(batch["row"][batch["valid"]], np.arange(9))
    assert batch["row"].dtype == np.int32


def test_evaluation_of_the_training_split(source):
    shown = sum(batch["valid"].sum() for batch in evaluate(source, split="train"))
    assert shown == len(source.rows(3, "train")) == 14


def test_unknown_fold_is_refused_before_the_first_batch(source):
    with pytest.raises(errors.InputError, match="fold 4 does not exist"):
        pipeline.train_batches(source, **(TRAINING | {"fold": 4}))
    with pytest.raises(errors.InputError, match="fold 0 does not exist"):
        pipeline.eval_batches(source, fold=0, clip_length=4, batch_size=4)


def test_broken_picture_reaches_the_user_as_one_line(source):
    broken = dataclasses.replace(source, images=[b"no picture"] * 30)
    with pytest.raises(errors.InputError, match="does not decode as jpeg") as caught:
        train(broken, 1)
    assert "\n" not in str(caught.value)
