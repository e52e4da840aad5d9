# SPDX-License-Identifier: Apache-2.0
"""The kinds of models: what fills their slots, how they are made, what else they learn from.

A new kind is one file and one line: a dataclass of its slots, which are the keys of
`config.model`, with their defaults (`backbone` and `init_from` among them); a function that makes
the model; and `KINDS["mine"] = Kind(Slots, create)`. The model takes frames as `mdhr.MDHR` does,
says its `context`, and returns `scores`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flax import nnx

from mdhr_jax import facs
from mdhr_jax.errors import InputError
from mdhr_jax.models import graphau, mdhr
from mdhr_jax.numerics import losses


class Kind(NamedTuple):
    """A kind of model.

    Attributes:
      slots: dataclass of what fills its slots; the defaults make one of the kind.
      create: from layout, slots and random numbers to the model before training; ValueError where
        a slot has no such kind.
      auxiliary: the second loss that it learns from.
      static: whether it scores frames by themselves, whatever stands before and after them.
      handed_over: parts beside the backbone that another model of the kind starts from.
    """

    slots: type
    create: Callable[[facs.AuLayout, Any, nnx.Rngs], nnx.Module]
    auxiliary: losses.Auxiliary = losses.NOTHING
    static: bool = False
    handed_over: tuple[str, ...] = ()


KINDS = {
    "mdhr": Kind(mdhr.Slots, mdhr.create, losses.REGIONS),
    "graphau": Kind(
        graphau.Slots,
        graphau.create,
        losses.EDGES,
        static=True,
        handed_over=("static", "au_features", "classifier", "side_classifier"),
    ),
}


def filled(slots: type, values: Mapping[str, Any]) -> Any:
    """Slots with these values, nested where a slot has slots of its own; lists become tuples."""
    made = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            made[name] = filled(type(getattr(slots, name)), value)
        else:
            made[name] = tuple(value) if isinstance(value, list) else value
    return slots(**made)


def changed(model: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The keys of `config.model` of another kind: as far as both have them, with these values.

    Raises:
      InputError: there is no such kind.
    """
    other = defaults(kind)
    return other | {key: model[key] for key in model.keys() & other.keys() - {"kind"}}


def defaults(kind: str) -> dict[str, Any]:
    """The keys of `config.model` of a kind, nested, and their defaults.

    Raises:
      InputError: there is no such kind.
    """
    if kind not in KINDS:
        raise InputError(f"config.model.kind={kind!r}: choose from {', '.join(KINDS)}")
    return {"kind": kind} | dataclasses.asdict(KINDS[kind].slots())
