# SPDX-License-Identifier: Apache-2.0
"""MFD, multi-scale facial dynamics (paper section 3.1, Eq. 1-6; release numerics).

Differences of neighbouring frames' maps at four scales, brought to one grid, averaged over a
window in time and mixed by weights that every position chooses for itself.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from mdhr_jax.errors import choose
from mdhr_jax.models import blocks, layers, norms

SQUEEZED = 16  # channels that each scale keeps for choosing the weights (release)


@dataclasses.dataclass(frozen=True)
class Window:
    """What stands for the differences before and after a clip in the average over time.

    Without either, nothing: they count as zero motion features (release).

    Attributes:
      repeats_edges: differences of the clip's first and last frame with copies of themselves.
      reads_neighbours: differences of the video's own frames, k of which come before and k after
        the clip; the pipeline repeats the first and the last frame of a video (paper).
    """

    repeats_edges: bool = False
    reads_neighbours: bool = False


WINDOWS = {
    "zero": Window(),
    "edge": Window(repeats_edges=True),
    "neighbours": Window(reads_neighbours=True),
}


def window_average(frames: int, k: int, extra: int = 0) -> np.ndarray:
    """`(t, t-1+2*extra)` matrix of the average over the 2k differences around a frame.

    Frame t sees the differences t-k .. t+k-1, of which 0 .. t-2 are the clip's own and `extra`
    more are at hand on both sides; what is not at hand counts as zero, and the divisor is always
    2k. It is defined for any clip of two frames or more; in clips of fewer than 2k+1 frames,
    without extra ones, no frame has a full window, so motion is scaled down everywhere.

    Raises:
      ValueError: a clip of one frame has no differences.
    """
    if frames < 2:
        raise ValueError(f"a clip needs at least 2 frames for differences, not {frames}")
    t, j = np.arange(frames)[:, None], np.arange(-extra, frames - 1 + extra)[None, :]
    return ((t - k <= j) & (j <= t + k - 1)) / (2 * k)


class ScaleProjection(layers.Layer):
    """One scale: differences, kernel-equals-stride convolution, norm, ReLU, temporal average."""

    def __init__(
        self, size: int, inputs: int, outputs: int, *, k: int, window: Window, rngs: nnx.Rngs
    ):
        super().__init__()
        init = jax.nn.initializers.normal(math.sqrt(2 / (size * size * outputs)))
        self.k = k
        self.context = k if window.reads_neighbours else 0
        self.padding = k if window.repeats_edges else 0
        self.convolution = layers.PatchLinear(size, inputs, outputs, kernel_init=init, rngs=rngs)
        self.norm = norms.BatchNorm(outputs, relu=True)

    def fold(self) -> None:
        """Called by `views.folded_view`."""
        self.norm = self.norm.fold_into(self.convolution)

    def __call__(self, maps: Float[Array, "b s H W c"]) -> Float[Array, "b t h w d"]:
        differences = maps[:, 1:] - maps[:, :-1]
        still = ((0, 0), (self.padding, self.padding), (0, 0), (0, 0), (0, 0))
        motion = self.norm(self.convolution(jnp.pad(differences, still)))
        frames = maps.shape[1] - 2 * self.context
        average = window_average(frames, self.k, self.context + self.padding)
        weights = jnp.asarray(average, self.dtype)
        return jnp.einsum("tj,bjhwd->bthwd", weights, motion, precision=self.precision)


class Scales(nnx.Module):
    """Motion maps of any subset of the four scales on one grid; subclasses join them.

    Attributes:
      scales: in use, in order.
      context: frames that a clip carries before and after the ones to score.
      fusion: joins them to `features`.
    """

    fusion: blocks.LinearBlock

    def __init__(
        self,
        channels: tuple[int, ...],
        features: int,
        *,
        scales: tuple[int, ...],
        k: int,
        window: str,
        rngs: nnx.Rngs,
    ):
        if not scales or not set(scales) <= {1, 2, 3, 4} or len(set(scales)) != len(scales):
            raise ValueError(f"dynamics.scales must be a subset of 1, 2, 3, 4, not {scales}")
        kind = choose("dynamics.window", WINDOWS, window)
        self.scales = tuple(sorted(scales))
        self.context = k if kind.reads_neighbours else 0
        self.projections = nnx.List(
            ScaleProjection(
                2 ** (4 - scale), channels[scale - 1], channels[-1], k=k, window=kind, rngs=rngs
            )
            for scale in self.scales
        )

    def pooled(self, maps: list[Float[Array, "b s ..."]]) -> list[Float[Array, "b t h w c"]]:
        """The averaged motion map of every scale in use."""
        return [
            project(maps[scale - 1])
            for scale, project in zip(self.scales, self.projections, strict=True)
        ]


class MultiscaleDynamics(Scales):
    """The scales' sum, weighted anew at every position (paper: adaptive weighting)."""

    def __init__(self, channels: tuple[int, ...], features: int, *, rngs: nnx.Rngs, **scales: Any):
        super().__init__(channels, features, rngs=rngs, **scales)
        count, width = len(self.scales), channels[-1]
        self.squeezes = nnx.List(
            blocks.LinearBlock(width, SQUEEZED, rngs=rngs) for _ in self.scales
        )
        choice_init = jax.nn.initializers.normal(math.sqrt(2 / count))
        self.choice = layers.Linear(count * SQUEEZED, count, kernel_init=choice_init, rngs=rngs)
        self.fusion = blocks.LinearBlock(width, features, rngs=rngs)

    def __call__(
        self, maps: list[Float[Array, "b s ..."]]
    ) -> tuple[Float[Array, "b t h w d"], dict[str, Array | list[Array]]]:
        """Returns motion features, and `pooled` (averages per scale) and `scale_weights`."""
        pooled = self.pooled(maps)
        squeezed = [squeeze(p) for squeeze, p in zip(self.squeezes, pooled, strict=True)]
        logits = self.choice(jnp.concatenate(squeezed, -1))
        weights = jax.nn.softmax(layers.widened(logits))
        mixed = sum(
            rearrange(weights[..., s], "b t h w -> b t h w 1").astype(p.dtype) * p
            for s, p in enumerate(pooled)
        )
        return self.fusion(jnp.asarray(mixed)), {"pooled": pooled, "scale_weights": weights}


