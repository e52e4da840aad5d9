# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from mdhr_jax.data import clips


def table_of(**numbers):
    """One video per keyword, of a subject of the same name, with these frame numbers."""
    return clips.FrameTable.from_videos(
        [
            clips.Video(name, name, np.array(values), np.zeros((len(values), 2), np.int8))
            for name, values in numbers.items()
        ]
    )


def draw(table, **changes):
    settings = {"clip_length": 4, "clips_per_video": 1, "seed": 1, "epoch": 0}
    settings |= {"crop_offsets": range(33), "colour_jitter": 0.4}
    return clips.training_clips(table, **(settings | changes))


def test_evaluation_clips_close_at_gaps_and_at_the_end_of_a_video():
    index = clips.evaluation_clips(table_of(a=[5, 6, 7, 9, 10], b=[11, 12, 13, 14, 15]), 4)
    np.testing.assert_array_equal(
        index.rows, [[0, 1, 2, 2], [3, 4, 4, 4], [5, 6, 7, 8], [9, 9, 9, 9]]
    )
    np.testing.assert_array_equal(index.valid.sum(1), [3, 2, 4, 1])


def test_evaluation_clips_visit_every_frame_once():
    rng = np.random.default_rng(0)
    numbers = {f"v{i}": np.cumsum(rng.integers(1, 3, rng.integers(1, 40))) for i in range(20)}
    table = table_of(**numbers)
    index = clips.evaluation_clips(table, 5)
    np.testing.assert_array_equal(index.rows[index.valid], np.arange(len(table)))
    steps = np.diff(table.number[index.rows], axis=1)
    assert (steps[index.valid[:, 1:]] == 1).all()
    assert (steps[~index.valid[:, 1:]] == 0).all()


def test_an_epoch_draws_every_video_clips_per_video_times():
    table = table_of(a=range(9), b=range(4), c=range(2))
    index, _ = draw(table, clips_per_video=3)
    videos = table.video[index.rows]
    assert (videos == videos[:, :1]).all()
    np.testing.assert_array_equal(np.bincount(videos[:, 0]), [3, 3, 3])


def test_training_starts_cover_the_video_evenly_and_no_more():
    index, _ = draw(table_of(a=range(9)), clips_per_video=6000)
    starts = np.bincount(index.rows[:, 0], minlength=6)
    assert len(starts) == 6
    np.testing.assert_allclose(starts, 1000, atol=150)
    assert index.valid.all()


def test_training_clips_never_cross_a_gap():
    table = table_of(a=[1, 2, 3, 100, 101, 102, 103, 104], b=[7, 9, 10], c=range(6))
    index, _ = draw(table, clips_per_video=3000, context=1)
    steps = np.diff(table.number[index.rows], axis=1)
    assert np.isin(steps, [0, 1]).all()
    shown, counts = np.unique(index.scored[:, 0], return_counts=True)
    # Every run begins a clip, and every place in it where a whole clip fits.
    assert shown.tolist() == [0, 3, 4, 8, 9, 11, 12, 13]
    np.testing.assert_allclose(counts, np.repeat([1000, 1500, 1000], [3, 2, 3]), atol=120)
    assert (index.valid.sum(1)[index.scored[:, 0] == 0] == 3).all()


def test_where_every_tenth_frame_is_labelled_it_follows_the_one_before():
    table = table_of(a=[1, 11, 21, 31, 51, 61], b=[5])
    index = clips.evaluation_clips(table, 4)
    assert index.rows.tolist() == [[0, 1, 2, 3], [4, 5, 5, 5], [6, 6, 6, 6]]
    assert set(draw(table, clips_per_video=50)[0].rows[:, 0]) == {0, 4, 6}


def test_a_few_missing_frames_are_bridged_by_the_one_before_when_asked():
    table = table_of(a=[1, 2, 4, 5, 9, 10], b=[11, 13, 15])  # every second frame is labelled
    index = clips.evaluation_clips(table, 4, hold=1)
    assert index.rows.tolist() == [[0, 1, 1, 2], [3, 3, 3, 3], [4, 5, 5, 5], [6, 7, 8, 8]]
    assert index.valid.astype(int).tolist() == [
        *([1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 0, 0]),
        [1, 1, 1, 0],
    ]
    index = clips.evaluation_clips(table, 8, context=1, hold=3)
    assert index.rows.tolist() == [
        [0, 0, 1, 1, 2, 3, 3, 3, 3, 4],
        [3, 4, 5, 5, 5, 5, 5, 5, 5, 5],
        [6, 6, 7, 8, 8, 8, 8, 8, 8, 8],
    ]


def test_with_frames_held_evaluation_still_visits_every_frame_once():
    rng = np.random.default_rng(0)
    steps = [[1, 1, *rng.integers(1, 5, rng.integers(1, 40))] for _ in range(20)]
    table = table_of(**{f"v{i}": np.cumsum(each) for i, each in enumerate(steps)})
    for hold in range(4):
        index = clips.evaluation_clips(table, 5, hold=hold)
        np.testing.assert_array_equal(index.rows[index.valid], np.arange(len(table)))
        assert np.diff(table.number[index.rows], axis=1).max() == 1 + hold


def test_training_clips_pass_over_held_frames_at_the_pace_of_the_video():
    table = table_of(a=[1, 2, 3, 6, 7, 8, 9], b=range(30, 39))
    index, _ = draw(table, clips_per_video=500, hold=2)
    assert {tuple(row) for row in index.rows[index.rows[:, 0] < 7].tolist()} == {
        *((0, 1, 2, 2), (1, 2, 2, 2), (2, 2, 2, 3), (3, 4, 5, 6)),
    }
    assert index.valid.any(1).all()


