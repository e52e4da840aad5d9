# SPDX-License-Identifier: Apache-2.0
"""The deterministic weights, inputs and samples that golden vectors are made of.

A golden directory holds outputs of the official release for weights and inputs that anyone can
draw again: each entry of the state_dict comes from a generator seeded by its name, scaled by
rules of kind and place that keep the random network alive. Everything here is numpy.
"""

import re
import zlib

import numpy as np

# Modules of the official tree that normalise.
_NORM = re.compile(r"(?:.*\.)?(?:bn\d?|wbn\d|norm\d?|downsample\.1)")

# Gains by place; the first pattern that matches the whole name wins.
_GAINS = (
    (r"Backbone\.layers\..*", 1.0),  # Swin's blocks and merges
    (r"CRM\.gat\.linear\..*", 1.0),
    (r"LRM\.\w+_fc\..*", 400.0),  # clear margins between AU combinations
    (r"MFD\.weight\.weight", 40.0),
    (r".*", 2.0),
)
_SAMPLE_STRIDE = 2654435761  # Knuth's multiplicative hash
_INPUT_SCALES = ((1, 0.7), (7, 0.7), (28, 0.5), (224, 0.2))  # cells per side, amplitude


def _gain(name: str) -> float:
    return next(gain for pattern, gain in _GAINS if re.fullmatch(pattern, name))


def _norm_value(name: str, leaf: str, z: np.ndarray) -> np.ndarray:
    one, tenth = np.float32(1), np.float32(0.1)
    match leaf:
        case "weight":
            last_of_branch = re.fullmatch(r"Backbone\.layer\d\.\d+\.bn3\.weight", name)
            return np.float32(0.5 if last_of_branch else 1) * (one + tenth * z)
        case "bias":
            return np.float32(0.7 if name.startswith("TCN.bn.") else 0.1) * z
        case "running_mean":
            return tenth * z
        case "running_var":
            scale = np.float32(0.05 if name.startswith("MFD.bn.") else 1)
            return scale * (one + tenth * z) ** 2
    raise ValueError(f"{name}: a norm has no {leaf}")


def _filters(name: str, z: np.ndarray) -> np.ndarray:
    """Filters centred over their inputs, but for image stems and depthwise convolutions."""
    wide = z.astype(np.float64)
    if z.shape[1] > 3:
        wide = wide - wide.mean(axis=tuple(range(1, z.ndim)), keepdims=True)
    fan_in = int(np.prod(z.shape[1:]))
    return (wide * np.sqrt(_gain(name) / fan_in)).astype(np.float32)


def weight(name: str, shape: tuple[int, ...], base_seed: int) -> np.ndarray:
    """float32 value of one official entry (parameter or running statistic)."""
    seed = (zlib.crc32(name.encode()) ^ base_seed) & 0xFFFFFFFF
    z = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    module, _, leaf = name.rpartition(".")
    if _NORM.fullmatch(module):
        return _norm_value(name, leaf, z)
    match leaf:
        case "weight":
            return _filters(name, z)
        case "bias":
            return np.float32(0.1) * z
        case "relative_position_bias_table":
            return np.float32(0.5) * z
        case "scoring_fn_source" | "scoring_fn_target":
            return z * np.float32(np.sqrt(4 / shape[-1]))
        case "sc":
            return np.float32(0.6) * z + np.linspace(-0.2, 1.4, shape[0])[:, None].astype(z.dtype)
    raise ValueError(f"{name}: no rule for this entry")


def clips(batch: int, frames: int, seed: int) -> np.ndarray:
    """`(b, t, 224, 224, 3)` float32 input, correlated over time, with detail at four scales."""
    generator = np.random.RandomState(seed)
    x = np.zeros((batch, frames, 3, 224, 224))
    for cells, amplitude in _INPUT_SCALES:
        noise = generator.standard_normal((batch, frames, 3, cells, cells))
        for t in range(1, frames):
            noise[:, t] = 0.8 * noise[:, t - 1] + 0.6 * noise[:, t]
        side = 224 // cells
        x += amplitude * noise.repeat(side, axis=3).repeat(side, axis=4)
    return np.ascontiguousarray(np.moveaxis(x.astype(np.float32), 2, -1))


def sample(array: np.ndarray, count: int) -> np.ndarray:
    """The stored subsample of a tensor, flattened in C order."""
    flat = np.asarray(array).reshape(-1)
    positions = (np.arange(min(count, flat.size), dtype=np.int64) * _SAMPLE_STRIDE) % flat.size
    return flat[positions]


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """`(h, w, 3)` uint8 test picture of the preprocessing vectors: waves and noise."""
    generator = np.random.RandomState(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.empty((height, width, 3))
    for channel in range(3):
        a, b, c, d = generator.uniform(0.02, 0.15, size=4)
        p, q = generator.uniform(0, 2 * np.pi, size=2)
        waves[..., channel] = (
            127.5 + 60 * np.sin(a * x + b * y + p) + 45 * np.cos(c * x - d * y + q)
        )
    noise = generator.uniform(-25, 25, size=waves.shape)
    return np.clip(np.floor(waves + noise), 0, 255).astype(np.uint8)
