# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from configs import base
from mdhr_jax import bootstrap, cli, compare, errors, metrics

COMMON = {"layout": "bp4d", "fold": 1, "protocol": "last", "threshold": 0.5}


def a_run(variant, seed, counts):
    """A run whose subjects have these counts, `(s, n, 4)`."""
    subjects = [f"S{number:03d}" for number in range(len(counts))]
    return compare.Run(variant, seed, 8, COMMON, {}, subjects, np.array(counts).tolist(), 60.0)


def random_counts(rng, hits=10, people=12, aus=3):
    """tp, fp, tn, fn of each subject and AU, out of 40 frames."""
    tp = rng.integers(0, 5, (people, aus)) + hits
    fp = rng.integers(0, 10, (people, aus))
    fn = 20 - tp
    return np.stack([tp, fp, 20 - fp, fn], axis=-1)


@pytest.fixture
def runs_of_two():
    """Two seeds of a reference, and of a variant that is worse for everybody."""
    rng = np.random.default_rng(0)
    runs = [a_run("full", seed, random_counts(rng)) for seed in (0, 1)]
    return runs + [a_run("less", seed, random_counts(rng, hits=5)) for seed in (0, 1)]


def tabulate(runs, variants):
    return compare.table(compare.summarise(runs, variants), runs)


def cells(table, variant):
    (row,) = [line for line in table.splitlines() if line.startswith(f"| {variant} |")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_table_shows_means_over_seeds_and_paired_differences(runs_of_two):
    table = tabulate(runs_of_two, ["full", "less"])
    f1 = [100 * metrics.f1(metrics.Counts(*run.count_array.sum(0).T)).mean() for run in runs_of_two]
    assert cells(table, "full")[1:] == [
        "0 1",
        f"{f1[0]:.1f} {f1[1]:.1f}",
        f"{np.mean(f1[:2]):.1f}",
        "",
        "",
    ]
    difference = np.mean(f1[2:]) - np.mean(f1[:2])
    assert cells(table, "less")[4] == f"{difference:+.1f}"
    low, high = map(float, cells(table, "less")[5].split(" to "))
    assert low < difference < high < 0


def test_equal_runs_differ_by_nothing_for_sure(runs_of_two):
    first = runs_of_two[0]
    table = tabulate([first, a_run("same", 0, first.counts)], ["full", "same"])
    assert cells(table, "same")[4:] == ["+0.0", "+0.0 to +0.0"]


def test_drawn_subjects_spread_as_means_of_subjects_do():
    """One AU, never a false positive: F1 of a draw is a function of its hits alone."""
    rng = np.random.default_rng(1)
    hits = rng.integers(0, 21, 400)
    counts = np.stack([hits, 0 * hits, 0 * hits, 20 - hits], axis=-1)[:, None]
    drawn = compare.mean_f1(bootstrap.resampled(counts))
    recall = hits.mean() / 20
    slope = 2 / (1 + recall) ** 2
    expected = slope * (hits / 20).std() / np.sqrt(400)
    assert abs(drawn.std() / expected - 1) < 0.1
    assert abs(drawn.mean() - 2 * recall / (1 + recall)) < expected


def test_unfinished_comparisons_have_a_table_too(runs_of_two):
    table = tabulate(runs_of_two[:2], ["full", "less"])
    assert cells(table, "less") == ["less", "", "", "", "", ""]
    assert "No run has finished yet." in tabulate([], ["full", "less"])


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("full", {}),
        ("no motion: model.dynamics.kind=none", {"model.dynamics.kind": "none"}),
        ("a: model.temporal=False epochs=2", {"model.temporal": False, "epochs": 2.0}),
        ("b: model.dynamics.scales=[1,2]", {"model.dynamics.scales": [1, 2]}),
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
        ("a: epochs=null", "expected a value like 200.0"),
        ("a: seed=7", "seed is common to all variants"),
        ("a: batch_size=2.5", "batch_size=2.5: expected a value like 8"),
    ],
)
def test_settings_that_do_not_exist_are_refused(text, message):
    with pytest.raises(errors.InputError, match=message):
        compare.parse_variant(text, base.get_config())


def test_a_damaged_line_is_refused(tmp_path):
    (tmp_path / "runs.jsonl").write_text('{"variant": "full"}\n')
    with pytest.raises(errors.InputError, match="runs.jsonl, line 1: holds no run"):
        compare.read_runs(tmp_path / "runs.jsonl")


def test_another_data_set_or_variant_of_the_same_name_is_refused(
    runs_of_two, tiny_config, tmp_path
):
    lines = [json.dumps(dataclasses.asdict(run)) for run in runs_of_two]
    (tmp_path / "runs.jsonl").write_text("\n".join(lines))
    variants = [compare.Variant("full", {}), compare.Variant("less", {"model.temporal": False})]
    with pytest.raises(errors.InputError, match="differing: .*data"):
        compare.compare(tiny_config, variants, [0], workdir=tmp_path, results=tmp_path)


@pytest.mark.slow
def test_a_comparison_runs_goes_on_and_refuses_another_configuration(
    config_file, one_device, tmp_path, capsys
):
    results = tmp_path / "results"
    arguments = ["compare", "--config", str(config_file()), "--workdir", str(tmp_path / "runs")]
    arguments += ["--results", str(results), "--variant", "full"]
    arguments += ["--variant", "no motion: model.dynamics.kind=none"]
    assert cli.main([*arguments, "--seeds", "1"]) == 0
    table = capsys.readouterr().out
    assert cells(table, "full")[1] == cells(table, "no motion")[1] == "0"
    assert (results / "table.md").read_text() in table
    with Image.open(results / "comparison.png") as picture:
        assert picture.width == 1100
    assert (tmp_path / "runs" / "no-motion" / "seed0" / "config.json").exists()

    before = (results / "runs.jsonl").read_text()
    assert cli.main([*arguments, "--seeds", "2"]) == 0
    output = capsys.readouterr().out
    assert "run 1 of 2: full, seed 1" in output
    after = (results / "runs.jsonl").read_text()
    assert after.startswith(before) and len(after.splitlines()) == 4
    subjects = json.loads(before.splitlines()[0])["subjects"]
    assert len(subjects) == 2

    assert cli.main([*arguments, "--seeds", "2", "--config.learning_rate=0.5"]) == 2
    assert "data set (differing: learning_rate)" in capsys.readouterr().err
