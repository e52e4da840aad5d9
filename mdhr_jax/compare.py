# SPDX-License-Identifier: Apache-2.0
"""The same training with and without a part: seeds, differences, and how sure they are.

Every variant is trained with every seed on the same data for the same number of steps. A finished
run leaves one line in `runs.jsonl`: its score, and its counts per test subject, from which the
table is made. Runs of one seed share the initial values of the parts that they share, the order of
clips and the augmentation, so differences are taken seed by seed; what another set of test people
would have given is estimated by drawing the test subjects anew (bootstrap).
"""

import dataclasses
import json
import math
import pathlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from mdhr_jax import bootstrap, evaluate, metrics, runs, train
from mdhr_jax.errors import InputError
from mdhr_jax.report import plots

RUNS = "runs.jsonl"
# What is compared must be the same in these.
COMMON_KEYS = ("data", "fold", "seed")


@dataclasses.dataclass(frozen=True)
class Variant:
    """A name, and the configuration keys in which it differs from the common configuration."""

    name: str
    overrides: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """What a finished run leaves.

    Attributes:
      variant: its name.
      seed: of initial values, clip order and augmentation.
      step: of the `last` checkpoint.
      config: the common configuration, flat; `data` is which data set it is, not where.
      overrides: the variant's.
      subjects: test subjects.
      counts: per subject, per AU: tp, fp, tn, fn.
      seconds: training and evaluation; None for a run that was interrupted.
    """

    variant: str
    seed: int
    step: int
    config: Mapping[str, Any]
    overrides: Mapping[str, Any]
    subjects: Sequence[str]
    counts: Sequence[Sequence[Sequence[int]]]
    seconds: float | None

    @property
    def count_array(self) -> Int[np.ndarray, "s n 4"]:
        """`counts` as an array."""
        return np.array(self.counts)


def compare(
    config: ConfigDict,
    variants: Sequence[Variant],
    seeds: Sequence[int],
    *,
    workdir: pathlib.Path,
    results: pathlib.Path,
) -> str:
    """Trains what is missing, and tabulates everything.

    Args:
      config: common to all variants; its seed is replaced.
      variants: the first is the one that the others are compared with.
      seeds: one run of every variant each.
      workdir: runs go to `<workdir>/<variant>/seed<n>`; the same call resumes them.
      results: directory of `runs.jsonl`, one line per finished run, `table.md`, `comparison.png`.

    Returns:
      The table, Markdown.

    Raises:
      InputError: as `train.train`; `results` holds runs of another configuration.
    """
    results.mkdir(parents=True, exist_ok=True)
    done = read_runs(results / RUNS)
    common = _common(config)
    _check_same(done, common, variants, results)
    finished = {(run.variant, run.seed) for run in done}
    plan = [(variant, seed) for seed in seeds for variant in variants]
    missing = [(variant, seed) for variant, seed in plan if (variant.name, seed) not in finished]
    text = _write(done, variants, results)
    for number, (variant, seed) in enumerate(missing, start=1):
        left = _left(done, len(missing) - number + 1)
        print(f"run {number} of {len(missing)}: {variant.name}, seed {seed}{left}", flush=True)
        done.append(_run(config, common, variant, seed, workdir))
        with (results / RUNS).open("a") as file:
            file.write(json.dumps(dataclasses.asdict(done[-1]), separators=(",", ":")) + "\n")
        text = _write(done, variants, results)
    return text


def _write(done: Sequence[Run], variants: Sequence[Variant], results: pathlib.Path) -> str:
    """Writes table and picture of the finished runs; returns the table."""
    rows = summarise(done, [variant.name for variant in variants])
    text = table(rows, done)
    (results / "table.md").write_text(text)
    if done:
        plots.comparison(
            results / "comparison.png",
            [row.variant for row in rows],
            [list(row.f1.values()) for row in rows],
            [(row.difference, row.low, row.high) for row in rows],
            100 * always_positive_f1(done[0]),
        )
    return text


def parse_variant(text: str, config: ConfigDict) -> Variant:
    """`name: key=value key=value` as a variant of a configuration; the name alone changes nothing.

    Raises:
      InputError: the configuration has no such key, or a value is not of its kind.
    """
    name, _, settings = text.partition(":")
    known = runs.flatten(config.to_dict())
    overrides = {}
    for setting in settings.split():
        key, _, value = setting.partition("=")
        if key in COMMON_KEYS:
            raise InputError(f"variant {name!r}: {key} is common to all variants")
        if key not in known:
            raise InputError(
                f"variant {name!r}: no key {key!r}{runs.nearest(key, list(known))}; "
                "write it as NAME: KEY=VALUE KEY=VALUE"
            )
        overrides[key] = _parse_value(value, known[key], f"variant {name!r}: {setting}")
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


def read_runs(path: pathlib.Path) -> list[Run]:
    """The finished runs in a file; none if it is not there.

    Raises:
      InputError: a line is no run.
    """
    if not path.exists():
        return []
    done = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            done.append(Run(**json.loads(line)))
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}, line {number}: holds no run; delete that line") from error
    return done


def _common(config: ConfigDict) -> dict[str, Any]:
    """What runs must share to be compared."""
    shared = runs.flatten(config.to_dict())
    del shared["seed"]
    metadata = runs.open_data(config).metadata
    shared["data"] = f"{metadata.builder}, seed {metadata.seed}, {metadata.index_sha256[:16]}"
    return shared


