# SPDX-License-Identifier: Apache-2.0
"""Swin Transformer backbone, windows of 7x7 (Swin-B: width 128, depths 2/2/18/2)."""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from mdhr_jax.models import layers, norms

WINDOW = 7
SHIFT = 3
MASKED = -100.0  # the authors' value; not minus infinity

TRUNCATED = jax.nn.initializers.truncated_normal(0.02)
ZEROS = jax.nn.initializers.zeros


@functools.cache
def relative_position_index() -> np.ndarray:
    """`(49, 49)` row of the bias table for query i and key j: (yi-yj+6)*13 + (xi-xj+6)."""
    y, x = np.divmod(np.arange(WINDOW**2), WINDOW)
    dy, dx = y[:, None] - y[None, :], x[:, None] - x[None, :]
    index = (dy + WINDOW - 1) * (2 * WINDOW - 1) + dx + WINDOW - 1
    return index.astype(np.int32)


def relative_position_bias(table: Float[Array, "169 e"]) -> Float[Array, "e 49 49"]:
    """Rows `relative_position_index` of the bias table, for every head.

    As products with zeros and ones, which are exact: the gradient of indexing would be a scatter
    that adds up, whose order on a GPU is open.
    """
    square = rearrange(table, "(a b) e -> a b e", a=2 * WINDOW - 1)
    # [i, j, a]: 1 where rows (or columns) i and j of a window lie i - j = a - 6 apart.
    apart = np.subtract.outer(np.arange(WINDOW), np.arange(WINDOW)) + WINDOW - 1
    is_apart = np.eye(2 * WINDOW - 1, dtype=np.float32)[apart]
    exact = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    columns = exact("x u b, a b e -> x u a e", is_apart, square)
    both = exact("y v a, x u a e -> e y x v u", is_apart, columns)
    return rearrange(both, "e y x v u -> e (y x) (v u)")


@functools.cache
def shift_mask(size: int) -> np.ndarray:
    """`(windows, 49, 49)` -100 between tokens of a rolled window that are not neighbours.

    Each axis of the rolled map is cut at `size - 7` and `size - 3`; tokens of different cells of
    that division come from opposite borders of the picture.
    """
    cell = np.searchsorted([size - WINDOW, size - SHIFT], np.arange(size), side="right")
    cells = 3 * cell[:, None] + cell[None, :]
    window = rearrange(cells, "(h p) (w q) -> (h w) (p q)", p=WINDOW, q=WINDOW)
    return np.where(window[:, :, None] != window[:, None, :], MASKED, 0.0).astype(np.float32)


@jax.custom_vjp
def attention_weights(
    logits: Float[Array, "m win e i j"], position: Float[Array, "bias_win e i j"]
) -> Float[Array, "m win e i j"]:
    """Softmax over j of `logits + position`, in float32 at least, rounded to the logits' type.

    Only the weights are kept for the backward pass, and what it hands on is as narrow as they are:
    of the largest arrays of the network, XLA would write and read float32 copies on a GPU.

    Args:
      logits: of every window and head.
      position: the same for all windows (`bias_win` 1), or one for each.
    """
    return _attention_weights_forward(logits, position)[0]


def _attention_weights_forward(logits: Array, position: Array) -> tuple[Array, tuple[Array, Array]]:
    # Without the barrier the sum with `position` is written out.
    logits, position = lax.optimization_barrier((logits, position))
    wide = logits.astype(position.dtype) + position
    weights = jax.nn.softmax(wide).astype(logits.dtype)
    return weights, (weights, position)


def _attention_weights_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    weights, position = saved
    wide, gradient = weights.astype(position.dtype), gradient.astype(position.dtype)
    of_logits = wide * (gradient - (wide * gradient).sum(-1, keepdims=True))
    narrow = lax.optimization_barrier(of_logits.astype(weights.dtype))
    of_position = narrow.astype(position.dtype).sum(0)
    if len(position) == 1:
        of_position = of_position.sum(0, keepdims=True)
    return narrow, of_position


attention_weights.defvjp(_attention_weights_forward, _attention_weights_backward)


