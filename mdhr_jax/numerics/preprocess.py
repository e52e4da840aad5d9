# SPDX-License-Identifier: Apache-2.0
"""From uint8 pictures to network input: on the host with PIL (exact) and on the device (jnp only).

The release's transforms, with 256 and 224 pixels its sizes. Training: shorter side to 256, crop
224, mirror, brightness, contrast, saturation, normalise. Evaluation: shorter side to 224,
normalise (or, not in the release, the middle 224 of 256). Other image sizes keep the ratio 256:224.
Every stage before the last rounds to whole grey levels, and the device path repeats PIL's
arithmetic: both paths see the same grey levels.

An `augment` row is (offset_x, offset_y, flip, brightness, contrast, saturation, order): pixels,
pixels, 0 or 1, three factors (1 = unchanged), and in which of the `ORDERS` they are applied.
Offsets lie in 0..`resized(image_size) - image_size`.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Int, Num, UInt8
from PIL import Image, ImageEnhance

from mdhr_jax import errors

# ImageNet statistics of the pretrained backbones, per RGB channel, for pixels in [0, 1].
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)

COLOUR_JITTER = 0.4  # release: brightness, contrast and saturation change by up to 40 %

# Of brightness (0), contrast (1) and saturation (2); the first is the release's.
ORDERS = tuple(itertools.permutations(range(3)))

WEIGHT_BITS = 22  # PIL resizes 8-bit pictures with weights in units of 2**-22


def resized(image_size: int) -> int:
    """Size in pixels that training pictures have before the crop: 256 for 224."""
    return round(image_size * 256 / 224)


def crop_offsets(image_size: int, strength: float) -> range:
    """Where a training crop may begin, in x and in y, pixels.

    At strength 1 anywhere in the margin of `resized(image_size) - image_size` pixels, below it in
    that share of the margin around its middle.

    Raises:
      InputError: a strength outside 0..1.
    """
    if not 0 <= strength <= 1:
        raise errors.InputError(f"augmentation is {strength}: give a strength from 0 to 1")
    margin = resized(image_size) - image_size
    used = round(margin * strength)
    first = (margin - used) // 2
    return range(first, first + used + 1)


# On the host.


def host_train(
    image: UInt8[np.ndarray, "h w 3"], augment: Num[np.ndarray, "7"], image_size: int
) -> Float[np.ndarray, "s s 3"]:
    """Training transform of one picture, normalised float32 (release)."""
    offset_x, offset_y, flip, *factors, order = augment.tolist()
    left, top = int(offset_x), int(offset_y)
    picture = _resize_shorter_side(Image.fromarray(image), resized(image_size))
    picture = picture.crop((left, top, left + image_size, top + image_size))
    if flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _normalise(host_jitter(np.asarray(picture), factors, ORDERS[int(order)]))


def host_jitter(
    image: UInt8[np.ndarray, "h w 3"], factors: Sequence[float], order: Sequence[int]
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture with other brightness, contrast and saturation (release).

    Args:
      image: RGB.
      factors: of these three; 1 changes nothing.
      order: one of the `ORDERS`.
    """
    enhancers = ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color
    picture = Image.fromarray(image)
    for kind in order:
        picture = enhancers[kind](picture).enhance(factors[kind])
    return np.asarray(picture)


def host_eval(image: UInt8[np.ndarray, "h w 3"], image_size: int) -> Float[np.ndarray, "s s 3"]:
    """Evaluation transform of one square picture, normalised float32 (release).

    Raises:
      InputError: the picture is not square.
    """
    return _normalise(to_record_size(image, image_size))


def host_eval_centre(
    image: UInt8[np.ndarray, "h w 3"], image_size: int
) -> Float[np.ndarray, "s s 3"]:
    """Evaluation transform of the middle of one picture, normalised float32 (ME-GraphAU)."""
    picture = _resize_shorter_side(Image.fromarray(image), resized(image_size))
    left, top = (round((side - image_size) / 2) for side in picture.size)
    return _normalise(np.asarray(picture)[top : top + image_size, left : left + image_size])


def to_record_size(image: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "s s 3"]:
    """A square picture at `size` x `size` pixels, the form in which records keep frames.

    Raises:
      InputError: the picture is not square.
    """
    _require_square(*image.shape[:2])
    return np.asarray(_resize_shorter_side(Image.fromarray(image), size))


