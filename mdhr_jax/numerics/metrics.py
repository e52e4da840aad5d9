# SPDX-License-Identifier: Apache-2.0
"""What scores are worth: masked counts of hits and misses per AU, and measures from them.

Counts are added up over a whole test fold; F1 is computed once from their sum, per AU, and the
score of a fold is the plain mean over AUs (release). What cannot be said, such as the recall of an
AU that is never active, is nan. On the host, numpy only.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num


class Counts(NamedTuple):
    """How many labelled frames per AU were predicted right and wrong, `(n,)` integers each."""

    tp: Num[np.ndarray, "*batch n"]  # active, predicted active
    fp: Num[np.ndarray, "*batch n"]  # not active, predicted active
    tn: Num[np.ndarray, "*batch n"]  # not active, predicted not active
    fn: Num[np.ndarray, "*batch n"]  # active, predicted not active


def count(
    scores: Float[np.ndarray, "*frames n"],
    labels: Num[np.ndarray, "*frames n"],
    mask: Bool[np.ndarray, "*frames n"] | Num[np.ndarray, "*frames n"],
    threshold: float | Float[np.ndarray, " n"] = 0.5,
) -> Counts:
    """Counts over all leading axes; an AU is predicted active where score >= threshold.

    Args:
      scores: in [0, 1].
      labels: 1 active, 0 not; anything where the mask is 0.
      mask: 1 where the label is known.
      threshold: of all AUs or of each one; the release's is 0.5.
    """
    # A float32 score is compared with the threshold as float32, as on a device.
    predicted = scores >= np.asarray(threshold, scores.dtype)
    active, known = labels > 0.5, mask > 0.5

    def total(cases: Bool[np.ndarray, "*frames n"]) -> Int[np.ndarray, " n"]:
        return np.sum(cases & known, axis=tuple(range(cases.ndim - 1)), dtype=np.int64)

    return Counts(
        tp=total(predicted & active),
        fp=total(predicted & ~active),
        tn=total(~predicted & ~active),
        fn=total(~predicted & active),
    )


def pooled(counts: Counts) -> Counts:
    """All AUs as one, `(*batch, 1)`: the F1 of it is the micro average."""
    return Counts(*(np.sum(part, axis=-1, keepdims=True) for part in counts))


def f1(counts: Counts) -> Float[np.ndarray, "*batch n"]:
    """`2 p r / (p + r)` per AU as a fraction, with the release's 1e-20 under each line.

    0 for an AU that is never active; it stays in the mean.
    """
    tp, fp, _, fn = _float64(counts)
    precision = tp / (tp + fp + 1e-20)
    recall = tp / (tp + fn + 1e-20)
    return 2 * precision * recall / (precision + recall + 1e-20)


def accuracy(counts: Counts) -> Float[np.ndarray, "*batch n"]:
    """Share of labelled frames predicted right, per AU; nan for an AU without a label."""
    tp, fp, tn, fn = _float64(counts)
    return _ratio(tp + tn, tp + fp + tn + fn)


def balanced_accuracy(counts: Counts) -> Float[np.ndarray, "*batch n"]:
    """Mean of the recalls of active and of inactive frames; nan where one of them is missing."""
    tp, fp, tn, fn = _float64(counts)
    return (_ratio(tp, tp + fn) + _ratio(tn, tn + fp)) / 2


def occurs(counts: Counts) -> Bool[np.ndarray, "*batch n"]:
    """Whether an AU is active in any labelled frame; without, its F1 says nothing."""
    return (np.asarray(counts.tp) + np.asarray(counts.fn)) > 0


def f1_and_summaries(counts: Counts) -> Float[np.ndarray, "*batch m"]:
    """F1 of the n AUs, then three summaries of it.

    They are the mean with AUs that never occur as 0, the mean without them, and the F1 of all AUs
    as one (micro average).
    """
    each, seen = f1(counts), occurs(counts)
    occurring = np.where(seen, each, 0).sum(-1) / np.maximum(seen.sum(-1), 1)
    means = np.stack([each.mean(-1), occurring], axis=-1)
    return np.concatenate([each, means, f1(pooled(counts))], axis=-1)


def roc_auc(
    scores: Float[np.ndarray, "m n"],
    labels: Int[np.ndarray, "m n"],
    mask: Bool[np.ndarray, "m n"],
) -> Float[np.ndarray, " n"]:
    """Area under the ROC curve per AU; nan where active or inactive frames are missing.

    It is the probability that an active frame scores higher than an inactive one, ties counting
    half (Mann and Whitney).
    """
    from scipy import stats  # here: every command would wait a second or two for it

    areas = []
    for s, y, known in zip(scores.T, labels.T, mask.T, strict=True):
        ranks, active = stats.rankdata(s[known]), y[known] > 0.5
        positives, negatives = active.sum(), (~active).sum()
        above = ranks[active].sum() - positives * (positives + 1) / 2
        areas.append(above / (positives * negatives) if positives and negatives else np.nan)
    return np.array(areas)


def always_positive(counts: Counts) -> Counts:
    """Counts that answering "active" to every frame would have had on the same labels."""
    tp, fp, tn, fn = counts
    none = np.zeros_like(tp)
    return Counts(tp=tp + fn, fp=fp + tn, tn=none, fn=none)


def coin_flip(counts: Counts) -> Counts:
    """Counts that a fair coin has on average on the same labels."""
    positives = (np.asarray(counts.tp) + counts.fn) / 2
    negatives = (np.asarray(counts.tn) + counts.fp) / 2
    return Counts(tp=positives, fp=negatives, tn=negatives, fn=positives)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _float64(counts: Counts) -> Float[np.ndarray, "4 *batch n"]:
    return np.stack([np.asarray(part, np.float64) for part in counts])
