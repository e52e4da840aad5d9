# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mdhr_jax.models import layers


def _normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_linear_multiplies_the_last_axis_of_any_shape(make):
    linear = make(layers.Linear, 3, 5)
    x = _normal(2, 4, 1, 3)
    expected = np.einsum("btwc,cd->btwd", x, linear.kernel[...]) + np.asarray(linear.bias[...])
    np.testing.assert_allclose(linear(x), expected, rtol=1e-5, atol=1e-6)


def test_linear_without_bias_has_none(make):
    linear = make(layers.Linear, 3, 5, bias=False)
    np.testing.assert_array_equal(linear(jnp.zeros((2, 3))), 0)
    assert len(jax.tree.leaves(nnx.state(linear, nnx.Param))) == 1


def test_linear_starts_uniform_within_pytorchs_bound():
    linear = layers.Linear(16, 64, rngs=nnx.Rngs(0))
    for leaf in (linear.kernel[...], linear.bias[...]):
        assert 0.9 / 4 < np.abs(leaf).max() <= 1 / 4


@pytest.mark.parametrize("size", [1, 2, 4])
def test_patch_linear_equals_the_convolution_whose_stride_is_its_kernel(make, size):
    layer = make(layers.PatchLinear, size, 3, 5)
    x = _normal(2, 8, 8, 3)
    expected = jax.lax.conv_general_dilated(
        x,
        layer.kernel[...].reshape(size, size, 3, 5),
        window_strides=(size, size),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(layer(x), expected + layer.bias[...], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (7, 2)])
def test_convolution_equals_a_naive_loop(make, size, stride):
    conv = make(layers.Conv, size, 2, 3, stride=stride)
    x, kernel = _normal(1, 8, 8, 2), np.asarray(conv.kernel[...])
    padded = np.pad(x[0], [(size // 2,) * 2] * 2 + [(0, 0)])
    expected = np.zeros((8 // stride, 8 // stride, 3))
    for i, j in np.ndindex(*expected.shape[:2]):
        patch = padded[i * stride : i * stride + size, j * stride : j * stride + size]
        expected[i, j] = np.einsum("pqc,pqcd->d", patch, kernel)
    np.testing.assert_allclose(conv(x)[0], expected, rtol=1e-4, atol=1e-5)


def test_gelu_and_its_gradient_are_jaxs_own():
    with jax.enable_x64(True):
        x = jnp.linspace(-6, 6, 101, dtype=jnp.float64)
        own = functools.partial(jax.nn.gelu, approximate=False)
        np.testing.assert_allclose(layers.gelu(x), own(x), rtol=1e-12, atol=1e-15)
        found, wanted = (jax.vmap(jax.grad(f))(x) for f in (layers.gelu, own))
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-15)


def test_dropped_paths_keep_the_mean():
    drop = layers.DropPath(0.25)
    y = drop(jnp.ones((4000, 2)), jax.random.key(0))
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.75], rtol=1e-6)
    np.testing.assert_allclose(y.mean(), 1, atol=0.03)


def test_paths_are_dropped_per_frame():
    y = layers.DropPath(0.5)(jnp.ones((32, 3, 2)), jax.random.key(0)).reshape(32, 6)
    np.testing.assert_array_equal(y.min(1), y.max(1))
    assert len(np.unique(y)) == 2


def test_deterministic_drop_path_and_rate_0_are_the_identity():
    x = _normal(8, 3)
    off = nnx.view(layers.DropPath(0.5), deterministic=True)
    np.testing.assert_array_equal(off(x, None), x)
    np.testing.assert_array_equal(layers.DropPath(0.0)(x, None), x)


def test_unit_vectors_have_length_1_and_zero_stays_zero():
    x = _normal(4, 3).at[1].set(0)
    np.testing.assert_allclose(np.linalg.norm(layers.unit(x), axis=-1), [1, 0, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(layers.unit(1e-15 * x)[0], 1e-3 * x[0], rtol=1e-5)  # divisor 1e-12


def test_gradient_of_the_norm_at_zero_is_0():
    def cosine_with_itself(x):
        return (layers.unit(x) * layers.unit(x)).sum()

    np.testing.assert_array_equal(jax.jit(jax.grad(cosine_with_itself))(jnp.zeros(3)), 0)
    jacobian = jax.jit(jax.jacobian(layers.unit))(jnp.zeros(3))
    np.testing.assert_allclose(jacobian, 1e12 * np.eye(3), rtol=1e-6)  # of x / 1e-12 alone


def test_cosine_scores_lie_in_0_to_1(make):
    classifier = make(layers.CosineClassifier, 3, 4)
    x = np.abs(_normal(2, 5, 3, 4))
    scores = np.asarray(classifier(jnp.asarray(x)))
    vectors = np.maximum(classifier.class_vectors[...], 0)
    expected = np.einsum("btnd,nd->btn", x, vectors)
    expected = expected / (np.linalg.norm(x, axis=-1) * np.linalg.norm(vectors, axis=-1))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert scores.min() >= 0 and scores.max() <= 1 + 1e-6


def test_a_zero_feature_and_a_negative_class_vector_score_0(make):
    classifier = make(layers.CosineClassifier, 2, 4)
    classifier.class_vectors[...] = jnp.array([[1.0, 2, 3, 4], [-1, -2, -3, -4]])
    x = jnp.ones((1, 2, 2, 4)).at[0, 0].set(0)
    np.testing.assert_allclose(classifier(x)[0], [[0, 0], [10 / np.sqrt(120), 0]], rtol=1e-6)


def test_bfloat16_features_are_scored_in_float32(make):
    classifier = make(layers.CosineClassifier, 3, 4)
    assert classifier(jnp.ones((1, 1, 3, 4), jnp.bfloat16)).dtype == jnp.float32


def test_relu_has_gradient_0_at_0():
    assert jax.grad(jax.nn.relu)(0.0) == 0