def _check_same(
    done: Sequence[Run],
    wanted: Mapping[str, Any],
    variants: Sequence[Variant],
    results: pathlib.Path,
) -> None:
    overrides = {variant.name: variant.overrides for variant in variants}
    for run in done:
        keys = wanted.keys() | run.config.keys()
        changed = sorted(key for key in keys if run.config.get(key) != wanted.get(key))
        if run.overrides != overrides.get(run.variant, run.overrides):
            changed.append(f"variant {run.variant!r}")
        if changed:
            raise InputError(
                f"{results / RUNS}: holds runs of another configuration or data set (differing: "
                f"{', '.join(changed)}); name another directory"
            )


def _left(done: Sequence[Run], missing: int) -> str:
    minutes = _minutes(done)
    return f", about {minutes * missing:.0f} minutes left" if minutes else ""


def _minutes(done: Sequence[Run]) -> float | None:
    """What a run takes."""
    seconds = [run.seconds for run in done if run.seconds is not None]
    return float(np.mean(seconds)) / 60 if seconds else None


def _run(
    config: ConfigDict,
    common: Mapping[str, Any],
    variant: Variant,
    seed: int,
    workdir: pathlib.Path,
) -> Run:
    own = ConfigDict(config.to_dict())
    own.update_from_flattened_dict(dict(variant.overrides))
    own.seed = seed
    folder = re.sub("[^A-Za-z0-9]+", "-", variant.name).strip("-")
    place = workdir / folder / f"seed{seed}"
    resumed, start = place.exists(), time.perf_counter()
    train.train(own, place)
    result, scored = evaluate.evaluate(place)
    subjects, counts = scored.subject_counts(own.threshold)
    return Run(
        variant=variant.name,
        seed=seed,
        step=result.details["step"],
        config=common,
        overrides=dict(variant.overrides),
        subjects=subjects,
        counts=counts.tolist(),
        seconds=None if resumed else round(time.perf_counter() - start, 1),
    )


def mean_f1(counts: metrics.Counts) -> Float[np.ndarray, "*draws"] | np.floating:
    """Mean F1 over AUs."""
    return metrics.f1(counts).mean(axis=-1)


@dataclasses.dataclass(frozen=True)
class Summary:
    """A variant's finished runs, in percent.

    Attributes:
      variant: its name.
      f1: mean F1 by seed.
      difference: to the first variant, mean over the seeds that both have; nan without any.
      low: lower end of its interval over draws of test subjects.
      high: upper end.
    """

    variant: str
    f1: Mapping[int, float]
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan


def summarise(done: Sequence[Run], variants: Sequence[str]) -> list[Summary]:
    """What each variant reached, and how it differs from the first."""
    counts = {name: {r.seed: r.count_array for r in done if r.variant == name} for name in variants}
    reference = counts[variants[0]]
    summaries = []
    for name, own in counts.items():
        f1 = {seed: 100 * float(mean_f1(bootstrap.total(c))) for seed, c in own.items()}
        shared = sorted(own.keys() & reference.keys()) if own is not reference else []
        pairs = [(own[seed], reference[seed]) for seed in shared]
        summaries.append(Summary(name, f1, *(_difference(pairs) if pairs else ())))
    return summaries


def _difference(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float, float]:
    """Mean over pairs of `(s, n, 4)` counts of the difference in F1, and its interval, percent."""
    found = np.mean([mean_f1(bootstrap.total(a)) - mean_f1(bootstrap.total(b)) for a, b in pairs])
    drawn = [mean_f1(bootstrap.resampled(a)) - mean_f1(bootstrap.resampled(b)) for a, b in pairs]
    low, high = bootstrap.interval(np.mean(drawn, axis=0))
    return 100 * float(found), 100 * float(low), 100 * float(high)


def table(rows: Sequence[Summary], done: Sequence[Run]) -> str:
    """Markdown: mean F1 of each variant over seeds, and its difference to the first variant."""
    lines = [
        "| variant | seeds | F1 by seed | mean F1 | difference to the first "
        f"| {bootstrap.INTERVAL:.0%} interval |",
        "|---|---|---|---:|---:|---|",
    ]
    for row in rows:
        cells = [row.variant, " ".join(map(str, row.f1)), *[""] * 4]
        if row.f1:
            cells[2] = " ".join(f"{score:.1f}" for score in row.f1.values())
            cells[3] = f"{np.mean(list(row.f1.values())):.1f}"
        if not math.isnan(row.difference):
            cells[4:] = f"{row.difference:+.1f}", f"{row.low:+.1f} to {row.high:+.1f}"
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + f"\n\n{_caption(done)}\n"


def _caption(done: Sequence[Run]) -> str:
    if not done:
        return "No run has finished yet."
    first = done[0]
    minutes = _minutes(done)
    pace = f" {minutes:.1f} minutes a run." if minutes else ""
    return (
        f"Layout {first.config['layout']}, fold {first.config['fold']}, protocol "
        f"{first.config['protocol']}, step {first.step}, threshold "
        f"{first.config['threshold']}; {len(first.subjects)} test subjects, "
        f"{int(first.count_array[:, 0].sum())} frames, always-positive "
        f"{100 * always_positive_f1(first):.1f}. Intervals: {bootstrap.DRAWS} draws of the test "
        f"subjects, paired, mean over seeds; they do not hold the spread between seeds.{pace}"
    )


def always_positive_f1(run: Run) -> float:
    """Mean F1 that answering "active" to every frame of the run's test set has, a fraction."""
    return float(mean_f1(metrics.always_positive(bootstrap.total(run.count_array))))
