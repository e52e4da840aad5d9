# SPDX-License-Identifier: Apache-2.0
"""What a user should know, and a command does not stop for; and what libraries need not say."""

import functools
import logging
import sys

from absl import logging as absl_logging


@functools.cache
def once(line: str) -> None:
    """Says a line on standard error, the first time that a process comes to it."""
    print(line, file=sys.stderr)


def mute_libraries() -> None:
    """Errors that a checkpoint's libraries raise are not logged with a traceback, too.

    For the whole process, so only what begins one calls it: `cli.main`, a study's run.
    """
    # orbax/checkpoint/_src/futures/future.py: its threads log what `join` then raises.
    absl_logging.get_absl_logger().addFilter(_is_not_of_orbax)
    # Where several reads fail, nobody awaits the futures of the later ones.
    logging.getLogger("asyncio").addFilter(_is_not_of_tensorstore)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


def _is_not_of_tensorstore(record: logging.LogRecord) -> bool:
    return "tensorstore" not in record.getMessage().lower()
