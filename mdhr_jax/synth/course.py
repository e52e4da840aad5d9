# SPDX-License-Identifier: Apache-2.0
"""Random courses over time: drift, events one after the other, speech. numpy only.

All are functions of the time alone: what is asked for beside it changes nothing.
"""

import numpy as np
from jaxtyping import Float, Int

from mdhr_jax.synth import seeds

Times = Float[np.ndarray, " f"] | Int[np.ndarray, " f"]  # frames, fractions too


def ease(share: Float[np.ndarray, " f"]) -> Float[np.ndarray, " f"]:
    """From 0 to 1, starting and ending at rest."""
    return share**2 * (3 - 2 * share)


def waves(
    rng: np.random.Generator, times: Times, *, count: int, periods: tuple[int, int]
) -> Float[np.ndarray, " f"]:
    """Sum of so many sines with random periods (frames) in this range and random phases."""
    period = rng.uniform(*periods, size=(count, 1))
    phase = rng.uniform(0, 2 * np.pi, size=(count, 1))
    return np.sin(2 * np.pi * times / period + phase).sum(axis=0)


def drift(rng: np.random.Generator, times: Times, amplitude: float) -> Float[np.ndarray, " f"]:
    """Slow motion about 0 of about this standard deviation."""
    return amplitude * waves(rng, times, count=4, periods=(60, 400)) / 2**0.5


def events(
    rng: np.random.Generator, times: Times, lengths: tuple[int, int], values: int
) -> tuple[Float[np.ndarray, " f"], Float[np.ndarray, "v f"], Float[np.ndarray, " f"]]:
    """Events of random length (frames), one after the other.

    Returns:
      At each time: how long ago its event began, the event's random values in 0..1, and the share
      of the event that has passed.
    """
    event, starts, ends, table = _timetable(rng, times, lengths, values)
    since = times - starts[event]
    return since, table[event].T, since / (ends - starts)[event]


def rests(
    rng: np.random.Generator, times: Times, lengths: tuple[int, int], move: int
) -> Float[np.ndarray, " f"]:
    """A place in -1..1 that is kept for a while and left for another within `move` frames."""
    times = _under_way(rng, times)
    event, starts, _, table = _timetable(rng, times, lengths, 1)
    places = 2 * table[:, 0] - 1
    moved = ease(np.clip((times - starts[event]) / move, 0, 1))
    return places[np.maximum(event - 1, 0)] * (1 - moved) + places[event] * moved


def _under_way(rng: np.random.Generator, times: Times) -> Float[np.ndarray, " f"]:
    """Times in a course that began before the recording, so that not all begin with it."""
    return rng.uniform(0, 200) + times


def _timetable(
    rng: np.random.Generator, times: Times, lengths: tuple[int, int], values: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Event of each time; first and last moment and random values in 0..1 of each event."""
    shortest, longest = lengths
    count = int(max(times, default=0) / shortest) + 2
    # Row by row: a later time does not change earlier events.
    table = rng.uniform(size=(count, 1 + values))
    durations = shortest + (longest - shortest) * table[:, 0]
    ends = np.cumsum(durations)
    return np.searchsorted(ends, times, side="right"), ends - durations, ends, table[:, 1:]


def twitches(rng: np.random.Generator, times: Times) -> Float[np.ndarray, " f"]:
    """Brief contractions of a muscle at rest, seconds apart, 0..1."""
    since, (height, length), _ = events(rng, _under_way(rng, times), (30, 200), 2)
    passed = np.minimum(since / (6 + 14 * length), 1)
    return height * np.sin(np.pi * passed) ** 2


def speech(seed: int, subject: str, video: str, times: Times) -> Float[np.ndarray, "f 2"]:
    """How far a talking mouth is open and how rounded it is at these times, 0..1 each.

    Spells of talk and silence of seconds; within them a syllable every four to ten frames.
    """
    talks = drift(seeds.generator(seed, subject, video, "speech"), times, 1.0)
    talks = np.clip(3 * (talks - 0.5), 0, 1)
    syllables = seeds.generator(seed, subject, video, "syllables")
    _, (loudness, roundness), phase = events(syllables, times, (4, 10), 2)
    swing = np.sin(np.pi * phase) ** 2
    rounded = np.maximum(2 * roundness - 1, 0)
    return np.stack([talks * swing * (0.3 + 0.7 * loudness), talks * swing * rounded], axis=1)
