# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mdhr_jax.models import backbones, swin


def _normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.fixture
def run_block(make_in_testing):
    """A function that runs a block of width 4 with two heads."""

    def build(*, shifted):
        block = make_in_testing(swin.Block, 4, 2, shifted=shifted, drop_rate=0.0)
        return jax.jit(lambda x: block(x, (None, None)))

    return build


def _changed(run, size, position):
    """Where a change of one pixel arrives."""
    x = np.random.default_rng(0).normal(size=(1, size, size, 4)).astype(np.float32)
    moved = x.copy()
    moved[0, *position, 0] += 5
    return (np.asarray(run(x)) != np.asarray(run(moved)))[0].any(-1)


@pytest.mark.parametrize("windows", [1, 4], ids=["one bias for all windows", "one for each"])
def test_the_gradient_of_attention_weights_is_that_of_their_definition(windows):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        shapes = [(2, 4, 3, 5, 5), (windows, 3, 5, 5), (2, 4, 3, 5, 5)]
        logits, position, factors = (jnp.asarray(rng.normal(size=shape)) for shape in shapes)

        def ours(logits, position):
            return (factors * swin.attention_weights(logits, position)).sum()

        def expected(logits, position):
            return (factors * jax.nn.softmax(logits + position)).sum()

        found, wanted = (jax.grad(f, (0, 1))(logits, position) for f in (ours, expected))
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_swin_b_has_the_releases_maps_and_tokens():
    model = nnx.eval_shape(lambda: backbones.BACKBONES["swin_b"](rngs=nnx.Rngs(0)))
    graph, state = nnx.split(nnx.view(model, deterministic=True, raise_if_not_found=False))
    frames = jax.ShapeDtypeStruct((1, 2, 224, 224, 3), jnp.float32)
    tokens, maps = jax.eval_shape(lambda state, x: nnx.merge(graph, state)(x), state, frames)
    sizes = [(1, 2, 56, 56, 128), (1, 2, 28, 28, 256), (1, 2, 14, 14, 512), (1, 2, 7, 7, 1024)]
    assert [m.shape for m in maps] == sizes
    assert tokens.shape == sizes[-1]
    assert model.channels == (128, 256, 512, 1024) and model.features == 1024


@pytest.mark.slow
def test_a_narrow_swin_runs_and_its_last_stage_reaches_the_tokens_only():
    model = swin.Swin(
        width=4, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1), drop_path=0.0, rngs=nnx.Rngs(0)
    )
    graph, state = nnx.split(model)
    forward = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
    x = _normal(1, 1, 224, 224, 3)
    tokens, maps = forward(state, x)
    state["stages"][3][0]["mlp_out"]["bias"][...] = _normal(32)
    moved, same = forward(state, x)
    np.testing.assert_allclose(tokens.mean(-1), 0, atol=1e-5)  # the last layer norm
    assert np.abs(moved - tokens).max() > 0.1
    jax.tree.map(np.testing.assert_array_equal, same, maps)


def test_the_bias_of_two_tokens_is_the_row_of_their_relative_position():
    table = _normal(169, 3)
    found = jax.jit(swin.relative_position_bias)(table)
    expected = np.moveaxis(np.asarray(table)[swin.relative_position_index()], -1, 0)
    np.testing.assert_array_equal(found, expected)


def test_relative_positions_number_every_offset_once():
    index = swin.relative_position_index()
    assert index.shape == (49, 49)
    for i, j in [(0, 0), (0, 48), (48, 0), (1, 0), (0, 1), (17, 30)]:
        (yi, xi), (yj, xj) = divmod(i, 7), divmod(j, 7)
        assert index[i, j] == (yi - yj + 6) * 13 + (xi - xj + 6)
    np.testing.assert_array_equal(np.unique(index), np.arange(169))
    np.testing.assert_array_equal(index + index.T, 168)  # opposite offsets


