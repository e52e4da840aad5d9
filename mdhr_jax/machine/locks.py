# SPDX-License-Identifier: Apache-2.0
"""One command at a time in a directory."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

from mdhr_jax.errors import InputError
from mdhr_jax.machine import files


@contextlib.contextmanager
def alone(folder: pathlib.Path, remedy: str) -> Iterator[None]:
    """Makes the folder and keeps other commands out of it meanwhile; a killed one frees it.

    Raises:
      InputError: another command is at work there (with the remedy), or the folder cannot be made.
    """
    with contextlib.ExitStack() as held:
        with files.writing(folder):
            try:
                held.enter_context(_held(folder, fcntl.LOCK_EX | fcntl.LOCK_NB))
            except BlockingIOError as error:
                raise InputError(
                    f"{folder}: another command is at work here; wait for it, or {remedy}"
                ) from error
        yield


def in_turn(folder: pathlib.Path) -> contextlib.AbstractContextManager[bool]:
    """As `alone`, but waits for the command that is at work there.

    Its value tells whether others are kept out: not on a file system without locks.

    Raises:
      OSError: the folder cannot be made.
    """
    return _held(folder, fcntl.LOCK_EX)


@contextlib.contextmanager
def _held(folder: pathlib.Path, how: int) -> Iterator[bool]:
    folder.mkdir(parents=True, exist_ok=True)
    path, known = folder / "lock", True
    with contextlib.ExitStack() as opened:
        while True:
            file = opened.enter_context(path.open("w"))
            try:
                fcntl.flock(file, how)
            except BlockingIOError:
                raise
            except OSError:  # a file system without locks: the user has to take care
                known = False
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                    break
            opened.close()  # who had it has taken it away
        try:
            yield known
        finally:
            path.unlink(missing_ok=True)
