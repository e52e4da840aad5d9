# SPDX-License-Identifier: Apache-2.0
"""What a picture or a video may cost; more is refused, from its header where that tells."""

import pathlib

from mdhr_jax.errors import InputError

PIXELS = 28_000_000  # of a frame; a picture of that size takes 300 MB to decode
PICTURE_BYTES = 64_000_000  # of a picture file
SCANS = 32  # of a progressive JPEG, which has ten; each may take another pass over all pixels
FRAMES = 2_000_000  # of a video, most of a day
MEMORY = 4 * 2**30  # bytes to decode a video; a codec keeps up to 16 frames per thread
SECONDS = 60  # to decode a frame of a video, from a slow disk


def check_size(file: pathlib.Path, width: int, height: int) -> None:
    """Refuses frames of more than `PIXELS`."""
    if width * height > PIXELS:
        raise InputError(
            f"{file}: {width}x{height} pixels are more than {PIXELS // 10**6} megapixels; "
            "make the pictures smaller"
        )
