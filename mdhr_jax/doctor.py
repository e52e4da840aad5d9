# SPDX-License-Identifier: Apache-2.0
"""`mdhr doctor`: is everything there that a run needs, and what to do where it is not."""

import collections
import contextlib
import dataclasses
import functools
import importlib.metadata
import os
import pathlib
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from packaging.requirements import Requirement

from mdhr_jax.configs import base
from mdhr_jax.errors import InputError
from mdhr_jax.machine import compile_cache, workers

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
      fact: what is so.
      remedy: what to do about it; nothing where it is well.
      stops: whether it would stop a run.
    """

    fact: str
    remedy: str = ""
    stops: bool = False

    def __str__(self) -> str:
        mark = "STOP" if self.stops else "note" if self.remedy else "ok"
        return f"  {mark:<4}  {self.fact}" + (f"\n        -> {self.remedy}" if self.remedy else "")


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
    wrong = list(_wrong(_PACKAGE))
    shown = ", ".join(f"{name} {_version(name)}" for name in _SHOWN if _version(name))
    yield Finding(f"{_PACKAGE} {_version(_PACKAGE)} with {shown}")
    for fact in wrong:
        yield Finding(fact, "pip install --constraint constraints.txt --editable .", stops=True)
    for extra, purpose in _EXTRAS.items():
        missing = list(_wrong(_PACKAGE, extra))
        if not missing:
            yield Finding(f"extra {extra}: {purpose}")
        elif extra != "cuda" or pathlib.Path("/dev/nvidiactl").exists():
            yield Finding(
                f"extra {extra}, for {purpose}: {', '.join(missing)}",
                f"pip install --constraint constraints.txt '.[{extra}]'",
            )


def _wrong(package: str, extra: str = "") -> Iterator[str]:
    """What of a package's needs, or of those of an extra alone, is missing or another version."""
    for line in importlib.metadata.requires(package) or ():
        need = Requirement(line)
        without, within = (
            need.marker is None or need.marker.evaluate({"extra": name}) for name in ("", extra)
        )
        if without == bool(extra) or not (without or within):
            continue
        version = _version(need.name)
        if version is None:
            yield f"{need.name} is not installed"
        elif not need.specifier.contains(version, prereleases=True):
            yield f"{need.name} {version} is not {need.specifier}"
        else:
            for of_need in need.extras:
                yield from _wrong(need.name, of_need)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


# What there is to compute with.


def _devices() -> Iterator[Finding]:
    try:
        import jax

        from mdhr_jax.machine import devices

        available = devices.found()
    except Exception as error:  # JAX documents no set of exceptions
        reason = str(error).partition("\n")[0] or type(error).__name__
        yield Finding(f"JAX: {reason}", "mend what it says, or set JAX_PLATFORMS=cpu", stops=True)
        return
    kinds = collections.Counter(device.device_kind for device in available)
    for kind, count in kinds.items():
        yield Finding(f"{count} x {kind}{_memory_of(available[0])}: training, scoring, prediction")
    if jax.default_backend() == "cpu":
        yield Finding(
            "no GPU: the quickstart takes minutes here, ResNet-50 on BP4D weeks",
            "on a machine with NVIDIA GPUs: pip install --constraint constraints.txt '.[cuda]'",
        )
    yield Finding(f"{workers.cores()} CPU cores: rendering, preparing, reading")


def _memory_of(device: Any) -> str:
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return f", {limit / _GIB:.0f} GiB that JAX may take" if limit else ""


# Memory and disk, beside what runs take.


def _resources(place: pathlib.Path) -> Iterator[Finding]:
    memory, disk = _free_memory(), _free_disk(place)
    yield Finding(
        f"{memory:.1f} GiB of memory and {disk:.2f} GiB of disk free (at {place.absolute()})"
    )
    for need in _NEEDS:
        lacks = [
            f"{wanted - free:.1f} GiB of {what} more"
            for what, free, wanted in (("memory", memory, need.memory), ("disk", disk, need.disk))
            if free < wanted
        ]
        fact = f"{need.run}: {need.memory:g} GiB of memory, {need.disk:g} GiB of disk"
        remedy = f"free {' and '.join(lacks)}, or name another place" if lacks else ""
        yield Finding(fact, remedy, stops=bool(lacks) and need is _NEEDS[0])
    yield from _cache()


def _free_memory() -> float:
    """GiB; all of it where the system does not tell what is free."""
    with contextlib.suppress(OSError), open("/proc/meminfo") as lines:
        known = dict(line.split(":") for line in lines)
        return int(known["MemAvailable"].split()[0]) * 1024 / _GIB
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _GIB


def _free_disk(place: pathlib.Path) -> float:
    """GiB, of the nearest folder that is there."""
    there = next(each for each in (place.absolute(), *place.absolute().parents) if each.exists())
    return shutil.disk_usage(there).free / _GIB


