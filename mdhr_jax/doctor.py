# SPDX-License-Identifier: Apache-2.0
"""`mdhr doctor`: is everything there that a run needs, and what to do where it is not."""

import dataclasses
import functools
import importlib.metadata
import os
import pathlib
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from packaging.requirements import Requirement

from mdhr_jax import compiled, devices, locks, workers
from mdhr_jax.errors import InputError

_PACKAGE = "mdhr-jax"
_SHOWN = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "av", "numpy")
_EXTRAS = {
    "faces": "finding faces (--crop mtcnn)",
    "yunet": "finding faces with YuNet (--crop yunet:FILE.onnx)",
    "cuda": "NVIDIA GPUs",
}
_GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class _Need:
    """What a run takes: peak memory of its process, and disk.

    Memory is measured on CPU cores, float32 (docs/measurements.md); checkpoints are `best` and
    `last` with those before them, which stay until the new ones are written.
    """

    run: str
    memory: float  # GiB
    disk: float  # GiB


_NEEDS = (
    _Need("mdhr quickstart", 2.5, 1.0),
    _Need("training ResNet-50, two clips of 16 frames", 7.4, 2.3),
    _Need("training Swin-B, two clips of 16 frames", 15.0, 4.6),
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """A line of the page.

    Attributes:
      said: what is so.
      remedy: what to do about it; nothing where it is well.
      stops: whether it would stop a run.
    """

    said: str
    remedy: str = ""
    stops: bool = False

    def __str__(self) -> str:
        mark = "STOP" if self.stops else "note" if self.remedy else "ok"
        return f"  {mark:<4}  {self.said}" + (f"\n        -> {self.remedy}" if self.remedy else "")


def doctor(place: pathlib.Path | None) -> tuple[str, bool]:
    """The page, and whether nothing on it would stop a run.

    Args:
      place: a data set or a run to look at, too; disk is that of the place.
    """
    parts: dict[str, Callable[[], Iterable[Finding]]] = {
        "installed": _installed,
        "devices": _devices,
        "memory and disk": functools.partial(_resources, place or pathlib.Path()),
    }
    if place is not None:
        parts[str(place)] = functools.partial(_place, place)
    page = {name: list(look()) for name, look in parts.items()}
    text = "\n".join(f"{name}\n" + "\n".join(map(str, lines)) for name, lines in page.items())
    return text, not any(line.stops for lines in page.values() for line in lines)


# What is installed.


def _installed() -> Iterator[Finding]:
    yield Finding(f"Python {platform.python_version()} at {sys.prefix}")
    wrong = list(_wrong(""))
    shown = ", ".join(f"{name} {_version(name)}" for name in _SHOWN if _version(name))
    yield Finding(f"{_PACKAGE} {_version(_PACKAGE)} with {shown}")
    for said in wrong:
        yield Finding(said, "pip install --constraint constraints.txt --editable .", stops=True)
    for extra, purpose in _EXTRAS.items():
        missing = list(_wrong(extra))
        if not missing:
            yield Finding(f"extra {extra}: {purpose}")
        elif extra != "cuda" or devices.GPUS.exists():
            yield Finding(
                f"extra {extra}, for {purpose}: {', '.join(missing)}",
                f"pip install --constraint constraints.txt '.[{extra}]'",
            )


def _wrong(extra: str) -> Iterator[str]:
    """What of the package's needs, or of those of an extra alone, is missing or another version."""
    for line in importlib.metadata.requires(_PACKAGE) or ():
        need = Requirement(line)
        if extra and (need.marker is None or not need.marker.evaluate({"extra": extra})):
            continue
        if not extra and need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        version = _version(need.name)
        if version is None:
            yield f"{need.name} is not installed"
        elif not need.specifier.contains(version, prereleases=True):
            yield f"{need.name} {version} is not {need.specifier}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
