# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or absent, also after a power cut, and why one is not read or written."""

import contextlib
import fcntl
import os
import pathlib
import uuid
from collections.abc import Iterator

from mdhr_jax.errors import InputError

_UNFINISHED = ".unfinished"


def reading(
    path: str | os.PathLike[str], remedy: str = ""
) -> contextlib.AbstractContextManager[None]:
    """Says in one line why something cannot be read.

    Args:
      path: what is named where the error names no file.
      remedy: what to do, or what is not lost.

    Raises:
      InputError: instead of an OSError.
    """
    return _naming(path, "read", remedy)


def writing(
    path: str | os.PathLike[str], remedy: str = ""
) -> contextlib.AbstractContextManager[None]:
    """As `reading`, of something that cannot be written."""
    return _naming(path, "written", remedy)


@contextlib.contextmanager
def _naming(path: str | os.PathLike[str], what: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = str(error.filename or path).removesuffix(_UNFINISHED)
        reason = error.strerror or error
        line = f"{place}: cannot be {what} ({reason})"
        raise InputError(f"{line}; {remedy}" if remedy else line) from error


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A place for a new file, which becomes `path` when all of it is on the disk.

    After an error `path` is what it was. What a killed command has left is overwritten. Makes the
    folder.

    Raises:
      InputError: `path` is something else than a file, or another command is writing it.
      OSError: it cannot be written.
    """
    path = path.resolve()  # the file behind a link
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no regular file; name another one")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _unfinished(path) as unfinished:
        try:
            yield unfinished
            sync(unfinished)
            unfinished.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise
    sync_names(path.parent)


@contextlib.contextmanager
def _unfinished(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The same name for every command, one at a time; one of its own where locks are not known."""
    unfinished = path.with_name(f"{path.name}{_UNFINISHED}")
    with contextlib.ExitStack() as opened:
        while True:
            file = opened.enter_context(unfinished.open("ab"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"{path}: another command is writing it; wait for it, or name another file"
                ) from error
            except OSError:
                unfinished.unlink(missing_ok=True)
                unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_UNFINISHED}")
                break
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(unfinished.stat(), os.fstat(file.fileno())):
                    break
            opened.close()  # it has become the file meanwhile
        yield unfinished


def write(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file, wholly or not at all; text as UTF-8.

    Raises:
      InputError: as `replacing`.
      OSError: it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    with replacing(path) as unfinished:
        unfinished.write_bytes(data)


def sync(path: pathlib.Path) -> None:
    """Brings a file to the disk.

    Raises:
      OSError: the disk cannot take it.
    """
    place = os.open(path, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def sync_names(folder: pathlib.Path) -> None:
    """Brings the names in a folder to the disk, where the file system can."""
    with contextlib.suppress(OSError):
        sync(folder)
