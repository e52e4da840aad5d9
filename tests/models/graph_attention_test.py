# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mdhr_jax.models import graph_attention

N, D = 4, 3


def _normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.fixture
def attention(make):
    return make(graph_attention.GraphAttention, D)


@pytest.fixture
def adjacency():
    """Random links in which every node at least hears itself."""
    links = np.random.default_rng(2).integers(0, 2, (2, 3, N, N)) | np.eye(N, dtype=int)
    return jnp.asarray(links, jnp.int32)


def _elu(x):
    return np.where(x > 0, x, np.expm1(x))


def test_graph_attention_equals_a_naive_loop(attention, adjacency):
    nodes = _normal(2, 3, N, D)
    kernel, source, target, bias = (
        np.asarray(leaf[...], np.float64)
        for leaf in (attention.linear.kernel, attention.source, attention.target, attention.bias)
    )
    expected, weights = np.zeros(nodes.shape), np.zeros(adjacency.shape)
    for b, t, n in np.ndindex(2, 3, N):
        hidden = np.asarray(nodes[b, t], np.float64) @ kernel
        senders = [m for m in range(N) if adjacency[b, t, n, m]]
        logits = np.array([hidden[n] @ source + hidden[m] @ target for m in senders])
        attend = np.exp(np.where(logits > 0, logits, 0.2 * logits))
        attend = attend / attend.sum()
        weights[b, t, n, senders] = attend
        expected[b, t, n] = _elu(attend @ hidden[senders] + np.asarray(nodes[b, t, n]) + bias)
    found, found_weights = attention(nodes, adjacency)
    np.testing.assert_allclose(found_weights, weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_attention_goes_to_allowed_senders_only(attention, adjacency):
    _, weights = attention(_normal(2, 3, N, D), adjacency)
    np.testing.assert_array_equal(weights > 0, adjacency > 0)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)


def test_a_node_that_hears_itself_only_is_its_own_transform(attention):
    nodes = _normal(1, 1, N, D)
    alone = jnp.asarray(np.eye(N, dtype=np.int32)[None, None])
    found, weights = attention(nodes, alone)
    kernel, bias = np.asarray(attention.linear.kernel[...]), np.asarray(attention.bias[...])
    expected = _elu(np.asarray(nodes) @ kernel + np.asarray(nodes) + bias)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(weights, alone)


def test_a_node_that_sends_to_nobody_changes_only_itself(attention):
    nodes, other = _normal(1, 1, N, D), _normal(1, 1, N, D, seed=1)
    links = np.ones((1, 1, N, N), np.int32)
    links[..., 2] = np.eye(N)[2]
    found, _ = attention(nodes, jnp.asarray(links))
    moved, _ = attention(jnp.where(jnp.arange(N)[:, None] == 2, other, nodes), jnp.asarray(links))
    changed = (np.asarray(found) != np.asarray(moved)).any(-1)[0, 0]
    np.testing.assert_array_equal(changed, [False, False, True, False])


def test_gradients_are_finite_where_links_are_missing(attention):
    nodes = _normal(1, 1, N, D)
    alone = jnp.asarray(np.eye(N, dtype=np.int32)[None, None])
    gradient = jax.jit(jax.grad(lambda nodes: attention(nodes, alone)[0].sum()))(nodes)
    assert np.isfinite(gradient).all()


def test_bfloat16_nodes_are_attended_to_in_float32(attention, adjacency):
    narrow = nnx.view(attention, dtype=jnp.bfloat16)
    found, weights = narrow(_normal(2, 3, N, D).astype(jnp.bfloat16), adjacency)
    assert (found.dtype, weights.dtype) == (jnp.bfloat16, jnp.float32)
