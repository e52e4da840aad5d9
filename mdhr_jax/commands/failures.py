# SPDX-License-Identifier: Apache-2.0
"""What has ended a command, in one line, and its exit code."""

import os
import re
import sys
import traceback

from mdhr_jax.errors import InputError, NonFiniteLossError


def report(name: str, error: BaseException) -> int:
    """Says what has ended a command, and returns its exit code."""
    if isinstance(error, KeyboardInterrupt):
        print(f"mdhr {name}: stopped", file=sys.stderr)
        return 130
    line = _line(error)
    if line is None:
        traceback.print_exception(error)
        return 1
    print(f"mdhr {name}: {line}", file=sys.stderr)
    return 3 if isinstance(error, NonFiniteLossError) else 2


def _line(error: BaseException) -> str | None:
    """One line for what the user or the machine may cause; None for mistakes of ours."""
    if isinstance(error, InputError | NonFiniteLossError):
        return str(error)
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}; mend that, or name another place"
    if isinstance(error, MemoryError):
        return (
            f"this machine's memory is not enough ({error or 'Python says no more'}); use a "
            "smaller config.batch_size, or fewer --processes"
        )
    if isinstance(error, AssertionError | RuntimeError):  # JAX raises both without a device
        return _device_trouble(error)
    return None


def _device_trouble(error: BaseException) -> str | None:
    """What JAX cannot do on this machine, and what to do; None for any other error."""
    text = " ".join(str(error).split())
    reason = text[:200]
    if re.search("RESOURCE_EXHAUSTED|OUT.OF.MEMORY", text, re.IGNORECASE):
        return (
            f"the device's memory is not enough ({reason}); use a smaller config.batch_size and "
            "config.eval_batch_size, config.precision=bfloat16, or config.fsdp to split the state"
        )
    # An assertion says nothing, and only text comes from other processes.
    if "xla_bridge.py" in "".join(traceback.format_exception(error)):
        wanted = os.environ.get("JAX_PLATFORMS", "")
        return (
            f"JAX finds no device of JAX_PLATFORMS={wanted!r} ({reason or 'it says no more'}); "
            "unset it to take what is there, or install JAX for that device"
        )
    return None
