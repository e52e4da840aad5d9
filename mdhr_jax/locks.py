# SPDX-License-Identifier: Apache-2.0
"""One command at a time in a directory."""

import contextlib
import fcntl
import pathlib
from collections.abc import Iterator

from mdhr_jax.errors import InputError


@contextlib.contextmanager
def alone(folder: pathlib.Path, remedy: str) -> Iterator[None]:
    """Makes the folder and keeps other commands out of it meanwhile; a killed one frees it.

    Raises:
      InputError: another command is at work there (with the remedy), or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("w")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{folder}: another command is at work here; wait for it, or {remedy}"
            ) from error
        except OSError:
            pass  # a file system without locks: the user has to take care
        yield
