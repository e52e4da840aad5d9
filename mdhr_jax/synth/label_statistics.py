# SPDX-License-Identifier: Apache-2.0
"""What the labels of a data set are like, in numbers: measured, or the package's own.

The tables in `label_statistics.json` are aggregates over the official BP4D and DISFA lists (see
`docs/rendered-faces.md`).
"""

import dataclasses
import functools
import importlib.resources
import json
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from mdhr_jax import errors, facs
from mdhr_jax.synth import people


@dataclasses.dataclass(frozen=True)
class LabelStatistics:
    """What the label process reproduces; lengths in frames.

    Attributes:
      aus: the order of everything below.
      rates: share of frames with the AU.
      subject_spread: standard deviation of the subjects' own rates.
      activation_lengths: active frames per onset, which does not depend on the video's length.
      pause_lengths: inactive frames per onset.
      correlation: Pearson (phi) correlation between the AUs' labels over all frames.
    """

    aus: tuple[facs.Au, ...]
    rates: tuple[float, ...]
    subject_spread: tuple[float, ...]
    activation_lengths: tuple[float, ...]
    pause_lengths: tuple[float, ...]
    correlation: tuple[tuple[float, ...], ...]


def measure(
    aus: Sequence[facs.Au], videos: Sequence[tuple[str, Int[np.ndarray, "_ n"]]]
) -> LabelStatistics:
    """Statistics of label sequences; unknown labels (-1) are left out.

    Args:
      aus: of the columns.
      videos: `(subject, labels)` of each video, labels `(t, n)` of 0, 1 or -1.

    Raises:
      InputError: an AU is never active or never inactive, so it has no activation length.
    """
    labels = np.ma.masked_less(np.concatenate([labels for _, labels in videos]), 0)
    subjects = np.concatenate([[subject] * len(labels) for subject, labels in videos])
    rates = labels.mean(axis=0).filled(0)
    onsets = sum(_count_onsets(labels) for _, labels in videos)
    steps = sum(_count_known_steps(labels) for _, labels in videos)
    for au, count in zip(aus, np.asarray(onsets), strict=True):
        if not count:
            raise errors.InputError(
                f"AU{au} never begins in these videos: leave it out or add some"
            )
    correlation = np.ma.corrcoef(labels, rowvar=False)
    by_subject = [labels[subjects == subject].mean(axis=0) for subject in np.unique(subjects)]
    return LabelStatistics(
        aus=tuple(aus),
        rates=_rounded(rates),
        subject_spread=_rounded(np.ma.stack(by_subject).std(axis=0)),
        activation_lengths=_rounded(rates * steps / onsets),
        pause_lengths=_rounded((1 - rates) * steps / onsets),
        correlation=tuple(map(_rounded, np.ma.atleast_2d(correlation).filled(0))),
    )


def _count_onsets(labels: Int[np.ndarray, "t n"]) -> Int[np.ndarray, " n"]:
    return ((labels[:-1] == 0) & (labels[1:] == 1)).sum(axis=0)


def _count_known_steps(labels: Int[np.ndarray, "t n"]) -> Int[np.ndarray, " n"]:
    return ((labels[:-1] >= 0) & (labels[1:] >= 0)).sum(axis=0)


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)


@functools.cache
def tables() -> dict[str, LabelStatistics]:
    """The statistics that come with the package, by layout name."""
    text = importlib.resources.files("mdhr_jax.synth").joinpath("label_statistics.json").read_text()
    return {
        name: LabelStatistics(**{k: _tuples(v) for k, v in table.items()})
        for name, table in json.loads(text).items()
    }


def _tuples(values: list) -> tuple:
    return tuple(_tuples(v) if isinstance(v, list) else v for v in values)


@functools.cache
def of_layout(layout: facs.AuLayout) -> LabelStatistics:
    """Statistics for a layout: its table, or generic ones for AUs that no table has in this set.

    Generic values are the mean over the tables that hold the AU (or the pair of AUs; a pair that
    no table holds is uncorrelated).

    Raises:
      InputError: the layout has an AU that faces are not rendered with.
    """
    unknown = [au for au in layout.aus if au not in people.AUS]
    if unknown:
        raise errors.InputError(
            f"layout {layout.name!r}: AUs {unknown} cannot be rendered, choose from "
            f"{list(people.AUS)}"
        )
    table = next((table for table in tables().values() if table.aus == layout.aus), None)
    if table:
        return table
    return _mean_statistics(layout.aus)


def _mean_statistics(aus: tuple[facs.Au, ...]) -> LabelStatistics:
    def vector(field: str) -> tuple[float, ...]:
        return tuple(
            np.mean([getattr(t, field)[t.aus.index(au)] for t in tables().values() if au in t.aus])
            for au in aus
        )

    def correlation(a: facs.Au, b: facs.Au) -> float:
        holders = [t for t in tables().values() if a in t.aus and b in t.aus]
        return np.mean([t.correlation[t.aus.index(a)][t.aus.index(b)] for t in holders] or [0.0])

    return LabelStatistics(
        aus=aus,
        rates=vector("rates"),
        subject_spread=vector("subject_spread"),
        activation_lengths=vector("activation_lengths"),
        pause_lengths=vector("pause_lengths"),
        correlation=tuple(tuple(correlation(a, b) for b in aus) for a in aus),
    )
