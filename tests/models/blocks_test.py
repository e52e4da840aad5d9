# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mdhr_jax.models import blocks


def _normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("training", [True, False])
def test_stacked_linear_block_equals_separate_linear_blocks(make, training):
    stack = make(blocks.StackedLinearBlock, 3, 4, 5)
    view = {"use_running_average": not training, "raise_if_not_found": False}
    x, found = _normal(2, 7, 4), []
    for n in range(3):
        block = make(blocks.LinearBlock, 4, 5)
        block.linear.kernel[...] = np.asarray(stack.kernel[...])[:, n]
        block.linear.bias[...] = np.asarray(stack.bias[...])[n]
        for leaf in ("scale", "bias", "mean", "var"):
            getattr(block.norm, leaf)[...] = np.asarray(getattr(stack.norm, leaf)[...])[n]
        found.append(nnx.view(block, **view)(x))
    expected = nnx.view(stack, **view)(x)
    np.testing.assert_allclose(np.stack(found, 2), expected, rtol=1e-4, atol=1e-5)


def test_linear_block_is_not_negative(make):
    assert (make(blocks.LinearBlock, 4, 5)(_normal(6, 4)) >= 0).all()


def test_views_set_the_modes_and_share_the_parameters(make):
    block = make(blocks.LinearBlock, 4, 5)
    view = nnx.view(
        block, dtype=jnp.bfloat16, groups=2, use_running_average=True, raise_if_not_found=False
    )
    norm = view.norm
    assert (norm.dtype, norm.groups, norm.use_running_average) == (jnp.bfloat16, 2, True)
    assert view.linear.dtype == jnp.bfloat16
    assert (block.norm.groups, block.norm.use_running_average) == (1, False)
    assert view.linear.kernel is block.linear.kernel
