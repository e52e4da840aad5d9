# SPDX-License-Identifier: Apache-2.0
import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as reference

from mdhr_jax import cli, errors, evaluate, train
from mdhr_jax.configs import base
from mdhr_jax.machine import sharding
from mdhr_jax.numerics import bootstrap, steps
from mdhr_jax.run import checkpoint, directory, programs, protocol, writers
from mdhr_jax.run.programs import _scorer
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.run.scoring import Scores
from mdhr_jax.run.trained import Trained, load_trained
from mdhr_jax.studies import crossval


@pytest.fixture
def trained(tiny_config, tmp_path, one_device):
    """Trains under a protocol; returns the run, its configuration, table and scores."""

    def run(name, **keys):
        tiny_config.update(protocol=name, held_out=0.5, epochs=4.0, eval_every=2, **keys)
        train.train(tiny_config, tmp_path / "run")
        return tmp_path / "run", tiny_config, *evaluate.evaluate(evaluate.load(tmp_path / "run"))

    return run


# Every number of a table once more, from the scores alone, with scikit-learn.


def _f1(cases):
    """F1 of AUs with a truth, an answer and a weight per frame each, and the tables' summaries."""
    cases = list(cases)
    each = [_f1_score(*case) for case in cases]
    occurring = [f1 for f1, (truth, _, weight) in zip(each, cases, strict=True) if weight @ truth]
    pooled = _f1_score(*(np.concatenate(parts) for parts in zip(*cases, strict=True)))
    return np.array([*each, np.mean(each), np.mean(occurring or [0.0]), pooled])


def _f1_score(truth, answer, weight):
    return reference.f1_score(truth, answer, sample_weight=weight, zero_division=0.0)


def _known(scored):
    """Of every AU the labelled frames: truth, score, and the person's place in the alphabet."""
    _, person = np.unique(scored.subjects, return_inverse=True)
    columns = zip(scored.labels.T, scored.scores.T, scored.mask.T, strict=True)
    return [(truth[mask], score[mask], person[mask]) for truth, score, mask in columns]


def _drawn_f1(scored, thresholds):
    """`_f1` of every draw of the test subjects."""
    people = sorted(set(scored.subjects))
    different, draw = np.unique(bootstrap.draws(people), axis=0, return_inverse=True)
    aus = list(zip(_known(scored), thresholds, strict=True))
    f1 = [_f1((t, s >= np.float32(at), times[p]) for (t, s, p), at in aus) for times in different]
    return np.array(f1)[draw]


def _best_threshold(truth, score):
    """The highest score at which F1 is highest."""
    at = sorted(set(score), reverse=True)
    return max(at, key=lambda t: reference.f1_score(truth, score >= t, zero_division=0.0))


def _recompute(scored, thresholds):
    """The columns of a table of evaluation."""
    known = _known(scored)
    occurs = np.array([truth.any() for truth, _, _ in known] + [True] * 3)
    low, high = np.quantile(_drawn_f1(scored, thresholds), [0.025, 0.975], axis=0)

    def f1(answers):
        pairs = zip(known, answers, strict=True)
        return np.where(occurs, _f1((t, a, np.ones(len(t))) for (t, _, _), a in pairs), np.nan)

    def with_means(measure, least_classes):
        pairs = zip(known, answers, strict=True)
        each = [
            measure(t, s, a) if len(set(t)) >= least_classes else np.nan for (t, s, _), a in pairs
        ]
        return np.array([*each, np.nanmean(each), np.nanmean(each), np.nan])

    answers = [s >= np.float32(at) for (_, s, _), at in zip(known, thresholds, strict=True)]
    # A coin answers every frame both ways, half each.
    both = _f1((np.tile(t, 2), np.repeat([1, 0], len(t)), np.ones(2 * len(t))) for t, _, _ in known)
    return {
        "F1": f1(answers),
        "low": np.where(occurs, low, np.nan),
        "high": np.where(occurs, high, np.nan),
        "bal. acc.": with_means(lambda t, s, a: reference.balanced_accuracy_score(t, a), 2),
        "ROC-AUC": with_means(lambda t, s, a: reference.roc_auc_score(t, s), 2),
        "accuracy": with_means(lambda t, s, a: reference.accuracy_score(t, a), 1),
        "always-positive": f1([np.ones(len(t)) for t, _, _ in known]),
        "coin flip": np.where(occurs, both, np.nan),
        "F1, thresholds chosen on test": f1(
            [s >= (_best_threshold(t, s) if t.any() else 0.5) for t, s, _ in known]
        ),
    }


