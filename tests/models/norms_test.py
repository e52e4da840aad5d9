# SPDX-License-Identifier: Apache-2.0
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mdhr_jax.models import norms


def _normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _training_norm(channels, **view):
    """A norm with trained-looking scale, bias and statistics, in training mode."""
    norm = norms.BatchNorm(channels)
    rng = np.random.default_rng(1)
    for leaf in (norm.scale, norm.bias, norm.mean, norm.var):
        leaf[...] = jnp.asarray(rng.uniform(0.5, 1.5, channels), jnp.float32)
    return nnx.view(norm, **view)


def _two_pass(x, scale, bias, mean=None, var=None):
    """Batch normalisation over all axes but the last, in float64."""
    x = np.asarray(x, np.float64)
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes) if mean is None else np.asarray(mean, np.float64)
    var = ((x - mean) ** 2).mean(axes) if var is None else np.asarray(var, np.float64)
    return (x - mean) / np.sqrt(var + 1e-5) * np.asarray(scale) + np.asarray(bias)


def test_batch_norm_in_training_equals_the_two_pass_formula():
    norm, x = _training_norm(3), 2 + _normal(4, 2, 5, 3)
    expected = _two_pass(x, norm.scale[...], norm.bias[...])
    np.testing.assert_allclose(norm(x), expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_in_testing_uses_and_keeps_the_running_statistics():
    norm, x = _training_norm(3, use_running_average=True), _normal(4, 2, 5, 3)
    mean, var = np.array(norm.mean[...]), np.array(norm.var[...])
    expected = _two_pass(x, norm.scale[...], norm.bias[...], mean, var)
    np.testing.assert_allclose(norm(x), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(norm.mean[...], mean)
    np.testing.assert_array_equal(norm.var[...], var)


def test_running_statistics_take_a_tenth_of_the_batch_with_unbiased_variance():
    norm, x = _training_norm(3), 2 + _normal(2, 5, 3)
    mean, var = np.array(norm.mean[...]), np.array(norm.var[...])
    norm(x)
    flat = np.asarray(x).reshape(-1, 3)
    np.testing.assert_allclose(norm.mean[...], 0.9 * mean + 0.1 * flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 * var + 0.1 * flat.var(0, ddof=1), rtol=1e-5)


def test_a_trailing_axis_of_1_is_averaged_over_like_the_leading_ones():
    """As the same norm with that axis in front, with its gradients and running statistics."""
    x = 2 + _normal(4, 5, 3, 6)
    moved, own = norms.BatchNorm(3, relu=True), norms.BatchNorm(3, 1, relu=True)
    factors = _normal(4, 5, 3, 6, seed=1)
    axes = {moved: lambda x: x.swapaxes(2, 3), own: lambda x: x}
    results = []
    for norm, turned in axes.items():
        graph, state = nnx.split(norm)

        def total(state, x, graph=graph, turned=turned):
            merged = nnx.merge(graph, state)
            y = turned(merged(turned(x)))
            return (factors * y).sum(), (y, merged.mean[...], merged.var[...])

        (_, out), gradients = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(state, x)
        found = [*out, gradients[0]["scale"][...], gradients[0]["bias"][...]]
        results.append([gradients[1], *(np.squeeze(array) for array in found)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_a_mean_far_from_zero_costs_the_variance_no_digits():
    norm, x = norms.BatchNorm(3), 1000 + _normal(64, 5, 3)
    norm.mean[...] = jnp.full(3, 999.0)  # as after a few steps
    norm(x)
    expected = 0.9 + 0.1 * np.asarray(x, np.float64).var((0, 1), ddof=1)
    np.testing.assert_allclose(norm.var[...], expected, rtol=1e-6)


def test_batch_norm_on_two_devices_exchanges_once_forward_and_once_backward():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x = jax.device_put(_normal(4, 5, 3), sharded)
    gradient = jax.jit(jax.grad(lambda x: jnp.sin(_training_norm(3)(x)).sum()))
    program = gradient.lower(x).compile().as_text()
    assert len(re.findall(r" all-reduce\(", program)) == 2


def test_groups_are_normalised_apart_and_the_first_one_is_remembered():
    x = jnp.concatenate([_normal(2, 5, 3), 7 + 3 * _normal(2, 5, 3, seed=1)])
    norm, alone = _training_norm(3, groups=2), _training_norm(3)
    y = norm(x)
    for part in (slice(2), slice(2, 4)):
        expected = _two_pass(x[part], norm.scale[...], norm.bias[...])
        np.testing.assert_allclose(y[part], expected, rtol=1e-4, atol=1e-5)
    alone(x[:2])
    np.testing.assert_allclose(norm.mean[...], alone.mean[...], rtol=1e-6)
    np.testing.assert_allclose(norm.var[...], alone.var[...], rtol=1e-6)


def test_a_batch_that_does_not_divide_into_groups_is_refused():
    with pytest.raises(ValueError, match="batch of 3 does not divide into 2 groups"):
        _training_norm(3, groups=2)(_normal(3, 5, 3))


@pytest.mark.parametrize("shape", [(4, 5, 3), (1, 3)], ids=["constant", "one value per channel"])
def test_batch_norm_of_an_input_without_variance_is_finite(shape):
    norm, x = _training_norm(3), jnp.full(shape, 123.456)
    gradient = jax.jit(jax.grad(lambda x: _training_norm(3)(x).sum()))(x)
    assert np.isfinite(norm(x)).all() and np.isfinite(gradient).all()
    assert np.isfinite(norm.var[...]).all() and (norm.var[...] >= 0).all()


def test_batch_norm_with_two_trailing_axes_has_statistics_for_each_pair():
    norm, x = norms.BatchNorm(2, 3), _normal(7, 2, 3)
    expected = _two_pass(np.asarray(x).reshape(7, 6), np.ones(6), np.zeros(6)).reshape(7, 2, 3)
    np.testing.assert_allclose(norm(x), expected, rtol=1e-4, atol=1e-5)


def _plain_batch_norm(x, scale, bias, relu):
    """The same in two passes, for JAX to differentiate."""
    grouped = x.reshape(2, -1, *x.shape[1:])
    mean, var = grouped.mean((1, 2), keepdims=True), grouped.var((1, 2), keepdims=True)
    y = ((grouped - mean) / jnp.sqrt(var + 1e-5) * scale + bias).reshape(x.shape)
    return jax.nn.relu(y) if relu else y


@pytest.mark.parametrize("relu", [False, True])
def test_the_gradient_of_batch_norm_is_that_of_its_definition(relu):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x, weights, (scale, bias) = (
            jnp.asarray(rng.normal(size=size)) for size in [(4, 5, 3), (4, 5, 3), (2, 3)]
        )

        def ours(x, scale, bias):
            norm = norms.BatchNorm(3, relu=relu)
            norm.scale, norm.bias = nnx.Param(scale), nnx.Param(bias)
            return (weights * nnx.view(norm, groups=2, dtype=jnp.float64)(x)).sum()

        def expected(x, scale, bias):
            return (weights * _plain_batch_norm(x, scale, bias, relu)).sum()

        found, wanted = (jax.grad(f, (0, 1, 2))(x, scale, bias) for f in (ours, expected))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), found, wanted
        )


def test_the_gradient_of_layer_norm_is_that_of_its_definition():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x, weights, (scale, bias) = (
            jnp.asarray(rng.normal(size=size)) for size in [(4, 5, 3), (4, 5, 3), (2, 3)]
        )

        def ours(x, scale, bias):
            return (weights * norms.normalise_features(x, scale, bias, 1e-5)).sum()

        def expected(x, scale, bias):
            mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
            return (weights * ((x - mean) / jnp.sqrt(var + 1e-5) * scale + bias)).sum()

        found, wanted = (jax.grad(f, (0, 1, 2))(x, scale, bias) for f in (ours, expected))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), found, wanted
        )


def test_bfloat16_batch_norm_keeps_its_statistics_in_float32():
    norm, x = _training_norm(3, dtype=jnp.bfloat16), _normal(8, 3).astype(jnp.bfloat16)
    y = norm(x)
    assert y.dtype == jnp.bfloat16
    assert norm.mean[...].dtype == norm.var[...].dtype == jnp.float32
    wide = _training_norm(3)
    expected = wide(x.astype(jnp.float32))
    np.testing.assert_array_equal(y, expected.astype(jnp.bfloat16))
    np.testing.assert_array_equal(norm.var[...], wide.var[...])


def test_layer_norm_equals_the_formula_with_epsilon_1e_5():
    norm = norms.LayerNorm(4)
    norm.scale[...], norm.bias[...] = _normal(4), _normal(4, seed=1)
    x = 3e-3 * _normal(5, 4, seed=2)  # a variance near epsilon, which then matters
    wide = np.asarray(x, np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    root = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    expected = centred / root * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])
    np.testing.assert_allclose(norm(x), expected, rtol=1e-4, atol=1e-5)
