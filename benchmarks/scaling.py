# SPDX-License-Identifier: Apache-2.0
"""Many GPUs on paper: what one GPU's step and the exchanges between GPUs leave of the speed.

    python benchmarks/scaling.py --config bp4d_resnet50 --megabytes 187 --small 116 \\
        [--measured 8.json 4.json 2.json 1.json]

The seconds of a step on one GPU come from `mdhr bench train --json FILE`, one file for each number
of clips; where there is none, the roofline's floor for an H100 stands in, marked so. What is
exchanged comes from `benchmarks/gpu_program.py --devices 8`. It is added to the step as if nothing
of it overlapped.
"""

import argparse
import importlib.util
import json
import math
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from mdhr_jax.bench import roofline
from mdhr_jax.bench import steps as bench
from mdhr_jax.commands.flags import CONFIGS
from mdhr_jax.machine import sharding
from mdhr_jax.report import markdown
from mdhr_jax.run.recipe import Recipe

DEVICES = (1, 2, 4, 8, 16, 32, 64)
NODE = 8  # GPUs


class Network(NamedTuple):
    """Bytes per second that cross a GPU's connection, and seconds of the smallest exchange."""

    inside: float
    between: float
    latency_inside: float
    latency_between: float


# nccl-tests on 8 x H100 in a node; 400 Gb/s a GPU between nodes; latencies are estimates.
H100 = roofline.Machine(flops=798e12, bandwidth=3.0e12)
NETWORK = Network(365e9, 45e9 * NODE, 20e-6, 40e-6)


def exchanged(size: float, small: int, devices: int, network: Network) -> float:
    """Seconds for the sum of so many bytes of gradients, and so many small exchanges."""
    if devices == 1:
        return 0.0
    inside = devices <= NODE
    bus = network.inside if inside else network.between
    latency = network.latency_inside if inside else network.latency_between
    return 2 * (devices - 1) / devices * size / bus + small * latency


def floor(config: ConfigDict, clips: int) -> float:
    """Least seconds of a step on an H100."""
    config = config.copy_and_resolve_references()
    config.batch_size, config.precision = clips, "bfloat16"
    recipe = Recipe.of(config)
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    made = bench.training_programs(recipe, mesh)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(made.abstract["params"]))
    work = roofline.products(
        made.train, made.abstract, bench.random_batch(recipe, clips, mesh), made.schedule
    )
    return roofline.floor(work, H100, parameters)


def measured(files: list[pathlib.Path]) -> dict[int, float]:
    """Seconds of a step by its number of clips."""
    said = [json.loads(file.read_text()) for file in files]
    return {facts["config"]["batch_size"]: facts["seconds"]["median"] for facts in said}


def rows(
    seconds: Mapping[int, float], size: float, small: int, network: Network
) -> list[tuple[str, ...]]:
    """Efficiency of weak and strong scaling: with BatchNorm over all GPUs, and with its groups."""
    most = max(seconds)
    lines = []
    for devices in DEVICES:
        cells = [str(devices)]
        for calls in (small, 0):
            wait = exchanged(size, calls, devices, network)
            cells.append(f"{seconds[most] / (seconds[most] + wait):.0%}")
            clips = most // devices
            if clips:
                cells.append(f"{seconds[most] / (seconds[clips] + wait):.1f}x")
            else:
                cells.append("")
        lines.append(tuple(cells))
    return lines


def load(text: str) -> ConfigDict:
    """The configuration of a name or a file."""
    spec = importlib.util.spec_from_file_location("config", CONFIGS.get(text, text))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--measured", nargs="*", type=pathlib.Path, default=[])
    parser.add_argument("--clips", type=int, default=8, help="of a GPU that is alone")
    parser.add_argument("--megabytes", type=float, required=True, help="exchanged in a step")
    parser.add_argument("--small", type=int, required=True, help="small exchanges in a step")
    arguments = parser.parse_args()
    config, known = load(arguments.config), measured(arguments.measured)
    seconds, clips = {}, arguments.clips
    while clips:
        seconds[clips] = known.get(clips) or floor(config, clips)
        said = "measured" if clips in known else "floor, not measured"
        print(f"{clips} clips: {1000 * seconds[clips]:.2f} ms ({said})")
        clips //= 2
    size, small = 1e6 * arguments.megabytes, arguments.small
    print(f"{arguments.megabytes:g} MB and {small} small exchanges\n")
    header = ["GPUs", "weak", "strong", "weak, groups", "strong, groups"]
    print(markdown.table(header, rows(seconds, size, small, NETWORK)))


if __name__ == "__main__":
    main()
