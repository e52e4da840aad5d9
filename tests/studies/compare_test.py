# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from mdhr_jax import cli, errors
from mdhr_jax.configs import base
from mdhr_jax.numerics import bootstrap, metrics
from mdhr_jax.studies import compare


@pytest.fixture
def runs_of_two(random_counts, finished_run):
    """Two seeds of a reference, and of a variant that is worse for everybody."""
    rng = np.random.default_rng(0)
    runs = [finished_run("full", seed, random_counts(rng)) for seed in (0, 1)]
    return runs + [finished_run("less", seed, random_counts(rng, hits=5)) for seed in (0, 1)]


def tabulate(runs, variants):
    return compare.table(compare.summarise(runs, variants), runs)


def cells(table, variant):
    (row,) = [line for line in table.splitlines() if line.startswith(f"| {variant} ")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def percent(run):
    return 100 * metrics.f1(metrics.Counts(*run.count_array.sum(0).T)).mean()


def interval(cell):
    low, high = cell.rstrip(")").split("(")[1].split(" to ")
    return float(low), float(high)


def test_the_table_shows_means_over_seeds_and_paired_differences(runs_of_two):
    f1 = [percent(run) for run in runs_of_two]
    table = tabulate(runs_of_two, ["full", "less"])
    name, mean, difference, seeds = cells(table, "full")
    assert (name, difference, seeds) == ("full", "", f"{f1[0]:.1f} {f1[1]:.1f}")
    assert mean.startswith(f"{np.mean(f1[:2]):.1f} (")
    low, high = interval(mean)
    assert low < np.mean(f1[:2]) < high

    gain = np.mean(f1[2:]) - np.mean(f1[:2])
    shown = cells(table, "less")[2]
    assert shown.startswith(f"{gain:+.1f} (")
    low, high = interval(shown)
    assert low < gain < high < 0


def test_equal_runs_differ_by_nothing_for_sure(runs_of_two, finished_run):
    first = runs_of_two[0]
    table = tabulate([first, finished_run("same", 0, first.counts)], ["full", "same"])
    assert cells(table, "same")[2] == "+0.0 (+0.0 to +0.0)"


def test_folds_of_a_seed_are_averaged_and_compared_with_their_own(random_counts, finished_run):
    rng = np.random.default_rng(2)
    full, less = (
        [finished_run(name, 0, random_counts(rng, hits), fold) for fold in (1, 2)]
        for name, hits in (("full", 10), ("less", 5))
    )
    first, second = compare.summarise([*full, *reversed(less)], ["full", "less"])
    assert first.by_seed == {0: pytest.approx(np.mean([percent(run) for run in full]))}
    gains = [percent(b) - percent(a) for a, b in zip(full, less, strict=True)]
    assert second.gain.value == pytest.approx(np.mean(gains))
    caption = compare.caption([*full, *less])
    assert "fold 1 2: 24 test subjects, S100 ... S211, 100 frames, always" in caption
    earlier = [dataclasses.replace(run, frames=None) for run in full]
    assert "S100 ... S211, always" in compare.caption(earlier)


def test_drawn_subjects_spread_as_means_of_subjects_do():
    """One AU, never a false positive: F1 of a draw is a function of its hits alone."""
    rng = np.random.default_rng(1)
    hits = rng.integers(0, 21, 400)
    counts = np.stack([hits, 0 * hits, 0 * hits, 20 - hits], axis=-1)[:, None]
    drawn = compare.mean_f1(bootstrap.resampled(counts, list(map(str, range(400)))))
    recall = hits.mean() / 20
    slope = 2 / (1 + recall) ** 2
    expected = slope * (hits / 20).std() / np.sqrt(400)
    assert abs(drawn.std() / expected - 1) < 0.1
    assert abs(drawn.mean() - 2 * recall / (1 + recall)) < expected


def _width(estimate):
    return estimate.high - estimate.low


def _simulated_widths(full, less):
    """Of the mean over folds of F1, and of its difference: every fold's people drawn anew."""
    rng, drawn = np.random.default_rng(5), []
    for _ in range(4000):
        both = []
        for pairs in zip(*(full, less), strict=True):
            people = rng.integers(0, len(pairs[0].subjects), len(pairs[0].subjects))
            total = [run.count_array[people].sum(0) for run in pairs]
            both.append([100 * metrics.f1(metrics.Counts(*counts.T)).mean() for counts in total])
        of_full, of_less = np.mean(both, axis=0)
        drawn.append((of_full, of_less - of_full))
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    return high - low


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 3])
def test_people_of_other_folds_are_drawn_independently(random_counts, finished_run, seeds):
    """In whatever order they are named; seeds and variants of a fold are of the same people."""
    rng = np.random.default_rng(3)
    orders = [np.arange(9), np.arange(9)[::-1], rng.permutation(9)]
    counts, worse = (random_counts(rng, hits, people=9) for hits in (10, 5))
    counts[:5, :, 0], worse[:3, :, 0] = 0, 0  # people differ
    for chosen in ([0, 0, 0], [0, 1, 2]):
        full, less = (
            [
                finished_run(name, seed, each[orders[order]], fold)
                for seed in range(seeds)
                for fold, order in enumerate(chosen, start=1)
            ]
            for name, each in (("full", counts), ("less", worse))
        )
        first, second = compare.summarise([*full, *less], ["full", "less"])
        expected = _simulated_widths(full[:3], less[:3])
        np.testing.assert_allclose([_width(first.f1), _width(second.gain)], expected, rtol=0.08)


