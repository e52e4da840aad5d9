# SPDX-License-Identifier: Apache-2.0
import importlib.util
import pathlib
import subprocess
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
PROGRAM = """HloModule jit_step, is_scheduled=true

%fused (p: bf16[8,4]) -> f32[4] {
  %p = bf16[8,4]{1,0} parameter(0)
  ROOT %sum = f32[4]{0} reduce(%p), dimensions={0}
}

ENTRY %main (x: bf16[8,4], w: f32[]) -> (f32[4], f32[4]) {
  %x = bf16[8,4]{1,0} parameter(0)
  %w = f32[] parameter(1)
  %view = bf16[4,8]{0,1} bitcast(%x)
  %sums = f32[4]{0} fusion(%x), calls=%fused, metadata={op_name="jit(step)/backbone/add"}
  %both = (f32[4]{0}, s8[0]{0}) custom-call(%view, %sums, %sums), metadata={op_name="x"}
  %first = f32[4]{0} get-tuple-element(%both), index=0
  ROOT %out = (f32[4]{0}, f32[4]{0}) tuple(%sums, %first)
}
"""


@pytest.fixture
def gpu_program(monkeypatch):
    """benchmarks/gpu_program.py as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu_program")


def test_kernels_count_what_they_read_and_write(gpu_program):
    found = {kernel.name: kernel.bytes for kernel in gpu_program.kernels(PROGRAM)}
    assert found == {"sums": 64 + 16, "both": 64 + 16 + 16}


def test_a_row_for_every_part_and_one_for_all(gpu_program):
    named = [(part, count) for part, count, _ in gpu_program.rows(PROGRAM)]
    assert named == [("other", "1"), ("backbone", "1"), ("all", "2")]


EXCHANGES = """HloModule jit_step, is_scheduled=true

ENTRY %main (x: bf16[8,4], w: f32[4]) -> f32[4] {
  %x = bf16[8,4]{1,0} parameter(0)
  %w = f32[4]{0} parameter(1)
  %early = bf16[4]{0} fusion(%x), calls=%fused
  %sent = ((bf16[4]{0}, f32[4]{0}), (bf16[4]{0}, f32[4]{0})) all-reduce-start(%early, %w)
  %late = f32[4]{0} fusion(%w), calls=%fused
  %sum = f32[4]{0} all-reduce(%late), channel_id=2
  %later = f32[4]{0} fusion(%sum), calls=%fused
  %came = (bf16[4]{0}, f32[4]{0}) all-reduce-done(%sent)
  %view = f32[4]{0} get-tuple-element(%came), index=1
  ROOT %last = f32[4]{0} fusion(%view, %later), calls=%fused
}
"""


def test_exchanges_say_what_runs_beside_them(gpu_program):
    assert gpu_program.exchanges(EXCHANGES) == [
        ("all-reduce", 16, 2, 2),
        ("all-reduce", 8 + 16, 1, 3),
    ]
    names = [kernel.name for kernel in gpu_program.kernels(EXCHANGES)]
    assert names == ["early", "late", "later", "last"]


@pytest.mark.slow
@pytest.mark.skipif(
    not importlib.util.find_spec("jax_plugins"),
    reason="XLA's compiler for GPUs is not here: pip install --constraint constraints.txt .[cuda]",
)
@pytest.mark.parametrize(
    "options", [(), ("--what", "infer", "--deterministic"), ("--devices", "2")]
)
def test_a_step_is_compiled_for_gpus_that_are_not_here(config_file, options):
    command = [sys.executable, BENCHMARKS / "gpu_program.py", "--config", config_file()]
    said = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    assert "| backbone" in said.stdout and "GiB held" in said.stdout
    assert ("smaller ones" in said.stdout) == ("--devices" in options)
