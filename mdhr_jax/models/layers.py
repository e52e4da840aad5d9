# SPDX-License-Identifier: Apache-2.0
"""Layers with PyTorch's conventions, which the release's numbers depend on.

Parameters and statistics are float32. How a layer runs is set from outside by `nnx.view`:
`dtype` (float32 for parity, bfloat16 for speed), `use_running_average` and `groups` of batch
normalisation (`norms`), `deterministic` of drop-path. Constructors describe the architecture only.
What `views.folded_view` computes ahead of scoring is in the methods `narrow` and `fold`.
"""

import math
import zlib
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def uniform(bound: float) -> Callable[..., Array]:
    """Uniform on (-bound, bound)."""
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


def slots(rngs: nnx.Rngs) -> Callable[[str], nnx.Rngs]:
    """Own random numbers for each name: what fills one slot does not change others' values."""
    key = rngs.params()
    return lambda name: nnx.Rngs(jax.random.fold_in(key, zlib.crc32(name.encode())))


def widened(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The same in float32, or wider if it is."""
    return x.astype(jnp.promote_types(jnp.float32, x.dtype))


class Layer(nnx.Module):
    """Base of the layers that compute: arithmetic runs in `dtype`, parameters stay float32."""

    def __init__(self):
        self.dtype: DTypeLike = jnp.float32

    def set_view(self, dtype: DTypeLike | None = None) -> None:
        """Sets the arithmetic type, called by `nnx.view`."""
        if dtype is not None:
            self.dtype = dtype

    @property
    def precision(self) -> lax.Precision:
        """Of products: full, unless `dtype` is bfloat16."""
        return lax.Precision.DEFAULT if self.dtype == jnp.bfloat16 else lax.Precision.HIGHEST

    def dot(self, x: Float[Array, "... c"], kernel: Float[Array, "c d"]) -> Float[Array, "... d"]:
        """Matrix product in `dtype`."""
        # Two-dimensional operands: XLA's CPU product is twice as slow on four-dimensional ones.
        flat = rearrange(x.astype(self.dtype), "... c -> (...) c")
        product = jnp.dot(flat, kernel.astype(self.dtype), precision=self.precision)
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
            precision=self.precision,
        )
        return self.biased(y)


class Identity(nnx.Module):
    """Its input: where there is nothing to do."""

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return x


class Rectifier(nnx.Module):
    """ReLU."""

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jax.nn.relu(x)


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
        assert key is not None
        keep = jax.random.bernoulli(key, 1 - self.rate, (x.shape[0],) + (1,) * (x.ndim - 1))
        return x * (keep / (1 - self.rate)).astype(x.dtype)


class Residual(nnx.Module):
    """Base of a backbone's residual blocks, which define `forward`.

    With `remat` the backward pass computes the block's insides again instead of keeping them:
    a third more work for a fraction of the memory, the same numbers.
    """

    forward: ClassVar[Callable[..., Array]]

    def __init__(self):
        self.remat = False

    def set_view(self, remat: bool | None = None) -> None:
        """Switches recomputation on or off, called by `nnx.view`."""
        if remat is not None:
            self.remat = remat

    def __call__(self, *inputs: Array | tuple | None) -> Array:
        forward = type(self).forward
        return nnx.remat(forward)(self, *inputs) if self.remat else forward(self, *inputs)


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
