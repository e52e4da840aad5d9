# SPDX-License-Identifier: Apache-2.0
"""Linear maps with batch normalisation and ReLU, one alone or several that share their input."""

import math

import jax
from flax import nnx
from jaxtyping import Array, Float

from mdhr_jax.models import layers, norms


class LinearBlock(nnx.Module):
    """Linear, batch normalisation, ReLU (release: LinearBlock)."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        init = jax.nn.initializers.normal(math.sqrt(2 / outputs))
        self.linear = layers.Linear(inputs, outputs, kernel_init=init, rngs=rngs)
        self.norm = norms.BatchNorm(outputs, relu=True)

    def fold(self) -> None:
        """Called by `views.folded_view`."""
        self.norm = self.norm.fold_into(self.linear)

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... d"]:
        return self.norm(self.linear(x))


class StackedLinearBlock(layers.StackedLinear):
    """`n` linear blocks: linear maps, each with batch norm and ReLU of its own."""

    def __init__(self, n: int, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        super().__init__(n, inputs, outputs, rngs=rngs)
        self.norm = norms.BatchNorm(n, outputs, relu=True)

    def fold(self) -> None:
        """Called by `views.folded_view`."""
        self.norm = self.norm.fold_into(self)

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... n d"]:
        return self.norm(super().__call__(x))
