# SPDX-License-Identifier: Apache-2.0
"""Videos of rendered people that show given AU labels."""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from mdhr_jax import errors, facs
from mdhr_jax.synth import face, people, seeds
from mdhr_jax.synth import labels as label_process

# Frames rendered at once; always this many, so that a size is compiled once.
BATCH = 8


def render_video(
    layout: facs.AuLayout,
    labels: Int[np.ndarray, "t n"],
    *,
    seed: int,
    subject: str,
    video: str,
    size: int = 256,
    frames: Iterable[int] | Int[np.ndarray, " f"] | None = None,
) -> UInt8[np.ndarray, "f h w c"]:
    """Frames of a subject whose face shows the labels.

    A frame depends on seed, subject, video and its own number, and on the labels through
    `labels.intensities` only: rendered alone it has the same bytes as within the video.

    Args:
      layout: the AUs of the labels' columns.
      labels: `(t, n)` of 1, 0 and -1 (unknown, rendered as 0).
      seed: picks the population.
      subject: name of the person, who looks the same in all videos.
      video: name of the recording: light, head motion and blinks.
      size: height and width in pixels.
      frames: which frames to render; all by default.

    Returns:
      `(number of frames, size, size, 3)` RGB.

    Raises:
      InputError: labels do not fit the layout, or a frame lies outside the labels.
    """
    intensities = label_process.intensities(layout, labels, seed=seed, subject=subject, video=video)
    return render_intensities(
        intensities, seed=seed, subject=subject, video=video, size=size, frames=frames
    )


def render_intensities(
    intensities: Float[np.ndarray, "t a"],
    *,
    seed: int,
    subject: str,
    video: str,
    size: int = 256,
    frames: Iterable[int] | Int[np.ndarray, " f"] | None = None,
) -> UInt8[np.ndarray, "f h w c"]:
    """As `render_video`, from intensities `(t, 15)` in 0..1 in the order of `facs.AU_NAMES`.

    Raises:
      InputError: a frame lies outside the intensities.
    """
    numbers = np.arange(len(intensities)) if frames is None else np.array(list(frames), int)
    outside = numbers[(numbers < 0) | (numbers >= len(intensities))]
    if outside.size:
        raise errors.InputError(
            f"subject {subject!r}, video {video!r}: there is no frame {outside[0]}, "
            f"ask for frames 0 to {len(intensities) - 1}"
        )
    identity = people.sample_identity(seed, subject)
    pose, light = _surroundings(seed, subject, video, numbers)
    key = jax.random.key(seeds.generator(seed, subject, video, "noise").integers(2**31))
    moving = (np.float32(intensities)[numbers], pose, light, numbers)
    pictures = np.empty((len(numbers), size, size, 3), np.uint8)
    for start in range(0, len(numbers), BATCH):
        # The last batch repeats its last frame to keep the shape.
        chosen = np.minimum(np.arange(start, start + BATCH), len(numbers) - 1)
        batch = jax.tree.map(lambda values, chosen=chosen: values[chosen], moving)
        rendered = np.asarray(_render_batch(identity, *batch, key, size))
        pictures[start : start + BATCH] = rendered[: len(numbers) - start]
    return pictures


@functools.partial(jax.jit, static_argnames="size")
def _render_batch(
    identity: people.Identity,
    intensities: Float[Array, "f a"],
    pose: face.Pose,
    light: face.Light,
    numbers: Int[Array, " f"],
    key: Array,
    size: int,
) -> UInt8[Array, "f h w c"]:
    def frame(moving: tuple) -> UInt8[Array, "h w c"]:
        aus, frame_pose, frame_light, number = moving
        scene = face.FaceParameters(identity, aus, frame_pose, frame_light)
        grain = _grain(jax.random.fold_in(key, number), size)
        levels = face.render(scene, size) * 255 + grain
        return jnp.round(jnp.clip(levels, 0, 255)).astype(jnp.uint8)

    # One frame after the other: a frame's bytes cannot depend on its place in the batch.
    return jax.lax.map(frame, (intensities, pose, light, numbers))


def _grain(key: Array, size: int) -> Float[Array, "h w c"]:
    """Sensor noise with a standard deviation of 1.5 grey levels, from one word per pixel."""
    words = jax.random.bits(key, (size, size, 1))
    channels = (words >> jnp.array([0, 8, 16], jnp.uint32)) & 0xFF
    return (channels.astype(jnp.float32) / 255 - 0.5) * (1.5 * 12**0.5)


def _surroundings(
    seed: int, subject: str, video: str, numbers: Int[np.ndarray, " f"]
) -> tuple[face.Pose, face.Light]:
    """Pose and light in these frames, every leaf with a leading frame axis."""
    rng = seeds.generator(seed, subject, video, "scene")
    pose = face.Pose(
        shift_x=_motion(rng, numbers, 0.006),
        shift_y=_motion(rng, numbers, 0.006),
        scale=1 + _motion(rng, numbers, 0.012),
        roll=_motion(rng, numbers, 0.015),
        yaw=_motion(rng, numbers, 0.12),
        pitch=_motion(rng, numbers, 0.07),
        gaze_x=_motion(rng, numbers, 0.5),
        gaze_y=_motion(rng, numbers, 0.4),
        blink=_blinks(rng, numbers),
    )
    warmth = rng.uniform(-0.05, 0.05)
    colour = (1 + warmth, 1, 1 - warmth)
    background = rng.uniform(0.25, 0.75) + rng.uniform(-0.06, 0.06, size=3)
    light = face.Light(
        direction=rng.uniform(-0.6, 0.6) + _motion(rng, numbers, 0.06),
        height=rng.uniform(0.25, 0.6) + _motion(rng, numbers, 0.03),
        ambient=rng.uniform(0.45, 0.65) + _motion(rng, numbers, 0.01),
        tint=np.outer(rng.uniform(0.92, 1.05) + _motion(rng, numbers, 0.015), colour),
        background=np.tile(background, (len(numbers), 1)),
    )
    return jax.tree.map(np.float32, (pose, light))


def _motion(
    rng: np.random.Generator, numbers: Int[np.ndarray, " f"], amplitude: float
) -> Float[np.ndarray, " f"]:
    """Slow drift of about this standard deviation, a function of the frame number alone."""
    periods = rng.uniform(60, 400, size=(4, 1))
    phases = rng.uniform(0, 2 * np.pi, size=(4, 1))
    waves = np.sin(2 * np.pi * numbers / periods + phases)
    return amplitude * waves.sum(axis=0) / 2**0.5


def _blinks(rng: np.random.Generator, numbers: Int[np.ndarray, " f"]) -> Float[np.ndarray, " f"]:
    """Closure of the lids: one blink of about seven frames in 2-6 seconds, none at frame 0."""
    period = rng.integers(50, 150)
    middle = rng.integers(5, period - 5)
    half = rng.uniform(3.0, 4.5)
    distance = np.abs(numbers % period - middle)
    return np.clip(1.4 * (1 - distance / half), 0, 1)
