# SPDX-License-Identifier: Apache-2.0
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdhr_jax import cli, errors, evaluate, facs
from mdhr_jax.data.builders import rendered
from mdhr_jax.machine import sharding
from mdhr_jax.numerics import metrics, steps
from mdhr_jax.report import tables
from mdhr_jax.run.scoring import score_split, whole_batches
from mdhr_jax.studies import crossval


def _brightness(params, batch_stats, batch):
    """A model that scores every AU by the picture's mean, so that order mistakes are seen."""
    del params, batch_stats
    level = batch["frames"].astype(jnp.float32).mean((2, 3, 4)) / 255
    return jnp.repeat(level[..., None], batch["labels"].shape[-1], -1)


def _scoring(step):
    return steps.Scoring(lambda *values: values, jax.jit(step))


@pytest.mark.parametrize(("clip_length", "batch_size"), [(16, 8), (7, 16)])
def test_every_test_frame_is_scored_once_and_in_order(rendered_set, clip_length, batch_size):
    scored = score_split(
        _scoring(_brightness),
        {"params": {}, "batch_stats": {}},
        rendered_set,
        functools.partial(sharding.put_batch, sharding.make_mesh()),
        fold=1,
        clip_length=clip_length,
        batch_size=batch_size,
    )
    pictures = rendered_set.pictures(rendered_set.rows(1, "test"))
    expected = pictures.astype(np.float64).mean((1, 2, 3)) / 255
    np.testing.assert_allclose(scored.scores, np.repeat(expected[:, None], 12, 1), atol=1e-4)
    table = rendered_set.table.take(scored.rows)
    assert scored.subjects == [table.subjects[video] for video in table.video]
    people, counts = scored.subject_counts(0.5)
    assert people == sorted(set(table.subjects))
    np.testing.assert_array_equal(counts.sum(0).T, np.stack(scored.counts(0.5)))
    assert counts.sum() == scored.labels.size


def test_scores_that_are_not_finite_are_refused(rendered_set):
    def broken(params, batch_stats, batch):
        scores = _brightness(params, batch_stats, batch)
        return jnp.where(batch["row"][..., None] == 5, jnp.nan, scores)

    with pytest.raises(errors.InputError, match="bp4d: .* not finite in 1 of 144 frames; .* use"):
        score_split(
            _scoring(broken),
            {"params": {}, "batch_stats": {}},
            rendered_set,
            functools.partial(sharding.put_batch, sharding.make_mesh()),
            fold=1,
            clip_length=16,
            batch_size=8,
        )


def test_batches_are_rounded_up_to_the_devices():
    assert whole_batches(3, sharding.make_mesh()) == 8
    assert whole_batches(16, sharding.make_mesh()) == 16


def _result(layout, counts, auc):
    details = {"protocol": "last", "step": 7, "test subjects": ["F001"], "frames": 20}
    details["seen in training"] = "none"
    return tables.evaluation(layout, list("abcd"), np.array(counts), np.array(auc), {}, details)


def test_cross_validation_shows_folds_their_mean_and_all_frames_together(two_aus, table_cells):
    counts = np.random.default_rng(0).integers(1, 9, (3, 4, 2, 4))
    counts[1, :, 1, [0, 3]] = 0  # AU12 never occurs in fold 2
    results = [_result(two_aus, fold, [0.6, 0.7]) for fold in counts]
    people = [f"{fold}{person}" for fold in "123" for person in "abcd"]
    summary = crossval.summarise(results, people, np.concatenate(counts))
    first, second, mean = (table_cells(summary, row) for row in ("AU01", "AU12", "mean"))
    f1 = np.stack([metrics.f1(metrics.Counts(*c.sum(0).T)) for c in counts])
    assert first["F1 fold 2"] == f1[1, 0]
    assert np.isnan(second["F1 fold 2"])
    assert first["F1 mean of folds"] == pytest.approx(f1[:, 0].mean())
    assert second["F1 mean of folds"] == pytest.approx(f1[[0, 2], 1].mean())
    assert mean["F1 mean of folds"] == pytest.approx(f1.mean())
    pooled = metrics.f1(metrics.Counts(*counts.sum((0, 1)).T))
    assert second["F1 pooled"] == pytest.approx(pooled[1])
    assert first["low"] < pooled[0] < first["high"]
    assert mean["ROC-AUC"] == pytest.approx(0.65)
    assert summary.details["frames"] == 60
    assert summary.details["test subjects"] == ["F001"] * 3
    assert "step 7 7 7," in summary.caption


