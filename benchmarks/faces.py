# SPDX-License-Identifier: Apache-2.0
"""Our MTCNN beside the mtcnn package: are the faces the same, and how fast are they found?

    bash launch/mtcnn_env.sh
    .venv/bin/python benchmarks/faces.py [PICTURE_OR_VIDEO ...]

Compares on variants of scikit-image's astronaut, on the pictures named, and on a frame of every
second of the videos named; times frames of 640 x 480 pixels. Prints two Markdown tables.
"""

import argparse
import itertools
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
import skimage.data
from PIL import Image, ImageDraw

from mdhr_jax.faces import align, boxes, picture_files, squares, video
from mdhr_jax.faces.mtcnn import cascade

HERE = pathlib.Path(__file__).parent
BATCH = 8


def pictures(sources: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Names and RGB pictures to compare on."""
    astronaut = Image.fromarray(skimage.data.astronaut())
    yield "astronaut", np.asarray(astronaut)
    yield "astronaut, mirrored", np.asarray(astronaut)[:, ::-1]
    yield "astronaut, half as large", np.asarray(astronaut.resize((256, 256)))
    yield "astronaut, twice as large", np.asarray(astronaut.resize((1024, 1024)))
    yield "astronaut, 15 degrees", np.asarray(astronaut.rotate(15))
    yield "astronaut, wide", np.asarray(astronaut.crop((60, 20, 380, 200)))
    for source in sources:
        path = pathlib.Path(source)
        if path.suffix.lower() in picture_files.SUFFIXES:
            yield path.name, np.asarray(Image.open(path).convert("RGB"))
        else:
            for frame in itertools.islice(video.frames(path), 0, None, 25):
                yield f"{path.name}, frame {frame.number}", frame.picture


def scene() -> np.ndarray:
    """A frame of 640 x 480 pixels with one face."""
    return np.asarray(Image.fromarray(skimage.data.astronaut()[:384]).resize((640, 480)))


def frames_per_second(work: Callable[[], int], seconds: float) -> float:
    """Median over five windows; `work` says how many frames it did."""
    work()
    rates = []
    for _ in range(5):
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds / 5:
            count += work()
        rates.append(count / (time.perf_counter() - start))
    return float(np.median(rates))


def speeds(frame: np.ndarray, seconds: float) -> dict[str, float]:
    """Frames per second of what we do with them."""
    detector = cascade.Mtcnn()
    cutter = squares.Found(lambda name: detector, align.TEMPLATES["bp4d"])
    alone = [video.Frame(1, None, frame)]
    clip = [video.Frame(n, None, frame) for n in range(1, 1 + 5 * BATCH)]
    batch = clip[:BATCH]
    return {
        "one frame": frames_per_second(lambda: len(detector.detect(alone)), seconds),
        f"{BATCH} frames at once": frames_per_second(lambda: len(detector.detect(batch)), seconds),
        "video: follow, align, cut": frames_per_second(
            lambda: len(list(cutter.squares(clip, video="clip", side=256))), seconds
        ),
    }


def reference(compared: list[np.ndarray], frame: np.ndarray, seconds: float) -> dict:
    """What reference_faces.py found."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/in.npz", f"{folder}/out.npz"
        numbered = {str(number): picture for number, picture in enumerate(compared)}
        np.savez(source, **numbered, frame=frame)
        python, script = HERE.parent / ".venv-mtcnn/bin/python", HERE / "reference_faces.py"
        subprocess.run(
            [python, script, source, target, str(seconds)], check=True, capture_output=True
        )
        return dict(np.load(target))


def show(file: str) -> None:
    """A picture: the astronaut upright and turned, what is found, and how it is cut."""
    astronaut = Image.fromarray(skimage.data.astronaut()).crop((40, 0, 424, 384))
    columns = []
    for turn in (0, 20, -25):
        picture = astronaut.rotate(turn, Image.Resampling.BICUBIC)
        frame = video.Frame(1, None, np.asarray(picture))
        (faces,) = cascade.Mtcnn(60).detect([frame])
        draw = ImageDraw.Draw(picture)
        draw.rectangle(faces.boxes[0].tolist(), outline=(255, 220, 60), width=2)
        for x, y in faces.landmarks[0]:
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=(80, 220, 255))
        shown = [
            align.cut(frame.picture, align.similarity(faces.landmarks[0], template, 190), 190)
            for template in align.TEMPLATES.values()
        ]
        below = np.hstack([shown[0], np.full((190, 4, 3), 255, np.uint8), shown[1]])
        gap = np.full((4, 384, 3), 255, np.uint8)
        columns += [np.vstack([np.asarray(picture), gap, below])]
        columns += [np.full((578, 8, 3), 255, np.uint8)]
    Image.fromarray(np.hstack(columns[:-1])).save(file, quality=88)


def agreement(ours: cascade.Faces, theirs: np.ndarray) -> str:
    """Columns of a table row: numbers of faces, worst overlap, worst mean distance of landmarks."""
    counts = f"{len(ours.scores)} | {len(theirs)}"
    if not len(ours.scores) or not len(theirs):
        return f"{counts} | - | -"
    overlap = boxes.overlap(ours.boxes, theirs[:, 1:5], of="union")
    match = overlap.argmax(axis=1)
    landmarks = theirs[match, 6:16].reshape(-1, 2, 5).transpose(0, 2, 1)
    distance = np.linalg.norm(landmarks - ours.landmarks, axis=-1).mean(axis=-1)
    return f"{counts} | {overlap.max(axis=1).min():.4f} | {distance.max():.3f}"


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sources", nargs="*", help="pictures and videos to compare on, too")
    parser.add_argument("--seconds", type=float, default=10, help="for each timing")
    parser.add_argument("--show", help="only draw this picture of faces found and cut")
    arguments = parser.parse_args()
    if arguments.show:
        show(arguments.show)
        return
    names, compared = zip(*pictures(arguments.sources), strict=True)
    frame = scene()
    detector = cascade.Mtcnn()
    found = detector.detect([video.Frame(n, None, p) for n, p in enumerate(compared)])
    measured = speeds(frame, arguments.seconds)
    theirs = reference(list(compared), frame, arguments.seconds)

    print("| picture | faces | mtcnn | least IoU | landmarks, px |\n|---|---|---|---|---|")
    for number, (name, faces) in enumerate(zip(names, found, strict=True)):
        print(f"| {name} | {agreement(faces, theirs[str(number)])} |")
    device = jax.devices()[0].device_kind
    print(f"\n| 640 x 480, frames/s | ours, jax {jax.__version__} on {device} |", end="")
    print(f" mtcnn 1.0.0, TensorFlow {theirs['version']} on the CPU |\n|---|---|---|")
    peer = [f"{rate:.1f}" for rate in theirs["speed"]] + ["-"]
    for (name, rate), other in zip(measured.items(), peer, strict=True):
        print(f"| {name} | {rate:.1f} | {other} |")


if __name__ == "__main__":
    main()
