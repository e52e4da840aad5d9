# SPDX-License-Identifier: Apache-2.0
"""What a user may cause: a wrong input, a choice that there is not, a training that diverges."""

from collections.abc import Mapping


class InputError(ValueError):
    """Wrong input: one line saying what, where, what to do. The CLI prints it and exits with 2."""


class NonFiniteLossError(ArithmeticError):
    """The training loss is infinite or not a number. The CLI prints it and exits with 3."""


def choose[Kind](key: str, table: Mapping[str, Kind], name: str) -> Kind:
    """The table's entry; ValueError with key and choices when there is none."""
    if name not in table:
        raise ValueError(f"{key}={name!r} is unknown; choose from {', '.join(map(str, table))}")
    return table[name]
