# SPDX-License-Identifier: Apache-2.0
"""How the pictures in records are encoded."""

import dataclasses
import io
from collections.abc import Callable

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

Picture = UInt8[np.ndarray, "h w c"]


@dataclasses.dataclass(frozen=True)
class Codec:
    """A picture format: `(h, w, 3)` uint8 RGB to bytes and back.

    `encode` takes a quality of 1 to 100, which a format without loss ignores. `decode` raises
    ValueError. So does `decode_into`, which fills an array, also where that has another shape.
    """

    encode: Callable[[Picture, int], bytes]
    decode: Callable[[bytes], Picture]
    decode_into: Callable[[bytes, Picture], None]


def _decode_jpeg_into(data: bytes, out: Picture) -> None:
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    _check_shape((height, width, 3), out)
    simplejpeg.decode_jpeg(data, buffer=out)  # an array of its own would take half as long again


def _encode_png(picture: Picture, quality: int) -> bytes:
    del quality
    data = io.BytesIO()
    Image.fromarray(picture).save(data, format="png")
    return data.getvalue()


def _decode_png(data: bytes) -> Picture:
    try:
        return np.asarray(Image.open(io.BytesIO(data), formats=["png"]).convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        # PIL raises SyntaxError on a damaged chunk.
        raise ValueError(str(error)) from error


def _decode_png_into(data: bytes, out: Picture) -> None:
    picture = _decode_png(data)
    _check_shape(picture.shape, out)
    out[:] = picture


def _check_shape(shape: tuple[int, ...], out: Picture) -> None:
    if shape != out.shape:
        raise ValueError(f"it is {shape}, the data set says {out.shape}")


CODECS = {
    "jpeg": Codec(
        # Colours at half the resolution, as cameras store them: decodes about 1.3 times as fast.
        encode=lambda picture, quality: simplejpeg.encode_jpeg(
            np.ascontiguousarray(picture), quality=quality, colorsubsampling="420"
        ),
        decode=simplejpeg.decode_jpeg,
        decode_into=_decode_jpeg_into,
    ),
    "png": Codec(encode=_encode_png, decode=_decode_png, decode_into=_decode_png_into),
}
