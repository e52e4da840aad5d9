# SPDX-License-Identifier: Apache-2.0
"""Where JAX keeps compiled programs from one command to the next."""

import contextlib
import hashlib
import os
import pathlib
import stat
import warnings
import zlib
from typing import Any

VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_MOST_BYTES = 4 << 30  # for one kind of CPU; a training of ResNet-50 leaves some 60 MB


def keep() -> None:
    """Names a directory of this user's to JAX, before it is imported, unless one is named already.

    Whoever can write there can run code as this user, so nobody else may; where that cannot be
    had, every command compiles anew. Programs of one kind of CPU are not for another. One whose
    writing was cut short, by a kill or a full disk, is compiled and written anew. Those that were
    not used for longest are deleted where there are too many.

    For the whole process, whose `warnings.showwarning` it replaces, so only a program's `main`
    calls it.
    """
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(home) / "mdhr_jax" / f"compiled-{_processor()}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.lstat()
        if stat.S_IMODE(state.st_mode) == 0o700 and state.st_uid == os.getuid():
            if os.environ.setdefault(VARIABLE, str(folder)) == str(folder):
                _drop_broken_when_told(folder)
                _drop_oldest(folder)


def _drop_broken_when_told(folder: pathlib.Path) -> None:
    """JAX warns of a file that it cannot read, and would keep it and warn of it for ever.

    Its warning is all that tells of such a file (jax/_src/compiler.py, `_cache_read`; since
    https://github.com/jax-ml/jax/pull/12594), and it writes no file that is there already.
    """
    show = warnings.showwarning

    def showwarning(message: Warning | str, *where: Any, **named: Any) -> None:
        if not str(message).startswith("Error reading persistent compilation cache"):
            return show(message, *where, **named)
        with contextlib.suppress(OSError):
            for file in folder.glob("*-cache"):
                if not _is_whole(file):
                    file.unlink()

    warnings.showwarning = showwarning


def _drop_oldest(folder: pathlib.Path) -> None:
    """JAX does so itself only with the package filelock, and holds a lock at every program."""
    states = {file: file.stat() for file in folder.glob("*-cache")}
    left = _MOST_BYTES
    for file in sorted(states, key=lambda file: _used(states[file]), reverse=True):
        left -= states[file].st_size
        if left < 0:
            file.unlink(missing_ok=True)


def _used(state: os.stat_result) -> float:
    """When the file was last used; where the system does not say, when it was written."""
    return max(state.st_atime, state.st_mtime)


def _is_whole(file: pathlib.Path) -> bool:
    stream = zlib.decompressobj()
    try:
        stream.decompress(file.read_bytes())
    except zlib.error:  # or another format, which costs compiling once more
        return False
    return stream.eof


def _processor() -> str:
    """Tells CPUs with other instructions apart."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
        return hashlib.sha256(flags.encode()).hexdigest()[:8]
    return os.uname().machine
