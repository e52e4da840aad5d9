# SPDX-License-Identifier: Apache-2.0
"""AU labels that behave like a data set's, and the AU intensities behind them.

Every AU has a latent Gaussian process over time and is active while the process exceeds a
threshold. The threshold sets the base rate, the correlation between the latent processes the
AU-AU correlation, their smoothness the length of activations, and a part that is constant for a
subject the differences between people. The values aimed at are those of `label_statistics`.
"""

import dataclasses
import functools
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int, Int8

from mdhr_jax import errors, facs
from mdhr_jax.synth import course, label_statistics, people, seeds

# An AU counts as active at or above this intensity.
THRESHOLD = 0.3
# An activation has a level of its own, about which it swells and sinks by about a quarter of it, as
# nobody holds an expression still; once the onset is over it stays within the apex's limits.
LEVEL = (0.4, 1.0)
SWELL = 0.2
APEX = (0.35, 1.0)
# Height of the twitches of inactive AUs, below the threshold.
FLICKER = 0.2
# AUs that the layout does not annotate are shown too, at this share of their intensity.
UNLABELLED = 0.5
# Frames from rest to apex and back; half of a ramp lies on either side of the label's edge.
RAMP_FRAMES = (3, 15)


@dataclasses.dataclass(frozen=True)
class _LatentProcess:
    """The Gaussian process whose thresholding has given statistics; see `_fit`."""

    thresholds: Float[np.ndarray, " n"]
    subject_shares: Float[np.ndarray, " n"]
    mixing: Float[np.ndarray, "n n"]
    kernels: Float[np.ndarray, "n k"]


def sample_labels(
    layout: facs.AuLayout, *, seed: int, subject: str, video: str, num_frames: int
) -> Int8[np.ndarray, "t n"]:
    """Labels of one video: rates, correlations and lengths are the table's, over many subjects.

    A longer video of the same name begins with the shorter one.

    Returns:
      `(t, n)` of 0 and 1, AUs in the layout's order.

    Raises:
      InputError: the layout has an AU that faces are not rendered with.
    """
    process = _fit(layout)
    num_aus, width = process.kernels.shape
    constant = process.mixing @ seeds.generator(seed, subject, "rates").standard_normal(num_aus)
    noise = seeds.generator(seed, subject, video, "labels").standard_normal(
        (num_frames + width - 1, num_aus)
    )
    noise = np.einsum("tm,nm->tn", noise, process.mixing)
    smooth = np.stack(
        [np.convolve(noise[:, n], process.kernels[n], mode="valid") for n in range(num_aus)], axis=1
    )
    share = process.subject_shares
    latent = np.sqrt(share) * constant + np.sqrt(1 - share) * smooth
    return (latent > process.thresholds).astype(np.int8)


@functools.cache
def _fit(layout: facs.AuLayout) -> _LatentProcess:
    table = label_statistics.of_layout(layout)
    rates, lengths = np.array(table.rates), np.array(table.activation_lengths)
    thresholds = np.array([NormalDist().inv_cdf(1 - rate) for rate in rates])
    # Two frames of one subject share its constant part, so a subject's rate varies by their
    # covariance.
    shares = _latent_correlation(thresholds, thresholds, np.square(table.subject_spread))
    shares = np.clip(shares, 0, 0.8)
    # Rice's formula: a Gaussian process of unit variance whose velocity has variance v crosses u
    # upwards sqrt(v) exp(-u^2/2) / (2 pi) times per frame. White noise under a Gaussian kernel of
    # standard deviation s has v = 1 / (2 s^2).
    widths = lengths / rates * np.exp(-np.square(thresholds) / 2) / (2 * np.pi)
    widths = widths * np.sqrt((1 - shares) / 2)
    deviations = np.sqrt(rates * (1 - rates))
    covariance = np.array(table.correlation) * np.outer(deviations, deviations)
    latent = _latent_correlation(thresholds[:, None], thresholds[None, :], covariance)
    # Kernels of different widths decorrelate, which the noise makes up for.
    overlap = np.sqrt(2 * np.outer(widths, widths) / np.add.outer(widths**2, widths**2))
    kept = np.sqrt(np.outer(shares, shares)) + np.sqrt(np.outer(1 - shares, 1 - shares)) * overlap
    return _LatentProcess(thresholds, shares, _square_root(latent / kept), _kernels(widths))