def test_the_order_of_people_does_not_matter():
    names = ["b", "c", "a"]  # sorting them is not its own inverse
    drawn, sorted_draw = bootstrap.draws(names), bootstrap.draws(sorted(names))
    np.testing.assert_array_equal(drawn[:, [2, 0, 1]], sorted_draw)
    assert (bootstrap.draws(["x", "y", "z"]) != sorted_draw).any()


def test_unfinished_comparisons_have_a_table_too(runs_of_two):
    table = tabulate(runs_of_two[:2], ["full", "less"])
    assert cells(table, "less") == ["less", "", "", ""]
    assert "No run has finished yet." in tabulate([], ["full", "less"])


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("full", {}),
        ("no motion: model.dynamics.kind=none", {"model.dynamics.kind": "none"}),
        ("a: model.temporal=False epochs=2", {"model.temporal": False, "epochs": 2.0}),
        ("b: model.dynamics.scales=[1,2]", {"model.dynamics.scales": [1, 2]}),
        (
            "c: model.kind=graphau model.neighbours=2",
            {"model.kind": "graphau", "model.neighbours": 2},
        ),
    ],
)
def test_variants_are_names_and_settings(text, overrides):
    variant = compare.parse_variant(text, base.get_config())
    assert variant == compare.Variant(text.partition(":")[0], overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: model.temporl=false", "no key 'model.temporl'; did you mean model.temporal"),
        ("a: model.temporal=perhaps", "model.temporal=perhaps: expected a value like true"),
        ("a: model.dynamics.k=x", "model.dynamics.k=x: expected a value like 5"),
        ("a: model.kind=none", "model.kind='none': choose from mdhr, graphau"),
        ("a: model.kind=graphau model.temporal=false", "no key 'model.temporal'"),
        ("a: epochs=null", "expected a value like 200.0"),
        ("a: seed=7", "seed is common to all variants"),
        ("a: batch_size=2.5", "batch_size=2.5: expected a value like 8"),
    ],
)
def test_settings_that_do_not_exist_are_refused(text, message):
    with pytest.raises(errors.InputError, match=message):
        compare.parse_variant(text, base.get_config())


@pytest.mark.long
@pytest.mark.usefixtures("quick_compilation_elsewhere")
def test_a_comparison_runs_goes_on_and_refuses_another_configuration(config_file, tmp_path, capfd):
    results = tmp_path / "results"
    arguments = ["compare", "--config", str(config_file()), "--workdir", str(tmp_path / "runs")]
    arguments += ["--results", str(results), "--variant", "full"]
    arguments += ["--variant", "no motion: model.dynamics.kind=none"]
    assert cli.main([*arguments, "--seeds", "1"]) == 0
    table = capfd.readouterr().out
    assert len(cells(table, "full")[3].split()) == len(cells(table, "no motion")[3].split()) == 1
    assert (results / "table.md").read_text() in table
    with Image.open(results / "comparison.png") as picture:
        assert picture.width == 1100
    place = tmp_path / "runs" / "no-motion" / "fold1-seed0"
    assert "step 0 of 8" in (place / "log.txt").read_text()

    before = (results / "runs.jsonl").read_text()
    assert cli.main([*arguments, "--seeds", "2", "--processes", "2"]) == 0
    output = capfd.readouterr()
    assert "2 runs, 2 at a time" in output.out
    assert "full, seed 1, fold 1: done" in output.err
    after = (results / "runs.jsonl").read_text()
    assert after.startswith(before) and len(after.splitlines()) == 4
    subjects = json.loads(before.splitlines()[0])["subjects"]
    assert len(subjects) == 2

    assert cli.main([*arguments, "--seeds", "2", "--config.learning_rate=0.5"]) == 2
    assert "data set (differing: learning_rate)" in capfd.readouterr().err

    assert cli.main([*arguments, "--seeds", "2", "--variant", "x: model.edges=nothing"]) == 2
    error = capfd.readouterr().err
    assert "2 of 2 runs failed" in error and "edges='nothing' is unknown" in error
