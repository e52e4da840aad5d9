# SPDX-License-Identifier: Apache-2.0
"""Layers with PyTorch's conventions, which the release's numbers depend on.

Parameters and statistics are float32. How a layer runs is set from outside by `nnx.view`:
`dtype` (float32 for parity, bfloat16 for speed), `use_running_average` and `groups` of batch
normalisation, `deterministic` of drop-path. Constructors describe the architecture only. What
`mdhr.folded_view` computes ahead of scoring is in the methods `narrow` and `fold`.
"""

import functools
import math

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def uniform(bound: float) -> jax.nn.initializers.Initializer:
    """Uniform on (-bound, bound)."""
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


def widened(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The same in float32, or wider if it is."""
    return x.astype(jnp.promote_types(jnp.float32, x.dtype))


class Layer(nnx.Module):
    """Base of the layers that compute: arithmetic runs in `dtype`, parameters stay float32."""

    def __init__(self):
        self.dtype = jnp.float32

    def set_view(self, dtype: DTypeLike | None = None) -> None:
        """Sets the arithmetic type, called by `nnx.view`."""
        if dtype is not None:
            self.dtype = dtype

    def dot(self, x: Float[Array, "... c"], kernel: Float[Array, "c d"]) -> Float[Array, "... d"]:
        """Matrix product in `dtype`, at full precision unless that is bfloat16."""
        precision = lax.Precision.DEFAULT if self.dtype == jnp.bfloat16 else lax.Precision.HIGHEST
        # Two-dimensional operands: XLA's CPU product is twice as slow on four-dimensional ones.
        flat = rearrange(x.astype(self.dtype), "... c -> (...) c")
        product = jnp.dot(flat, kernel.astype(self.dtype), precision=precision)
        return product.reshape(*x.shape[:-1], kernel.shape[-1])


class Affine(Layer):
    """Base of layers that use their `kernel` and `bias` in `dtype` only; `bias` may be None."""

    kernel: nnx.Param
    bias: nnx.Param | None

    def narrow(self) -> None:
        """Rounds the parameters to `dtype`, as every call does otherwise."""
        self.kernel = nnx.Param(self.kernel[...].astype(self.dtype))
        if self.bias is not None:
            self.bias = nnx.Param(self.bias[...].astype(self.dtype))

    def biased(self, y: Float[Array, "..."]) -> Float[Array, "..."]:
        """`y + b`."""
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)


class Linear(Affine):
    """`x W + b` on the last axis.

    Default initialisation is PyTorch's: weight and bias uniform on +-1/sqrt(inputs).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        kernel_init: jax.nn.initializers.Initializer | None = None,
        bias_init: jax.nn.initializers.Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__()
        default = uniform(1 / math.sqrt(inputs))
        kernel_init, bias_init = kernel_init or default, bias_init or default
        self.kernel = nnx.Param(kernel_init(rngs.params(), (inputs, outputs)))
        self.bias = nnx.data(nnx.Param(bias_init(rngs.params(), (outputs,))) if bias else None)

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... d"]:
        return self.biased(self.dot(x, self.kernel[...]))


class PatchLinear(Linear):
    """A convolution whose kernel equals its stride: patches of `size` x `size`, then a product.

    The kernel's rows run over patch row, patch column, channel.
    """

    def __init__(self, size: int, inputs: int, outputs: int, *, rngs: nnx.Rngs, **init):
        super().__init__(size * size * inputs, outputs, rngs=rngs, **init)
        self.size = size

    def __call__(self, x: Float[Array, "... H W c"]) -> Float[Array, "... h w d"]:
        patches = rearrange(x, "... (h p) (w q) c -> ... h w (p q c)", p=self.size, q=self.size)
        return super().__call__(patches)


class Conv(Affine):
    """A `size` x `size` convolution, zero padding `size // 2`, kernel HWIO.

    It has no bias but that of a norm that is folded into it.
    """

    def __init__(self, size: int, inputs: int, outputs: int, *, stride: int, rngs: nnx.Rngs):
        super().__init__()
        self.stride, self.padding = stride, size // 2
        shape = (size, size, inputs, outputs)
        init = jax.nn.initializers.variance_scaling(2, "fan_out", "normal")  # as torchvision
        self.kernel = nnx.Param(init(rngs.params(), shape))
        self.bias = nnx.data(None)

    def __call__(self, x: Float[Array, "m H W c"]) -> Float[Array, "m h w d"]:
        y = lax.conv_general_dilated(
            x.astype(self.dtype),
            self.kernel[...].astype(self.dtype),
            window_strides=(self.stride, self.stride),
            padding=[(self.padding, self.padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=None if self.dtype == jnp.bfloat16 else lax.Precision.HIGHEST,
        )
        return self.biased(y)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def normalise_batch(
    x: Float[Array, "groups m ..."],
    scale: Float[Array, "..."],
    bias: Float[Array, "..."],
    shift: Float[Array, "..."],
    epsilon: float,
    relu: bool,
) -> tuple[Array, Array, Array]:
    """Every group with its own mean and biased variance, over all axes that `scale` has not.

    The statistics take one pass over `x`, and so do the sums of the gradient, each time one
    exchange on many devices. The ReLU's mask is computed again from `x`, so that on a GPU the
    backward pass does not read the output.

    Args:
      x: values.
      scale, bias: of the normalised values.
      shift: near the mean; E(x - shift)^2 - (E x - shift)^2 cancels where it is far.
      epsilon: added to the variance.
      relu: whether negative results become 0.

    Returns:
      results, mean, variance; only the results have a gradient.
    """
    return _normalise_batch_forward(x, scale, bias, shift, epsilon, relu)[0]


def _normalise_batch_forward(
    x: Array, scale: Array, bias: Array, shift: Array, epsilon: float, relu: bool
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
    axes = tuple(range(1, x.ndim - scale.ndim))
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
    axes = tuple(range(1, x.ndim - scale.ndim))
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


class BatchNorm(Layer):
    """Batch normalisation over all axes but the trailing ones in `shape`, as PyTorch does it.

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

    def fold_into(self, layer: Affine) -> None:
        """Leaves the running statistics' work to the `layer` before: its kernel and its bias.

        Here only the ReLU remains, so that on a GPU the layer writes its result once.
        """
        slope = self._slope()
        bias = 0 if layer.bias is None else layer.bias[...]
        layer.kernel = nnx.Param(layer.kernel[...] * slope)
        layer.bias = nnx.Param((bias - self.mean[...]) * slope + self.bias[...])
        self.scale = self.bias = self.mean = self.var = None

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        if self.scale is None:  # folded
            return self._rectified(x)
        wide = widened(x)
        y = self._with_running(wide) if self.use_running_average else self._with_own(wide)
        return y.astype(self.dtype)

    def _slope(self) -> Array:
        return self.scale[...] * lax.rsqrt(self.var[...] + self.epsilon)

    def _rectified(self, y: Array) -> Array:
        return jax.nn.relu(y) if self.relu else y

    def _with_running(self, x: Array) -> Array:
        return self._rectified((x - self.mean[...]) * self._slope() + self.bias[...])

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


class LayerNorm(Layer):
    """Normalisation of the last axis, epsilon 1e-5, statistics in float32."""

    epsilon = 1e-5

    def __init__(self, features: int):
        super().__init__()
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        y = normalise_features(widened(x), self.scale[...], self.bias[...], self.epsilon)
        return y.astype(self.dtype)


@jax.custom_vjp
def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x` times the normal distribution function of `x`, in float32 at least.

    Only `x` is kept for the backward pass; JAX's own gradient reads two more arrays on a GPU.
    """
    return _gelu_forward(x)[0]


def _gelu_forward(x: Array) -> tuple[Array, Array]:
    wide = widened(x)
    return (wide * _normal_cdf(wide)).astype(x.dtype), x


def _gelu_backward(x: Array, gradient: Array) -> tuple[Array]:
    wide = widened(x)
    density = jnp.exp(-jnp.square(wide) / 2) / math.sqrt(2 * math.pi)
    return ((gradient * (_normal_cdf(wide) + wide * density)).astype(x.dtype),)


def _normal_cdf(x: Array) -> Array:
    return (1 + lax.erf(x * math.sqrt(0.5))) / 2


gelu.defvjp(_gelu_forward, _gelu_backward)


class DropPath(nnx.Module):
    """Drops a residual branch per frame with probability `rate` and scales kept ones up."""

    def __init__(self, rate: float):
        self.rate = rate
        self.deterministic = False

    def set_view(self, deterministic: bool | None = None) -> None:
        """Switches dropping off (`deterministic=True`), called by `nnx.view`."""
        if deterministic is not None:
            self.deterministic = deterministic

    def __call__(self, x: Float[Array, "m ..."], key: jax.Array | None) -> Float[Array, "m ..."]:
        if self.deterministic or self.rate == 0:
            return x
        keep = jax.random.bernoulli(key, 1 - self.rate, (x.shape[0],) + (1,) * (x.ndim - 1))
        return x * (keep / (1 - self.rate)).astype(x.dtype)


class Residual(nnx.Module):
    """Base of a backbone's residual blocks, which define `forward`.

    With `remat` the backward pass computes the block's insides again instead of keeping them:
    a third more work for a fraction of the memory, the same numbers.
    """

    def __init__(self):
        self.remat = False

    def set_view(self, remat: bool | None = None) -> None:
        """Switches recomputation on or off, called by `nnx.view`."""
        if remat is not None:
            self.remat = remat

    def __call__(self, *inputs: Array | tuple | None) -> Array:
        forward = type(self).forward
        return nnx.remat(forward)(self, *inputs) if self.remat else forward(self, *inputs)


class LinearBlock(nnx.Module):
    """Linear, batch normalisation, ReLU (release: LinearBlock)."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        init = jax.nn.initializers.normal(math.sqrt(2 / outputs))
        self.linear = Linear(inputs, outputs, kernel_init=init, rngs=rngs)
        self.norm = BatchNorm(outputs, relu=True)

    def fold(self) -> None:
        """Called by `mdhr.folded_view`."""
        self.norm.fold_into(self.linear)

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... d"]:
        return self.norm(self.linear(x))


class StackedLinear(Affine):
    """`n` linear maps, each with its own parameters, that share their input: one product.

    The kernel is stored (c, n, d), so that the stack is one matrix of n*d columns.
    """

    def __init__(self, n: int, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        super().__init__()
        init = jax.nn.initializers.normal(math.sqrt(2 / outputs))
        bias_init = uniform(1 / math.sqrt(inputs))
        self.kernel = nnx.Param(init(rngs.params(), (inputs, n, outputs)))
        self.bias = nnx.Param(bias_init(rngs.params(), (n, outputs)))

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... n d"]:
        y = self.dot(x, rearrange(self.kernel[...], "c n d -> c (n d)"))
        return self.biased(rearrange(y, "... (n d) -> ... n d", n=self.kernel[...].shape[1]))


class StackedLinearBlock(StackedLinear):
    """`n` linear blocks: linear maps, each with batch norm and ReLU of its own."""

    def __init__(self, n: int, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        super().__init__(n, inputs, outputs, rngs=rngs)
        self.norm = BatchNorm(n, outputs, relu=True)

    def fold(self) -> None:
        """Called by `mdhr.folded_view`."""
        self.norm.fold_into(self)

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... n d"]:
        return self.norm(super().__call__(x))


def unit(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """`x / max(|x|, 1e-12)`, with gradient of the norm 0 at x = 0 as in PyTorch."""
    square = jnp.square(x).sum(-1, keepdims=True)
    is_zero = square == 0
    norm = jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, square)))
    return x / jnp.maximum(norm, 1e-12)


class CosineClassifier(nnx.Module):
    """Score of an AU: cosine between its feature and its class vector, both in float32.

    The class vector passes a ReLU, and the features are non-negative, so scores lie in [0, 1]
    (paper section 3.3, "similarity classifier"; no sigmoid).
    """

    def __init__(self, n: int, features: int, *, rngs: nnx.Rngs):
        init = uniform(math.sqrt(6 / (n + features)))
        self.class_vectors = nnx.Param(init(rngs.params(), (n, features)))

    def __call__(self, x: Float[Array, "b t n d"]) -> Float[Array, "b t n"]:
        wide = x.astype(self.class_vectors[...].dtype)
        return (unit(wide) * unit(jax.nn.relu(self.class_vectors[...]))).sum(-1)
