# SPDX-License-Identifier: Apache-2.0
"""Where a program's time goes, read off a trace of it."""

import pathlib
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax

# Named scopes of the model and of the step; what is in none of them is "other".
PARTS = ("preprocess", "backbone", "motion", "relations", "optimizer")
KINDS = {"conv_general_dilated": "convolutions", "dot_general": "products"}


class Work(NamedTuple):
    """Whose work an instruction does, and which.

    Attributes:
      part: of `PARTS`, or "other".
      backward: whether it belongs to the gradient.
      kind: of `KINDS`' values, or "rest".
    """

    part: str
    backward: bool
    kind: str


def spent(seconds: Mapping[str, float], program: str) -> dict[Work, float]:
    """Seconds of each work; instructions that run at the same time count each in full.

    Args:
      seconds: of every instruction, see `instructions`.
      program: text of the compiled program.
    """
    known = works(program)
    sums: dict[Work, float] = defaultdict(float)
    for name, duration in seconds.items():
        sums[known[name]] += duration
    return dict(sums)


def instructions(folder: str | pathlib.Path, program: str) -> dict[str, float]:
    """Seconds of each instruction in the calls of a program that a trace has seen.

    Args:
      folder: into which traces were written; the last one counts.
      program: text of the compiled program.
    """
    module, known = _module(program), works(program)
    seconds: dict[str, float] = defaultdict(float)
    traces = pathlib.Path(folder).rglob("*.xplane.pb")
    last = max(traces, key=lambda file: file.stat().st_mtime)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of JAX's own types
        for name, duration in _instructions(last, module):
            if name in known:
                seconds[name] += duration
    return dict(seconds)


def works(program: str) -> dict[str, Work]:
    """What each instruction of a program does; a fusion has the kind of the product in it."""
    inside: dict[str, list[str]] = {}
    called: dict[str, str] = {}
    sources: dict[str, str] = {}
    computation = ""
    for line in program.splitlines():
        if opened := _COMPUTATION.match(line):
            computation = opened[1]
        elif instruction := _INSTRUCTION.match(line):
            source = _SOURCE.search(line)
            sources[instruction[1]] = source[1] if source else ""
            inside.setdefault(computation, []).append(sources[instruction[1]])
            if calls := _CALLS.search(line):
                called[instruction[1]] = calls[1]
    return {
        name: _work(source, [source, *inside.get(called.get(name, ""), [])])
        for name, source in sources.items()
    }


_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = ")
_SOURCE = re.compile(r'metadata=\{op_name="([^"]*)"')
_CALLS = re.compile(r"calls=%?([\w.\-]+)")
_PART = re.compile(rf"\b({'|'.join(PARTS)})\b")


def _work(source: str, sources: list[str]) -> Work:
    """Of an instruction that JAX has named `source`, and of all that is fused into it."""
    named = " ".join(sources)
    part = _PART.search(source) or _PART.search(named)
    ends = {each.rpartition("/")[2] for each in sources}
    kind = next((kind for primitive, kind in KINDS.items() if primitive in ends), "rest")
    return Work(part[1] if part else "other", "transpose(" in (source or named), kind)


def _module(program: str) -> str:
    return re.findall(r"^HloModule ([\w.\-]+)", program)[0]


def _instructions(file: pathlib.Path, module: str) -> Iterator[tuple[str, float]]:
    """Instructions of a module and the seconds that each took, less those within it."""
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            # Of the instructions around the current one: end, name, own time.
            open_until: list[list] = []
            for start, end, name in sorted(_of_module(line, module), key=lambda x: (x[0], -x[1])):
                while open_until and open_until[-1][0] <= start:
                    yield _closed(open_until.pop())
                if open_until:
                    open_until[-1][2] -= end - start
                open_until.append([end, name, end - start])
            yield from map(_closed, open_until)


def _closed(instruction: list) -> tuple[str, float]:
    _, name, nanoseconds = instruction
    return name, nanoseconds / 1e9


def _of_module(line: Any, module: str) -> Iterator[tuple[float, float, str]]:
    for event in line.events:
        facts = dict(event.stats)
        if facts.get("hlo_module") == module:
            yield event.start_ns, event.start_ns + event.duration_ns, facts["hlo_op"]