def _cache() -> Iterator[Finding]:
    folder = os.environ.get(compile_cache.VARIABLE)
    if folder is None:
        yield Finding(
            "compiled programs are not kept: every command compiles anew",
            f"set {compile_cache.VARIABLE} to a folder that only you can write",
        )
        return
    size = sum(file.stat().st_size for file in pathlib.Path(folder).glob("*") if file.is_file())
    yield Finding(f"compiled programs: {size / _GIB:.1f} GiB in {folder}; may be deleted")


# A data set or a run.


def _place(place: pathlib.Path) -> Iterable[Finding]:
    looks = {"config.json": _run, "metadata.json": _data_set, "runs.jsonl": _results}
    for file, look in looks.items():
        if (place / file).exists():
            return _findings(look, place)
    fact = "no data set, run or results of mdhr" if place.is_dir() else "no such directory"
    return [Finding(fact, "name another directory", stops=True)]


def _findings(
    look: Callable[[pathlib.Path], Iterable[Finding]], place: pathlib.Path
) -> list[Finding]:
    """What a look finds, up to what a command would refuse."""
    findings: list[Finding] = []
    try:
        for finding in look(place):
            findings.append(finding)
    except InputError as error:
        fact, _, remedy = str(error).removeprefix(f"{place}: ").partition("; ")
        findings.append(Finding(fact, remedy or "bring back a copy of it", stops=True))
    return findings


def _data_set(place: pathlib.Path) -> Iterator[Finding]:
    from mdhr_jax.data import decoded, records

    source = records.open_dataset(place)
    table, metadata = source.table, source.metadata
    yield Finding(
        f"data set of {len(table)} frames, {len(set(table.subjects))} people, {metadata.builder}: "
        f"{metadata.source}"
    )
    yield Finding(
        f"layout {metadata.layout}: AUs {' '.join(map(str, metadata.aus))}; faces cut by "
        f"{metadata.crop}, {metadata.image_size} pixels, {metadata.fps:g} frames per second"
    )
    if metadata.layout != base.get_config().layout:
        yield Finding(
            f"configurations have layout {base.get_config().layout!r} where they say no other",
            f"train with --config.layout={metadata.layout}",
        )
    people = [len(fold) for fold in source.folds]
    empty = [number for number, count in enumerate(people, start=1) if not count]
    yield Finding(
        f"test people by fold: {people}",
        f"fold {empty} cannot be tested: choose another, or prepare more people" if empty else "",
    )
    pictures = len(table) * metadata.image_size**2 * 3 / _GIB
    there = decoded.existing(source) is not None
    what = "is there" if there else f"would take {pictures:.2f} GiB of disk"
    yield Finding(f"decoded.npy for --config.input=mapped {what}")
    yield Finding(f"its pictures are not looked at here: mdhr check-data {place}")


def _run(place: pathlib.Path) -> Iterator[Finding]:
    from mdhr_jax.data import people
    from mdhr_jax.run import checkpoint, directory, inputs, provenance, writers

    recipe = directory.load_recipe(place)
    yield Finding(
        f"run of {recipe.kind_name}, {recipe.model.backbone}, layout {recipe.layout_name}, "
        f"fold {recipe.fold}, "
        f"protocol {recipe.protocol_name}, seed {recipe.seed}"
    )
    learned = provenance.read(place)
    saved = directory.checkpoints(place)
    steps = {kind: checkpoint.latest_step(saved, kind) for kind in ("last", "best")}
    for kind, step in steps.items():
        if step is not None:
            checkpoint.check(saved, kind)
            yield Finding(f"checkpoint {kind!r} of step {step}, whole")
    if set(steps.values()) == {None}:
        yield Finding(
            f"no checkpoint in {saved}: nothing to test or predict with",
            "repeat the train command, which begins at step 0, or bring back a copy",
        )
    rows = writers.read(place / "metrics.jsonl")
    yield Finding(f"metrics.jsonl: {len(rows)} rows, the last of step {_last(rows)}")
    if learned is None:
        yield Finding("a converted model: it can be tested and predict, not be trained on")
        return
    source = recipe.open_data()
    same = learned.has_same_data(provenance.Learned.of(source, people.Seen({})))
    yield Finding(
        f"data set {recipe.data}: {'the one' if same else 'another one than'} it has learned from",
        "" if same else "say with --config.data where that one is",
        stops=not same,
    )
    start, total = steps["last"] or 0, inputs.count_steps(recipe, source)
    left = "finished" if start == total else "the same train command goes on from there"
    yield Finding(f"step {start} of {total}: {left}")


def _last(rows: Sequence[Mapping[str, Any]]) -> int:
    return max((row["step"] for row in rows), default=0)


def _results(place: pathlib.Path) -> Iterator[Finding]:
    from mdhr_jax.studies import experiments

    done = experiments.read_runs(place / experiments.RUNS)
    names = list(dict.fromkeys(run.variant for run in done))
    yield Finding(f"{len(done)} finished runs of {', '.join(names)}")
