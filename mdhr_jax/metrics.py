# SPDX-License-Identifier: Apache-2.0
"""Masked counts of hits and misses per AU, and F1 and accuracy from them (release).

Counts are added up over a whole test fold; F1 is computed once from their sum, per AU, and the
score of a fold is the plain mean over AUs.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num


class Counts(NamedTuple):
    """How many labelled frames per AU were predicted right and wrong, `(n,)` integers each."""

    tp: Int[Array | np.ndarray, " n"]  # active, predicted active
    fp: Int[Array | np.ndarray, " n"]  # not active, predicted active
    tn: Int[Array | np.ndarray, " n"]  # not active, predicted not active
    fn: Int[Array | np.ndarray, " n"]  # active, predicted not active


def count(
    scores: Float[Array, "*frames n"],
    labels: Num[Array, "*frames n"],
    mask: Bool[Array, "*frames n"] | Num[Array, "*frames n"],
    threshold: float = 0.5,
) -> Counts:
    """Counts over all leading axes; an AU is predicted active where score >= threshold.

    Args:
      scores: in [0, 1].
      labels: 1 active, 0 not; anything where the mask is 0.
      mask: 1 where the label is known.
      threshold: the release's is 0.5.
    """
    predicted, active, known = scores >= threshold, labels > 0.5, mask > 0.5

    def total(cases: Bool[Array, "*frames n"]) -> Int[Array, " n"]:
        return jnp.sum(cases & known, axis=tuple(range(cases.ndim - 1)), dtype=jnp.int32)

    return Counts(
        tp=total(predicted & active),
        fp=total(predicted & ~active),
        tn=total(~predicted & ~active),
        fn=total(~predicted & active),
    )


def add(first: Counts, second: Counts) -> Counts:
    """Counts of two disjoint sets of frames together."""
    return Counts(*(a + b for a, b in zip(first, second, strict=True)))


def f1(counts: Counts) -> Float[np.ndarray, "*batch n"]:
    """`2 p r / (p + r)` per AU as a fraction, with the release's 1e-20 under each line.

    0 for an AU that is never active; it stays in the mean.
    """
    tp, fp, _, fn = _float64(counts)
    precision = tp / (tp + fp + 1e-20)
    recall = tp / (tp + fn + 1e-20)
    return 2 * precision * recall / (precision + recall + 1e-20)


def accuracy(counts: Counts) -> Float[np.ndarray, " n"]:
    """Share of labelled frames predicted right, per AU; nan for an AU without a label."""
    tp, fp, tn, fn = _float64(counts)
    labelled = tp + fp + tn + fn
    return np.where(labelled > 0, (tp + tn) / np.maximum(labelled, 1), np.nan)


def always_positive(counts: Counts) -> Counts:
    """Counts that answering "active" to every frame would have had on the same labels."""
    tp, fp, tn, fn = counts
    none = np.zeros_like(tp)
    return Counts(tp=tp + fn, fp=fp + tn, tn=none, fn=none)


def _float64(counts: Counts) -> Float[np.ndarray, "4 *batch n"]:
    return np.stack([np.asarray(part, np.float64) for part in counts])
