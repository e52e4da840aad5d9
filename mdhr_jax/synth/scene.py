# SPDX-License-Identifier: Apache-2.0
"""What happens in a recording besides AUs: head motion, gaze, blinks, light, camera."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from mdhr_jax.synth import course, seeds
from mdhr_jax.synth.course import Times
from mdhr_jax.synth.face import Light
from mdhr_jax.synth.tissue import Pose


class Camera(NamedTuple):
    """How a recording is taken."""

    shutter: np.float32  # frames for which a picture is exposed
    softness: np.float32  # 0 sharp to 0.25 blurred over three pixels
    noise: np.float32  # standard deviation of the sensor, grey levels
    quality: np.int32  # of its JPEG, libjpeg's 1 to 100


# Cameras take pictures of this size, in pixels. Smaller ones are those made smaller: sharper, with
# less noise and fewer traces of compression.
CAMERA_SIZE = 256


def pose(seed: int, subject: str, video: str, times: Times) -> Pose:
    """The head at these times (frames, fractions too), every leaf with a leading time axis."""
    rng = seeds.generator(seed, subject, video, "pose")
    gaze = _saccades(seeds.generator(seed, subject, video, "gaze"), times)
    turned = _held(rng, times, 0.12)
    values = Pose(
        shift_x=course.drift(rng, times, 0.006),
        shift_y=course.drift(rng, times, 0.006),
        scale=1 + course.drift(rng, times, 0.012),
        roll=_held(rng, times, 0.02),
        yaw=turned,
        pitch=_held(rng, times, 0.07) + _nods(rng, times),
        # The eyes stay where they look while the head turns.
        gaze_x=np.clip(gaze[:, 0] - 1.5 * turned, -1, 1),
        gaze_y=gaze[:, 1],
        blink=_blinks(seeds.generator(seed, subject, video, "blinks"), times),
        pucker=course.speech(seed, subject, video, times)[:, 1],
    )
    return jax.tree.map(np.float32, values)


def light(seed: int, subject: str, video: str, times: Times) -> Light:
    """The light at these times, every leaf with a leading time axis."""
    rng = seeds.generator(seed, subject, video, "light")
    warmth = rng.uniform(-0.05, 0.05)
    background = rng.uniform(0.2, 0.75) + rng.uniform(-0.06, 0.06, size=3)
    values = Light(
        direction=rng.uniform(-0.7, 0.7) + course.drift(rng, times, 0.06),
        height=rng.uniform(0.25, 0.7) + course.drift(rng, times, 0.03),
        ambient=rng.uniform(0.30, 0.52) + course.drift(rng, times, 0.01),
        tint=np.outer(
            rng.uniform(0.90, 1.04) + course.drift(rng, times, 0.015), (1 + warmth, 1, 1 - warmth)
        ),
        background=np.tile(background, (len(times), 1)),
    )
    return jax.tree.map(np.float32, values)


def camera(seed: int, subject: str, video: str, size: int) -> Camera:
    """The camera of a recording, for pictures of `size` pixels."""
    rng = seeds.generator(seed, subject, video, "camera")
    scale = min(size / CAMERA_SIZE, 1)
    return Camera(
        shutter=np.float32(rng.uniform(0.2, 0.6)),
        softness=np.float32(rng.uniform(0.0, 0.2) * scale**2),
        noise=np.float32(rng.uniform(0.8, 2.4) * scale),
        quality=np.int32(100 - rng.uniform(5, 25) * scale),
    )


def _held(rng: np.random.Generator, times: Times, spread: float) -> Float[np.ndarray, " f"]:
    """An angle that is held, swaying a little, and changed every few seconds."""
    held = course.rests(rng, times, (50, 200), 25)
    return 3**0.5 * spread * held + course.drift(rng, times, 0.1 * spread)


def _nods(rng: np.random.Generator, times: Times) -> Float[np.ndarray, " f"]:
    """Two or three quick nods now and then."""
    period = rng.integers(200, 500)
    start = rng.integers(0, period)
    since = (times - start) % period
    return 0.05 * np.sin(2 * np.pi * since / 14) * np.clip(since / 8, 0, 1) * (since < 35)


def _saccades(rng: np.random.Generator, times: Times) -> Float[np.ndarray, "f 2"]:
    """Gaze that rests and jumps, -1..1 across and down."""
    _, targets, _ = course.events(rng, times, (10, 60), 2)
    spread = np.array([[1.0], [0.7]])
    return (spread * (2 * targets - 1) * np.abs(2 * targets - 1)).T


def _blinks(rng: np.random.Generator, times: Times) -> Float[np.ndarray, " f"]:
    """Closure of the lids: down within two to three frames, up within six, every 50-150 frames."""
    since, (latency, slowness), _ = course.events(rng, times, (50, 150), 2)
    since = since - 8 - 20 * latency
    down, up = 2 + slowness, 4 + 2 * slowness
    return np.clip(np.minimum(1.1 + since / down, 1.3 - since / up), 0, 1)
