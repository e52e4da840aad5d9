# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from sklearn import metrics as reference

from mdhr_jax import checkpoint, cli, errors, evaluate, protocol, runs, train, writers


@pytest.fixture
def trained(tiny_config, tmp_path, one_device):
    """Trains under a protocol; returns the run, its configuration, table and scores."""

    def run(name, **keys):
        tiny_config.update(protocol=name, held_out=0.5, epochs=4.0, eval_every=2, **keys)
        train.train(tiny_config, tmp_path / "run")
        return tmp_path / "run", tiny_config, *evaluate.evaluate(tmp_path / "run")

    return run


def _cells(table, row):
    (values,) = [r.values for r in table.rows if r.name == row]
    return dict(zip(table.columns, values, strict=True))


def _check_with_scikit_learn(table, scored, thresholds):
    """Every measure of the table, from the scores alone."""
    f1, everything, counted = [], [], 0
    for i, row in enumerate(table.rows[: len(thresholds)]):
        known = scored.mask[:, i]
        truth, score = scored.labels[known, i], scored.scores[known, i]
        predicted = (score >= np.float32(thresholds[i])).astype(int)
        everything.append((truth, predicted))
        f1.append(reference.f1_score(truth, predicted, zero_division=0.0))
        cells = dict(zip(table.columns, row.values, strict=True))
        expected = {"accuracy": reference.accuracy_score(truth, predicted)}
        if truth.any():
            always = np.ones_like(truth)
            expected["F1"] = f1[-1]
            expected["always-positive"] = reference.f1_score(truth, always)
        if len(set(truth)) == 2:
            expected["ROC-AUC"] = reference.roc_auc_score(truth, score)
            expected["bal. acc."] = reference.balanced_accuracy_score(truth, predicted)
        missing = {"F1", "always-positive", "ROC-AUC", "bal. acc."} - expected.keys()
        assert all(np.isnan(cells[measure]) for measure in missing), row.name
        for measure, value in expected.items():
            assert cells[measure] == pytest.approx(value, abs=1e-9), (row.name, measure)
            counted += 1
    assert counted > 40  # of 60
    truth, predicted = (np.concatenate(parts) for parts in zip(*everything, strict=True))
    assert _cells(table, "mean")["F1"] == pytest.approx(np.mean(f1), abs=1e-9)
    assert _cells(table, "all AUs as one")["F1"] == pytest.approx(
        reference.f1_score(truth, predicted), abs=1e-9
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", protocol.PROTOCOLS)
def test_every_protocols_table_is_what_scikit_learn_says(trained, name):
    run, config, table, scored = trained(name)
    assert table.details["protocol"] == name
    assert table.details["step chosen"] == protocol.PROTOCOLS[name].step
    _check_with_scikit_learn(table, scored, np.full(12, config.threshold))
    saved = runs.checkpoints(run)
    rows = runs.evaluations(run)
    best = max(rows, key=lambda row: row["mean_f1"])["step"]
    assert checkpoint.latest_step(saved, "best") == (None if name == "last" else best)
    assert table.details["step"] == (rows[-1]["step"] if name == "last" else best)


@pytest.mark.slow
def test_thresholds_are_chosen_on_held_out_people_and_used_on_the_test_fold(trained):
    run, config, table, scored = trained("held-out", tune_thresholds=True)
    source = runs.open_data(config)
    people = {
        split: set(source.table.take(source.rows(1, split)).subjects)
        for split in ("train", "held-out", "test")
    }
    assert all(people.values())
    assert len(set.union(*people.values())) == sum(map(len, people.values())) == 6
    assert set(scored.subjects) == people["test"]
    thresholds = runs.load(run).thresholds
    row = next(r for r in writers.read(run / "metrics.jsonl") if "threshold/AU01" in r)
    assert len({*thresholds.tolist(), config.threshold}) > 6
    assert len([key for key in row if key.startswith("threshold/")]) == 12
    _check_with_scikit_learn(table, scored, thresholds)
    assert table.details["threshold"].startswith("per AU")


def test_a_run_is_not_evaluated_under_another_protocol(tiny_config, tmp_path, capsys):
    with pytest.raises(errors.InputError, match="trained for protocol 'last', not 'official'"):
        protocol.check_trained_for("last", "official", "run")
    config = f"--config.data={tiny_config.data}"
    arguments = ["crossval", "--config", "configs/quickstart.py", "--workdir", str(tmp_path / "r")]
    assert cli.main([*arguments, config, "--protocol", "held-out"]) == 2
    assert "config.protocol=held-out" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_thresholds_need_held_out_people(tiny_config):
    tiny_config.tune_thresholds = True
    with pytest.raises(errors.InputError, match="use config.protocol=held-out"):
        runs.protocol_of(tiny_config)


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
