# SPDX-License-Identifier: Apache-2.0
"""Which keys a configuration has, and which values they take.

What names something is looked up where it is used.
"""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mdhr_jax.configs import base
from mdhr_jax.errors import InputError
from mdhr_jax.run import kinds


class Range(NamedTuple):
    """What to give, in words, and whether a value is that."""

    advice: str
    holds: Callable[[Any], bool]


# Comparisons with nan are false: it is refused everywhere.
_COUNT = Range("give at least 1", lambda x: x >= 1)
_POSITIVE = Range("give a number above 0", lambda x: 0 < x < math.inf)
_NOT_NEGATIVE = Range("give 0 or more", lambda x: 0 <= x < math.inf)
_SHARE = Range("give a number from 0 to 1", lambda x: 0 <= x <= 1)
_DECAY = Range("give a number from 0 to below 1", lambda x: 0 <= x < 1)
_SEED = Range("give 0 or more, below 2**63", lambda x: 0 <= x < 2**63)
_MOMENTA = Range(
    "give two numbers from 0 to below 1", lambda x: len(x) == 2 and all(0 <= y < 1 for y in x)
)

RANGES = {
    "fold": _COUNT,
    "clip_length": _COUNT,
    "hold": _NOT_NEGATIVE,
    "image_size": _COUNT,
    "batch_size": _COUNT,
    "augmentation": _SHARE,
    "clips_per_video": _NOT_NEGATIVE,
    "eval_batch_size": _COUNT,
    "model.dynamics.k": _COUNT,
    "model.features": _COUNT,
    "model.neighbours": _COUNT,
    "batch_norm_groups": _COUNT,
    "accumulate": _COUNT,
    "fsdp": _COUNT,
    "seed": _SEED,
    "epochs": _NOT_NEGATIVE,
    "steps": _NOT_NEGATIVE,
    "learning_rate": _NOT_NEGATIVE,
    "learning_rate_batch": _COUNT,
    "warmup_epochs": _NOT_NEGATIVE,
    "warmup_steps": _NOT_NEGATIVE,
    "betas": _MOMENTA,
    "epsilon": _POSITIVE,
    "weight_decay": _NOT_NEGATIVE,
    "ema": _DECAY,
    "auxiliary_loss_weight": _NOT_NEGATIVE,
    "held_out": _SHARE,
    "threshold": _SHARE,
    "eval_every": _COUNT,
    "checkpoint_every": _COUNT,
}
_NAMED = "mdhr_jax/configs/base.py names every key"
# Two keys for the same thing: not both may be given.
ALTERNATIVES = (("epochs", "steps"), ("warmup_epochs", "warmup_steps"))


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones, tuples as lists, as JSON has them."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def nearest(key: str, known: Sequence[str]) -> str:
    """`; did you mean ...?` for a mistyped key, empty when nothing is near."""
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def check(values: Mapping[str, Any]) -> None:
    """Refuses a configuration that has not exactly the keys of `configs/base.py`, or wrong values.

    Below `model` these are the slots of its kind.

    Args:
      values: nested; an int will do for a float.

    Raises:
      InputError: the first such key, by its name.
    """
    flat, known = flatten(values), flatten(_examples(values))
    kind = known["model.kind"]
    for key in sorted(flat.keys() - known.keys()):
        whose = f"a model of kind {kind!r} has" if key.startswith("model.") else "there is"
        raise InputError(f"config.{key}: {whose} no such key{nearest(key, list(known))}; {_NAMED}")
    for key in sorted(known.keys() - flat.keys()):
        raise InputError(f"config.{key}: is missing; {_NAMED}")
    _check_values(flat, known)


def _examples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Every key, those of the values' kind of model among them, with a value of its type.

    Raises:
      InputError: there is no such kind.
    """
    model = values.get("model")
    kind = model.get("kind", "mdhr") if isinstance(model, Mapping) else "mdhr"
    return base.get_config().to_dict() | {"model": kinds.defaults(str(kind))}


def _check_values(values: Mapping[str, Any], examples: Mapping[str, Any]) -> None:
    """Refuses values of another kind than the examples', out of `RANGES`, or given in two ways."""
    for key, value in values.items():
        if not _is_like(value, examples[key]):
            raise InputError(f"config.{key}={value!r}: give a value like {examples[key]!r}")
        if key in RANGES and not RANGES[key].holds(value):
            raise InputError(f"config.{key}={value}: {RANGES[key].advice}")
    for pair in ALTERNATIVES:
        if all(values[key] for key in pair):
            given = " and ".join(f"config.{key}={values[key]}" for key in pair)
            raise InputError(f"{given} are two ways to say one thing; set one of them to 0")
    if not values["epochs"] and not values["steps"]:
        raise InputError("config.epochs and config.steps are 0: nothing is trained; set one")


def _is_like(value: Any, example: Any) -> bool:
    if isinstance(example, list):
        return isinstance(value, list) and all(_is_like(entry, example[0]) for entry in value)
    if isinstance(example, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(example, bool)
    return isinstance(value, (int, float) if isinstance(example, float) else type(example))
