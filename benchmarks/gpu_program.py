# SPDX-License-Identifier: Apache-2.0
"""A step as XLA compiles it for H100s, on a machine that has none: kernels, bytes, memory.

    pip install --constraint constraints.txt '.[cuda]'
    python benchmarks/gpu_program.py --config bp4d_swinb [--what infer] [--text FILE] \\
        [--devices 8 [--batch_norm_groups 8] [--fsdp 8]] [--deterministic]

XLA's compiler for GPUs needs none (nor a driver): it takes the device's description. What it cannot
do without one is to time variants of matrix products and convolutions, so that another kernel may
be chosen there. Bytes are those of every kernel's operands and results, each counted whole and
once; memory is what the program holds. Several devices have as many clips each as the configuration
has for one; then it also says when what they exchange is sent and when it is waited for, counted in
kernels, which run in this order. Prints Markdown.
"""

import argparse
import pathlib
import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import jax
import scaling
from jax.experimental import topologies
from jax.sharding import Mesh

from mdhr_jax.bench import collectives, profile
from mdhr_jax.bench import steps as bench
from mdhr_jax.machine import sharding
from mdhr_jax.numerics import steps
from mdhr_jax.report import markdown
from mdhr_jax.run.programs import build_scoring
from mdhr_jax.run.recipe import Recipe

# As an H100 SXM says of itself (XLA's GpuTargetConfigProto).
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84929347584
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 28 }
runtime_version { major: 13 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
# Instructions without a kernel of their own.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}
LARGE = 1e6  # bytes of an exchange that is worth a line


class Kernel(NamedTuple):
    """An instruction that runs by itself, exchanges between devices aside.

    Attributes:
      name: of the instruction.
      bytes: of its operands and results.
    """

    name: str
    bytes: int


def kernels(program: str) -> list[Kernel]:
    """Those of a compiled program, in the order in which they run."""
    held, found = {}, []
    for name, result, kind, operands in _instructions(program):
        held[name] = sum(collectives.sizes(result))
        if _is_kernel(kind):
            found.append(Kernel(name, held[name] + sum(held.get(x, 0) for x in operands)))
    return found


class Exchange(NamedTuple):
    """Something that devices exchange.

    Attributes:
      kind: such as all-reduce.
      bytes: of what comes out.
      sent, awaited: how many kernels run before it begins, and before the program waits for it.
    """

    kind: str
    bytes: int
    sent: int
    awaited: int


def exchanges(program: str) -> list[Exchange]:
    """Those of a compiled program, in the order in which they are awaited."""
    sent, found, before = {}, [], 0
    for name, result, kind, operands in _instructions(program):
        if _is_kernel(kind):
            before += 1
        elif kind.endswith("-start"):
            sent[name] = before
        elif kind not in FREE:
            start = sent.get(min(operands), before)  # of one that is awaited at once: its own place
            size = sum(collectives.sizes(result))
            found.append(Exchange(kind.removesuffix("-done"), size, start, before))
    return found


def _is_kernel(kind: str) -> bool:
    return kind not in FREE and not re.fullmatch(f"({'|'.join(collectives.NAMES)})(-.*)?", kind)


def _instructions(program: str) -> Iterator[tuple[str, str, str, set[str]]]:
    """Name, shape, kind and operands of what the program runs."""
    for line in program[program.index("\nENTRY ") :].splitlines():
        if said := _INSTRUCTION.match(line):
            name, result, kind, rest = said.groups()
            yield name, result, kind, set(re.findall(r"%([\w.\-]+)", rest.split("), ")[0]))


_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)")


def lowered(what: str, recipe: Recipe, mesh: Mesh) -> jax.stages.Lowered:
    """A training step or the scoring of a batch, for devices that need not be there."""
    clips = recipe.batch_size if what == "train" else recipe.eval_batch_size
    here = sharding.make_mesh(devices=jax.devices()[:1])
    batch = _placed(bench.random_batch(recipe, clips, here), sharding.batched(mesh))
    if what == "train":
        made = bench.training_programs(recipe, mesh)
        return made.train.lower(made.abstract, batch, made.schedule)
    made = build_scoring(recipe, mesh)
    values = jax.eval_shape(made.prepare, *steps.split(recipe.outline)[1:])
    placed = _placed(values, sharding.replicated(mesh))
    return made.step.lower(*placed, {"frames": batch["frames"]})


def _placed(tree: object, place: jax.sharding.Sharding) -> object:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)


def rows(program: str) -> Iterator[tuple[str, str, str]]:
    """Kernels and gigabytes of every part of the model, and of all."""
    works, counts, sizes = profile.works(program), Counter(), Counter()
    for kernel in kernels(program):
        work = works[kernel.name]
        part = work.part + (", backward" if work.backward else "")
        counts[part] += 1
        sizes[part] += kernel.bytes
    for part, size in sizes.most_common():
        yield part, f"{counts[part]:,}", f"{size / 1e9:.2f}"
    yield "all", f"{counts.total():,}", f"{sizes.total() / 1e9:.2f}"


def _exchanged(found: list[Exchange]) -> str:
    large = [exchange for exchange in found if exchange.bytes >= LARGE]
    lines = [(x.kind, f"{x.bytes / 1e6:.1f}", f"{x.sent:,}", f"{x.awaited:,}") for x in large]
    columns = ("exchange", "MB", "sent after kernel", "awaited after kernel")
    size, rest = sum(x.bytes for x in found), len(found) - len(large)
    return f"{markdown.table(columns, lines)}\n{rest} smaller ones; {size / 1e6:.1f} MB in all\n"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--what", choices=("train", "infer"), default="train")
    parser.add_argument("--text", type=pathlib.Path, help="file for the compiled program")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--batch_norm_groups", type=int, help="instead of the configuration's")
    parser.add_argument("--fsdp", type=int, help="instead of the configuration's")
    parser.add_argument("--deterministic", action="store_true", help="as the key of this name")
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")  # where this runs; the program is for a GPU
    config = scaling.load(arguments.config).copy_and_resolve_references()
    config.precision = "bfloat16"
    config.batch_norm_groups = arguments.batch_norm_groups or config.batch_norm_groups
    config.fsdp = arguments.fsdp or config.fsdp
    config.deterministic = arguments.deterministic
    config.batch_size *= arguments.devices
    config.eval_batch_size *= arguments.devices
    node = topologies.get_topology_desc(
        "", "cuda", target_config=H100, topology=f"1x1x{arguments.devices}"
    )
    start = time.perf_counter()
    mesh = sharding.make_mesh(config.fsdp, node.devices)
    program = lowered(arguments.what, Recipe.of(config), mesh).compile()
    held, text = program.memory_analysis(), program.as_text()
    if arguments.text:
        arguments.text.write_text(text)
    print(markdown.table(("part", "kernels", "GB"), list(rows(text))))
    if found := exchanges(text):
        print(_exchanged(found))
    memory = held.argument_size_in_bytes + held.temp_size_in_bytes
    print(f"{memory / 2**30:.2f} GiB held, compiled in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
