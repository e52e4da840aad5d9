# SPDX-License-Identifier: Apache-2.0
"""How sure an F1 is: intervals over draws of the test subjects (bootstrap).

Frames of a person resemble each other, so people are drawn, with replacement, as many as there
are. The same people are always drawn in the same way, which pairs models, seeds and variants that
are tested on them; other people, such as those of another fold, are drawn independently.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Num

from mdhr_jax.numerics import metrics

DRAWS = 2000
INTERVAL = 0.95


def total(counts: Num[np.ndarray, "*draws s n 4"]) -> metrics.Counts:
    """All subjects together."""
    return metrics.Counts(*np.moveaxis(counts.sum(axis=-3), -1, 0))


def draws(subjects: Sequence[str]) -> Int[np.ndarray, "draws s"]:
    """How often each subject is in each draw; a function of the names, in whatever order."""
    order = np.argsort(np.array(subjects))
    names = "\n".join(np.array(subjects)[order])
    seed = int.from_bytes(hashlib.sha256(names.encode()).digest())
    chances = np.full(len(order), 1 / len(order))
    drawn = np.random.default_rng(seed).multinomial(len(order), chances, size=DRAWS)
    return drawn[:, np.argsort(order)]


def resampled(counts: Int[np.ndarray, "s n 4"], subjects: Sequence[str]) -> metrics.Counts:
    """All subjects of every draw together, `(draws, n)` each."""
    drawn = np.einsum("bs,snk->bnk", draws(subjects), counts)
    return metrics.Counts(*np.moveaxis(drawn, -1, 0))


def interval(drawn: Float[np.ndarray, "draws ..."]) -> Float[np.ndarray, "2 ..."]:
    """Lower and upper end of the middle 95% of the draws."""
    edge = (1 - INTERVAL) / 2
    return np.quantile(drawn, (edge, 1 - edge), axis=0)


def f1_interval(
    counts: Int[np.ndarray, "s n 4"], subjects: Sequence[str]
) -> Float[np.ndarray, "2 m"]:
    """Lower and upper ends of `metrics.f1_and_summaries`."""
    return interval(metrics.f1_and_summaries(resampled(counts, subjects)))


def difference_interval(
    counts: Int[np.ndarray, "s n 4"], others: Int[np.ndarray, "s n 4"], subjects: Sequence[str]
) -> Float[np.ndarray, "2 m"]:
    """The same of its difference between two models on the same people, drawn in pairs."""
    drawn, drawn_others = (
        metrics.f1_and_summaries(resampled(each, subjects)) for each in (counts, others)
    )
    return interval(drawn - drawn_others)
