# SPDX-License-Identifier: Apache-2.0
"""The mtcnn package's side of faces.py, run by .venv-mtcnn: pictures in, faces and speed out.

    python reference_faces.py IN.npz OUT.npz SECONDS

IN holds pictures 0, 1, ... and `frame`, which is timed alone and in batches of eight.
"""

import sys
import time

import numpy as np
import tensorflow
from mtcnn import MTCNN


def frames_per_second(detector: MTCNN, batch: list[np.ndarray], seconds: float) -> float:
    """Median over five windows."""
    detector.detect_faces(batch)
    rates = []
    for _ in range(5):
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds / 5:
            detector.detect_faces(batch)
            count += len(batch)
        rates.append(count / (time.perf_counter() - start))
    return float(np.median(rates))


def main(source: str, target: str, seconds: str) -> None:
    """See above."""
    pictures = dict(np.load(source))
    frame = pictures.pop("frame")
    detector = MTCNN()
    found = {
        name: detector.detect_faces(picture, output_type="numpy", box_format="xyxy")
        for name, picture in pictures.items()
    }
    speed = [frames_per_second(detector, [frame] * n, float(seconds)) for n in (1, 8)]
    np.savez(target, **found, speed=speed, version=tensorflow.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
