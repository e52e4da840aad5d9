# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mdhr_jax.models import temporal

N, D = 3, 2


def _normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _naive_filter(module, nodes):
    """Cross-correlation over time with five taps, one AU and feature after the other."""
    kernel, bias, nodes = (np.asarray(x) for x in (module.kernel[...], module.bias[...], nodes))
    filtered = np.zeros(nodes.shape)
    for b, t, n, d in np.ndindex(*nodes.shape):
        filtered[b, t, n, d] = bias[n, d]
        for tap in range(5):
            if 0 <= t + tap - 2 < nodes.shape[1]:
                filtered[b, t, n, d] += kernel[tap, n, d] * nodes[b, t + tap - 2, n, d]
    return filtered


@pytest.fixture
def convolution(make_in_testing):
    return make_in_testing(temporal.TemporalConvolution, N, D)


def _changed(module, shape, position):
    """Where a change of some nodes arrives."""
    module.norm.bias[...] = jnp.full(N, 10.0)  # no ReLU cuts the change off
    nodes = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    moved = nodes.copy()
    moved[position] += 1
    return np.asarray(module(jnp.asarray(nodes))) != np.asarray(module(jnp.asarray(moved)))


def test_the_filter_equals_a_naive_convolution_of_each_au(convolution):
    nodes, norm = _normal(2, 6, N, D), convolution.norm
    scale, bias, mean, var = (
        np.asarray(leaf[...])[:, None] for leaf in (norm.scale, norm.bias, norm.mean, norm.var)
    )
    filtered = _naive_filter(convolution, nodes)
    normed = (filtered - mean) / np.sqrt(var + 1e-5) * scale + bias
    np.testing.assert_allclose(convolution(nodes), np.maximum(normed, 0), rtol=1e-4, atol=1e-6)


def test_the_norm_has_one_mean_and_variance_per_au(make):
    module, nodes = make(temporal.TemporalConvolution, N, D), _normal(2, 6, N, D)
    filtered = _naive_filter(module, nodes)
    axes = {"axis": (0, 1, 3), "keepdims": True}
    normed = (filtered - filtered.mean(**axes)) / np.sqrt(filtered.var(**axes) + 1e-5)
    scale, bias = (np.asarray(leaf[...])[:, None] for leaf in (module.norm.scale, module.norm.bias))
    normed = normed * scale + bias
    np.testing.assert_allclose(module(nodes), np.maximum(normed, 0), rtol=1e-4, atol=1e-5)
    assert module.norm.mean[...].shape == (N,)


def test_a_frame_reaches_two_frames_to_either_side_in_its_own_clip(convolution):
    expected = np.zeros((2, 8), bool)
    expected[0, 2:7] = True
    changed = _changed(convolution, (2, 8, N, D), np.s_[0, 4])
    np.testing.assert_array_equal(changed.any((2, 3)), expected)


def test_an_au_does_not_reach_other_aus(convolution):
    changed = _changed(convolution, (2, 8, N, D), np.s_[:, :, 1])
    np.testing.assert_array_equal(changed.any((0, 1, 3)), [False, True, False])


def test_without_a_filter_nodes_become_non_negative_and_no_more():
    nodes = _normal(1, 4, N, D)
    found = temporal.NoTemporal(N, D, rngs=nnx.Rngs(0))(nodes)
    np.testing.assert_array_equal(found, np.maximum(nodes, 0))
