# SPDX-License-Identifier: Apache-2.0
import pathlib

import numpy as np
import pytest

from mdhr_jax.numerics import metrics

GOLDEN = pathlib.Path(__file__).parents[3] / "shared/reference/golden/metric.npz"


def _random(seed=0, shape=(3, 5, 4)):
    rng = np.random.default_rng(seed)
    scores = rng.uniform(size=shape).astype(np.float32)
    labels = rng.integers(0, 2, shape)
    mask = rng.uniform(size=shape) < 0.7
    return scores, labels, mask


def test_counts_equal_hand_counted_ones():
    scores = np.array([[0.9], [0.5], [0.4], [0.1], [0.8], [0.2]])
    labels = np.array([[1], [0], [1], [0], [1], [-1]])
    mask = np.array([[1], [1], [1], [1], [1], [0]])
    assert [part.tolist() for part in metrics.count(scores, labels, mask)] == [[2], [1], [1], [1]]


def test_f1_and_accuracy_equal_hand_computed_ones():
    counts = metrics.Counts(*np.array([[6, 1], [2, 0], [8, 3], [4, 0]]))
    np.testing.assert_allclose(metrics.f1(counts), [2 / 3, 1], rtol=1e-15)
    np.testing.assert_allclose(metrics.accuracy(counts), [14 / 20, 1], rtol=1e-15)


def test_counts_equal_a_naive_loop():
    scores, labels, mask = _random()
    expected = np.zeros((4, 4), int)
    rows = (np.asarray(x).reshape(-1, 4) for x in (scores, labels, mask))
    for s, y, m in zip(*rows, strict=True):
        for n in range(4):
            if m[n]:
                case = {(1, 1): 0, (1, 0): 1, (0, 0): 2, (0, 1): 3}[int(s[n] >= 0.5), int(y[n])]
                expected[case, n] += 1
    np.testing.assert_array_equal(np.stack(metrics.count(scores, labels, mask)), expected)


def test_a_score_on_the_threshold_is_a_prediction():
    one = np.ones((1, 1))
    assert metrics.count(one * 0.3, one, one, threshold=0.3).tp == 1
    assert metrics.count(one * 0.2999, one, one, threshold=0.3).tp == 0


def test_counts_beyond_float32_precision_stay_exact():
    n = 2**24 + 1  # the first whole number that float32 cannot hold
    many = metrics.Counts(*(np.array([k]) for k in (n, 1, 0, 0)))
    assert metrics.f1(many)[0] < 1


def test_an_au_without_positives_scores_0():
    counts = metrics.Counts(*np.array([[0, 0], [3, 0], [5, 8], [0, 0]]))
    np.testing.assert_array_equal(metrics.f1(counts), [0, 0])


def test_accuracy_of_an_au_without_labels_is_nan():
    accuracy = metrics.accuracy(metrics.Counts(*np.array([[1, 0], [0, 0], [0, 0], [0, 0]])))
    np.testing.assert_array_equal(accuracy, [1, np.nan])


def test_always_positive_equals_counting_scores_of_1():
    scores, labels, mask = _random()
    baseline = metrics.always_positive(metrics.count(scores, labels, mask))
    expected = metrics.count(np.ones_like(scores), labels, mask)
    for a, b in zip(baseline, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(not GOLDEN.exists(), reason="golden vectors (../shared) are not here")
@pytest.mark.parametrize("case", ["a", "b"])
def test_golden_metric_is_reproduced_exactly(case):
    golden = {k.split(".")[1]: v for k, v in np.load(GOLDEN).items() if k[0] == case}
    label = golden["label"]
    counts = metrics.count(golden["pred"], label, label >= 0)
    for name, part in counts._asdict().items():
        np.testing.assert_array_equal(part, golden[name.upper()])
    np.testing.assert_array_equal(metrics.f1(counts), golden["f1"])
    np.testing.assert_array_equal(metrics.accuracy(counts), golden["acc"])
    assert metrics.f1(counts).mean() == golden["mean_f1"]
