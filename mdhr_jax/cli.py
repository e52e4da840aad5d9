# SPDX-License-Identifier: Apache-2.0
"""`mdhr <command>`: flags in, one call out.

Every command defines its flags on its own FlagValues and imports what it needs when it runs.
Exit codes: 0 done, 1 a check failed, 2 wrong input, 3 the loss is not finite, 130 stopped, 141
nobody reads on.
"""

import contextlib
import importlib.metadata
import io
import os
import pathlib
import re
import select
import signal
import sys
from collections.abc import Iterator, Sequence

from absl import flags

from mdhr_jax.commands import checks, data, failures, models, training
from mdhr_jax.commands.flags import Command, Flags, with_config_files
from mdhr_jax.errors import InputError
from mdhr_jax.machine import compile_cache, notes

_UNREAD = 128 + signal.SIGPIPE  # as of a program that the signal ends


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may have letters that a terminal lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _main(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _is_unread()
        return _UNREAD


def _is_unread() -> bool:
    """Whether nobody reads on what is said, as in `mdhr ... | head`; the rest is dropped."""
    streams = select.poll()
    for stream in (sys.stdout, sys.stderr):
        streams.register(stream.fileno(), 0)
    unread = [
        number for number, event in streams.poll(0) if event & (select.POLLERR | select.POLLHUP)
    ]
    for number in unread:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return bool(unread)


def _main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"mdhr-jax {importlib.metadata.version('mdhr-jax')}")
        return 0
    name, *arguments = argv
    compile_cache.keep()
    notes.mute_libraries()
    try:
        arguments = [_with_underscores(argument) for argument in arguments]
        return _run(name, arguments)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            return _UNREAD
        return failures.report(name, error)


def _run(name: str, arguments: list[str]) -> int:
    if name not in COMMANDS:
        raise InputError(f"unknown command; choose from {', '.join(COMMANDS)}")
    command = COMMANDS[name]
    values = Flags()
    flags.DEFINE_boolean("help", False, "Show this text.", short_name="h", flag_values=values)
    values.set_gnu_getopt(True)  # flags may follow positional arguments
    if "--help" in arguments or "-h" in arguments:
        command.define(values, [])
        print(_help(name, command, values))
        return 0
    arguments = with_config_files(arguments)
    with _flag_errors():  # a configuration that is there by default is parsed at once
        command.define(values, arguments)
        _, *positional = values([name, *arguments])
    return command.run(values, positional)


def _with_underscores(argument: str) -> str:
    """Flags may be written with dashes, too: `--budget-steps=9` is `--budget_steps=9`."""
    if not argument.startswith("--") or argument == "--":
        return argument
    name, equals, value = argument[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


@contextlib.contextmanager
def _flag_errors() -> Iterator[None]:
    """Says in one line what is wrong with flags.

    Raises:
      InputError: an unknown flag or config key, or a value of the wrong type.
    """
    try:
        yield
    except (AttributeError, KeyError) as error:  # ml_collections, with the nearest key
        message = " ".join(re.sub(r"\\n|[\\'\n]", " ", str(error.args[0])).split())
        raise InputError(
            f"unknown config key {message}; mdhr_jax/configs/base.py names every key"
        ) from error
    except (flags.Error, TypeError, ValueError) as error:
        raise InputError(_without_traceback(" ".join(str(error).split()))) from error


def _without_traceback(message: str) -> str:
    """What ml_collections says of a configuration's `get_config`, without where it was raised."""
    return re.sub(r"Error whilst parsing config file: Traceback .* (?=\w+Error: )", "", message)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: mdhr COMMAND ...", "", *lines, "", "mdhr COMMAND --help says more."])


_EXAMPLE = "Such as, after the examples of the commands that stand before it in mdhr --help:"


def _help(name: str, command: Command, values: Flags) -> str:
    lines = [f"usage: mdhr {name} {command.usage}".rstrip(), "", command.summary, ""]
    lines += [_EXAMPLE, *(f"  {line}" for line in command.example.splitlines()), ""]
    for flag in sorted(set(values[key] for key in values), key=lambda flag: flag.name):
        lines.append(f"  --{flag.name:<24} {flag.help}{_default(flag)}")
    return "\n".join(lines)


def _default(flag: flags.Flag) -> str:
    if flag.default in (None, False, []):
        return ""
    if file := getattr(flag, "config_filename", None):  # of a configuration, too long to show
        return f" (default: {pathlib.Path(file).stem})"
    shown = flag.default
    return f" (default: {','.join(shown) if isinstance(shown, list) else shown})"


COMMANDS = {
    "quickstart": training.QUICKSTART,
    "synthesize": data.SYNTHESIZE,
    "prepare": data.PREPARE,
    "check-data": data.CHECK_DATA,
    "train": training.TRAIN,
    "evaluate": models.EVALUATE,
    "crossval": training.CROSSVAL,
    "compare": training.COMPARE,
    "tables": training.TABLES,
    "figures": models.FIGURES,
    "bench": checks.BENCH,
    "convert": models.CONVERT,
    "predict": models.PREDICT,
    "doctor": checks.DOCTOR,
    "check-lists": data.CHECK_LISTS,
    "verify": checks.VERIFY,
}


if __name__ == "__main__":
    sys.exit(main())
