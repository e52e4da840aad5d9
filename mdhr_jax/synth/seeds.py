# SPDX-License-Identifier: Apache-2.0
"""Random numbers that depend on names alone: the same in every process and on every machine."""

import zlib

import numpy as np


def generator(seed: int, *names: str) -> np.random.Generator:
    """Independent generator for a thing named by strings, such as subject, video and purpose."""
    # crc32, because Python salts hash() anew in every process.
    words = [zlib.crc32(name.encode()) for name in names]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *words])))
