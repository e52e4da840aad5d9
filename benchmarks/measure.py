# SPDX-License-Identifier: Apache-2.0
"""Everything that is asked of a GPU, in order of importance, within so many seconds.

    bash launch/measure.sh --out DIR [--budget 540] [--parts NAME,...] [--size small]
    bash launch/measure.sh --table DIR

One command after the other; what each has found is a line of JSON in DIR/lines.jsonl as soon as it
is there: part, command, device, versions, date, result. A part that fails, or for which the budget
is too short, is a line as well, and the next one goes on. DIR/log.txt has what the commands said,
traces lie beside it. Another call with the same DIR adds to it; `--table` makes tables of it.

Needs no network and no environment of its own: JAX, and PyTorch in the same Python or in another
one (`--torch`). Nothing is compiled while a window is timed: parts do not overlap. Programs that
one part compiles the next one finds again.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import plan

from mdhr_jax.errors import InputError

HERE = pathlib.Path(__file__).parent
PYPROJECT = HERE.parent / "pyproject.toml"
LINES, LOG = "lines.jsonl", "log.txt"
_LOOK = 0.5  # seconds between looks at what a command has found
_GRACE = 5.0  # seconds between asking a command to end and ending it
_SAID = 12  # last lines of what a command said that its own line has
_MOST_TRACE = 16 << 20  # bytes


class Machine(NamedTuple):
    """Where it is measured: the device, its clocks, versions of what matters."""

    device: str
    clocks: dict[str, str]
    versions: dict[str, str]


_CLOCKS = ("driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.limit")
_VERSIONS = ("jax", "jaxlib", "jax-cuda13-plugin", "flax", "nvidia-cudnn-cu13")


def machine(python: str | None) -> Machine:
    """What this is; a GPU says so itself."""
    name, *clocks = _queried(("name", *_CLOCKS)) or [f"{os.cpu_count()} CPU cores"]
    versions = {library: _version(library) for library in _VERSIONS}
    said = dict(zip(_CLOCKS, clocks, strict=False))
    return Machine(name, said, versions | {"torch": _torch(python)})


def _queried(names: Sequence[str]) -> list[str]:
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        command = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return [word.strip() for word in lines.splitlines()[0].split(",")]
    return []


def _version(library: str) -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(library)
    return ""


def _torch(python: str | None) -> str:
    if not python:
        return _version("torch")
    asked = "import importlib.metadata as m; print(m.version('torch'))"
    done = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _beside() -> str | None:
    """The Python of launch/torch_env.sh, if it is here."""
    python = HERE.parent / ".venv-torch/bin/python"
    return str(python) if python.exists() else None


def missing(versions: Mapping[str, str]) -> list[str]:
    """What this Python lacks of the package's dependencies, and PyTorch if nobody has it."""
    needs = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    names = [re.match(r"[\w.-]+", need)[0] for need in needs]
    return [name for name in names if not _version(name)] + ([] if versions["torch"] else ["torch"])


