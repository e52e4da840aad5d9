# SPDX-License-Identifier: Apache-2.0
"""MFD, multi-scale facial dynamics (paper section 3.1, Eq. 1-6; release numerics).

Differences of neighbouring frames' maps at four scales, brought to one grid, averaged over a
window in time and mixed by weights that every position chooses for itself.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from mdhr_jax.models import layers

SQUEEZED = 16  # channels that each scale keeps for choosing the weights (release)


def window_average(frames: int, k: int) -> np.ndarray:
    """`(t, t-1)` matrix of the zero-padded average over the 2k differences around a frame.

    Frame t sees the differences t-k .. t+k-1; those outside the clip count as zero and the
    divisor is always 2k. It is defined for any clip of two frames or more; in clips of fewer than
    2k+1 frames no frame has a full window, so motion is scaled down everywhere.

    Raises:
      ValueError: a clip of one frame has no differences.
    """
    if frames < 2:
        raise ValueError(f"a clip needs at least 2 frames for differences, not {frames}")
    t, j = np.arange(frames)[:, None], np.arange(frames - 1)[None, :]
    return ((t - k <= j) & (j <= t + k - 1)) / (2 * k)


class ScaleProjection(layers.Layer):
    """One scale: differences, kernel-equals-stride convolution, norm, ReLU, temporal average."""

    def __init__(self, size: int, inputs: int, outputs: int, *, k: int, rngs: nnx.Rngs):
        super().__init__()
        init = jax.nn.initializers.normal(math.sqrt(2 / (size * size * outputs)))
        self.k = k
        self.convolution = layers.PatchLinear(size, inputs, outputs, kernel_init=init, rngs=rngs)
        self.norm = layers.BatchNorm(outputs)

    def __call__(self, maps: Float[Array, "b t H W c"]) -> Float[Array, "b t h w d"]:
        differences = maps[:, 1:] - maps[:, :-1]
        motion = jax.nn.relu(self.norm(self.convolution(differences)))
        window = jnp.asarray(window_average(maps.shape[1], self.k), self.dtype)
        precision = None if self.dtype == jnp.bfloat16 else jax.lax.Precision.HIGHEST
        return jnp.einsum("tj,bjhwd->bthwd", window, motion, precision=precision)


class SqueezeBlock(nnx.Module):
    """What one scale contributes to the choice of weights: 1x1 convolution, norm, ReLU."""

    def __init__(self, inputs: int, *, rngs: nnx.Rngs):
        init = jax.nn.initializers.normal(math.sqrt(2 / SQUEEZED))
        self.linear = layers.Linear(inputs, SQUEEZED, kernel_init=init, rngs=rngs)
        self.norm = layers.BatchNorm(SQUEEZED)

    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w q"]:
        return jax.nn.relu(self.norm(self.linear(x)))


class MultiscaleDynamics(nnx.Module):
    """Motion features from any subset of the four scales, adaptively weighted per position."""

    def __init__(
        self,
        channels: tuple[int, ...],
        features: int,
        *,
        scales: tuple[int, ...],
        k: int,
        rngs: nnx.Rngs,
    ):
        if not scales or not set(scales) <= {1, 2, 3, 4} or len(set(scales)) != len(scales):
            raise ValueError(f"dynamics.scales must be a subset of 1, 2, 3, 4, not {scales}")
        width = channels[-1]
        self.scales = tuple(sorted(scales))
        self.projections = nnx.List(
            ScaleProjection(2 ** (4 - scale), channels[scale - 1], width, k=k, rngs=rngs)
            for scale in self.scales
        )
        self.squeezes = nnx.List(SqueezeBlock(width, rngs=rngs) for _ in self.scales)
        count = len(self.scales)
        choice_init = jax.nn.initializers.normal(math.sqrt(2 / count))
        self.choice = layers.Linear(count * SQUEEZED, count, kernel_init=choice_init, rngs=rngs)
        self.fusion = layers.LinearBlock(width, features, rngs=rngs)

    def __call__(
        self, maps: list[Float[Array, "b t ..."]]
    ) -> tuple[Float[Array, "b t h w d"], dict[str, Array | list[Array]]]:
        """Returns motion features, and `pooled` (averages per scale) and `scale_weights`."""
        pooled = [
            project(maps[scale - 1])
            for scale, project in zip(self.scales, self.projections, strict=True)
        ]
        squeezed = [squeeze(p) for squeeze, p in zip(self.squeezes, pooled, strict=True)]
        logits = self.choice(jnp.concatenate(squeezed, -1))
        weights = jax.nn.softmax(logits.astype(jnp.promote_types(jnp.float32, logits.dtype)))
        mixed = sum(
            rearrange(weights[..., s], "b t h w -> b t h w 1").astype(p.dtype) * p
            for s, p in enumerate(pooled)
        )
        return self.fusion(mixed), {"pooled": pooled, "scale_weights": weights}


class NoDynamics(nnx.Module):
    """Static features only: the motion features are zero."""

    def __init__(
        self,
        channels: tuple[int, ...],
        features: int,
        *,
        scales: tuple[int, ...],
        k: int,
        rngs: nnx.Rngs,
    ):
        del channels, features, scales, k, rngs

    def __call__(self, maps: list[Float[Array, "b t ..."]]) -> tuple[Float[Array, ""], dict]:
        """Returns a zero that adds to any map, and no intermediates."""
        return jnp.zeros((), maps[0].dtype), {}
