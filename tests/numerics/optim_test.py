# SPDX-License-Identifier: Apache-2.0
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mdhr_jax.numerics import optim

RATE = 1e-4
ADAMW = {"betas": (0.9, 0.999), "epsilon": 1e-8}


def _release(step, total, warmup=0):
    """The release's rate in float64."""
    if step < warmup:
        return RATE * step / warmup
    return RATE * (1 + np.cos(np.pi * (step - warmup) / (total - warmup))) / 2


@pytest.mark.parametrize("warmup", [0, 40])
def test_cosine_equals_the_releases_formula(warmup):
    total = 400
    rates = optim.cosine(RATE, total_steps=total, warmup_steps=warmup)(jnp.arange(total))
    expected = [_release(step, total, warmup) for step in range(total)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_warm_up_starts_at_0_and_meets_the_cosine_at_its_top():
    schedule = optim.cosine(RATE, total_steps=100, warmup_steps=10)
    np.testing.assert_allclose(
        schedule(jnp.array([0, 5, 10])), [0, RATE / 2, RATE], rtol=1e-6, atol=0
    )


def test_without_warm_up_the_first_rate_is_the_full_one():
    assert optim.cosine(RATE, total_steps=100)(0) == np.float32(RATE)


def test_cosine_keeps_its_relative_accuracy_near_the_end():
    total = 5600
    last = np.arange(total - 5, total)
    rates = optim.cosine(RATE, total_steps=total)(jnp.asarray(last))
    # The sine form in float64, where the release's own sum has lost half its digits.
    expected = RATE * np.sin(np.pi / 2 * (total - last) / total) ** 2
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    assert optim.cosine(RATE, total_steps=total)(total) == 0


def test_adamw_equals_the_formula_over_several_steps():
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(4, 3))
    start = rng.normal(size=3)
    optimizer = optim.adamw(0.01, weight_decay=0.1, **ADAMW)
    update = jax.jit(optimizer.update)
    p = jnp.asarray(start, jnp.float32)
    state = optimizer.init(p)
    expected, m, v = start, np.zeros(3), np.zeros(3)
    for i, g in enumerate(gradients, start=1):
        updates, state = update(jnp.asarray(g, jnp.float32), state, p)
        p = optax.apply_updates(p, updates)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        adam = (m / (1 - 0.9**i)) / (np.sqrt(v / (1 - 0.999**i)) + 1e-8)
        expected = expected * (1 - 0.01 * 0.1) - 0.01 * adam
    np.testing.assert_allclose(p, expected, rtol=1e-5)


def test_adamw_decays_norms_and_biases_like_kernels():
    params = {"kernel": jnp.ones((2, 2)), "norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)}}
    optimizer = optim.adamw(0.01, weight_decay=0.1, **ADAMW)
    no_gradient = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(no_gradient, optimizer.init(params), params)
    for leaf in jax.tree.leaves(updates):
        np.testing.assert_allclose(leaf, -0.01 * 0.1, rtol=1e-6)


def test_the_schedule_is_as_exact_as_the_arithmetic():
    with jax.enable_x64(True):
        rate = optim.cosine(1e-3, total_steps=30)(jnp.int32(7))
        expected = 1e-3 * (1 + math.cos(math.pi * 7 / 30)) / 2
        assert abs(float(rate) - expected) < 1e-17


@pytest.mark.parametrize(("name", "expected"), [("none", 1), ("linear", 4), ("sqrt", 2)])
def test_scalings_of_a_batch_four_times_larger(name, expected):
    assert optim.SCALINGS[name](4.0) == expected


PARAMS = {
    "stack": {0: {"kernel": jnp.array([[3.0, 0], [0, 4]])}},
    "norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
}
GRADIENTS = {
    "stack": {0: {"kernel": jnp.array([[1.0, 2], [-2, 0]])}},
    "norm": {"scale": jnp.array([1.0, -2]), "bias": jnp.zeros(2)},
}


def _first_update(name, weight_decay):
    optimizer = optim.OPTIMIZERS[name](0.1, weight_decay=weight_decay, **ADAMW)
    updates, _ = jax.jit(optimizer.update)(GRADIENTS, optimizer.init(PARAMS), PARAMS)
    return updates["stack"][0]["kernel"], updates["norm"]


def test_lamb_makes_the_update_of_a_weight_as_long_as_the_weight():
    kernel, norm = _first_update("lamb", weight_decay=0.5)
    # Adam's first update is the gradient's sign; the weight is 5 long.
    direction = np.array([[1.0, 1], [-1, 0]]) + 0.5 * np.array([[3.0, 0], [0, 4]])
    expected = -0.1 * direction * 5 / np.linalg.norm(direction)
    np.testing.assert_allclose(kernel, expected, rtol=1e-5)
    np.testing.assert_allclose(norm["scale"], [-0.1, 0.1], rtol=1e-5)
    np.testing.assert_array_equal(norm["bias"], 0)


def test_lars_makes_the_update_of_a_weight_a_thousandth_of_the_weights_length():
    kernel, norm = _first_update("lars", weight_decay=0.5)
    direction = np.array([[1.0, 2], [-2, 0]]) + 0.5 * np.array([[3.0, 0], [0, 4]])
    expected = -0.1 * direction * 0.001 * 5 / np.linalg.norm(direction)
    np.testing.assert_allclose(kernel, expected, rtol=1e-5)
    np.testing.assert_allclose(norm["scale"], [-0.1, 0.2], rtol=1e-5)
    np.testing.assert_array_equal(norm["bias"], 0)
