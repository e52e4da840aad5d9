# SPDX-License-Identifier: Apache-2.0
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdhr_jax import crossval, evaluate, metrics, sharding
from mdhr_jax.report import tables


def _brightness(params, batch_stats, batch):
    """A model that scores every AU by the picture's mean, so that order mistakes are seen."""
    del params, batch_stats
    level = batch["frames"].astype(jnp.float32).mean((2, 3, 4)) / 255
    scores = jnp.repeat(level[..., None], batch["labels"].shape[-1], -1)
    return scores, metrics.count(scores, batch["labels"], batch["mask"], 0.5)


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
    naive = metrics.count(
        jnp.asarray(scored.scores), jnp.asarray(scored.labels), jnp.asarray(scored.mask)
    )
    for counted, wanted in zip(scored.counts, naive, strict=True):
        np.testing.assert_array_equal(counted, wanted)
    assert sum(map(int, np.sum(scored.counts, axis=0))) == scored.labels.size


def test_batches_are_rounded_up_to_the_devices():
    assert evaluate.batch_size(3, sharding.make_mesh()) == 8
    assert evaluate.batch_size(16, sharding.make_mesh()) == 16


def _result(f1, frames):
    details = {
        "layout": "mine",
        "protocol": "last step",
        "threshold": 0.5,
        "checkpoint": "last",
        "frames": frames,
    }
    rows = (tables.Row("F1", f1), tables.Row("always-positive F1", (0.5, 0.3, 0.4)))
    return tables.Table(details, ("AU01", "AU02", "mean"), rows)


def test_cross_validation_shows_the_folds_and_their_plain_mean():
    folds = [
        _result((0.2, 0.4, 0.3), 10),
        _result((0.6, 0.8, 0.7), 20),
        _result((0.1, 0.3, 0.2), 5),
    ]
    summary = crossval.summarise(folds)
    rows = dict(summary.rows)
    assert rows["F1 fold 2"] == (0.6, 0.8, 0.7)
    np.testing.assert_allclose(rows["F1, mean of folds"], (0.3, 0.5, 0.4))
    np.testing.assert_allclose(rows["always-positive F1, mean of folds"], (0.5, 0.3, 0.4))
    assert summary.details["frames"] == 35
    assert list(itertools.islice(rows, 3)) == ["F1 fold 1", "F1 fold 2", "F1 fold 3"]
