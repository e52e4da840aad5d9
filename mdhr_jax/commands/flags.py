# SPDX-License-Identifier: Apache-2.0
"""What commands share: flags, and checks of what was given."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from mdhr_jax import configs
from mdhr_jax.errors import InputError

Flags = flags.FlagValues

# Name of an installed configuration -> its file.
CONFIGS = {
    file.stem: file
    for file in sorted(pathlib.Path(configs.__file__).parent.glob("*.py"))
    if "\ndef get_config(" in file.read_text()
}


@dataclasses.dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
      summary: one line for `mdhr --help`.
      usage: its arguments.
      example: a line or more that work as they stand in the repository, after the examples of
        the commands before this one; a comment says what the user has to bring.
      define: puts its flags on a FlagValues; sees the arguments, which configs need.
      run: does it and returns the exit code; gets the parsed flags and positional arguments.
    """

    summary: str
    usage: str
    example: str
    define: Callable[[Flags, Sequence[str]], None]
    run: Callable[[Flags, Sequence[str]], int]


def exactly(arguments: Sequence[str], *names: str) -> Sequence[str]:
    """The positional arguments, which have to be these.

    Raises:
      InputError: there are more or fewer.
    """
    if len(arguments) != len(names):
        wanted = " ".join(names) if names else "no positional arguments"
        raise InputError(f"expected {wanted}, got {' '.join(arguments) or 'nothing'}")
    return arguments


def require(values: Flags, *names: str) -> None:
    """Refuses a command without these flags.

    Raises:
      InputError: one of them is missing.
    """
    missing = [f"--{name}" for name in names if values[name].value is None]
    if missing:
        raise InputError(f"{', '.join(missing)} is missing; see --help")


def path_flag(values: Flags, name: str, text: str, default: str | None = None) -> None:
    """Defines a flag for a file or a directory."""
    flags.DEFINE_string(name, default, text, flag_values=values)


def no_flags(values: Flags, arguments: Sequence[str]) -> None:
    """Of a command that has none of its own."""


def size_flag(values: Flags) -> None:
    """Defines `--size` of pictures."""
    flags.DEFINE_integer(
        "size", 256, "Height and width of pictures, pixels.", lower_bound=1, flag_values=values
    )


def crop_flags(values: Flags, crop: str | None) -> None:
    """Defines how faces are found and cut out."""
    flags.DEFINE_string(
        "crop",
        crop,
        "Where the face is: none, center, X,Y,W,H; or found by mtcnn, csv:FILE, yunet:FILE.onnx"
        + ("." if crop else "; default: as in training, or center."),
        flag_values=values,
    )
    flags.DEFINE_integer(
        "smallest_face",
        None,
        "Shorter side of the smallest face that mtcnn looks for, pixels: the larger, the faster; "
        "default: 20.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string(
        "template",
        None,
        "How a found face lies in its square: bp4d, disfa, portrait, or EYE_DISTANCE,EYE_ROW"
        + ("; default: the data set's." if crop else "; default: as in training."),
        flag_values=values,
    )


def refuse(values: Flags, why: str, *names: str) -> None:
    """Refuses flags that do not go with the others.

    Raises:
      InputError: one of them is given.
    """
    given = [f"--{name}" for name in names if values[name].present]
    if given:
        raise InputError(f"{', '.join(given)}: has no meaning {why}; leave it out")


def config_flag(values: Flags, arguments: Sequence[str], default: str | None = None) -> None:
    """Defines `--config NAME|FILE` and `--config.KEY=VALUE`; the arguments tell the keys."""
    from ml_collections import config_flags

    config_flags.DEFINE_config_file(
        "config",
        default and str(CONFIGS[default]),
        f"{', '.join(CONFIGS)}, or your own file; --config.KEY=VALUE overrides a key of it.",
        flag_values=values,
        lock_config=True,
        sys_argv=["mdhr", *arguments],
    )


def with_config_files(arguments: Sequence[str]) -> list[str]:
    """The arguments, with the file of an installed configuration where its name was given.

    Raises:
      InputError: there is neither a configuration nor a file of that name.
    """
    found = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        flag, equals, value = argument.partition("=")
        if before == "--config":
            argument = _config_file(argument)
        elif flag == "--config" and equals:
            argument = f"{flag}={_config_file(value)}"
        found.append(argument)
    return found


def _config_file(text: str) -> str:
    name, colon, argument = text.partition(":")  # for its get_config()
    if name in CONFIGS:
        return f"{CONFIGS[name]}{colon}{argument}"
    if not pathlib.Path(name).is_file():
        raise InputError(
            f"--config={text}: there is no such file; give one, or a name: {', '.join(CONFIGS)}"
        )
    return text


def run_flags(values: Flags, arguments: Sequence[str]) -> None:
    """Defines `--config` and `--workdir`."""
    config_flag(values, arguments)
    path_flag(values, "workdir", "Directory of the run; an existing one is resumed.")


def checked_config(values: Flags) -> Any:
    """The configuration that was asked for.

    Raises:
      InputError: there is none, or a value of it cannot be.
    """
    from mdhr_jax.run import config_check

    require(values, *sorted({"config", "workdir"} & set(values)))
    flag: Any = values["config"]  # of ml_collections
    file = flag.config_filename
    try:
        config = values.config.copy_and_resolve_references()
    except OSError as error:
        raise InputError(f"--config={file}: {error.__cause__}") from error
    except AttributeError as error:
        raise InputError(
            f"--config={file}: get_config() gives no ConfigDict; see mdhr_jax/configs/base.py"
        ) from error
    config_check.check(config.to_dict())
    return config


def measure_flags(values: Flags) -> None:
    """Defines what an evaluation is under."""
    from mdhr_jax.run import protocol

    flags.DEFINE_enum(
        "protocol",
        None,
        list(protocol.PROTOCOLS),
        "Refuse a run that was not trained for it.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "oracle_thresholds",
        False,
        "Show F1 with thresholds chosen on the test fold, too; marked so, never a result.",
        flag_values=values,
    )


def grid_flags(values: Flags) -> None:
    """Defines the seeds and folds of each row, and how many run at a time."""
    flags.DEFINE_integer("seeds", 3, "Runs of each row.", lower_bound=1, flag_values=values)
    flags.DEFINE_list(
        "folds",
        None,
        "Folds to test on; the paper: 1,2,3; default: the configuration's.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "processes",
        None,
        "Runs at a time; default: one per GPU, or one.",
        lower_bound=1,
        flag_values=values,
    )


def chosen_folds(given: list[str] | None, config: Any) -> list[int]:
    """The folds of `--folds`, or the configuration's.

    Raises:
      InputError: they are no numbers from 1.
    """
    if given is None:
        return [config.fold]
    if not given or not all(text.isdecimal() and int(text) for text in given):
        raise InputError(f"--folds={','.join(given)}: give numbers from 1, such as 1,2,3")
    return [int(text) for text in given]


def seen_flag(values: Flags) -> None:
    """Defines whether people may be tested who were seen in training."""
    flags.DEFINE_boolean(
        "allow_seen_subjects",
        False,
        "Test on people whom the model has learned from, too; the result says so.",
        flag_values=values,
    )
