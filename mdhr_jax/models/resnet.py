# SPDX-License-Identifier: Apache-2.0
"""ResNet backbone: four stages of residual blocks, stride on the (first) 3x3 convolution.

With width 64 these are torchvision's without pooling and classifier: bottleneck blocks and depths
(3, 4, 6, 3) are ResNet-50, basic ones and (2, 2, 2, 2) ResNet-18; narrower ones are the same class.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from mdhr_jax.models import layers, norms

FAN_OUT = jax.nn.initializers.variance_scaling(2, "fan_out", "normal")


_PLACES = tuple(itertools.product(range(3), repeat=2))  # in a window


@jax.custom_vjp
def max_pool(x: Float[Array, "m H W c"]) -> Float[Array, "m h w c"]:
    """Maxima of 3x3 windows at stride 2, padded; the gradient goes to the first one, as in torch.

    JAX's own gradient (select-and-scatter) is slower and has no deterministic form on GPUs.
    """
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, -float("inf"), lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)


def _max_pool_forward(x: Array) -> tuple[Array, tuple[Array, tuple[int, ...]]]:
    """The maxima, and where in its window each of them is met first.

    Looking for the maximum among the inputs later would not do: XLA may compute these anew and
    round them otherwise.
    """
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    rows, columns = ((size - 3) // 2 * 2 + 1 for size in padded.shape[1:3])
    windows = (padded[:, i : i + rows : 2, j : j + columns : 2] for i, j in _PLACES)
    best = next(windows)
    place = jnp.zeros(best.shape, jnp.int8)
    for number, seen in enumerate(windows, start=1):
        place = jnp.where(seen > best, jnp.int8(number), place)
        best = jnp.maximum(seen, best)
    return best, (place, padded.shape)


def _max_pool_backward(saved: tuple[Array, tuple[int, ...]], gradient: Array) -> tuple[Array]:
    """Pixels of even and odd rows and columns apart: each kind has its places in the windows."""
    place, (_, height, width, _) = saved

    def met(i: int, j: int) -> Array:
        """What pixels get from the window that meets them at row i, column j."""
        own = jnp.where(place == 3 * i + j, gradient, 0)
        return jnp.pad(own, ((0, 0), (i // 2, 1 - i // 2), (j // 2, 1 - j // 2), (0, 0)))

    # Of the windows over a pixel the first one sees it last: added in the order of the windows.
    kinds = [
        sum(met(i, j) for i in rows for j in columns)
        for rows, columns in itertools.product(((2, 0), (1,)), repeat=2)
    ]
    pixels = rearrange(jnp.stack(kinds), "(p q) m h w c -> m (h p) (w q) c", p=2)
    return (pixels[:, 1 : height - 1, 1 : width - 1],)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


class Stem(nnx.Module):
    """7x7 convolution of stride 2, batch normalisation, ReLU, 3x3 max-pooling of stride 2."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.conv = layers.Conv(7, 3, width, stride=2, rngs=rngs)
        self.norm = norms.BatchNorm(width, relu=True)

    def fold(self) -> None:
        """Called by `views.folded_view`."""
        self.norm = self.norm.fold_into(self.conv)

    def __call__(self, frames: Float[Array, "m H W 3"]) -> Float[Array, "m h w c"]:
        return max_pool(self.norm(self.conv(frames)))


class Shortcut(nnx.Module):
    """1x1 convolution (as a product) with stride, and batch normalisation."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, rngs: nnx.Rngs):
        self.stride = stride
        self.linear = layers.Linear(inputs, outputs, bias=False, kernel_init=FAN_OUT, rngs=rngs)
        self.norm = norms.BatchNorm(outputs)

    def fold(self) -> None:
        """Called by `views.folded_view`."""
        self.norm = self.norm.fold_into(self.linear)

    def __call__(self, x: Float[Array, "m H W c"]) -> Float[Array, "m h w d"]:
        return self.norm(self.linear(x[:, :: self.stride, :: self.stride]))


def _shortcut(inputs: int, outputs: int, *, stride: int, rngs: nnx.Rngs) -> nnx.Module:
    """What leads around a block: nothing but the input where that has the output's shape."""
    if stride == 1 and inputs == outputs:
        return layers.Identity()
    return Shortcut(inputs, outputs, stride=stride, rngs=rngs)