def _assert_equal(table, expected):
    """To 1e-9, in all columns but the paper's."""
    own = [column for column in table.columns if not column.startswith("paper")]
    assert own and set(own) <= set(expected)
    for column in own:
        np.testing.assert_allclose(
            table.column(column), expected[column], rtol=0, atol=1e-9, err_msg=column
        )


def _scores(seed, people, frames=25):
    """Of DISFA's AUs; AU06 is never active, a tenth of the labels is unknown."""
    rng = np.random.default_rng(seed)
    subjects = np.repeat(people, frames).tolist()
    labels = rng.integers(0, 2, (len(subjects), 8))
    labels[:, 3] = 0
    scores = np.clip(labels * 0.2 + rng.normal(0.4, 0.2, labels.shape), 0, 1).round(2)
    mask = rng.uniform(size=labels.shape) < 0.9
    rows = np.arange(len(subjects))
    return Scores("random", rows, subjects, scores.astype(np.float32), labels, mask)


def _trained(place="run", protocol_name="last"):
    config = base.get_config()
    config.layout = "disfa"
    state = {"step": np.int32(7)}
    chosen = protocol.PROTOCOLS[protocol_name]
    thresholds = np.linspace(0.4, 0.6, 8)
    return Trained(pathlib.Path(place), Recipe.of(config), chosen, state, thresholds)


def test_a_table_is_what_scikit_learn_says():
    trained, scored = _trained(), _scores(0, ["B", "A", "D", "C"])
    expected = _recompute(scored, trained.thresholds)
    plain, oracle = (evaluate.table(trained, scored, oracle) for oracle in (False, True))
    _assert_equal(plain, expected)
    _assert_equal(oracle, expected)
    assert set(oracle.columns) - set(plain.columns) == {"F1, thresholds chosen on test"}
    assert "thresholds chosen on test" in oracle.caption
    assert "chosen on test" not in plain.caption
    assert (plain.column("F1")[:3] < oracle.column("F1, thresholds chosen on test")[:3]).all()


@pytest.mark.slow
def test_a_cross_validation_is_what_scikit_learn_says():
    trained, folds = _trained(), [_scores(i, p) for i, p in enumerate([["A", "B"], ["C"], ["D"]])]
    counted = [scored.subject_counts(trained.thresholds) for scored in folds]
    people, counts = zip(*counted, strict=True)
    summary = crossval.summarise(
        [evaluate.table(trained, scored, oracle=True) for scored in folds],
        sum(people, []),
        np.concatenate(counts),
    )
    parts = zip(*(dataclasses.astuple(scored)[1:-1] for scored in folds), strict=True)
    rows, subjects, *arrays = map(np.concatenate, parts)
    together = Scores("random", rows, subjects.tolist(), *arrays)
    pooled = _recompute(together, trained.thresholds)
    each = [_recompute(scored, trained.thresholds) for scored in folds]
    expected = {f"F1 fold {i}": fold["F1"] for i, fold in enumerate(each, start=1)}
    for measure in pooled:
        values = np.array([fold[measure] for fold in each])
        known = ~np.isnan(values).all(0)
        expected[measure] = np.full(len(known), np.nan)
        expected[measure][known] = np.nanmean(values[:, known], axis=0)
    expected["F1 mean of folds"] = expected["F1"]
    expected |= {"F1 pooled": pooled["F1"], "low": pooled["low"], "high": pooled["high"]}
    _assert_equal(summary, expected)


@pytest.mark.slow
def test_a_difference_is_what_scikit_learn_says():
    first, second = _trained("first"), _trained("second", "official")
    scored = _scores(0, ["B", "A", "D", "C"])
    noise = np.random.default_rng(1).normal(0, 0.1, scored.scores.shape)
    other = dataclasses.replace(scored, scores=(scored.scores + noise).astype(np.float32))
    table = evaluate.difference(first, scored, second, other)
    own, others = (_recompute(s, first.thresholds)["F1"] for s in (scored, other))
    drawn, drawn_others = (_drawn_f1(s, first.thresholds) for s in (scored, other))
    low, high = np.quantile(drawn - drawn_others, [0.025, 0.975], axis=0)
    low[3] = high[3] = np.nan  # never occurs
    columns = {"F1": own, "F1 against": others, "difference": own - others}
    _assert_equal(table, columns | {"low": low, "high": high})
    assert table.details["F1"]["of"] == "first"
    assert table.details["F1 against"]["protocol"] == "official"
    same = evaluate.difference(first, scored, second, scored)
    assert not np.nan_to_num(same.column("difference")).any()
    assert not np.nan_to_num(same.column("low")).any()


