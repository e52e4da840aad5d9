# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mdhr_jax.models import dynamics

CHANNELS = (2, 3, 4, 5)


def _normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _maps(clips=2, frames=4, grid=1):
    """Maps of the four scales; the last one has `grid` x `grid` positions."""
    sizes = [grid * 2 ** (3 - scale) for scale in range(4)]
    return [
        _normal(clips, frames, size, size, channels, seed=channels)
        for size, channels in zip(sizes, CHANNELS, strict=True)
    ]


@pytest.fixture
def multiscale(make_in_testing):
    def build(scales=(1, 2, 3, 4)):
        return make_in_testing(
            dynamics.MultiscaleDynamics, CHANNELS, 6, scales=scales, k=2, window="zero"
        )

    return build


@pytest.mark.parametrize(("frames", "k"), [(2, 1), (2, 5), (4, 2), (16, 5), (9, 4), (6, 7)])
def test_window_average_equals_a_naive_loop(frames, k):
    differences = np.random.default_rng(0).normal(size=(frames - 1, 3))
    expected = np.zeros((frames, 3))
    for t in range(frames):
        for j in range(t - k, t + k):
            if 0 <= j <= frames - 2:
                expected[t] += differences[j] / (2 * k)
    found = dynamics.window_average(frames, k) @ differences
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_window_average_of_constant_motion_is_full_only_where_the_window_is():
    sums = dynamics.window_average(12, 2).sum(1)
    np.testing.assert_allclose(sums, [0.5, 0.75, *[1] * 8, 0.75, 0.5])
    assert (dynamics.window_average(4, 2).sum(1) < 1).all()  # T < 2k + 1: no full window


def test_a_clip_of_one_frame_is_refused():
    with pytest.raises(ValueError, match="at least 2 frames.*not 1"):
        dynamics.window_average(1, 2)


def test_a_scale_is_the_averaged_projection_of_neighbouring_frames_differences(make_in_testing):
    project = make_in_testing(
        dynamics.ScaleProjection, 2, 3, 4, k=1, window=dynamics.WINDOWS["zero"]
    )
    maps = np.asarray(_normal(1, 3, 4, 4, 3))
    embed = jax.jit(lambda x: jax.nn.relu(project.norm(project.convolution(x))))
    first, second = (np.asarray(embed(maps[:, t + 1] - maps[:, t])) for t in (0, 1))
    expected = np.stack([first / 2, (first + second) / 2, second / 2], 1)
    found = jax.jit(lambda x: project(x))(maps)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_differences_never_cross_clips(multiscale):
    module, maps = multiscale(), _maps()
    moved = [jnp.asarray(np.stack([m[1], m[1]])) for m in map(np.asarray, maps)]
    run = jax.jit(lambda maps: module(maps)[0])
    motion, changed = run(maps), run(moved)
    assert np.abs(motion[0] - changed[0]).max() > 1e-3
    np.testing.assert_array_equal(motion[1], changed[1])


def test_scale_weights_of_every_position_add_up_to_1_and_mix_the_scales(multiscale):
    module = multiscale()
    motion, extra = jax.jit(lambda maps: module(maps))(_maps(grid=2))
    weights = extra["scale_weights"]
    assert weights.shape == (2, 4, 2, 2, 4) and motion.shape == (2, 4, 2, 2, 6)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    assert weights.std((0, 1, 2, 3)).min() > 0
    mixed = np.einsum("bthws,sbthwd->bthwd", weights, np.stack(extra["pooled"]))
    fused = jax.jit(lambda x: module.fusion(x))(mixed)
    np.testing.assert_allclose(fused, motion, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("scales", [(1,), (4,), (2, 4), (4, 1, 3)])
def test_any_subset_of_scales_uses_exactly_its_own_maps(multiscale, scales):
    module, maps = multiscale(scales), _maps()
    run = jax.jit(lambda maps: module(maps))
    motion, extra = run(maps)
    assert motion.shape == (2, 4, 1, 1, 6)
    assert extra["scale_weights"].shape[-1] == len(extra["pooled"]) == len(scales)
    for scale in (1, 2, 3, 4):
        doubled = [2 * np.asarray(m) if s == scale else m for s, m in enumerate(maps, start=1)]
        unchanged = np.array_equal(run(doubled)[0], motion)
        assert unchanged == (scale not in scales)


@pytest.mark.parametrize("scales", [(), (0, 1), (1, 5), (2, 2)])
def test_scales_that_are_no_subset_are_refused(scales):
    with pytest.raises(ValueError, match="subset of 1, 2, 3, 4"):
        dynamics.MultiscaleDynamics(
            CHANNELS, 6, scales=scales, k=2, window="zero", rngs=nnx.Rngs(0)
        )


def test_without_dynamics_motion_is_zero():
    module = dynamics.NoDynamics(CHANNELS, 6, scales=(1,), k=2, window="zero", rngs=nnx.Rngs(0))
    motion, extra = module(_maps(frames=1))
    assert motion == 0 and extra == {}


@pytest.fixture
def windowed(make_in_testing):
    """Dynamics with any window and the same parameters, and a call."""

    def run(window, maps):
        module = make_in_testing(
            dynamics.SummedDynamics, CHANNELS, 6, scales=(2, 4), k=2, window=window
        )
        return jax.jit(lambda maps: module(maps)[0])(maps)

    return run


def test_neighbours_of_a_still_border_are_a_repeated_edge(windowed):
    """Frames that a video does not have are copies of its first and last one."""
    maps = _maps(frames=5)
    repeated = [jnp.pad(m, ((0, 0), (2, 2), *[(0, 0)] * 3), mode="edge") for m in maps]
    expected = windowed("edge", maps)
    np.testing.assert_allclose(windowed("neighbours", repeated), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(windowed("zero", maps) - expected).max() > 1e-3


def test_with_neighbours_clips_of_a_video_are_as_good_as_the_whole(windowed):
    maps = _maps(frames=12)
    whole = windowed("neighbours", maps)  # scores frames 2 .. 9
    first = windowed("neighbours", [m[:, :8] for m in maps])  # frames 2 .. 5
    second = windowed("neighbours", [m[:, 4:] for m in maps])  # frames 6 .. 9
    np.testing.assert_allclose(np.concatenate([first, second], 1), whole, rtol=1e-5, atol=1e-6)


def test_an_unknown_window_is_refused():
    with pytest.raises(ValueError, match="choose from zero, edge, neighbours"):
        dynamics.SummedDynamics(CHANNELS, 6, scales=(1,), k=2, window="reflect", rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("kind", "join"),
    [
        (dynamics.SummedDynamics, lambda pooled: sum(pooled)),
        (dynamics.ConcatenatedDynamics, lambda pooled: jnp.concatenate(pooled, -1)),
    ],
)
def test_scales_are_summed_or_stand_side_by_side(make_in_testing, kind, join):
    module = make_in_testing(kind, CHANNELS, 6, scales=(1, 3, 4), k=1, window="zero")
    motion, extra = jax.jit(lambda maps: module(maps))(_maps())
    expected = jax.jit(lambda pooled: module.fusion(join(pooled)))(extra["pooled"])
    np.testing.assert_allclose(motion, expected, rtol=1e-5, atol=1e-6)
