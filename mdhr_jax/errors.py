# SPDX-License-Identifier: Apache-2.0
"""The one exception that a user may cause."""


class InputError(ValueError):
    """Wrong input: one line saying what, where, what to do. The CLI prints it and exits with 2."""


class NonFiniteLossError(ArithmeticError):
    """The training loss is infinite or not a number. The CLI prints it and exits with 3."""