@pytest.mark.long
@pytest.mark.parametrize("name", protocol.PROTOCOLS)
def test_every_protocols_table_is_what_scikit_learn_says(trained, name):
    run, config, table, scored = trained(name)
    assert table.details["protocol"] == name
    assert table.details["step chosen"] == protocol.PROTOCOLS[name].step
    expected = _recompute(scored, np.full(12, config.threshold))
    _assert_equal(table, expected)
    _assert_equal(evaluate.table(load_trained(run), scored, oracle=True), expected)
    saved = directory.checkpoints(run)
    rows = directory.evaluations(run)
    best = max(rows, key=lambda row: row["mean_f1"])["step"]
    assert checkpoint.latest_step(saved, "best") == (None if name == "last" else best)
    assert table.details["step"] == (rows[-1]["step"] if name == "last" else best)


@pytest.mark.long
def test_thresholds_are_chosen_on_held_out_people_and_used_on_the_test_fold(trained):
    run, config, table, scored = trained("held-out", tune_thresholds=True)
    source = Recipe.of(config).open_data()
    people = {
        split: set(source.table.take(source.rows(1, split)).subjects)
        for split in ("train", "held-out", "test")
    }
    assert all(people.values())
    assert len(set.union(*people.values())) == sum(map(len, people.values())) == 6
    assert set(scored.subjects) == people["test"]
    thresholds = load_trained(run).thresholds
    row = next(r for r in writers.read(run / "metrics.jsonl") if "threshold/AU01" in r)
    assert len({*thresholds.tolist(), config.threshold}) > 6
    assert len([key for key in row if key.startswith("threshold/")]) == 12
    _assert_equal(table, _recompute(scored, thresholds))
    assert table.details["threshold"].startswith("per AU")


@pytest.mark.parametrize("name", protocol.PROTOCOLS)
def test_evaluations_during_training_look_at_the_people_of_the_protocol(
    tiny_config, monkeypatch, name
):
    def undecided(params, batch_stats, batch):
        return jnp.full(batch["labels"].shape, 0.5)

    scoring = steps.Scoring(lambda *values: values, undecided)
    monkeypatch.setattr(programs, "build_scoring", lambda *_: scoring)
    tiny_config.update(protocol=name, held_out=0.5)
    mesh, recipe = sharding.make_mesh(devices=jax.devices()[:1]), Recipe.of(tiny_config)
    source, put = recipe.open_data(), functools.partial(sharding.put_batch, mesh)
    scored = _scorer(recipe, mesh)({"params": {}, "batch_stats": {}}, source, put)
    expected = source.rows(1, "held-out" if name == "held-out" else "test")
    np.testing.assert_array_equal(scored.rows, expected)


def test_a_run_is_not_evaluated_under_another_protocol(tiny_config, tmp_path, capsys):
    with pytest.raises(errors.InputError, match="trained for protocol 'last', not 'official'"):
        protocol.check_trained_for("last", "official", "run")
    config = f"--config.data={tiny_config.data}"
    arguments = ["crossval", "--config", "quickstart", "--workdir", str(tmp_path / "r")]
    assert cli.main([*arguments, config, "--protocol", "held-out"]) == 2
    assert "config.protocol=held-out" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_thresholds_need_held_out_people(tiny_config):
    tiny_config.tune_thresholds = True
    with pytest.raises(errors.InputError, match="use config.protocol=held-out"):
        _ = Recipe.of(tiny_config).protocol


@pytest.mark.slow
def test_the_best_thresholds_are_found_by_trying_all():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (200, 4))
    scores = np.clip(labels * 0.2 + rng.normal(0.4, 0.2, labels.shape), 0, 1).round(2)
    scores, mask = scores.astype(np.float32), rng.uniform(size=labels.shape) < 0.8
    labels[:, 3] = 0
    found = protocol.best_thresholds(scores, labels, mask, 0.5)
    for n in range(3):
        truth, score = labels[mask[:, n], n], scores[mask[:, n], n]

        def f1(threshold, truth=truth, score=score):
            return reference.f1_score(truth, score >= np.float32(threshold), zero_division=0.0)

        best = max(f1(threshold) for threshold in np.linspace(0, 1, 201))
        assert f1(found[n]) == pytest.approx(best, abs=1e-12)
    assert found[3] == 0.5
