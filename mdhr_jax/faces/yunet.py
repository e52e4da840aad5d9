# SPDX-License-Identifier: Apache-2.0
"""YuNet through OpenCV: fast on a CPU, its weights are a file of the user's (MIT licence)."""

import pathlib
from collections.abc import Sequence

import numpy as np

from mdhr_jax.errors import InputError
from mdhr_jax.faces.boxes import Boxes
from mdhr_jax.faces.detect import NO_FACES, Faces
from mdhr_jax.faces.video import Frame

_SCORE = 0.6  # from which on OpenCV's examples call it a face


class YuNet:
    """Finds faces with OpenCV's `FaceDetectorYN`.

    Args:
      file: the ONNX file of the model, `face_detection_yunet_2023mar.onnx` or a later one.

    Raises:
      InputError: OpenCV is not installed, or the file holds no such model.
    """

    def __init__(self, file: str | pathlib.Path):
        try:
            import cv2
        except ImportError as error:
            raise InputError("yunet needs OpenCV; run pip install 'mdhr-jax[yunet]'") from error
        if not pathlib.Path(file).is_file():
            raise InputError(f"{file}: no such file; give YuNet's ONNX file of OpenCV's model zoo")
        try:
            self._net = cv2.FaceDetectorYN.create(str(file), "", (320, 320), _SCORE)
            self.detect([Frame(1, None, np.zeros((320, 320, 3), np.uint8))])
        except cv2.error as error:
            raise InputError(
                f"{file}: OpenCV does not read it as YuNet; give the ONNX file of its model zoo"
            ) from error

    def detect(self, frames: Sequence[Frame], near: Sequence[Boxes] | None = None) -> list[Faces]:
        """The faces in each frame, the surest first; always looks everywhere."""
        del near
        return [self._detect(frame) for frame in frames]

    def _detect(self, frame: Frame) -> Faces:
        height, width, _ = frame.picture.shape
        self._net.setInputSize((width, height))
        _, rows = self._net.detect(np.ascontiguousarray(frame.picture[..., ::-1]))
        if rows is None:
            return NO_FACES  # type: ignore[unreachable]  # OpenCV's types deny it
        # In pictures of about 32 pixels OpenCV now and then reports a face that is not a number.
        rows = rows[np.isfinite(rows).all(axis=1)].astype(float)
        rows = rows[np.argsort(-rows[:, -1], kind="stable")]
        corner, size = rows[:, :2], rows[:, 2:4]
        landmarks = rows[:, 4:14].reshape(-1, 5, 2)
        return Faces(np.hstack([corner, corner + size]), rows[:, -1], landmarks)
