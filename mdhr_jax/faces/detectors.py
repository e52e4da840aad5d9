# SPDX-License-Identifier: Apache-2.0
"""Detectors by name, as a user states them."""

from collections.abc import Callable

from mdhr_jax.errors import InputError
from mdhr_jax.faces.detect import Detector

NAMES = "mtcnn, csv:FILE, yunet:FILE.onnx"


def parse(text: str) -> Callable[[str], Detector]:
    """What gives the detector for a video of a given name.

    `mtcnn` is part of the package, `csv:FILE` takes what another program found (`table`),
    `yunet:FILE.onnx` runs OpenCV's detector.

    Raises:
      InputError: there is no such detector, or what it needs is missing.
    """
    kind, _, file = text.partition(":")
    if text == "mtcnn":
        from mdhr_jax.faces.mtcnn import cascade

        return _always(cascade.Mtcnn())
    if kind == "csv" and file:
        from mdhr_jax.faces import table

        return table.read(file)
    if kind == "yunet" and file:
        from mdhr_jax.faces import yunet

        return _always(yunet.YuNet(file))
    raise InputError(f"face detector {text!r} is unknown; use one of {NAMES}")


def _always(detector: Detector) -> Callable[[str], Detector]:
    return lambda video: detector
