# SPDX-License-Identifier: Apache-2.0
"""What a user should know, and a command does not stop for."""

import functools
import sys


@functools.cache
def once(line: str) -> None:
    """Says a line on standard error, the first time that a process comes to it."""
    print(line, file=sys.stderr)