@pytest.mark.slow
def test_two_runs_are_compared_on_the_same_frames(make_run, capsys):
    first, second = make_run("first"), make_run("second", seed=1, threshold=0.4)
    arguments = ["--checkpoint", str(first), "--against", str(second), "--oracle-thresholds"]
    assert cli.main(["evaluate", *arguments]) == 0
    output = capsys.readouterr().out
    out = first / "evaluation"
    assert output.endswith(f"tables in {out}\n")
    assert {path.stem for path in out.iterdir()} == {"f1", "paper", "difference"}
    table, difference = (json.loads((out / f"{n}.json").read_text()) for n in ("f1", "difference"))
    for name, cells in difference["rows"].items():
        assert cells["F1"] == table["rows"][name]["F1"]
    mean = difference["rows"]["mean"]
    assert mean["difference"] == pytest.approx(mean["F1"] - mean["F1 against"])
    assert difference["details"]["F1"]["of"] == str(first)
    assert difference["details"]["F1 against"]["of"] == str(second)
    assert difference["details"]["F1 against"]["threshold"] == 0.4
    other, _ = evaluate.evaluate(evaluate.load(second))
    assert mean["F1 against"] == other.column("F1")[-3]
    assert max(map(len, output.splitlines())) <= 120


@pytest.mark.slow
def test_tables_that_cannot_be_written_are_refused_before_the_evaluation(
    make_run, capsys, monkeypatch
):
    monkeypatch.setattr(evaluate, "test", None)
    arguments = ["--checkpoint", str(make_run("first")), "--out", "/dev/null/x"]
    assert cli.main(["evaluate", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mdhr evaluate: /dev/null/x: cannot be written (Not a d")


@pytest.mark.slow
def test_runs_that_can_not_be_compared_are_refused(make_run, capsys, tmp_path):
    first, other_fold = make_run("first"), make_run("second", fold=2)
    disfa = rendered.build(
        tmp_path / "disfa",
        facs.DISFA,
        seed=3,
        subjects=3,
        videos_per_subject=1,
        frames_per_video=8,
        image_size=64,
        progress=False,
    )
    other_aus = make_run("third", layout="disfa", data=str(disfa.path))
    for other, message in [
        (other_fold, "second: tested on other subjects, frames or labels (144 frames of 2 people"),
        (other_aus, "third: has AU01 AU02 AU04 AU06 AU09 AU12 AU25 AU26, but"),
    ]:
        assert cli.main(["evaluate", "--checkpoint", str(first), "--against", str(other)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not (first / "evaluation").exists()


@pytest.mark.long
def test_a_cross_validation_leaves_tables_of_its_folds_and_a_summary(
    tiny_config, config_file, tmp_path, one_device, capsys
):
    tiny_config.epochs = 1.0
    arguments = ["--config", str(config_file()), "--workdir", str(tmp_path / "runs")]
    assert cli.main(["crossval", *arguments, "--oracle-thresholds"]) == 0
    folders = [tmp_path / "runs", *(tmp_path / f"runs/fold{i}/evaluation" for i in (1, 2, 3))]
    summary, *folds = (json.loads((place / "f1.json").read_text()) for place in folders)
    own = [fold["rows"]["mean"]["F1"] for fold in folds]
    assert summary["rows"]["mean"]["F1 mean of folds"] == pytest.approx(np.mean(own), abs=1e-12)
    people = [person for fold in folds for person in fold["details"]["test subjects"]]
    assert summary["details"]["test subjects"] == sorted(people)
    assert len(set(people)) == 6
    assert "F1, thresholds chosen on test" in summary["rows"]["AU01"]
    ours = json.loads((tmp_path / "runs" / "paper.json").read_text())["rows"]["ours"]
    assert ours["mean"] == summary["rows"]["mean"]["F1 mean of folds"]

    capsys.readouterr()
    assert cli.main(["crossval", *arguments]) == 0
    assert "fold3: step 1 of 1" in capsys.readouterr().out  # nothing is trained again
    assert "chosen on test" not in (tmp_path / "runs" / "f1.csv").read_text()
