# SPDX-License-Identifier: Apache-2.0
"""What happens in a recording besides AUs: head motion, gaze, blinks, speech, light, camera."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from mdhr_jax.synth import seeds
from mdhr_jax.synth.face import Light
from mdhr_jax.synth.tissue import Pose

Times = Float[np.ndarray, " f"] | Int[np.ndarray, " f"]


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
    turned = _motion(rng, times, 0.12)
    values = Pose(
        shift_x=_motion(rng, times, 0.006),
        shift_y=_motion(rng, times, 0.006),
        scale=1 + _motion(rng, times, 0.012),
        roll=_motion(rng, times, 0.02),
        yaw=turned,
        pitch=_motion(rng, times, 0.07) + _nods(rng, times),
        # The eyes stay where they look while the head turns.
        gaze_x=np.clip(gaze[:, 0] - 1.5 * turned, -1, 1),
        gaze_y=gaze[:, 1],
        blink=_blinks(seeds.generator(seed, subject, video, "blinks"), times),
        pucker=speech(seed, subject, video, times)[:, 1],
    )
    return jax.tree.map(np.float32, values)


def light(seed: int, subject: str, video: str, times: Times) -> Light:
    """The light at these times, every leaf with a leading time axis."""
    rng = seeds.generator(seed, subject, video, "light")
    warmth = rng.uniform(-0.05, 0.05)
    background = rng.uniform(0.2, 0.75) + rng.uniform(-0.06, 0.06, size=3)
    values = Light(
        direction=rng.uniform(-0.7, 0.7) + _motion(rng, times, 0.06),
        height=rng.uniform(0.25, 0.7) + _motion(rng, times, 0.03),
        ambient=rng.uniform(0.30, 0.52) + _motion(rng, times, 0.01),
        tint=np.outer(
            rng.uniform(0.90, 1.04) + _motion(rng, times, 0.015), (1 + warmth, 1, 1 - warmth)
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


def speech(seed: int, subject: str, video: str, times: Times) -> Float[np.ndarray, "f 2"]:
    """How far a talking mouth is open and how rounded it is at these times, 0..1 each.

    Spells of talk and silence of seconds; within them a syllable every four to ten frames.
    """
    rng = seeds.generator(seed, subject, video, "speech")
    talks = np.clip(3 * (_motion(rng, times, 1.0) - 0.5), 0, 1)
    syllables = _events(seeds.generator(seed, subject, video, "syllables"), times, (4, 10), 2)
    _, (loudness, roundness), phase = syllables
    swing = np.sin(np.pi * phase) ** 2
    rounded = np.maximum(2 * roundness - 1, 0)
    return np.stack([talks * swing * (0.3 + 0.7 * loudness), talks * swing * rounded], axis=1)


def _events(
    rng: np.random.Generator, times: Times, lengths: tuple[int, int], values: int
) -> tuple[Float[np.ndarray, " f"], Float[np.ndarray, "v f"], Float[np.ndarray, " f"]]:
    """Events of random length, one after the other: at each time, how long ago its event began,
    the event's random values in 0..1, and the share of the event that has passed."""
    shortest, longest = lengths
    count = int(max(times) / shortest) + 2
    # Row by row: a later time does not change earlier events.
    table = rng.uniform(size=(count, 1 + values))
    durations = shortest + (longest - shortest) * table[:, 0]
    ends = np.cumsum(durations)
    event = np.searchsorted(ends, times, side="right")
    since = times - (ends - durations)[event]
    return since, table[event, 1:].T, since / durations[event]


def _motion(rng: np.random.Generator, times: Times, amplitude: float) -> Float[np.ndarray, " f"]:
    """Slow drift of about this standard deviation, a function of the time alone."""
    periods = rng.uniform(60, 400, size=(4, 1))
    phases = rng.uniform(0, 2 * np.pi, size=(4, 1))
    waves = np.sin(2 * np.pi * times / periods + phases)
    return amplitude * waves.sum(axis=0) / 2**0.5


def _nods(rng: np.random.Generator, times: Times) -> Float[np.ndarray, " f"]:
    """Two or three quick nods now and then."""
    period = rng.integers(200, 500)
    start = rng.integers(0, period)
    since = (times - start) % period
    return 0.05 * np.sin(2 * np.pi * since / 14) * np.clip(since / 8, 0, 1) * (since < 35)


def _saccades(rng: np.random.Generator, times: Times) -> Float[np.ndarray, "f 2"]:
    """Gaze that rests and jumps, -1..1 across and down."""
    _, targets, _ = _events(rng, times, (10, 60), 2)
    spread = np.float64([[1.0], [0.7]])
    return (spread * (2 * targets - 1) * np.abs(2 * targets - 1)).T


def _blinks(rng: np.random.Generator, times: Times) -> Float[np.ndarray, " f"]:
    """Closure of the lids: down within two to three frames, up within six, every 50-150 frames."""
    since, (latency, slowness), _ = _events(rng, times, (50, 150), 2)
    since = since - 8 - 20 * latency
    down, up = 2 + slowness, 4 + 2 * slowness
    return np.clip(np.minimum(1.1 + since / down, 1.3 - since / up), 0, 1)
