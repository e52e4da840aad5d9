# SPDX-License-Identifier: Apache-2.0
"""Videos of rendered people that show given AU labels."""

import functools
import os
from collections.abc import Iterable
from concurrent import futures
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Float32, Int, UInt8

from mdhr_jax import errors, facs
from mdhr_jax.synth import camera as camera_model
from mdhr_jax.synth import face, people, scene, seeds
from mdhr_jax.synth import labels as label_process
from mdhr_jax.synth.tissue import Pose

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
      video: name of the recording: course of the AUs, speech, head motion, blinks, light, camera.
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
    """As `render_video`, from intensities `(t, 15)` in 0..1 in the order of `people.AUS`.

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
    person, portrait = _sitter(seed, subject, size)
    recording = seed, subject, video
    camera = scene.camera(*recording, size)
    key = jax.random.key(seeds.generator(*recording, "noise").integers(2**31))
    closed = numbers + camera.shutter / 2
    moments = _Moments(
        number=numbers.astype(np.int32),
        aus=intensities.astype(np.float32)[numbers],
        pose=scene.pose(*recording, numbers),
        closing_aus=_at(intensities, closed),
        closing_pose=scene.pose(*recording, closed),
        light=scene.light(*recording, numbers),
    )
    pictures = np.empty((len(numbers), size, size, 3), np.uint8)

    def render_from(start: int) -> None:
        # The last batch repeats its last frame to keep the shape.
        chosen = np.minimum(np.arange(start, start + BATCH), len(numbers) - 1)
        batch = jax.tree.map(lambda values: values[chosen], moments)
        rendered = np.asarray(_render_batch(portrait, person, batch, camera, key))
        pictures[start : start + BATCH] = rendered[: len(numbers) - start]

    # A compiled renderer keeps one core busy.
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(render_from, range(0, len(numbers), BATCH)))
    return pictures


class _Moments(NamedTuple):
    """What differs between frames; leaves with a leading frame axis."""

    number: Int[Any, " f"]
    aus: Float[Any, "f a"]
    pose: Pose
    closing_aus: Float[Any, "f a"]  # when the shutter closes
    closing_pose: Pose
    light: face.Light


@functools.lru_cache(maxsize=4)
def _sitter(seed: int, subject: str, size: int) -> tuple[people.Identity, face.Portrait]:
    person = people.sample_identity(seed, subject)
    return person, _paint_portrait(person, size)


_paint_portrait = jax.jit(face.paint_portrait, static_argnames="size")


def _at(
    intensities: Float[np.ndarray, "t a"], times: Float[np.ndarray, " f"]
) -> Float32[np.ndarray, "f a"]:
    """Intensities between frames."""
    frames = np.arange(len(intensities))
    held = [np.interp(times, frames, column) for column in intensities.T]
    return np.array(held, np.float32).T


@jax.jit
def _render_batch(
    portrait: face.Portrait,
    person: people.Identity,
    moments: _Moments,
    camera: scene.Camera,
    key: Array,
) -> UInt8[Array, "f h w c"]:
    size = portrait.skin.shape[0]

    def frame(moment: _Moments) -> UInt8[Array, "h w c"]:
        once = jax.lax.optimization_barrier
        picture, skin = once(face.render(portrait, person, moment.aus, moment.pose, moment.light))
        closed = once(face.locate_skin(person, moment.closing_aus, moment.closing_pose, size))
        picture = once(camera_model.blur_motion(picture, skin, closed))
        picture = once(camera_model.soften(picture, camera.softness))
        grain_key = jax.random.fold_in(key, moment.number)
        return camera_model.digitise(picture, camera.noise, grain_key)

    # One frame after the other: a frame's bytes cannot depend on its place in the batch.
    return jax.lax.map(frame, moments)
