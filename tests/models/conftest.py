# SPDX-License-Identifier: Apache-2.0
"""Modules with values drawn by numpy: compiling initialisers would cost more than running."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx


def _value(path, leaf):
    rng = np.random.default_rng(zlib.crc32(jax.tree_util.keystr(path).encode()))
    match path[-2].key:  # the last entry is the variable's value
        case "scale" | "var":
            value = rng.uniform(0.5, 1.5, leaf.shape)
        case "bias" | "mean":
            value = rng.normal(0, 0.1, leaf.shape)
        case _:
            value = rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
    return jnp.asarray(value, jnp.float32)


@pytest.fixture
def make():
    """Builds `kind(*args, **settings, rngs=...)` with values as after some training."""

    def make(kind, *args, **settings):
        model = nnx.eval_shape(lambda: kind(*args, **settings, rngs=nnx.Rngs(0)))
        graph, state = nnx.split(model)
        return nnx.merge(graph, jax.tree_util.tree_map_with_path(_value, state))

    return make


@pytest.fixture
def make_in_testing(make):
    """The same with running statistics and without drop-path."""

    def make_in_testing(kind, *args, **settings):
        modes = {"use_running_average": True, "deterministic": True}
        return nnx.view(make(kind, *args, **settings), **modes, raise_if_not_found=False)

    return make_in_testing
