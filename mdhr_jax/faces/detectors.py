# SPDX-License-Identifier: Apache-2.0
"""Detectors by name, as a user states them."""

import hashlib
from collections.abc import Callable

from mdhr_jax.errors import InputError
from mdhr_jax.faces.detect import Detector
from mdhr_jax.machine import files

type Detectors = Callable[[str], Detector]
"""Gives the detector for the video of a name."""


def parse(text: str, smallest_face: int | None = None) -> Detectors:
    """What a name of `KINDS` stands for, those with a file written as `csv:FILE`.

    Args:
      text: the name.
      smallest_face: of those that mtcnn looks for, pixels; None: its own.

    Raises:
      InputError: there is no such detector, or what it needs is missing.
    """
    if smallest_face is not None and text != "mtcnn":
        raise InputError(
            f"--smallest_face: has no meaning with --crop={text}, only with mtcnn; leave it out"
        )
    kind, _, file = text.partition(":")
    if kind not in KINDS or bool(file) != (kind in _WITH_FILE):
        raise InputError(f"face detector {text!r} is unknown; use one of {NAMES}")
    return KINDS[kind](file) if smallest_face is None else _mtcnn(file, smallest_face)


def describe(text: str) -> str:
    """The kind of detector, and the beginning of its file's SHA-256.

    Raises:
      InputError: the file cannot be read.
    """
    kind, _, file = text.partition(":")
    if not file:
        return kind
    with files.reading(file), open(file, "rb") as data:
        return f"{kind} {hashlib.file_digest(data, 'sha256').hexdigest()[:8]}"


def _mtcnn(file: str, smallest_face: int | None = None) -> Detectors:
    from mdhr_jax.faces.mtcnn import cascade

    return _always(cascade.Mtcnn(smallest_face or cascade.SMALLEST_FACE))


def _csv(file: str) -> Detectors:
    from mdhr_jax.faces import table

    return table.read(file)


def _yunet(file: str) -> Detectors:
    from mdhr_jax.faces import yunet

    return _always(yunet.YuNet(file))


def _always(detector: Detector) -> Detectors:
    return lambda video: detector


KINDS = {"mtcnn": _mtcnn, "csv": _csv, "yunet": _yunet}
_WITH_FILE = {"csv", "yunet"}
NAMES = "mtcnn, csv:FILE, yunet:FILE.onnx"
