# SPDX-License-Identifier: Apache-2.0
"""The same training with and without a part: seeds, differences, and how sure they are.

Differences are taken run by run, same seed and same fold; what another set of test people would
have given is estimated by drawing the test subjects anew (bootstrap), of every fold its own.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from mdhr_jax.errors import InputError
from mdhr_jax.machine import files
from mdhr_jax.numerics import bootstrap, metrics
from mdhr_jax.report import markdown, plots
from mdhr_jax.run import config_check, kinds, protocol
from mdhr_jax.studies import experiments
from mdhr_jax.studies.experiments import Run, Variant

# What is compared must be the same in these.
COMMON_KEYS = ("data", "fold", "seed")


def compare(
    grid: experiments.Grid,
    *,
    workdir: pathlib.Path,
    results: pathlib.Path,
    processes: int | None = None,
) -> str:
    """Trains what is missing, and tabulates everything.

    Args:
      grid: its first variant is the one that the others are compared with.
      workdir: of the runs.
      results: directory of `runs.jsonl`, `table.md` and `comparison.png`, all up to date whenever
        a run has finished.
      processes: how many runs at a time: by default one per GPU, or one.

    Returns:
      The table, Markdown.

    Raises:
      InputError: as `experiments.complete`.
    """
    names = [variant.name for variant in grid.variants]
    for done in experiments.complete(grid, workdir=workdir, results=results, processes=processes):
        rows = summarise(done, names)
        text = table(rows, done)
        files.write(results / "table.md", text)
        picture(results / "comparison.png", rows, done)
    return text


def parse_variant(text: str, config: ConfigDict) -> Variant:
    """`name: key=value key=value` as a variant of a configuration; the name alone changes nothing.

    Raises:
      InputError: the configuration has no such key, or a value is not of its kind.
    """
    name, _, settings = text.partition(":")
    given = [setting.partition("=")[::2] for setting in settings.split()]
    kind = dict(given).get("model.kind", config.model.kind)
    model = kinds.changed(config.model.to_dict(), kind)
    known = config_check.flatten(config.to_dict() | {"model": model})
    overrides = {}
    for key, value in given:
        if key in COMMON_KEYS:
            raise InputError(f"variant {name!r}: {key} is common to all variants")
        if key not in known:
            raise InputError(
                f"variant {name!r}: no key {key!r}{config_check.nearest(key, list(known))}; "
                "write it as NAME: KEY=VALUE KEY=VALUE"
            )
        overrides[key] = _parse_value(value, known[key], f"variant {name!r}: {key}={value}")
    return Variant(name.strip(), overrides)


def _parse_value(text: str, example: Any, where: str) -> Any:
    if isinstance(example, str):
        return text
    try:
        value = json.loads(text.lower())
    except json.JSONDecodeError:
        value = None
    value = float(value) if isinstance(example, float) and type(value) is int else value
    if type(value) is not type(example):
        raise InputError(f"{where}: expected a value like {json.dumps(example)}, without spaces")
    return value


def mean_f1(counts: metrics.Counts) -> Float[np.ndarray, "*draws"] | np.floating:
    """Mean F1 over AUs."""
    return metrics.f1(counts).mean(axis=-1)


class Estimate(NamedTuple):
    """A value and its interval over draws of test subjects, in percent; nan if not known."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @property
    def known(self) -> bool:
        """Whether there is one."""
        return not math.isnan(self.value)


@dataclasses.dataclass(frozen=True)
class Summary:
    """A variant's finished runs, in percent.

    Attributes:
      variant: its name.
      by_seed: mean F1 of each seed, mean over its folds.
      f1: mean F1, mean over seeds and folds.
      gain: its difference to the first variant, over the seeds and folds that both have.
    """

    variant: str
    by_seed: Mapping[int, float]
    f1: Estimate = Estimate()
    gain: Estimate = Estimate()


def summarise(done: Sequence[Run], variants: Sequence[str]) -> list[Summary]:
    """What each variant reached, and how it differs from the first."""
    finished = {name: {(r.seed, r.fold): r for r in done if r.variant == name} for name in variants}
    reference = finished[variants[0]]
    summaries = []
    for name, own in finished.items():
        shared = sorted(own.keys() & reference.keys()) if own is not reference else []
        summary = Summary(
            name,
            _by_seed(list(own.values())),
            _estimate([[run] for run in own.values()]),
            _estimate([[own[key], reference[key]] for key in shared]),
        )
        summaries.append(summary)
    return summaries