class Runner:
    """Runs parts, one after the other, and writes their lines.

    Args:
      out: directory of the results.
      work: directory for what is needed meanwhile.
      budget: seconds for all parts.
      size: key of `plan.SIZES`.
      where: the machine.
    """

    def __init__(
        self, out: pathlib.Path, work: pathlib.Path, budget: float, size: str, where: Machine
    ):
        self._out, self._work, self._size, self._where = out, work, size, where
        self._end = time.monotonic() + budget

    def run(self, part: plan.Part) -> None:
        """Runs it for as long as the budget lasts; whatever comes of it is a line."""
        start, left = time.monotonic(), self._end - time.monotonic()
        if left < part.least:
            self._write(part, f"not begun: takes {part.least:.0f} s, {max(left, 0):.0f} s are left")
            return
        (self._work / f"{part.name}.begun").touch()
        said = self._out / LOG
        before = said.stat().st_size if said.exists() else 0
        with said.open("a") as log:
            print(f"\n$ {part.shown}", file=log, flush=True)
            code = self._followed(part, log)
        text = said.read_bytes()[before:].decode(errors="replace").splitlines()[2:]
        end = f"exit code {code}" if code else "done"
        if code is None:
            end = f"stopped: the budget ended after {time.monotonic() - start:.0f} s"
        self._write(part, end, seconds=time.monotonic() - start, said=text[-_SAID:])
        self._keep_traces(part)

    def _followed(self, part: plan.Part, log: Any) -> int | None:
        """The exit code, None where the budget ends; what is found meanwhile is written."""
        words = part.command(self._work)
        environment = os.environ | part.variables
        process = subprocess.Popen(
            words, stdout=log, stderr=log, env=environment, start_new_session=True, cwd=HERE.parent
        )
        found = None
        try:
            while (code := process.poll()) is None:
                if time.monotonic() > self._end:
                    return None
                time.sleep(_LOOK)
                if part.grows and (now := self._result(part)) not in (None, found):
                    found = now
                    self._write(part, "so far")
            return code
        finally:
            _end(process)

    def _result(self, part: plan.Part) -> Any:
        """What a part has found; None while it is nothing, or half written."""
        with contextlib.suppress(OSError, ValueError):
            return part.read(self._work)
        return None

    def _write(self, part: plan.Part, end: str, **more: Any) -> None:
        line = {
            "part": part.name,
            "end": end,
            "command": part.shown,
            "size": self._size,
            "date": datetime.datetime.now().isoformat(timespec="seconds"),
            **self._where._asdict(),
            **more,
            "result": self._result(part),
        }
        with (self._out / LINES).open("a") as lines:
            print(json.dumps(line), file=lines, flush=True)
        if end != "so far":
            print(f"{part.name}: {end}", flush=True)

    def _keep_traces(self, part: plan.Part) -> None:
        """Those that are not too large to be kept."""
        for file in (self._work / part.name).rglob("*.xplane.pb"):
            if file.stat().st_size <= _MOST_TRACE:
                shutil.copy(file, self._out / f"{part.name}.xplane.pb")


def _end(process: subprocess.Popen) -> None:
    """Ends a command and all that it has started."""
    for number, grace in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, None)):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, help="directory of the results")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds for everything")
    parser.add_argument("--parts", help="those alone, by name or its beginning, between commas")
    parser.add_argument("--size", choices=plan.SIZES, default="full", help="small: on a CPU")
    parser.add_argument("--torch", help="Python that has PyTorch; default: this one, .venv-torch")
    parser.add_argument("--table", type=pathlib.Path, help="prints the tables of such a directory")
    found = parser.parse_args(arguments)
    if bool(found.out) == bool(found.table):
        parser.error("give --out DIR to measure, or --table DIR for the tables")
    if found.torch:  # parts run elsewhere
        found.torch = str(pathlib.Path(found.torch).absolute())
    return found


def chosen(parts: Sequence[plan.Part], names: str | None) -> list[plan.Part]:
    """Parts whose names begin with one of those asked for; all, if none is."""
    asked = tuple(names.split(",")) if names else ("",)
    return [part for part in parts if part.name.startswith(asked)]


def _show(folder: pathlib.Path) -> int:
    """Prints the tables; 2 where there are no results."""
    import measured  # needs more than measuring, which goes on where a library is missing

    try:
        print(measured.tables(folder / LINES), end="")
    except InputError as error:
        print(f"measure: {error}", file=sys.stderr)
        return 2
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, or prints tables."""
    asked = parsed(arguments)
    if asked.table:
        return _show(asked.table)
    asked.out.mkdir(parents=True, exist_ok=True)
    where = machine(asked.torch or _beside())
    if lacking := missing(where.versions):
        print(f"missing here: {', '.join(lacking)}; what needs them fails, the rest goes on")
    print(f"{where.device}, {where.versions}, {where.clocks}", flush=True)
    with tempfile.TemporaryDirectory() as work:
        runner = Runner(asked.out, pathlib.Path(work), asked.budget, asked.size, where)
        for part in chosen(plan.parts(asked.size, asked.torch), asked.parts):
            runner.run(part)
    return 0


if __name__ == "__main__":
    sys.exit(main())
