# SPDX-License-Identifier: Apache-2.0
"""The deterministic weights, inputs and samples that golden vectors are made of.

A golden directory holds outputs of an official release for weights and inputs that anyone can
draw again: each entry of the state_dict comes from a generator seeded by its name, scaled by
rules of kind and place that keep the random network alive. Everything here is numpy.
"""

import re
import zlib

import numpy as np

# Modules of the official trees that normalise.
_NORM = re.compile(r"(?:.*\.)?(?:bn\d?|wbn\d|bn[ve]\d?|norm\d?|downsample\.1)")

Places = tuple[tuple[str, float], ...]
"""A value by place; the first pattern that matches the whole name wins."""

UNIT_GAINS: Places = (
    (r"[Bb]ackbone\.layers\..*", 1.0),  # Swin's blocks and merges
    (r"CRM\.gat\.linear\..*", 1.0),
    (r"LRM\.\w+_fc\..*", 400.0),  # clear margins between AU combinations
    (r"MFD\.weight\.weight", 40.0),
    (r"head\.edge_extractor\.(FAM|ARM)\.linear_[qk]\..*", 3.0),  # attention far from uniform
    (r".*", 2.0),
)
# But in the units of GraphAU: messages that matter, though they are divided by n twice.
GAINS: Places = ((r"head\.gnn\.(V[12]|graph_layers\.\d\.V)\..*", 200.0), *UNIT_GAINS)
_SCALES: Places = (
    (r"backbone\.layer3\.([6-9]|\d\d)\.bn3", 0.15),  # blocks that ResNet-101 alone has
    (r"[Bb]ackbone\.layer\d\.\d+\.bn3", 0.5),  # last of a branch
    (r".*", 1.0),
)
_BIASES: Places = (
    (r"TCN\.bn", 0.7),
    (r"head\.(main_)?class_linears\.\d+\.bn", 0.4),
    (r".*", 0.1),
)
_VARIANCES: Places = (
    (r"MFD\.bn", 0.05),
    (r"head\.edge_extractor\.bn", 5.0),
    (r".*", 1.0),
)
_NARROW_VARIANCES: Places = ((r"global_linear\.bn", 40.0), *_VARIANCES)  # of ResNet-18's head
_NARROW = (128,)
_SAMPLE_STRIDE = 2654435761  # Knuth's multiplicative hash
_INPUT_SCALES = ((1, 0.7), (7, 0.7), (28, 0.5), (224, 0.2))  # cells per side, amplitude


def _at(places: Places, name: str) -> np.float32:
    return np.float32(next(value for pattern, value in places if re.fullmatch(pattern, name)))


def _norm_value(module: str, leaf: str, z: np.ndarray) -> np.ndarray:
    one, tenth = np.float32(1), np.float32(0.1)
    match leaf:
        case "weight":
            return _at(_SCALES, module) * (one + tenth * z)
        case "bias":
            return _at(_BIASES, module) * z
        case "running_mean":
            return tenth * z
        case "running_var":
            places = _NARROW_VARIANCES if z.shape == _NARROW else _VARIANCES
            return _at(places, module) * (one + tenth * z) ** 2
    raise ValueError(f"{module}.{leaf}: a norm has no {leaf}")


def _filters(gain: float, z: np.ndarray) -> np.ndarray:
    """Filters centred over their inputs, but for image stems and depthwise convolutions."""
    wide = z.astype(np.float64)
    if z.shape[1] > 3:
        wide = wide - wide.mean(axis=tuple(range(1, z.ndim)), keepdims=True)
    fan_in = int(np.prod(z.shape[1:]))
    return (wide * np.sqrt(gain / fan_in)).astype(np.float32)


def weight(
    name: str, shape: tuple[int, ...], base_seed: int, *, gains: Places = GAINS
) -> np.ndarray:
    """float32 value of one official entry (parameter or running statistic) of either family."""
    seed = (zlib.crc32(name.encode()) ^ base_seed) & 0xFFFFFFFF
    z = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    module, _, leaf = name.rpartition(".")
    if _NORM.fullmatch(module):
        return _norm_value(module, leaf, z)
    match leaf:
        case "weight":
            return _filters(float(_at(gains, name)), z)
        case "bias":
            return np.float32(0.1) * z
        case "relative_position_bias_table":
            return np.float32(0.5) * z
        case "scoring_fn_source" | "scoring_fn_target":
            return z * np.float32(np.sqrt(4 / shape[-1]))
        case "sc" | "main_sc" | "sub_sc":
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
