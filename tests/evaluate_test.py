# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdhr_jax import crossval, evaluate, facs, metrics, sharding
from mdhr_jax.report import tables

TWO_AUS = facs.AuLayout(
    name="two",
    aus=(1, 12),
    regions=(facs.Region("up", facs.UPPER, (1,)), facs.Region("down", facs.LOWER, (12,))),
    region_blocks=False,
    fps=25.0,
)


def _brightness(params, batch_stats, batch):
    """A model that scores every AU by the picture's mean, so that order mistakes are seen."""
    del params, batch_stats
    level = batch["frames"].astype(jnp.float32).mean((2, 3, 4)) / 255
    return jnp.repeat(level[..., None], batch["labels"].shape[-1], -1)


@pytest.mark.parametrize(("clip_length", "batch_size"), [(16, 8), (7, 16)])
def test_every_test_frame_is_scored_once_and_in_order(rendered_set, clip_length, batch_size):
    scored = evaluate.score(
        jax.jit(_brightness),
        {"params": {}, "batch_stats": {}},
        rendered_set,
        sharding.make_mesh(),
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


def test_batches_are_rounded_up_to_the_devices():
    assert evaluate.batch_size(3, sharding.make_mesh()) == 8
    assert evaluate.batch_size(16, sharding.make_mesh()) == 16


def _result(counts, auc):
    details = {
        "layout": "two",
        "protocol": "last",
        "step": 7,
        "step chosen": "the last one",
        "threshold": 0.5,
        "seed": 0,
        "test subjects": ["F001"],
        "frames": 20,
    }
    return tables.evaluation(TWO_AUS, np.array(counts), np.array(auc), details)


def test_cross_validation_shows_folds_their_mean_and_all_frames_together():
    counts = np.random.default_rng(0).integers(1, 9, (3, 4, 2, 4))
    counts[1, :, 1, [0, 3]] = 0  # AU12 never occurs in fold 2
    summary = crossval.summarise([_result(c, [0.6, 0.7]) for c in counts], list(counts))
    rows = {row.name: dict(zip(summary.columns, row.values, strict=True)) for row in summary.rows}
    f1 = np.stack([metrics.f1(metrics.Counts(*c.sum(0).T)) for c in counts])
    assert rows["AU01"]["F1 fold 2"] == f1[1, 0]
    assert np.isnan(rows["AU12"]["F1 fold 2"])
    assert rows["AU01"]["F1 mean of folds"] == pytest.approx(f1[:, 0].mean())
    assert rows["AU12"]["F1 mean of folds"] == pytest.approx(f1[[0, 2], 1].mean())
    assert rows["mean"]["F1 mean of folds"] == pytest.approx(f1.mean())
    pooled = metrics.f1(metrics.Counts(*counts.sum((0, 1)).T))
    assert rows["AU12"]["F1 pooled"] == pytest.approx(pooled[1])
    assert rows["AU01"]["low"] < pooled[0] < rows["AU01"]["high"]
    assert rows["mean"]["ROC-AUC"] == pytest.approx(0.65)
    assert summary.details["frames"] == 60
