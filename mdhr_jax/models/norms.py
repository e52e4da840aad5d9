# SPDX-License-Identifier: Apache-2.0
"""Batch and layer normalisation as PyTorch does them, each with a gradient of its own.

Statistics are float32 in every mode.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mdhr_jax.models import layers


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def normalise_batch(
    x: Float[Array, "groups m ..."],
    scale: Float[Array, "..."],
    bias: Float[Array, "..."],
    shift: Float[Array, "..."],
    epsilon: float,
    relu: bool,
) -> tuple[Array, Array, Array]:
    """Every group with its own mean and biased variance, over all axes that `scale` does not fill.

    The statistics take one pass over `x`, and so do the sums of the gradient, each time one
    exchange on many devices. The ReLU's mask is computed again from `x`, so that on a GPU the
    backward pass does not read the output.

    Args:
      x: values.
      scale, bias: of the normalised values; what they have as an axis of 1 is averaged over, too.
      shift: near the mean; E(x - shift)^2 - (E x - shift)^2 cancels where it is far.
      epsilon: added to the variance.
      relu: whether negative results become 0.

    Returns:
      results, mean, variance; only the results have a gradient.
    """
    return _normalise_batch_forward(x, scale, bias, shift, epsilon, relu)[0]


def _averaged(x: Array, scale: Array) -> tuple[int, ...]:
    """Axes of the groups that have no values of their own in `scale`."""
    first = x.ndim - scale.ndim
    inner = enumerate(scale.shape, start=first)
    return (*range(1, first), *(axis for axis, size in inner if size < x.shape[axis]))


def _normalise_batch_forward(
    x: Array, scale: Array, bias: Array, shift: Array, epsilon: float, relu: bool
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
    axes = _averaged(x, scale)
    shifted = x - shift
    shifted_mean = shifted.mean(axes, keepdims=True)
    square = jnp.square(shifted).mean(axes, keepdims=True)
    mean = shifted_mean + shift
    var = jnp.maximum(square - jnp.square(shifted_mean), 0)
    inverse = lax.rsqrt(var + epsilon)
    y = (x - mean) * (scale * inverse) + bias
    return (jax.nn.relu(y) if relu else y, mean, var), (x, scale, bias, mean, inverse)


def _normalise_batch_backward(
    epsilon: float, relu: bool, saved: tuple[Array, ...], gradients: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array, None]:
    del epsilon
    x, scale, bias, mean, inverse = saved
    axes = _averaged(x, scale)
    count = math.prod(x.shape[axis] for axis in axes)
    centred, slope, gradient = x - mean, scale * inverse, gradients[0]
    if relu:
        gradient = jnp.where(centred * slope + bias > 0, gradient, 0)
    total = gradient.sum(axes, keepdims=True)
    along = (gradient * centred).sum(axes, keepdims=True)
    rest = gradient - total / count - centred * (jnp.square(inverse) * along / count)
    of_scale = (along * inverse).sum(0).reshape(scale.shape)
    return slope * rest, of_scale, total.sum(0).reshape(bias.shape), None


normalise_batch.defvjp(_normalise_batch_forward, _normalise_batch_backward)


class BatchNorm(layers.Layer):
    """Batch normalisation over all axes but the trailing ones in `shape`, as PyTorch does it.

    A 1 in `shape` stands for a trailing axis that is averaged over like the leading ones.
    Normalises with the biased variance, keeps the unbiased one: new = 0.9 old + 0.1 batch.
    With `groups` > 1 the leading axis is cut into that many equal parts, each normalised with
    its own statistics; the running statistics follow the first part (the release's DataParallel
    on two devices is `groups=2`). Statistics are float32 in every mode. With `relu` a ReLU
    follows.

    Raises:
      ValueError: the leading axis is no multiple of `groups`.
    """

    epsilon = 1e-5
    momentum = 0.1

    def __init__(self, *shape: int, relu: bool = False):
        super().__init__()
        self.scale = nnx.Param(jnp.ones(shape))
        self.bias = nnx.Param(jnp.zeros(shape))
        self.mean = nnx.BatchStat(jnp.zeros(shape))
        self.var = nnx.BatchStat(jnp.ones(shape))
        self.relu = relu
        self.groups = 1
        self.use_running_average = False

    def set_view(
        self,
        dtype: DTypeLike | None = None,
        groups: int | None = None,
        use_running_average: bool | None = None,
    ) -> None:
        """Sets arithmetic type, groups and mode, called by `nnx.view`."""
        super().set_view(dtype)
        if groups is not None:
            self.groups = groups
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def fold_into(self, layer: layers.Affine) -> Any:
        """Leaves the running statistics' work to the `layer` before: its kernel and its bias.

        Returns:
          what stands instead of the norm: the ReLU at most, so that on a GPU the layer writes its
          result once.
        """
        slope = self._slope()
        bias = 0 if layer.bias is None else layer.bias[...]
        layer.kernel = nnx.Param(layer.kernel[...] * slope)
        layer.bias = nnx.Param((bias - self.mean[...]) * slope + self.bias[...])
        return layers.Rectifier() if self.relu else layers.Identity()

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        wide = layers.widened(x)
        y = self._with_running(wide) if self.use_running_average else self._with_own(wide)
        return y.astype(self.dtype)

    def _slope(self) -> Array:
        return self.scale[...] * lax.rsqrt(self.var[...] + self.epsilon)

    def _with_running(self, x: Array) -> Array:
        y = (x - self.mean[...]) * self._slope() + self.bias[...]
        return jax.nn.relu(y) if self.relu else y

    def _with_own(self, x: Array) -> Array:
        if x.shape[0] % self.groups:
            raise ValueError(f"a batch of {x.shape[0]} does not divide into {self.groups} groups")
        grouped = x.reshape(self.groups, -1, *x.shape[1:])
        scale, bias, shift = self.scale[...], self.bias[...], self.mean[...]
        y, mean, var = normalise_batch(grouped, scale, bias, shift, self.epsilon, self.relu)
        count = grouped[0].size // scale.size
        self._update(self.mean, mean)
        self._update(self.var, var * (count / max(count - 1, 1)))
        return y.reshape(x.shape)

    def _update(self, running: nnx.BatchStat, batch: Array) -> None:
        first = batch[0].reshape(running[...].shape)
        running[...] = (1 - self.momentum) * running[...] + self.momentum * first


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise_features(
    x: Float[Array, "... c"], scale: Float[Array, " c"], bias: Float[Array, " c"], epsilon: float
) -> Float[Array, "... c"]:
    """Every vector of the last axis with its own mean and biased variance.

    For the backward pass the statistics are kept, behind a barrier: XLA would compute them again
    for every use, and on a GPU then writes the gradient of `scale` out element by element. Where
    there is no backward pass, it makes one kernel of all.
    """
    mean, inverse = _feature_statistics(x, epsilon)
    return (x - mean) * inverse * scale + bias


def _feature_statistics(x: Array, epsilon: float) -> tuple[Array, Array]:
    mean = x.mean(-1, keepdims=True)
    var = jnp.square(x - mean).mean(-1, keepdims=True)
    return mean, lax.rsqrt(var + epsilon)


def _normalise_features_forward(
    x: Array, scale: Array, bias: Array, epsilon: float
) -> tuple[Array, tuple[Array, ...]]:
    mean, inverse = lax.optimization_barrier(_feature_statistics(x, epsilon))
    return (x - mean) * inverse * scale + bias, (x, scale, mean, inverse)


def _normalise_features_backward(
    epsilon: float, saved: tuple[Array, ...], gradient: Array
) -> tuple[Array, Array, Array]:
    del epsilon
    x, scale, mean, inverse = saved
    normed, scaled = (x - mean) * inverse, gradient * scale
    along = (scaled * normed).mean(-1, keepdims=True)
    of_x = inverse * (scaled - scaled.mean(-1, keepdims=True) - normed * along)
    others = tuple(range(x.ndim - 1))
    return of_x, (gradient * normed).sum(others), gradient.sum(others)


normalise_features.defvjp(_normalise_features_forward, _normalise_features_backward)


class LayerNorm(layers.Layer):
    """Normalisation of the last axis, epsilon 1e-5, statistics in float32."""

    epsilon = 1e-5

    def __init__(self, features: int):
        super().__init__()
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        y = normalise_features(layers.widened(x), self.scale[...], self.bias[...], self.epsilon)
        return y.astype(self.dtype)
