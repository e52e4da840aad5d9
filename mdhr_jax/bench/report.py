# SPDX-License-Identifier: Apache-2.0
"""What was measured, as a table and as JSON."""

import datetime
import importlib.metadata
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from mdhr_jax.bench import collectives
from mdhr_jax.bench.data import Rate
from mdhr_jax.bench.profile import KINDS, PARTS, Work
from mdhr_jax.bench.roofline import Machine
from mdhr_jax.bench.saving import Saving
from mdhr_jax.bench.steps import Measured
from mdhr_jax.machine import workers
from mdhr_jax.report import markdown
from mdhr_jax.run.recipe import Recipe

_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "grain")


def _where(what: str, recipe: Recipe) -> dict[str, Any]:
    return {
        "what": what,
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": workers.cores(),
        "date": datetime.date.today().isoformat(),
        "versions": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "config": recipe.flat(),
    }


def step_facts(what: str, recipe: Recipe, measured: Measured) -> dict[str, Any]:
    """All that is known of a program, for a JSON file."""
    return {
        **_where(what, recipe),
        "seconds": measured.timing._asdict(),
        "compilation_seconds": measured.compilation,
        "frames": measured.frames,
        "frames_per_second": measured.frames / measured.timing.median,
        "flops": measured.flops,
        "utilisation": measured.flops
        / (measured.timing.median * measured.devices * measured.machine.flops),
        "floor_seconds": measured.floor,
        "floor_share": measured.floor / measured.timing.median,
        "memory_bytes": measured.memory,
        "peak_bytes": measured.peak,
        "exchanged": {kind: volume._asdict() for kind, volume in measured.exchanged.items()},
        "machine": measured.machine._asdict(),
    }


def machine_facts(recipe: Recipe, machine: Machine) -> dict[str, Any]:
    """What the device reaches."""
    return {**_where("machine", recipe), "machine": machine._asdict()}


def machine_table(facts: dict[str, Any]) -> str:
    """The same as two lines."""
    precision = facts["config"]["precision"]
    lines = [(f"a product in {precision}, a copy", _machine(facts))]
    return markdown.table([_device(facts), ""], lines)


def _machine(facts: dict[str, Any]) -> str:
    machine = facts["machine"]
    return f"{machine['flops'] / 1e12:,.2f} TFLOP/s, {machine['bandwidth'] / 1e9:,.0f} GB/s"


def saving_facts(recipe: Recipe, saving: Saving) -> dict[str, Any]:
    """What a checkpoint costs a training."""
    return {**_where("saving", recipe), **saving._asdict()}


def saving_table(facts: dict[str, Any]) -> str:
    """The same, line by line."""
    lines = [
        ("a step alone", _ms(facts["alone"])),
        ("a step while a checkpoint is written", _ms(facts["beside"])),
        ("the save returns after", _ms(facts["returns"])),
        ("the checkpoint is written after", _ms(facts["written"])),
        ("the checkpoint", f"{facts['bytes'] / 2**20:,.1f} MiB"),
    ]
    return markdown.table([_device(facts), "median of windows"], lines)


def data_facts(recipe: Recipe, rates: Sequence[Rate], step: Measured) -> dict[str, Any]:
    """How fast frames are read, beside what a training step takes."""
    file, *inputs = rates
    return {
        **_where("data", recipe),
        "inputs": [rate._asdict() for rate in inputs],
        "file": file._asdict(),
        "step_frames_per_second": step.frames / step.timing.median,
    }


def data_table(facts: dict[str, Any]) -> str:
    """Frames per second of every input."""
    file, config = facts["file"], facts["config"]
    clip_frames = config["batch_size"] * config["clip_length"]
    lines = [
        *(
            (rate["input"], *_passes(rate), f"{clip_frames / rate['fed']:,.1f}", _share(rate))
            for rate in facts["inputs"]
        ),
        (f"{file['input']}, alone", *_passes(file), "", ""),
        ("a training step takes", "", "", f"{facts['step_frames_per_second']:,.1f}", ""),
    ]
    header = ["frames per second", "cold", "warm", "training with it", "input wait"]
    return markdown.table(header, lines) + (
        f"\n{_device(facts)}; {facts['inputs'][0]['frames']:,} frames in batches of "
        f"{config['batch_size']} clips of {config['clip_length']}\n"
    )


def _share(rate: dict[str, Any]) -> str:
    return f"{rate['wait']:.1%}"


def _passes(rate: dict[str, Any]) -> tuple[str, str]:
    return f"{rate['cold']:,.0f}", f"{rate['warm']:,.0f}"