def _resize_shorter_side(picture: Image.Image, size: int) -> Image.Image:
    shorter = min(picture.size)
    shape = [int(size * side / shorter) for side in picture.size]
    return picture.resize(shape, Image.Resampling.BILINEAR)


def _require_square(height: int, width: int) -> None:
    if height != width:
        raise errors.InputError(
            f"picture is {width}x{height} pixels (width x height), expected a square: "
            "crop the face to a square first"
        )


# On the device.


def train(
    frames: UInt8[Array, "b t h h 3"],
    augment: Float[Array, "b 7"],
    *,
    image_size: int,
    any_order: bool = False,
) -> Float[Array, "b t s s 3"]:
    """Training transform of clips; all frames of a clip share its `augment` row.

    Args:
      frames: square ones.
      augment: how; without `any_order` colours change in the first of the `ORDERS`, whatever it
        says.
      image_size: of the result, pixels.
      any_order: every clip has the order that its row says (ME-GraphAU).

    Raises:
      InputError: the frames are not square.
    """
    crop = jax.vmap(lambda clip, row: _crop(clip, row[:3].astype(jnp.int32), image_size))
    frames = crop(_resize(frames, resized(image_size)), augment).astype(jnp.int32)
    colour = _jitter_in_any_order if any_order else _jitter
    return _network_input(colour(frames, augment))


def _jitter(frames: Int[Array, "b t h w 3"], augment: Float[Array, "b 7"]) -> Array:
    brightness, contrast, saturation = rearrange(augment[:, 3:6], "b factor -> factor b 1 1 1 1")
    frames = _blend(jnp.zeros_like(frames), frames, brightness)
    frames = _blend(_mean_grey(frames), frames, contrast)
    return _blend(rearrange(_grey(frames), "b t h w -> b t h w 1"), frames, saturation)


def _jitter_in_any_order(frames: Int[Array, "b t h w 3"], augment: Float[Array, "b 7"]) -> Array:
    orders = jnp.asarray(ORDERS)[augment[:, 6].astype(jnp.int32)]
    for place in range(3):
        kind = orders[:, place]
        factor = jnp.take_along_axis(augment[:, 3:6], kind[:, None], axis=1)
        grey = rearrange(_grey(frames), "b t h w -> b t h w 1")
        towards = [jnp.zeros_like(grey), _mean_grey(frames), grey]
        which = rearrange(kind, "b -> b 1 1 1 1")
        other = jnp.select([which == k for k in range(3)], towards)
        frames = _blend(other, frames, rearrange(factor, "b 1 -> b 1 1 1 1"))
    return frames


def evaluate(frames: UInt8[Array, "b t h h 3"], *, image_size: int) -> Float[Array, "b t s s 3"]:
    """Evaluation transform of clips, whole pictures (release).

    A face in them is smaller than in training, by 224:256.

    Raises:
      InputError: the frames are not square.
    """
    return _network_input(_resize(frames, image_size))


def evaluate_centre(
    frames: UInt8[Array, "b t h h 3"], *, image_size: int
) -> Float[Array, "b t s s 3"]:
    """Evaluation transform of clips, the middle of a training crop's range: faces keep their size.

    Raises:
      InputError: the frames are not square.
    """
    frames = _resize(frames, resized(image_size))
    first = (resized(image_size) - image_size) // 2
    middle = slice(first, first + image_size)
    return _network_input(frames[:, :, middle, middle])


# In which order colours change in training: `config.jitter_order`.
TRAINING: dict[str, Callable[..., Array]] = {
    "fixed": train,
    "random": functools.partial(train, any_order=True),
}

# How test pictures are cut: `config.evaluation_crop`. A portrait is a picture with more around the
# face (`align.TEMPLATES`), of which OpenGraphAU sees the centre.
EVALUATION = {"whole": evaluate, "centre": evaluate_centre, "portrait": evaluate_centre}


def _network_input(frames: Num[Array, "b t s s 3"]) -> Float[Array, "b t s s 3"]:
    """Normalised, and computed once.

    A first convolution reads a pixel many times, and XLA would repeat the transform in each.
    """
    return jax.lax.optimization_barrier(_normalise(frames))


