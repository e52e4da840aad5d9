# SPDX-License-Identifier: Apache-2.0
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mdhr_jax import optim

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