def collectives_facts(recipe: Recipe, rates: Sequence[collectives.Rate]) -> dict[str, Any]:
    """How fast devices exchange."""
    entries = [rate._asdict() | {"timing": rate.timing._asdict()} for rate in rates]
    return {**_where("collectives", recipe), "rates": entries}


def collectives_table(facts: dict[str, Any]) -> str:
    """Time and rate of every exchange."""
    lines = [
        (
            rate["kind"],
            f"{rate['bytes'] / 2**20:,.2f} MiB",
            _ms(rate["timing"]["median"]),
            f"{rate['bus'] / 1e9:,.2f} GB/s",
        )
        for rate in facts["rates"]
    ]
    header = ["exchange", "array", "time, median of windows", "bus"]
    return markdown.table(header, lines) + f"\n{_device(facts)}\n"


def spent_facts(spent: Mapping[Work, float]) -> list[dict[str, Any]]:
    """Where time goes, the most of it first."""
    return [
        {**work._asdict(), "seconds": seconds}
        for work, seconds in sorted(spent.items(), key=lambda item: -item[1])
    ]


def spent_table(spent: Sequence[dict[str, Any]]) -> str:
    """A line per part of the model, forward and backward: its shares of the time traced."""
    whole = sum(entry["seconds"] for entry in spent)
    kinds = [*KINDS.values(), "rest"]
    lines = []
    for part, backward in itertools.product([*PARTS, "other"], [False, True]):
        of_part = [e for e in spent if (e["part"], e["backward"]) == (part, backward)]
        seconds = [sum(e["seconds"] for e in of_part if e["kind"] == kind) for kind in kinds]
        if of_part:
            shares = (f"{each / whole:.1%}" for each in (*seconds, sum(seconds)))
            lines.append((f"{part}, backward" if backward else part, *shares))
    return markdown.table(["time in", *kinds, "together"], lines)


_MOST_KERNELS = 20


def kernel_facts(seconds: Mapping[str, float], works: Mapping[str, Work]) -> list[dict[str, Any]]:
    """The instructions that take the most time, and their shares of all."""
    whole = sum(seconds.values())
    longest = sorted(seconds, key=lambda name: -seconds[name])[:_MOST_KERNELS]
    return [
        {"name": name, **works[name]._asdict(), "share": seconds[name] / whole} for name in longest
    ]


def kernel_table(kernels: Sequence[dict[str, Any]]) -> str:
    """A line for each of them."""
    lines = [
        (
            kernel["name"],
            f"{kernel['part']}, backward" if kernel["backward"] else kernel["part"],
            kernel["kind"],
            f"{kernel['share']:.1%}",
        )
        for kernel in kernels
    ]
    return markdown.table(["instruction", "part", "kind", "of the time"], lines)


def _loops(config: dict[str, Any]) -> str:
    return ", micro-batches counted once" if config["accumulate"] > 1 else ""


def _exchanged(facts: dict[str, Any]) -> str:
    calls = [
        f"{volume['bytes'] / 2**20:,.1f} MiB in {volume['times']} {kind}"
        for kind, volume in facts["exchanged"].items()
    ]
    return ", ".join(calls) or "nothing"


def _device(facts: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return f"{facts['devices']} x {facts['device']}, {facts['cores']} cores, {versions}"


def step_table(facts: dict[str, Any]) -> str:
    """The facts that one looks for."""
    seconds, config = facts["seconds"], facts["config"]
    lines = [
        ("device", _device(facts)),
        ("model", f"{config['model.backbone']}, {config['precision']}, {config['image_size']} px"),
        ("call", f"{facts['frames']} frames, clips of {config['clip_length']}"),
        (
            "time, median of windows",
            f"{_ms(seconds['median'])} ({_ms(seconds['fastest'])} to {_ms(seconds['slowest'])})",
        ),
        ("frames per second", f"{facts['frames_per_second']:,.1f}"),
        (
            "least time (roofline)",
            f"{_ms(facts['floor_seconds'])}, {facts['floor_share']:.0%} of it",
        ),
        ("of the rate of products (MFU)", f"{facts['utilisation']:.0%}"),
        ("operations", f"{facts['flops'] / 1e9:,.1f} GFLOP"),
        ("memory", _memory(facts)),
        (f"exchanged between devices{_loops(config)}", _exchanged(facts)),
        ("compilation", f"{facts['compilation_seconds']:.1f} s"),
        ("this device, measured", _machine(facts)),
    ]
    return markdown.table([f"mdhr bench {facts['what']}", ""], lines)


def _memory(facts: dict[str, Any]) -> str:
    peak = facts["peak_bytes"]
    return f"{facts['memory_bytes'] / 2**30:.2f} GiB" + (
        f", {peak / 2**30:.2f} GiB at most" if peak else ""
    )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.2f} ms"