@pytest.mark.parametrize("size", [14, 28])
def test_the_shift_mask_cuts_exactly_the_tokens_that_are_no_neighbours_in_the_picture(size):
    mask = swin.shift_mask(size)
    # Where each token of the rolled map stood before.
    y, x = np.divmod(np.arange(size**2).reshape(size, size), size)
    windows = []
    for axis in (y, x):
        rolled = np.roll(axis, (-3, -3), (0, 1)).reshape(size // 7, 7, size // 7, 7)
        windows.append(rolled.swapaxes(1, 2).reshape(-1, 49))
    distance = [np.abs(w[:, :, None] - w[:, None, :]) for w in windows]
    neighbours = (distance[0] < 7) & (distance[1] < 7)
    np.testing.assert_array_equal(mask, np.where(neighbours, 0, -100))


def test_window_attention_equals_a_naive_loop_over_windows_and_heads(make):
    attention = make(swin.WindowAttention, 6, 2)
    attention.position_bias[...] = _normal(169, 2)
    x, mask = _normal(1, 4, 49, 6), swin.shift_mask(14)
    qkv = np.asarray(attention.qkv(x))[0]
    table = np.asarray(attention.position_bias[...])
    mixed = np.zeros((1, 4, 49, 6), np.float32)
    for window, head in np.ndindex(4, 2):
        channels = slice(3 * head, 3 * head + 3)
        q, k, v = (qkv[window][:, 6 * part : 6 * part + 6][:, channels] for part in range(3))
        bias = table[swin.relative_position_index(), head]
        weights = np.exp(q @ k.T / np.sqrt(3) + bias + mask[window])
        mixed[0, window][:, channels] = weights / weights.sum(1, keepdims=True) @ v
    expected = attention.projection(jnp.asarray(mixed))
    found = jax.jit(lambda x: attention(x, mask))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_token_of_a_shifted_block_reaches_its_shifted_window_only(run_block):
    expected = np.zeros((14, 14), bool)
    expected[3:10, 3:10] = True
    np.testing.assert_array_equal(_changed(run_block(shifted=True), 14, (5, 5)), expected)


def test_a_corner_of_a_shifted_block_does_not_reach_the_opposite_border(run_block):
    expected = np.zeros((14, 14), bool)
    expected[10:, 10:] = True
    np.testing.assert_array_equal(_changed(run_block(shifted=True), 14, (13, 13)), expected)


def test_a_stage_of_one_window_is_not_shifted(run_block):
    x = _normal(1, 7, 7, 4)
    np.testing.assert_array_equal(run_block(shifted=True)(x), run_block(shifted=False)(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "width", "depth", "rate"),
    [("swin_t", 96, 12, 0.2), ("swin_s", 96, 24, 0.3), ("swin_b", 128, 24, 0.5)],
)
def test_every_second_block_is_shifted_and_drop_rates_rise_linearly(backbone, width, depth, rate):
    model = nnx.eval_shape(lambda: backbones.BACKBONES[backbone](rngs=nnx.Rngs(0)))
    blocks = [block for stage in model.stages for block in stage]
    assert [block.shifted for block in blocks] == [False, True] * (depth // 2)
    rates = [block.drop_path.rate for block in blocks]
    np.testing.assert_allclose(rates, rate * np.arange(depth) / (depth - 1))
    assert model.channels == tuple(width * 2**stage for stage in range(4))
    heads = [stage[0].attention.heads for stage in model.stages]
    assert [c / h for c, h in zip(model.channels, heads, strict=True)] == [32] * 4


def test_patches_merge_rows_first(make):
    merge = make(swin.PatchMerge, 1)
    x = np.asarray(_normal(1, 4, 4, 1))
    parts = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
    expected = merge.reduction(merge.norm(jnp.asarray(np.concatenate(parts, -1))))
    np.testing.assert_array_equal(merge(jnp.asarray(x)), expected)


@pytest.mark.slow
def test_every_branch_of_every_block_draws_its_own_drops():
    model = nnx.eval_shape(
        lambda: swin.Swin(
            width=4, depths=(2, 1, 2, 1), heads=(1,) * 4, drop_path=0.5, rngs=nnx.Rngs(0)
        )
    )
    keys = model._drop_keys(jax.random.key(0))
    data = {tuple(jax.random.key_data(key).tolist()) for pair in keys for key in pair}
    assert len(data) == 2 * 6
    assert list(model._drop_keys(None)) == [(None, None)] * 6


def test_a_block_drops_whole_frames(make):
    block, x = make(swin.Block, 4, 2, shifted=False, drop_rate=0.5), _normal(1, 7, 7, 4)
    frames = jnp.asarray(np.repeat(x, 32, 0))
    keys = tuple(jax.random.split(jax.random.key(0)))
    y = np.asarray(jax.jit(lambda x: block(x, keys))(frames)).round(4).reshape(32, -1)
    outcomes = np.unique(y, axis=0)
    assert len(outcomes) == 4  # of two branches, each kept or dropped
    unchanged = np.abs(outcomes - np.asarray(x).reshape(-1)).max(1) < 1e-3
    assert unchanged.sum() == 1