def test_no_step_is_guessed_from_two_frames():
    assert clips.evaluation_clips(table_of(a=[3, 90]), 2).rows.tolist() == [[0, 0], [1, 1]]


def test_what_is_taken_of_a_video_keeps_its_step():
    table = table_of(a=[10, 20, 30, 40, 50]).take(np.array([0, 3, 4]))
    assert clips.evaluation_clips(table, 2, hold=1).rows.tolist() == [[0, 0], [1, 2]]


@pytest.mark.parametrize("hold", [0, 3])
def test_no_clip_goes_on_where_a_video_breaks(hold):
    (video,) = table_of(a=[1, 2, 3, 5, 6, 8]).to_videos()
    breaks = np.array([False, False, True, False, False, True])
    table = clips.FrameTable.from_videos([video._replace(breaks=breaks)])
    index = clips.evaluation_clips(table, 6, hold=hold)
    expected = {0: [[0, 1], [2], [3, 4], [5]], 3: [[0, 1], [2, 2, 3, 4], [5]]}[hold]
    assert index.rows.tolist() == [clip + clip[-1:] * (6 - len(clip)) for clip in expected]
    assert table.take(np.array([1, 2, 4])).breaks.tolist() == [False, True, False]


def test_short_training_video_is_padded_with_its_last_frame():
    index, _ = draw(table_of(a=range(2)))
    np.testing.assert_array_equal(index.rows, [[0, 1, 1, 1]])
    np.testing.assert_array_equal(index.valid, [[True, True, False, False]])


def test_augmentation_has_the_ranges_of_the_release():
    _, augment = draw(table_of(a=range(9)), clips_per_video=20000)
    offsets, flips, jitter, order = np.split(augment, [2, 3, 6], axis=1)
    for column in offsets.T:
        np.testing.assert_array_equal(np.unique(column), np.arange(33))
    np.testing.assert_array_equal(np.unique(flips), [0, 1])
    assert abs(flips.mean() - 0.5) < 0.02
    assert jitter.min() >= 0.6 and jitter.max() < 1.4
    np.testing.assert_allclose(jitter.mean(0), 1, atol=0.01)
    np.testing.assert_array_equal(np.unique(order), range(clips.ORDERS))
    correlation = np.corrcoef(augment.T) - np.eye(7)
    assert np.abs(correlation).max() < 0.04


@pytest.mark.parametrize("change", [{"seed": 2}, {"epoch": 1}])
def test_another_seed_or_epoch_draws_otherwise(change):
    table = table_of(**{f"v{i}": range(50) for i in range(8)})
    (first, augment), (other, other_augment) = draw(table), draw(table, **change)
    assert (table.video[first.rows[:, 0]] != table.video[other.rows[:, 0]]).any()
    assert (augment != other_augment).all(axis=0).any()


def test_aus_of_one_side_are_not_mirrored():
    table = table_of(a=range(40), b=range(60))
    (_, augment), (_, unmirrored) = (draw(table, mirror=mirror) for mirror in (True, False))
    assert (unmirrored[:, 2] == 0).all()
    np.testing.assert_array_equal(np.delete(augment, 2, 1), np.delete(unmirrored, 2, 1))


def test_draws_are_pinned():
    # A resumed run must see the clips that it would have seen, under any numpy.
    index, augment = draw(table_of(a=range(40), b=range(60)), clips_per_video=2, seed=7, epoch=3)
    np.testing.assert_array_equal(index.rows[:, 0], [89, 16, 33, 82])
    expected = [5, 32, 1, 0.75625432, 1.0100596, 0.85112733]
    np.testing.assert_allclose(augment[0, :6], expected, rtol=1e-6)
    np.testing.assert_array_equal(augment[:, 6], [5, 2, 2, 4])


def test_an_epoch_without_draws_of_videos_holds_every_frame_once():
    table = table_of(a=[1, 2, 3, 4, 5, 9], b=range(4))
    for length in (1, 2, 4):
        index, augment = draw(table, clips_per_video=0, clip_length=length)
        assert sorted(index.rows[index.valid].tolist()) == list(range(len(table)))
        assert len(index) == clips.clips_per_epoch(table, length, 0) == len(augment)
        other, _ = draw(table, clips_per_video=0, clip_length=length, epoch=1)
        assert index.rows[:, 0].tolist() != other.rows[:, 0].tolist()


def test_taking_rows_renumbers_videos():
    table = table_of(a=[1, 2], b=[3], c=[4, 5])
    part = table.take(table.rows_of(["a", "c"]))
    assert part.videos == ("a", "c")
    np.testing.assert_array_equal(part.video, [0, 0, 1, 1])
    np.testing.assert_array_equal(part.number, [1, 2, 4, 5])


def test_table_and_videos_convert_into_each_other():
    table = table_of(a=[1, 2], b=[3])
    again = clips.FrameTable.from_videos(table.to_videos())
    assert again.videos == table.videos and again.subjects == table.subjects
    np.testing.assert_array_equal(again.video, table.video)
    np.testing.assert_array_equal(again.number, table.number)


def test_clips_carry_their_neighbours_and_repeat_the_ends_of_the_video():
    table = table_of(a=range(5), b=range(3))
    index = clips.evaluation_clips(table, 3, context=2)
    assert index.rows.tolist() == [
        [0, 0, 0, 1, 2, 3, 4],
        [1, 2, 3, 4, 4, 4, 4],
        [5, 5, 5, 6, 7, 7, 7],
    ]
    assert index.valid.tolist() == [[True] * 3, [True, True, False], [True] * 3]
    assert index.scored.tolist() == [[0, 1, 2], [3, 4, 4], [5, 6, 7]]
