# SPDX-License-Identifier: Apache-2.0
"""The temporal filter of each AU (paper section 3.3, "TCN"; release: one depthwise convolution)."""

import math

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from mdhr_jax.models import layers, norms

TAPS = 5


class TemporalConvolution(layers.Layer):
    """Depthwise convolution over time, a filter per AU and feature, zero-padded at clip ends.

    The norm that follows has one mean and variance per AU, over frames and features.
    """

    def __init__(self, n: int, features: int, *, rngs: nnx.Rngs):
        super().__init__()
        init = layers.uniform(1 / math.sqrt(TAPS))
        self.kernel = nnx.Param(init(rngs.params(), (TAPS, n, features)))
        self.bias = nnx.Param(init(rngs.params(), (n, features)))
        self.norm = norms.BatchNorm(n)

    def __call__(self, nodes: Float[Array, "b t n d"]) -> Float[Array, "b t n d"]:
        frames = nodes.shape[1]
        half = TAPS // 2
        padded = jnp.pad(nodes, ((0, 0), (half, half), (0, 0), (0, 0)))
        kernel = self.kernel[...].astype(self.dtype)
        # A sum of shifted products: XLA makes one fused pass of it, and the CPU has no fast
        # depthwise convolution.
        filtered = sum(padded[:, tap : tap + frames] * kernel[tap] for tap in range(TAPS))
        filtered = filtered + self.bias[...].astype(self.dtype)
        normed = self.norm(rearrange(filtered, "b t n d -> b t d n"))
        return jax.nn.relu(rearrange(normed, "b t d n -> b t n d"))


class NoTemporal(nnx.Module):
    """Without a filter: a ReLU alone, so that the classifier's scores stay in [0, 1]."""

    def __init__(self, n: int, features: int, *, rngs: nnx.Rngs):
        del n, features, rngs

    def __call__(self, nodes: Float[Array, "b t n d"]) -> Float[Array, "b t n d"]:
        return jax.nn.relu(nodes)
