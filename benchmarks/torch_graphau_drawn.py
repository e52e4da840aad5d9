# SPDX-License-Identifier: Apache-2.0
"""Weights and pictures of golden vectors for the twin of GraphAU: a seed is enough."""

import pathlib
import sys

import numpy as np
import torch
from torch import nn

sys.path.append(str(pathlib.Path(__file__).parents[1]))  # PyTorch's Python lacks the package

from mdhr_jax.verify import golden  # noqa: E402

_COMPUTED = ("num_batches_tracked", "relative_position_index", "attn_mask")


def fill(
    module: nn.Module, seed: int, prefix: str = "", gains: golden.Places = golden.GAINS
) -> None:
    """Draws the entries of a model, or of its part `prefix`, but those that torch computes."""
    with torch.no_grad():
        for name, x in module.state_dict().items():
            if not name.endswith(_COMPUTED):
                value = golden.weight(prefix + name, tuple(x.shape), seed, gains=gains)
                x.copy_(torch.from_numpy(value))


def pictures(count: int, seed: int) -> np.ndarray:
    """`(b, 3, 224, 224)` float32, with detail at four scales."""
    return np.ascontiguousarray(np.moveaxis(golden.clips(count, 1, seed)[:, 0], -1, 1))
