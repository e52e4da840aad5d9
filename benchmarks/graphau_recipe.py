# SPDX-License-Identifier: Apache-2.0
"""The deterministic weights and pictures of the GraphAU family's golden vectors, in numpy.

Each entry of a state_dict comes from a generator seeded by its name, scaled by rules of kind and
place; names are without `module.`.
"""

import re
import zlib

import numpy as np

COMPUTED = ("num_batches_tracked", "relative_position_index", "attn_mask")
_NORM = re.compile(r"(?:.*\.)?(?:bn\d?|bn[ve]\d?|norm\d?|downsample\.1)")

# By place; the first pattern that matches the whole name wins.
_GAINS = (
    (r"backbone\.layers\..*", 1.0),  # Swin's blocks and merges
    (r"head\.edge_extractor\.(FAM|ARM)\.linear_[qk]\..*", 3.0),  # attention far from uniform
    (r"head\.gnn\.(V[12]|graph_layers\.\d\.V)\..*", 200.0),  # messages that matter
    (r".*", 2.0),
)
_NORM_SCALES = (
    (r"backbone\.layer3\.([6-9]|\d\d)\.bn3\..*", 0.15),  # what ResNet-101 has more of
    (r"backbone\.layer\d\.\d+\.bn3\..*", 0.5),
    (r".*", 1.0),
)
_NORM_BIASES = ((r"head\.(main_)?class_linears\.\d+\.bn\..*", 0.4), (r".*", 0.1))
_NARROW = 128  # global features of ResNet-18, whose activations grow
_VARIANCES = ((r"head\.edge_extractor\.bn\..*", 5.0), (r".*", 1.0))
_SAMPLE_STRIDE = 2654435761  # Knuth's multiplicative hash
_PICTURE_SCALES = ((1, 0.7), (7, 0.7), (28, 0.5), (224, 0.2))  # cells per side, amplitude


def _at(name: str, places: tuple[tuple[str, float], ...]) -> float:
    return next(value for pattern, value in places if re.fullmatch(pattern, name))


def _norm_value(name: str, leaf: str, z: np.ndarray) -> np.ndarray:
    around_one = np.float32(1) + np.float32(0.1) * z
    match leaf:
        case "weight":
            return np.float32(_at(name, _NORM_SCALES)) * around_one
        case "bias":
            return np.float32(_at(name, _NORM_BIASES)) * z
        case "running_mean":
            return np.float32(0.1) * z
        case "running_var":
            narrow = name.startswith("global_linear.") and z.shape == (_NARROW,)
            return np.float32(40 if narrow else _at(name, _VARIANCES)) * around_one**2
    raise ValueError(f"{name}: a norm has no {leaf}")


def weight(name: str, shape: tuple[int, ...], base_seed: int) -> np.ndarray:
    """float32 value of one official entry that is not in `COMPUTED`."""
    seed = (zlib.crc32(name.encode()) ^ base_seed) & 0xFFFFFFFF
    z = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    module, _, leaf = name.rpartition(".")
    if _NORM.fullmatch(module):
        return _norm_value(name, leaf, z)
    match leaf:
        case "weight":
            wide = z.astype(np.float64)
            if shape[1] > 3:  # not an image stem
                wide = wide - wide.mean(axis=tuple(range(1, wide.ndim)), keepdims=True)
            scale = np.sqrt(_at(name, _GAINS) / int(np.prod(shape[1:])))
            return (scale * wide).astype(np.float32)
        case "bias":
            return np.float32(0.1) * z
        case "relative_position_bias_table":
            return np.float32(0.5) * z
        case "sc" | "main_sc" | "sub_sc":
            return np.float32(0.6) * z + np.linspace(-0.2, 1.4, shape[0])[:, None].astype(z.dtype)
    raise ValueError(f"{name}: no rule for this entry")


def pictures(count: int, seed: int) -> np.ndarray:
    """`(b, 3, 224, 224)` float32 pictures with detail at four scales."""
    generator = np.random.RandomState(seed)
    x = np.zeros((count, 3, 224, 224))
    for cells, amplitude in _PICTURE_SCALES:
        noise = generator.standard_normal((count, 3, cells, cells))
        side = 224 // cells
        x += amplitude * noise.repeat(side, axis=2).repeat(side, axis=3)
    return x.astype(np.float32)


def sample(array: np.ndarray, count: int) -> np.ndarray:
    """The stored subsample of a tensor, flattened in C order."""
    flat = np.asarray(array).reshape(-1)
    positions = (np.arange(min(count, flat.size), dtype=np.int64) * _SAMPLE_STRIDE) % flat.size
    return flat[positions]


def statistics(array: np.ndarray) -> np.ndarray:
    """Mean, standard deviation, smallest, largest, L2 norm in float64."""
    wide = np.asarray(array, np.float64)
    return np.array([wide.mean(), wide.std(), wide.min(), wide.max(), np.linalg.norm(wide)])
