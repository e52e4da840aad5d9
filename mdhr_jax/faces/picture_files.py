# SPDX-License-Identifier: Apache-2.0
"""Picture files, alone or as the frames of a video in a folder, decoded whole or refused.

A folder has one JPEG, PNG, WebP or BMP per frame, ordered by the numbers in their names (2.jpg
before 10.jpg). Pictures come as 8-bit RGB, upright.
"""

import contextlib
import functools
import itertools
import pathlib
import re
import sys
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, ImageOps

from mdhr_jax.errors import InputError
from mdhr_jax.faces import limits
from mdhr_jax.machine.files import reading

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
# The header of a scan with one to four colours; two bytes alone may be anything.
_SCAN = re.compile(rb"\xff\xda\0(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_ORIENTATION = 0x0112  # EXIF
# What libjpeg says of headers before the picture, which follows whole.
_HARMLESS = re.compile("unknown JFIF revision|extraneous bytes before marker 0x(c.|d[abd])")


def of(source: pathlib.Path) -> list[pathlib.Path]:
    """The pictures of a folder, as `in_folder`; a file that is one; none of a film."""
    if source.is_dir():
        return in_folder(source)
    return [source] if source.suffix.lower() in SUFFIXES and source.is_file() else []


def in_folder(folder: pathlib.Path) -> list[pathlib.Path]:
    """The picture files of a folder in the order of the numbers in their names.

    Says what else is there.

    Raises:
      InputError: the folder cannot be read, or holds none.
    """
    with reading(folder):
        files = list(folder.iterdir())
    shown = [file for file in files if not file.name.startswith(".")]
    pictures = [file for file in shown if file.suffix.lower() in SUFFIXES]
    if not pictures:
        raise InputError(
            f"{folder}: holds no picture ({', '.join(sorted(SUFFIXES))}); name a folder with one "
            "picture per frame, or a video file"
        )
    others = sorted(file.name for file in shown if file not in set(pictures))
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        read = ", ".join(sorted(SUFFIXES))
        _say(f"{folder}: left out {', '.join(others[:3])}{more}; pictures end in {read}")
    return sorted(pictures, key=lambda file: (_natural_order(file.name), file.name))


def _natural_order(name: str) -> list[tuple[str, int]]:
    pairs = re.findall("([^0-9]*)([0-9]*)", name)
    return [(text, int(digits or -1)) for text, digits in pairs]


def number(file: pathlib.Path) -> int | None:
    """The number that ends a picture's name: 07, SN001_12; None if it has none."""
    digits = re.search("[0-9]{1,9}$", file.stem)
    return int(digits[0]) if digits else None


def numbers(files: Sequence[pathlib.Path]) -> list[int] | None:
    """Those of pictures whose names differ in the number alone; None of others.

    Args:
      files: in the order of their numbers.

    Raises:
      InputError: two have the same number.
    """
    numbers = [known for known in map(number, files) if known is not None]
    others = {re.sub("[0-9]{1,9}$", "", file.stem) for file in files}
    if len(others) > 1 or len(numbers) < len(files):
        return None
    for (first, one), (second, other) in itertools.pairwise(zip(numbers, files, strict=True)):
        if first == second:
            raise InputError(
                f"{one.parent}: {one.name} and {other.name} are both frame {first}; remove one of "
                "them, or add --photos if each stands alone"
            )
    return numbers


def size(file: pathlib.Path) -> tuple[int, int]:
    """Width and height by the header, pixels, as they are stored.

    Raises:
      InputError: there is none.
    """
    with _refused(file), Image.open(file, formats=_FORMATS) as picture:
        return picture.size


def read(file: pathlib.Path) -> UInt8[np.ndarray, "h w 3"]:
    """A picture file as RGB, upright.

    Raises:
      InputError: it does not decode to its end, or is too large.
    """
    with _refused(file):
        if file.stat().st_size > limits.PICTURE_BYTES:
            raise InputError(
                f"{file}: more than {limits.PICTURE_BYTES // 10**6} MB are no picture of a face; "
                "remove it"
            )
        return _decoded(file)


@contextlib.contextmanager
def _refused(file: pathlib.Path) -> Iterator[None]:
    """Refuses what does not decode. Pillow's warnings would say it twice."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{file}: does not decode as JPEG, PNG, WebP or BMP ({_length(file)}{error}); restore "
            "or remove the picture"
        ) from error


def _length(file: pathlib.Path) -> str:
    with contextlib.suppress(OSError):
        return f"{file.stat().st_size} bytes, "
    return ""


def _decoded(file: pathlib.Path) -> UInt8[np.ndarray, "h w 3"]:
    with Image.open(file, formats=_FORMATS) as picture:
        limits.check_size(file, *picture.size)
        if picture.format in ("JPEG", "MPO"):  # MPO: several of them
            _check_jpeg(file, picture.mode)
        elif (count := getattr(picture, "n_frames", 1)) > 1:
            raise ValueError(f"it holds {count} pictures")
        return _rgb(picture)


def _check_jpeg(file: pathlib.Path, mode: str) -> None:
    """Raises ValueError for damage that Pillow would fill with grey, and for what takes minutes."""
    data = file.read_bytes()
    scans = len(_SCAN.findall(data))
    if scans > limits.SCANS:
        raise ValueError(f"it has {scans} scans")
    try:
        simplejpeg.decode_jpeg(data, "CMYK" if mode == "CMYK" else "GRAY")
    except ValueError as error:
        if not _HARMLESS.search(str(error)):
            raise


def _rgb(picture: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    if picture.getexif().get(_ORIENTATION, 1) != 1:
        _say("pictures are turned as their EXIF data say")
        ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode != "RGB":
        _say(f"pictures of mode {picture.mode} become 8-bit RGB")
        picture = _eight_bits(picture).convert("RGB")
    return np.asarray(picture)


@functools.cache
def _say(line: str) -> None:
    """Once in a process, not for every picture."""
    print(line, file=sys.stderr)


def _eight_bits(picture: Image.Image) -> Image.Image:
    # 16-bit grey PNG: Pillow would cut every level above 255 to white.
    if picture.mode.startswith("I"):
        return picture.point(lambda level: level / 256)
    return picture
