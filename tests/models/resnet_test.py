# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from mdhr_jax.models import backbones, norms, resnet
from mdhr_jax.numerics import steps


def _shapes(backbone, frames):
    model = nnx.eval_shape(lambda: backbones.BACKBONES[backbone](rngs=nnx.Rngs(0)))
    graph, state = nnx.split(model)
    tokens, maps = jax.eval_shape(lambda state, x: nnx.merge(graph, state)(x), state, frames)
    return model, tokens.shape, [m.shape for m in maps]


def _picture(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
    ("backbone", "width"), [("resnet18", 64), ("resnet50", 256), ("resnet_narrow", 32)]
)
@pytest.mark.parametrize("size", [64, 224])
def test_maps_double_in_width_at_strides_4_to_32(backbone, width, size):
    frames = jax.ShapeDtypeStruct((2, 3, size, size, 3), jnp.float32)
    model, tokens, maps = _shapes(backbone, frames)
    expected = [(2, 3, size // s, size // s, width * s // 4) for s in (4, 8, 16, 32)]
    assert maps == expected
    assert tokens == expected[-1]
    assert model.channels == tuple(shape[-1] for shape in expected)
    assert model.features == expected[-1][-1]


def test_frames_pass_the_backbone_independently(make_in_testing):
    model = make_in_testing(backbones.BACKBONES["resnet_narrow"])
    x = np.asarray(_picture(2, 2, 32, 32, 3))
    forward = jax.jit(lambda x: model(x)[0])
    tokens, swapped = np.asarray(forward(x)), np.asarray(forward(x[::-1, ::-1]))
    assert np.abs(tokens[0, 0] - tokens[1, 1]).max() > 0.01
    np.testing.assert_allclose(swapped[::-1, ::-1], tokens, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "width"), [(resnet.Basic, 16), (resnet.Bottleneck, 4)])
def test_the_stride_of_a_block_sits_on_its_first_3x3_convolution(make_in_testing, kind, width):
    block = make_in_testing(kind, 8, width, stride=2)
    for _, norm in nnx.iter_modules(block):
        if isinstance(norm, norms.BatchNorm):
            norm.bias[...] = jnp.full(norm.bias.shape, 30.0)  # no ReLU cuts the change off
    x, moved = np.zeros((2, 1, 6, 6, 8), np.float32)
    moved[0, 3, 3] = 1  # an odd pixel: seen by the 3x3 kernel, skipped by a strided 1x1
    run = jax.jit(lambda x: block(x))
    changed = (np.asarray(run(x)) != np.asarray(run(moved)))[0].any(-1)
    reached = [[0, 0, 0], [0, 1, 1], [0, 1, 1]]
    if kind is resnet.Basic:  # its second convolution goes on from there
        reached = [[1, 1, 1], [1, 1, 1], [1, 1, 1]]
    np.testing.assert_array_equal(changed, reached)


@pytest.mark.parametrize(
    ("kind", "width", "last"),
    [(resnet.Basic, 16, "second_norm"), (resnet.Bottleneck, 4, "expand_norm")],
)
def test_a_block_without_change_of_shape_adds_its_input(make_in_testing, kind, width, last):
    block = make_in_testing(kind, 16, width, stride=1)
    norm = getattr(block, last)
    norm.scale[...], norm.bias[...] = jnp.zeros(16), jnp.zeros(16)
    x = _picture(1, 3, 3, 16)
    np.testing.assert_array_equal(jax.jit(lambda x: block(x))(x), np.maximum(x, 0))


def test_max_pooling_passes_its_gradient_to_the_first_maximum(make_in_testing):
    stem = make_in_testing(resnet.Stem, 1)
    # The convolution as a copy of every second pixel: what the pooling sees is the input.
    kernel = np.zeros((7, 7, 3, 1), np.float32)
    kernel[3, 3, 0, 0] = 1
    stem.conv.kernel[...] = jnp.asarray(kernel)
    x = np.ones((1, 4, 4, 3), np.float32)
    gradient = np.asarray(jax.jit(jax.grad(lambda x: stem(x).sum()))(x))[0, ::2, ::2, 0]
    assert gradient[0, 0] > 0.5
    np.testing.assert_array_equal(gradient > 0, [[True, False], [False, False]])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 3)])
def test_the_gradient_of_max_pooling_is_that_of_jax_bit_for_bit(dtype, size):
    def plain(x):
        padding = ((0, 0), (1, 1), (1, 1), (0, 0))
        return lax.reduce_window(x, -float("inf"), lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)

    # After a ReLU ties are the rule.
    x = jax.nn.relu(jnp.asarray(_picture(2, *size, 4), dtype))
    weights = jnp.asarray(np.random.default_rng(1).normal(size=plain(x).shape), dtype)
    ours, jaxs = (
        jax.grad(lambda x, f=f: (f(x) * weights).sum())(x) for f in (resnet.max_pool, plain)
    )
    assert ours.dtype == dtype
    np.testing.assert_array_equal(ours, jaxs)


def test_max_pooling_is_padded_with_minus_infinity(make_in_testing, monkeypatch):
    stem = make_in_testing(resnet.Stem, 2)
    monkeypatch.setattr(jax.nn, "relu", lambda x: x)  # negative maps, above which zeros would win
    stem.norm.scale[...], stem.norm.bias[...] = jnp.zeros(2), jnp.full(2, -3.0)
    np.testing.assert_array_equal(jax.jit(lambda x: stem(x))(_picture(1, 8, 8, 3)), -3)


def test_recomputed_blocks_give_the_same_gradients_and_statistics(make):
    block = make(resnet.Bottleneck, 8, 4, stride=2)
    x = _picture(2, 4, 4, 8)

    def step(remat):
        graph, params, stats = steps.split(nnx.view(block, remat=remat))

        def loss(params):
            model = nnx.merge(graph, params, stats)
            return jnp.square(model(x)).sum(), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

        gradient = jax.grad(loss, has_aux=True)
        return "remat" in str(jax.make_jaxpr(gradient)(params)), jax.jit(gradient)(params)

    (keeps, plain), (recomputes, again) = step(remat=False), step(remat=True)
    assert recomputes and not keeps
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, plain, again)
