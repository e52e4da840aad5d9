# SPDX-License-Identifier: Apache-2.0
"""The least time that a program can take on a device.

Counted are its matrix products and convolutions as JAX traces them, gradients included: each
computes at the device's rate, or reads its operands and writes its result once at the rate of its
memory, whichever takes longer. All other work is taken to be fused into them, but for the
optimizer, which passes over every parameter.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from mdhr_jax.bench import timing

# AdamW reads weight, gradient and two moments and writes all but the gradient, in float32.
ADAMW_BYTES = 28
_SECONDS = 0.2  # of a window: many products, and every measurement begins with them


class Product(NamedTuple):
    """Arithmetic operations and bytes of one matrix product or convolution, how often it runs."""

    flops: int
    bytes: int
    times: int = 1


class Machine(NamedTuple):
    """What one device reaches, measured: operations and bytes per second."""

    flops: float
    bandwidth: float


def machine(dtype: jnp.dtype) -> Machine:
    """Times a large product of `dtype` matrices and a large copy on the first device."""
    large = jax.default_backend() == "gpu"
    side, count = (8192, 2**28) if large else (2048, 2**25)
    # Of ones a GPU makes products faster than of anything else: fewer bits flip.
    square = jax.random.normal(jax.random.key(0), (side, side), dtype)
    multiply = jax.jit(jnp.matmul)
    product = timing.measure(lambda: multiply(square, square), seconds=_SECONDS).median
    line = jnp.ones(count, jnp.float32)
    add = jax.jit(lambda x: x + 1)
    copy = timing.measure(lambda: add(line), seconds=_SECONDS).median
    return Machine(2 * side**3 / product, 2 * line.nbytes / copy)


def products(program: jax.stages.Wrapped, *arguments: Any) -> list[Product]:
    """The products of a jitted function of arrays or their shapes."""
    return list(_products(program.trace(*arguments).jaxpr.jaxpr, 1))


def floor(work: list[Product], device: Machine, parameters: int = 0) -> float:
    """Seconds that the products take at least, and the optimizer's pass over so many parameters."""
    each = (max(p.flops / device.flops, p.bytes / device.bandwidth) * p.times for p in work)
    return sum(each) + parameters * ADAMW_BYTES / device.bandwidth


def _products(jaxpr: core.Jaxpr, times: int) -> Iterator[Product]:
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name in _FLOPS:
            operands: list[Any] = [x.aval for x in (*equation.invars, *equation.outvars)]
            size = sum(x.size * x.dtype.itemsize for x in operands)
            yield Product(_FLOPS[name](*operands, parameters), size, times)
        again = times * parameters.get("length", 1)  # of a scan
        for inner in _jaxprs(tuple(parameters.values())):
            yield from _products(inner, again)


def _jaxprs(value: Any) -> Iterator[core.Jaxpr]:
    if isinstance(value, core.ClosedJaxpr):
        yield value.jaxpr
    elif isinstance(value, core.Jaxpr):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _jaxprs(each)


def _matrix_flops(left: Any, right: Any, out: Any, parameters: dict) -> int:
    (contracted, _), _ = parameters["dimension_numbers"]
    return 2 * out.size * math.prod(left.shape[axis] for axis in contracted)


def _convolution_flops(left: Any, right: Any, out: Any, parameters: dict) -> int:
    features = right.shape[parameters["dimension_numbers"].rhs_spec[0]]
    # A stride's gradient is a convolution of an input spread out with zeros.
    spread = math.prod(parameters["lhs_dilation"])
    return 2 * out.size * (right.size // features) // spread


_FLOPS: dict[str, Callable[..., int]] = {
    "dot_general": _matrix_flops,
    "conv_general_dilated": _convolution_flops,
}