def _by_seed(done: Sequence[Run]) -> dict[int, float]:
    return {
        seed: 100 * float(np.mean([_f1(run) for run in done if run.seed == seed]))
        for seed in sorted({run.seed for run in done})
    }


def _f1(run: Run) -> float:
    return float(mean_f1(bootstrap.total(run.count_array)))


def _drawn_f1(run: Run) -> Float[np.ndarray, " draws"]:
    return np.asarray(mean_f1(bootstrap.resampled(run.count_array, run.subjects)))


def _estimate(cases: Sequence[Sequence[Run]]) -> Estimate:
    """Mean over cases of a run's F1, or of two runs' difference."""
    if not cases:
        return Estimate()
    value = np.mean([_f1(first) - sum(map(_f1, rest)) for first, *rest in cases])
    drawn = [_drawn_f1(first) - sum(map(_drawn_f1, rest)) for first, *rest in cases]
    low, high = bootstrap.interval(np.mean(drawn, axis=0))
    return Estimate(100 * float(value), 100 * float(low), 100 * float(high))


def table(rows: Sequence[Summary], done: Sequence[Run]) -> str:
    """Markdown: mean F1 of each variant over seeds, and its difference to the first variant."""
    header = ("variant", "mean F1", "difference to the first", "F1 by seed")
    lines = [(row.variant, f1_cell(row.f1), gain_cell(row.gain), seeds_cell(row)) for row in rows]
    return markdown.table(header, lines) + f"\n{caption(done)}\n"


def f1_cell(estimate: Estimate) -> str:
    """`61.3 (60.1 to 62.4)`."""
    value, low, high = estimate
    return f"{value:.1f} ({low:.1f} to {high:.1f})" if estimate.known else ""


def gain_cell(estimate: Estimate) -> str:
    """`+1.2 (+0.8 to +1.6)`."""
    value, low, high = estimate
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})" if estimate.known else ""


def seeds_cell(row: Summary) -> str:
    """F1 of each seed."""
    return " ".join(f"{score:.1f}" for score in row.by_seed.values())


def caption(done: Sequence[Run]) -> str:
    """What finished runs have in common, and what the numbers mean."""
    if not done:
        return "No run has finished yet."
    config = done[0].config
    seeds, folds = ({getattr(run, key) for run in done} for key in ("seed", "fold"))
    tested = {run.fold: run for run in done}.values()
    people = sorted(person for run in tested for person in run.subjects)
    frames = [run.frames for run in tested]
    size = "" if None in frames else f", {sum(filter(None, frames))} frames"
    chosen = protocol.PROTOCOLS[config["protocol"]].step
    return (
        f"Layout {config['layout']}, data {config['data']}, protocol {config['protocol']}, step "
        f"{_list({run.step for run in done})} ({chosen}), threshold {config['threshold']}, seeds "
        f"{_list(seeds)}, fold {_list(folds)}: {len(people)} test subjects, {people[0]} ... "
        f"{people[-1]}{size}{_seen(done)}, always-positive {always_positive_f1(done):.1f}. In "
        f"brackets {bootstrap.INTERVAL:.0%} intervals: {bootstrap.DRAWS} draws of the test "
        f"subjects, differences paired; they do not hold the spread between seeds.{_pace(done)}"
    )


def _seen(done: Sequence[Run]) -> str:
    verdicts = sorted({run.seen for run in done if run.seen})
    return f", seen in training: {'; '.join(verdicts)}" if verdicts else ""


def _list(numbers: set[int]) -> str:
    return " ".join(map(str, sorted(numbers)))


def _pace(done: Sequence[Run]) -> str:
    seconds = [run.seconds for run in done if run.seconds is not None]
    return f" {np.mean(seconds) / 60:.1f} minutes a run." if seconds else ""


def always_positive_f1(done: Sequence[Run]) -> float:
    """Mean F1, in percent, of answering "active" to every frame; mean over the folds tested on."""
    tested = {run.fold: run.count_array for run in done}.values()
    each = [mean_f1(metrics.always_positive(bootstrap.total(counts))) for counts in tested]
    return 100 * float(np.mean(each))


def picture(
    path: pathlib.Path,
    rows: Sequence[Summary],
    done: Sequence[Run],
    paper: Sequence[float] | None = None,
) -> None:
    """F1 of each seed and gains, beside the paper's gains if given; nothing without a run."""
    if done:
        plots.comparison(
            path,
            [row.variant for row in rows],
            [list(row.by_seed.values()) for row in rows],
            [row.gain for row in rows],
            always_positive_f1(done),
            paper,
        )