class Basic(layers.Residual):
    """Two 3x3 convolutions, the first with stride, around a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, *, stride: int, rngs: nnx.Rngs):
        super().__init__()
        self.first = layers.Conv(3, inputs, width, stride=stride, rngs=rngs)
        self.first_norm = norms.BatchNorm(width, relu=True)
        self.second = layers.Conv(3, width, width, stride=1, rngs=rngs)
        self.second_norm = norms.BatchNorm(width)
        self.shortcut = _shortcut(inputs, width, stride=stride, rngs=rngs)

    def fold(self) -> None:
        """Called by `views.folded_view`."""
        self.first_norm = self.first_norm.fold_into(self.first)
        self.second_norm = self.second_norm.fold_into(self.second)

    def forward(self, x: Float[Array, "m H W c"]) -> Float[Array, "m h w d"]:
        """The block's output."""
        y = self.first_norm(self.first(x))
        y = self.second_norm(self.second(y))
        return jax.nn.relu(y + self.shortcut(x))


class Bottleneck(layers.Residual):
    """1x1, 3x3 (with stride) and 1x1 convolution around a shortcut; the width grows by 4."""

    expansion = 4

    def __init__(self, inputs: int, width: int, *, stride: int, rngs: nnx.Rngs):
        super().__init__()
        outputs = width * self.expansion
        product: dict[str, Any] = {"bias": False, "kernel_init": FAN_OUT, "rngs": rngs}
        self.reduce = layers.Linear(inputs, width, **product)
        self.reduce_norm = norms.BatchNorm(width, relu=True)
        self.conv = layers.Conv(3, width, width, stride=stride, rngs=rngs)
        self.conv_norm = norms.BatchNorm(width, relu=True)
        self.expand = layers.Linear(width, outputs, **product)
        self.expand_norm = norms.BatchNorm(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride=stride, rngs=rngs)

    def fold(self) -> None:
        """Called by `views.folded_view`."""
        self.reduce_norm = self.reduce_norm.fold_into(self.reduce)
        self.conv_norm = self.conv_norm.fold_into(self.conv)
        self.expand_norm = self.expand_norm.fold_into(self.expand)

    def forward(self, x: Float[Array, "m H W c"]) -> Float[Array, "m h w d"]:
        """The block's output."""
        y = self.reduce_norm(self.reduce(x))
        y = self.conv_norm(self.conv(y))
        y = self.expand_norm(self.expand(y))
        return jax.nn.relu(y + self.shortcut(x))


class ResNet(nnx.Module):
    """Frames to the outputs of the four stages.

    Attributes:
      channels: widths of the four maps, at strides 4, 8, 16 and 32.
      features: width of the last map, which is also the token map of the static branch.
      image_multiple: image sizes must be multiples of this.
    """

    image_multiple = 32

    def __init__(
        self,
        *,
        block: type[Basic] | type[Bottleneck] = Bottleneck,
        depths: tuple[int, ...],
        width: int,
        rngs: nnx.Rngs,
    ):
        self.stem = Stem(width, rngs=rngs)
        self.stages: nnx.List[nnx.List[Basic | Bottleneck]] = nnx.List()
        inputs = width
        for stage, depth in enumerate(depths):
            blocks: nnx.List[Basic | Bottleneck] = nnx.List()
            for number in range(depth):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(block(inputs, width * 2**stage, stride=stride, rngs=rngs))
                inputs = width * 2**stage * block.expansion
            self.stages.append(blocks)
        self.channels = tuple(width * block.expansion * 2**stage for stage in range(4))
        self.features = self.channels[-1]

    def __call__(
        self, frames: Float[Array, "b t H W 3"], key: jax.Array | None = None
    ) -> tuple[Float[Array, "b t h w c"], list[Float[Array, "b t ..."]]]:
        """Returns the token map and the four maps of every frame."""
        del key  # nothing is random here
        clips = frames.shape[0]
        x = self.stem(rearrange(frames, "b t h w c -> (b t) h w c"))
        maps = []
        for blocks in self.stages:
            for block in blocks:
                x = block(x)
            maps.append(rearrange(x, "(b t) h w c -> b t h w c", b=clips))
        return maps[-1], maps