def _resize(frames: UInt8[Array, "b t h w 3"], size: int) -> UInt8[Array, "b t s s 3"]:
    """PIL's antialiased bilinear resize: each row, rounded, then each column, rounded."""
    _require_square(*frames.shape[2:4])
    if size == frames.shape[3]:
        return frames
    index, weights = _resize_weights(frames.shape[3], size)
    frames = _weighted_pixels(frames, index, rearrange(weights, "k s -> k s 1"), axis=3)
    return _weighted_pixels(frames, index, rearrange(weights, "k s -> k s 1 1"), axis=2)


def _weighted_pixels(
    frames: UInt8[Array, "b t h w 3"], index: Int[np.ndarray, "k s"], weights: np.ndarray, axis: int
) -> UInt8[Array, "b t u v 3"]:
    """Sum of `k` weighted copies along an axis, rounded to whole grey levels.

    Whole numbers round exactly as in PIL; and as nearly all weights between two picture sizes are
    zero, a few copies cost a tenth of a matrix product.
    """
    frames = frames.astype(jnp.int32)
    taps = zip(index, weights, strict=True)
    total = sum(jnp.take(frames, i, axis, mode="clip") * weight for i, weight in taps)
    return ((total + (1 << WEIGHT_BITS - 1)) >> WEIGHT_BITS).astype(jnp.uint8)


def _resize_weights(
    before: int, after: int
) -> tuple[Int[np.ndarray, "k s"], Int[np.ndarray, "k s"]]:
    """Which `k` pixels each of `s` new ones is made of, and their weights in units of 2**-22."""
    scale = before / after
    centres = (np.arange(after) + 0.5) * scale
    distances = np.arange(before) - centres[:, None] + 0.5
    triangle = np.maximum(1 - np.abs(distances / max(scale, 1)), 0)
    triangle /= triangle.sum(axis=1, keepdims=True)
    k = np.count_nonzero(triangle, axis=1).max()
    first = np.minimum((triangle > 0).argmax(axis=1), before - k)
    index = first[:, None] + np.arange(k)
    weights = np.floor(np.take_along_axis(triangle, index, axis=1) * 2**WEIGHT_BITS + 0.5)
    return rearrange(index, "s k -> k s"), rearrange(weights.astype(np.int32), "s k -> k s")


def _crop(
    clip: UInt8[Array, "t h w 3"], draw: Int[Array, "3"], image_size: int
) -> UInt8[Array, "t s s 3"]:
    offset_x, offset_y, flip = draw
    size = (len(clip), image_size, image_size, 3)
    clip = jax.lax.dynamic_slice(clip, (0, offset_y, offset_x, 0), size)
    return jnp.where(flip, clip[:, :, ::-1], clip)


def _blend(
    start: Int[Array, "..."], end: Int[Array, "b t h w 3"], factor: Float[Array, "b 1 1 1 1"]
) -> Int[Array, "b t h w 3"]:
    """PIL's blend, `start + factor * (end - start)` cut to whole grey levels in 0..255.

    PIL rounds the product before the sum. Compilers like to fuse the two into one rounding, and a
    sum just below a whole number then loses a grey level. The factor in two short halves, whose
    products need no rounding, gives PIL's rounded product either way.
    """
    difference = (end - start).astype(jnp.float32)
    coarse = jnp.floor(factor * 4096) / 4096
    product = coarse * difference + (factor - coarse) * difference
    return jnp.clip(start + product, 0, 255).astype(jnp.int32)


def _grey(frames: Int[Array, "b t h w 3"]) -> Int[Array, "b t h w"]:
    """PIL's conversion to mode L."""
    red, green, blue = (frames[..., channel] for channel in range(3))
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


def _mean_grey(frames: Int[Array, "b t h w 3"]) -> Int[Array, "b t 1 1 1"]:
    """Mean grey level of each frame, rounded."""
    grey = _grey(frames)
    pixels = grey.shape[2] * grey.shape[3]
    total = rearrange(grey.sum(axis=(2, 3)), "b t -> b t 1 1 1")
    return (2 * total + pixels) // (2 * pixels)


def _normalise(
    pixels: Num[Array | np.ndarray, "*batch 3"],
) -> Float[Any, "*batch 3"]:
    return (pixels.astype(np.float32) / 255 - MEAN) / STD


def denormalise(images: Float[np.ndarray, "*batch 3"]) -> UInt8[np.ndarray, "*batch 3"]:
    """The pictures that were normalised."""
    return np.rint((images * STD + MEAN) * 255).astype(np.uint8)