class WindowAttention(layers.Layer):
    """Multi-head attention inside windows of 7x7 tokens with a learned relative position bias."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        super().__init__()
        init: dict[str, Any] = {"kernel_init": TRUNCATED, "bias_init": ZEROS, "rngs": rngs}
        self.heads = heads
        self.qkv = layers.Linear(width, 3 * width, **init)
        self.projection = layers.Linear(width, width, **init)
        table = ((2 * WINDOW - 1) ** 2, heads)
        self.position_bias = nnx.Param(TRUNCATED(rngs.params(), table))

    def __call__(
        self, x: Float[Array, "m win tok c"], mask: Float[np.ndarray, "win tok tok"] | None
    ) -> Float[Array, "m win tok c"]:
        # Split first: one transposition of all three would come back, slowly, in the gradient.
        parts = jnp.split(self.qkv(x), 3, -1)
        q, k, v = (rearrange(part, "m w i (e f) -> m w e i f", e=self.heads) for part in parts)
        q = q * (q.shape[-1] ** -0.5)
        logits = jnp.einsum("mweif,mwejf->mweij", q, k, precision=self.precision)
        position = rearrange(relative_position_bias(self.position_bias[...]), "e i j -> 1 e i j")
        if mask is not None:
            position = position + rearrange(mask, "w i j -> w 1 i j")
        weights = attention_weights(logits, position)
        mixed = jnp.einsum("mweij,mwejf->mweif", weights, v, precision=self.precision)
        return self.projection(rearrange(mixed, "m w e i f -> m w i (e f)"))


class Block(layers.Residual):
    """Window attention and a two-layer perceptron, each after a LayerNorm, each a residual."""

    def __init__(self, width: int, heads: int, *, shifted: bool, drop_rate: float, rngs: nnx.Rngs):
        super().__init__()
        init: dict[str, Any] = {"kernel_init": TRUNCATED, "bias_init": ZEROS, "rngs": rngs}
        self.shifted = shifted
        self.attention_norm = norms.LayerNorm(width)
        self.attention = WindowAttention(width, heads, rngs=rngs)
        self.mlp_norm = norms.LayerNorm(width)
        self.mlp_in = layers.Linear(width, 4 * width, **init)
        self.mlp_out = layers.Linear(4 * width, width, **init)
        self.drop_path = layers.DropPath(drop_rate)

    def forward(
        self, x: Float[Array, "m h w c"], keys: tuple[jax.Array | None, jax.Array | None]
    ) -> Float[Array, "m h w c"]:
        """The block's output; `keys` drive the drop-path of its two branches."""
        x = x + self.drop_path(self._attend(x), keys[0])
        hidden = layers.gelu(self.mlp_in(self.mlp_norm(x)))
        return x + self.drop_path(self.mlp_out(hidden), keys[1])

    def _attend(self, x: Float[Array, "m h w c"]) -> Float[Array, "m h w c"]:
        height = x.shape[1]
        shift = SHIFT if self.shifted and height > WINDOW else 0
        if shift:  # the barrier: LayerNorm and its gradient are not made for each of the pieces
            x = lax.optimization_barrier(jnp.roll(x, (-shift, -shift), (1, 2)))
        windows = rearrange(x, "m (h p) (w q) c -> m (h w) (p q) c", p=WINDOW, q=WINDOW)
        mask = shift_mask(height) if shift else None
        windows = self.attention(self.attention_norm(windows), mask)
        x = rearrange(windows, "m (h w) (p q) c -> m (h p) (w q) c", p=WINDOW, h=height // WINDOW)
        return jnp.roll(x, (shift, shift), (1, 2))


class PatchMerge(nnx.Module):
    """Halves the map: four neighbours concatenated (columns outermost), LayerNorm, 4C -> 2C."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.norm = norms.LayerNorm(4 * width)
        self.reduction = layers.Linear(
            4 * width, 2 * width, bias=False, kernel_init=TRUNCATED, rngs=rngs
        )

    def __call__(self, x: Float[Array, "m H W c"]) -> Float[Array, "m h w d"]:
        neighbours = rearrange(x, "m (h p) (w q) c -> m h w (q p c)", p=2, q=2)
        return self.reduction(self.norm(neighbours))


class Swin(nnx.Module):
    """Frames to token maps; the four maps are the *inputs* of the stages, as in the release.

    With `stage_outputs` they are the outputs of three stages and the token map (paper). Attributes
    as of `resnet.ResNet`; image sizes must be multiples of 224, so that every map divides into
    windows of 7x7.
    """

    image_multiple = 224

    def __init__(
        self,
        *,
        width: int,
        depths: tuple[int, ...],
        heads: tuple[int, ...],
        drop_path: float,
        stage_outputs: bool = False,
        rngs: nnx.Rngs,
    ):
        self.stage_outputs = stage_outputs
        self.patches = layers.PatchLinear(4, 3, width, rngs=rngs)
        self.patch_norm = norms.LayerNorm(width)
        self.channels = tuple(width * 2**stage for stage in range(4))
        self.features = self.channels[-1]
        rates = iter(np.linspace(0, drop_path, sum(depths)).tolist())
        self.stages = nnx.List(
            nnx.List(
                Block(channels, n, shifted=block % 2 == 1, drop_rate=next(rates), rngs=rngs)
                for block in range(depth)
            )
            for channels, depth, n in zip(self.channels, depths, heads, strict=True)
        )
        self.merges = nnx.List(PatchMerge(c, rngs=rngs) for c in self.channels[:-1])
        self.norm = norms.LayerNorm(self.features)

    def __call__(
        self, frames: Float[Array, "b t H W 3"], key: jax.Array | None = None
    ) -> tuple[Float[Array, "b t h w c"], list[Float[Array, "b t ..."]]]:
        """Returns the token map and the four maps of every frame; `key` drives drop-path."""
        clips = frames.shape[0]
        x = self.patch_norm(self.patches(rearrange(frames, "b t h w c -> (b t) h w c")))
        keys = self._drop_keys(key)
        inputs, outputs = [], []
        for stage, blocks in enumerate(self.stages):
            inputs.append(x)
            for block in blocks:
                x = block(x, next(keys))
            outputs.append(x)
            if stage < len(self.merges):
                x = self.merges[stage](x)
        tokens = self.norm(x)
        maps = [*outputs[:-1], tokens] if self.stage_outputs else inputs
        tokens, *maps = [rearrange(x, "(b t) h w c -> b t h w c", b=clips) for x in (tokens, *maps)]
        return tokens, maps

    def _drop_keys(self, key: jax.Array | None) -> Iterator[tuple[jax.Array | None, ...]]:
        """Two keys for every block, one for each of its branches."""
        blocks = sum(len(blocks) for blocks in self.stages)
        if key is None:
            return itertools.repeat((None, None), blocks)
        # All at once: on a GPU each drawn by itself would be two kernels.
        draw = jax.vmap(lambda block: jax.random.split(jax.random.fold_in(key, block)))
        return map(tuple, draw(jnp.arange(blocks)))