class SummedDynamics(Scales):
    """The scales' plain sum (paper, Table 4)."""

    def __init__(self, channels: tuple[int, ...], features: int, *, rngs: nnx.Rngs, **scales: Any):
        super().__init__(channels, features, rngs=rngs, **scales)
        self.fusion = blocks.LinearBlock(channels[-1], features, rngs=rngs)

    def __call__(
        self, maps: list[Float[Array, "b s ..."]]
    ) -> tuple[Float[Array, "b t h w d"], dict[str, list[Array]]]:
        """Returns motion features, and `pooled`."""
        pooled = self.pooled(maps)
        return self.fusion(jnp.asarray(sum(pooled))), {"pooled": pooled}


class ConcatenatedDynamics(Scales):
    """The scales side by side: as many times the channels into the fusion (paper, Table 4)."""

    def __init__(self, channels: tuple[int, ...], features: int, *, rngs: nnx.Rngs, **scales: Any):
        super().__init__(channels, features, rngs=rngs, **scales)
        self.fusion = blocks.LinearBlock(len(self.scales) * channels[-1], features, rngs=rngs)

    def __call__(
        self, maps: list[Float[Array, "b s ..."]]
    ) -> tuple[Float[Array, "b t h w d"], dict[str, list[Array]]]:
        """Returns motion features, and `pooled`."""
        pooled = self.pooled(maps)
        return self.fusion(jnp.concatenate(pooled, -1)), {"pooled": pooled}


class NoDynamics(nnx.Module):
    """Static features only: the motion features are zero."""

    context = 0

    def __init__(self, channels: tuple[int, ...], features: int, **scales: Any):
        del channels, features, scales

    def __call__(self, maps: list[Float[Array, "b t ..."]]) -> tuple[Float[Array, ""], dict]:
        """Returns a zero that adds to any map, and no intermediates."""
        return jnp.zeros((), maps[0].dtype), {}
