# SPDX-License-Identifier: Apache-2.0
"""The lines of measure.py as Markdown: targets, then part by part, then what is missing."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import side_table
import sides
import targets

from mdhr_jax.bench import report
from mdhr_jax.errors import InputError
from mdhr_jax.report import markdown

type Line = dict[str, Any]


def tables(file: pathlib.Path) -> str:
    """All tables of a directory of results.

    Raises:
      InputError: there are no results.
    """
    lines = newest(file)
    return "\n".join(text for text in _tables(lines) if text)


def newest(file: pathlib.Path) -> dict[str, Line]:
    """The line that counts of every part: the last that found something, else the last.

    Raises:
      InputError: there are no results.
    """
    try:
        lines = [json.loads(text) for text in file.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"--table: {file}: {error}; give the --out of a measurement") from error
    found: dict[str, Line] = {}
    for line in lines:
        if line["result"] or line["end"] == "done" or not _counts(found.get(line["part"])):
            found[line["part"]] = line
    return found


def _counts(line: Line | None) -> bool:
    return line is not None and bool(line["result"] or line["end"] == "done")


def _tables(lines: Mapping[str, Line]) -> Iterator[str]:
    yield _where(lines)
    results = {name: line["result"] for name, line in lines.items() if line["result"]}
    full = all(line["size"] == "full" for line in lines.values())
    yield _targets(results, full)
    yield _steps(results)
    for name, result in results.items():
        yield from _special(name, result)
    yield _said(lines)
    yield _missing(lines)


def _where(lines: Mapping[str, Line]) -> str:
    places = {
        f"{line['device']}, size {line['size']}, {line['date'][:10]}, "
        + ", ".join(f"{name} {x}" for name, x in (line["versions"] | line["clocks"]).items() if x)
        for line in lines.values()
    }
    return "".join(f"{place}\n" for place in sorted(places))


def _targets(results: targets.Results, full: bool) -> str:
    """What is asked of one H200 beside what was measured; judged where that is the same."""
    rows = []
    for target in targets.TARGETS:
        value = verdict = None
        try:
            value = target.measured(results)
        except (KeyError, StopIteration):
            verdict = f"not measured: {target.part}"
        else:
            verdict = target.verdict(value) if full else "other sizes"
        numbers = [target.floor, target.goal, target.must, value]
        rows.append((target.what, target.unit, *map(_number, numbers), verdict))
    columns = ("8 clips x 16 frames, one H200", "in", "floor", "goal", "must", "measured", "")
    return markdown.table(columns, rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def _steps(results: targets.Results) -> str:
    """Every program that was timed alone."""
    rows = [
        (
            name,
            str(said["frames"]),
            f"{1000 * said['seconds']['median']:,.2f}",
            f"{1000 * said['seconds']['fastest']:,.2f}",
            f"{1000 * said['seconds']['slowest']:,.2f}",
            f"{said['frames_per_second']:,.1f}",
            f"{said['floor_share']:.0%}",
            _gib(said["memory_bytes"]),
            _gib(said["peak_bytes"]),
            f"{said['compilation_seconds']:.0f}",
        )
        for name, said in results.items()
        if "floor_share" in said
    ]
    columns = ("part", "frames", "ms", "fastest", "slowest", "frames/s", "floor of products")
    return markdown.table((*columns, "GiB held", "GiB at most", "s to compile"), rows)


def _gib(size: float | None) -> str:
    return "" if size is None else f"{size / 2**30:.2f}"


def _special(name: str, result: dict[str, Any]) -> Iterator[str]:
    """Tables of a part that is more than a program."""
    if result.get("what") in _OF_BENCH:
        yield f"{name}:\n\n{_OF_BENCH[result['what']](result)}"
    if "spent" in result:
        yield f"{name}:\n\n{report.spent_table(result['spent'])}"
        yield report.kernel_table(result["kernels"])
    if result.get("place"):
        rows = [side_table.Row(**row) for row in result["rows"]]
        yield f"{name}:\n\n{side_table.table(rows, _place(result['place']))}"
    if "fold_seconds" in result:
        yield f"{name}:\n\n{_fold(result)}"


_OF_BENCH = {
    "machine": report.machine_table,
    "data": report.data_table,
    "saving": report.saving_table,
}


def _place(said: dict[str, Any]) -> side_table.Place:
    apart = said["apart"] and sides.Apart(*said["apart"])
    return side_table.Place(**said | {"apart": apart})


def _fold(said: dict[str, float]) -> str:
    rows = [
        ("steps, evaluations", f"{said['steps']}, {said['evaluations']}"),
        ("in all", f"{said['seconds']:,.1f} s"),
        ("until the first step is logged", f"{said['until_first_step']:,.1f} s"),
        ("a step", f"{1000 * said['step_seconds']:,.2f} ms"),
        ("an evaluation", f"{said['evaluation_seconds']:,.2f} s"),
        ("a fold of BP4D at this pace", f"{said['fold_seconds'] / 60:,.2f} min"),
    ]
    return markdown.table(("training end to end", ""), rows)


def _said(lines: Mapping[str, Line]) -> str:
    """Parts whose result is a verdict, or that they ran at all."""
    rows = [
        (name, f"{line['seconds']:.0f} s", (line["said"] or [""])[-1].strip())
        for name, line in lines.items()
        if line["end"] == "done" and not line["result"]
    ]
    return markdown.table(("part", "took", "said"), rows) if rows else ""


def _missing(lines: Mapping[str, Line]) -> str:
    """What was not measured, or not to its end, and the command for it."""
    found = []
    for name, line in lines.items():
        if line["end"] != "done":
            failed = line["end"].startswith("exit code") and line["said"]
            reason = f" ({line['said'][-1].strip()})" if failed else ""
            found.append(f"- {name}: {line['end']}{reason}: `{line['command']}`\n")
    return "".join(found)
