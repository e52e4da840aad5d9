# SPDX-License-Identifier: Apache-2.0
"""Where JAX keeps compiled programs from one command to the next."""

import contextlib
import hashlib
import os
import pathlib
import stat

VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def keep() -> None:
    """Names a directory of this user's to JAX, before it is imported, unless one is named already.

    Whoever can write there can run code as this user, so nobody else may; where that cannot be
    had, every command compiles anew. Programs of one kind of CPU are not for another.
    """
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(home) / "mdhr_jax" / f"compiled-{_processor()}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.lstat()
        if stat.S_IMODE(state.st_mode) == 0o700 and state.st_uid == os.getuid():
            os.environ.setdefault(VARIABLE, str(folder))


def _processor() -> str:
    """Tells CPUs with other instructions apart."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
        return hashlib.sha256(flags.encode()).hexdigest()[:8]
    return os.uname().machine
