# SPDX-License-Identifier: Apache-2.0
"""One graph-attention layer over AU nodes (paper Eq. 9; release: one head, no dropout)."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from mdhr_jax.models import layers


class GraphAttention(layers.Layer):
    """Each node attends to the senders that the adjacency allows; residual, bias, ELU."""

    negative_slope = 0.2

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        super().__init__()
        # Xavier with PyTorch's fans: the score vectors count as (1, 1, features) there.
        xavier = layers.uniform(math.sqrt(6 / (2 * features)))
        self.linear = layers.Linear(features, features, bias=False, kernel_init=xavier, rngs=rngs)
        self.source = nnx.Param(xavier(rngs.params(), (features,)))
        self.target = nnx.Param(xavier(rngs.params(), (features,)))
        self.bias = nnx.Param(jnp.zeros(features))

    def __call__(
        self, nodes: Float[Array, "b t n d"], adjacency: Int[Array, "b t n n"]
    ) -> tuple[Float[Array, "b t n d"], Float[Array, "b t n n"]]:
        """Returns new nodes and attention; rows of both matrices receive, columns send."""
        hidden = self.linear(nodes)
        wide = hidden.astype(self.source[...].dtype)
        receive = (wide * self.source[...]).sum(-1)
        send = (wide * self.target[...]).sum(-1)
        logits = jax.nn.leaky_relu(receive[..., :, None] + send[..., None, :], self.negative_slope)
        attention = jax.nn.softmax(jnp.where(adjacency > 0, logits, -jnp.inf))
        weights = attention.astype(hidden.dtype)
        mixed = jnp.einsum("btnm,btmd->btnd", weights, hidden, precision=self.precision)
        return jax.nn.elu(mixed + nodes + self.bias[...].astype(self.dtype)), attention
