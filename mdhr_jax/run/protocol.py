# SPDX-License-Identifier: Apache-2.0
"""Protocols: what was chosen where. A run is trained for one of them and evaluated under it.

`official` is the release's: of the evaluations on the test fold the best one counts. `last` chooses
nothing. `held-out` keeps a part of the training subjects from training and chooses on them: the
step and, if asked, a threshold per AU.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from mdhr_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How the reported checkpoint of a run comes about.

    Attributes:
      name: its name in configurations.
      checkpoint: the kind that is reported, `last` or `best`.
      split: the frames that evaluations during training look at.
      step: how the step was chosen, in words.
    """

    name: str
    checkpoint: str
    split: str
    step: str

    @property
    def chooses(self) -> bool:
        """Whether evaluations during training choose the step."""
        return self.checkpoint == "best"


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("official", "best", "test", "the best on the run's test fold"),
        Protocol("last", "last", "test", "the last one"),
        Protocol("held-out", "best", "held-out", "the best on held-out training subjects"),
    )
}
# Of a weight file that does not say where it comes from.
FILE = Protocol("unknown", "last", "test", "the file's, which does not say how it was chosen")


def check_trained_for(name: str, expected: str | None, where: object) -> None:
    """Refuses a protocol that a run was not trained for: a selection can't be made afterwards.

    Raises:
      InputError: `expected` is another protocol than the run's, `name`.
    """
    if expected not in (None, name):
        raise InputError(
            f"{where}: trained for protocol {name!r}, not {expected!r}, and a choice can't be made "
            f"afterwards; train another run with config.protocol={expected}"
        )


def best_thresholds(
    scores: Float[np.ndarray, "m n"],
    labels: Int[np.ndarray, "m n"],
    mask: Bool[np.ndarray, "m n"],
    default: float,
) -> Float[np.ndarray, " n"]:
    """The threshold of each AU with the highest F1 on these frames, halfway between two scores.

    Of equally good ones the highest; `default` for an AU that is never active.
    """
    columns = zip(scores.T.astype(np.float64), labels.T, mask.T, strict=True)
    return np.array([_best_threshold(s[known], y[known], default) for s, y, known in columns])


def _best_threshold(scores: np.ndarray, labels: np.ndarray, default: float) -> float:
    if not labels.any():
        return default
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(labels[order])
    cuts = np.flatnonzero(np.diff(scores, append=-np.inf))  # last frame of every distinct score
    f1 = 2 * hits[cuts] / (cuts + 1 + hits[-1])
    best = cuts[np.argmax(f1)]
    following = scores[best + 1] if best + 1 < len(scores) else 0.0
    return float((scores[best] + following) / 2)
