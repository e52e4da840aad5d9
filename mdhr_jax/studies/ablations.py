# SPDX-License-Identifier: Apache-2.0
"""The paper's tables as runs: what is missing is trained, and ours stands beside the paper's.

The rows are those of `configs.ablations`. Tables share runs and one `runs.jsonl`.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mdhr_jax.configs import ablations
from mdhr_jax.errors import InputError
from mdhr_jax.machine import files
from mdhr_jax.report import markdown
from mdhr_jax.studies import compare, experiments

# Below this many points over always-positive the first row has learned too little to compare with.
LEARNED = 10.0


def run(
    table: ablations.Table,
    grid: experiments.Grid,
    *,
    workdir: pathlib.Path,
    results: pathlib.Path,
    name: str,
    processes: int | None = None,
) -> str:
    """Trains what a table misses, and shows it beside the paper's.

    Args:
      table: the paper's.
      grid: of the table's rows.
      workdir: of the runs.
      results: directory of `runs.jsonl`, `<name>.md` and `<name>.png`, all up to date whenever a
        run has finished.
      name: of the table's files.
      processes: how many runs at a time: by default one per GPU, or one.

    Returns:
      The table, Markdown.

    Raises:
      InputError: as `experiments.complete`.
    """
    own = {row.name for row in table.rows}
    for done in experiments.complete(grid, workdir=workdir, results=results, processes=processes):
        wanted = [run for run in done if run.variant in own]
        rows = compare.summarise(wanted, [row.name for row in table.rows])
        text = beside_the_paper(table, rows, wanted)
        files.write(results / f"{name}.md", text)
        compare.picture(results / f"{name}.png", rows, wanted, paper_gains(table))
    return text


def parse_starts(given: Sequence[str]) -> dict[str, str]:
    """What each backbone starts from, out of texts `BACKBONE=RUN` or `BACKBONE=FILE`.

    Raises:
      InputError: a text says something else, or a backbone has two.
    """
    starts = {}
    for text in given:
        backbone, _, start = text.partition("=")
        if not (backbone and start) or backbone in starts:
            raise InputError(f"--init_from={text}: give BACKBONE=RUN|FILE, one for each backbone")
        starts[backbone] = start
    return starts


def variants(
    table: ablations.Table, config: Mapping[str, Any], starts: Mapping[str, str]
) -> list[experiments.Variant]:
    """The table's rows as variants of a configuration.

    Args:
      table: the paper's.
      config: the common one, flat.
      starts: run or file that rows start from, by their backbone; others as in `config`.

    Raises:
      InputError: no row has one of the backbones, or `config` names one start for several.
    """
    backbones = [
        row.overrides.get("model.backbone", config["model.backbone"]) for row in table.rows
    ]
    known = dict.fromkeys(backbones)
    if unknown := [backbone for backbone in starts if backbone not in known]:
        raise InputError(
            f"--init_from={unknown[0]}=...: no row has this backbone; choose from "
            f"{', '.join(known)}"
        )
    if config["model.init_from"] and len(known) > 1:
        flags = " ".join(f"--init_from {backbone}=FILE" for backbone in known)
        raise InputError(
            f"config.model.init_from={config['model.init_from']}: the rows have the backbones "
            f"{', '.join(known)}; give each its own: {flags}"
        )
    started = ({"model.init_from": starts[b]} if b in starts else {} for b in backbones)
    return [
        experiments.Variant(row.name, {**row.overrides, **start})
        for row, start in zip(table.rows, started, strict=True)
    ]


def paper_gains(table: ablations.Table) -> list[float]:
    """The paper's gains over the first row, in points; nan where it says none."""
    first = table.rows[0].paper
    return [
        math.nan if index == 0 or row.paper is None or first is None else row.paper - first
        for index, row in enumerate(table.rows)
    ]


def listing(table: ablations.Table) -> str:
    """A line per row: the paper's F1, its name, the settings in which the rows differ."""
    keys = sorted({key for row in table.rows for key in row.overrides})
    differing = [
        key for key in keys if len({str(row.overrides.get(key)) for row in table.rows}) > 1
    ]
    width = max(len(row.name) for row in table.rows)
    lines = [f"{table.title}; mean F1 in the paper, row, settings"]
    for row in table.rows:
        settings = [f"{key}={row.overrides[key]}" for key in differing if key in row.overrides]
        lines.append(f"{_points(row.paper):>4}  {row.name:<{width}}  {' '.join(settings)}".rstrip())
    return "\n".join(lines) + "\n"


def beside_the_paper(
    table: ablations.Table,
    summaries: Sequence[compare.Summary],
    done: Sequence[experiments.Run],
) -> str:
    """The paper's F1, ours, their difference, and the gains over the first row, Markdown.

    Where the paper has no number at all, ours alone.

    Args:
      table: the paper's.
      summaries: ours, one per row.
      done: the runs that they come from.
    """
    if not any(row.paper for row in table.rows):
        return f"{table.title}\n\n{compare.table(summaries, done)}"
    header = ("", "paper", "ours", "ours - paper", "gain, paper", "gain, ours", "F1 by seed")
    lines = [
        (
            row.name,
            _points(row.paper),
            compare.f1_cell(ours.f1),
            _signed(ours.f1.value - (math.nan if row.paper is None else row.paper)),
            _signed(gain),
            compare.gain_cell(ours.gain),
            compare.seeds_cell(ours),
        )
        for row, ours, gain in zip(table.rows, summaries, paper_gains(table), strict=True)
    ]
    title = f"{table.title}, mean F1 in percent, gains over the first row"
    caption = f"{compare.caption(done)}{_too_little(summaries[0], done)}"
    return f"{title}\n\n{markdown.table(header, lines)}\n{caption}\n"


def _too_little(first: compare.Summary, done: Sequence[experiments.Run]) -> str:
    """A warning where the budget was too small to compare anything."""
    if not first.f1.known or first.f1.value >= compare.always_positive_f1(done) + LEARNED:
        return ""
    return (
        f"\n\n**Not a result:** {first.variant!r} is less than {LEARNED:.0f} points over "
        "always-positive; train longer."
    )


def _points(f1: float | None) -> str:
    return "" if f1 is None else f"{f1:.1f}"


def _signed(points: float) -> str:
    return "" if math.isnan(points) else f"{points:+.1f}"