def _latent_correlation(u: np.ndarray, v: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Correlation of two Gaussians such that their excesses of u and v have this covariance.

    The derivative of P(x > u, y > v) by the correlation is the joint density at (u, v).
    """
    grid = np.linspace(-0.995, 0.995, 399)
    u, v, covariance = np.broadcast_arrays(u, v, covariance)
    left = 1 - grid**2
    exponent = (u**2 + v**2)[..., None] - 2 * (u * v)[..., None] * grid
    density = np.exp(-exponent / (2 * left)) / (2 * np.pi * np.sqrt(left))
    steps = (density[..., 1:] + density[..., :-1]) / 2 * np.diff(grid)
    joint = np.cumsum(np.insert(steps, 0, 0, axis=-1), axis=-1)
    joint = joint - joint[..., [grid.size // 2]]
    solved = [
        np.interp(c, j, grid)
        for c, j in zip(covariance.ravel(), joint.reshape(-1, grid.size), strict=True)
    ]
    return np.reshape(solved, covariance.shape)


def _square_root(correlation: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Matrix that turns independent noise into noise of (nearly) this correlation."""
    symmetric = (correlation + correlation.T) / 2
    np.fill_diagonal(symmetric, 1.0)
    values, vectors = np.linalg.eigh(symmetric)
    root = vectors * np.sqrt(np.maximum(values, 0))
    return root / np.linalg.norm(root, axis=1, keepdims=True)


def _kernels(widths: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n k"]:
    """Gaussian kernels of these standard deviations (frames) and unit sum of squares."""
    reach = int(np.ceil(4 * widths.max()))
    offsets = np.arange(-reach, reach + 1)
    kernels = np.exp(-np.square(offsets / widths[:, None]) / 2)
    return kernels / np.linalg.norm(kernels, axis=1, keepdims=True)


def intensities(
    layout: facs.AuLayout, labels: Int[np.ndarray, "t n"], *, seed: int, subject: str, video: str
) -> Float32[np.ndarray, "t a"]:
    """Intensities of all AUs of `people.AUS`, in its order, that show these labels.

    A label is 1 exactly where the intensity is at or above `THRESHOLD`. An activation rises from
    flicker to its own apex within 3-15 frames: the first half of the ramp lies before the label's
    edge, below the threshold, the second half after it; likewise at its end. AUs that the layout
    does not hold have activations of their own, weaker and unknown to anybody; speech opens the
    mouth. Unknown labels (-1) count as inactive.

    Returns:
      `(t, 15)` in 0..1.

    Raises:
      InputError: labels are not `(t, n)` of -1, 0 and 1 with one column per AU of the layout.
    """
    labels = np.asarray(labels)
    if (
        labels.ndim != 2
        or labels.shape[1] != len(layout.aus)
        or not np.isin(labels, (-1, 0, 1)).all()
    ):
        raise errors.InputError(
            f"labels of subject {subject!r}, video {video!r}: expected (frames, {len(layout.aus)}) "
            f"of -1, 0 and 1, got shape {labels.shape}; layout {layout.name!r} has AUs {layout.aus}"
        )
    name: dict[str, Any] = {"seed": seed, "subject": subject, "video": video}
    unlabelled = _unlabelled(layout)
    shown = {au: labels[:, k] == 1 for k, au in enumerate(layout.aus)}
    if unlabelled.aus:
        # Under a name of their own, or they would share random numbers with the labels.
        own = name | {"subject": f"{subject}, unlabelled"}
        hidden = sample_labels(unlabelled, **own, num_frames=len(labels))
        shown |= {au: hidden[:, k] == 1 for k, au in enumerate(unlabelled.aus)}
    intensity = {
        au: _activations(shown[au], seeds.generator(*name.values(), f"AU{au}")) for au in shown
    }
    intensity |= {au: UNLABELLED * intensity[au] for au in unlabelled.aus}
    intensity |= _talk(layout, intensity, course.speech(**name, times=np.arange(len(labels)))[:, 0])
    return np.stack([intensity[au] for au in people.AUS], axis=1).astype(np.float32)


@functools.cache
def _unlabelled(layout: facs.AuLayout) -> facs.AuLayout:
    """Those AUs that a layout leaves out."""
    aus = tuple(au for au in people.AUS if au not in layout.aus)
    region = facs.Region("face", (0, 7), aus)
    return facs.AuLayout(f"not {layout.name}", aus, (region,), region_blocks=False, fps=layout.fps)


def _talk(
    layout: facs.AuLayout,
    intensity: dict[facs.Au, Float[np.ndarray, " t"]],
    openness: Float[np.ndarray, " t"],
) -> dict[facs.Au, Float[np.ndarray, " t"]]:
    """Intensities of the AUs that open the mouth (25, 26), moved by speech.

    Where they are annotated the labels decide when the mouth is open, and speech how far. Nobody
    speaks through pressed lips (24).
    """
    pressed = np.clip((intensity[24] - FLICKER) / (THRESHOLD - FLICKER), 0, 1)
    openness = openness * (1 - pressed)
    moved: dict[facs.Au, Float[np.ndarray, " t"]] = {}
    for au, reach in ((25, 0.8), (26, 0.4)):
        if au in layout.aus:
            above = np.maximum(intensity[au] - THRESHOLD, 0)
            moved[au] = intensity[au] - 0.6 * above * (1 - openness)
        else:
            moved[au] = np.maximum(intensity[au], reach * openness)
    return moved


def _activations(active: np.ndarray, rng: np.random.Generator) -> Float[np.ndarray, " t"]:
    """Intensity of one AU that is active in these frames."""
    frames = len(active)
    edges = np.flatnonzero(np.diff(active.astype(np.int8))) + 1
    ramps = rng.integers(RAMP_FRAMES[0], RAMP_FRAMES[1] + 1, size=len(edges)) / 2
    run = np.searchsorted(edges, np.arange(frames), side="right")
    # 0 at the label's edge, 1 where the ramp ends; the edge lies half a frame before its frame.
    nearest = np.full(frames, 1.0)
    for edge, ramp in zip(edges, ramps, strict=True):
        nearest = np.minimum(nearest, np.abs(np.arange(frames) + 0.5 - edge) / ramp)
    settled = course.ease(nearest)
    level = rng.uniform(*LEVEL, size=len(edges) + 1)[run]
    swell = SWELL * course.waves(rng, np.arange(frames), count=3, periods=(8, 40))
    apex = np.clip(level * (1 + swell), *APEX)
    rest = FLICKER * course.twitches(rng, np.arange(frames))
    return THRESHOLD + (np.where(active, apex, rest) - THRESHOLD) * settled
