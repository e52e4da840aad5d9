# SPDX-License-Identifier: Apache-2.0
"""`mdhr <command>`: flags in, one call out.

Every command defines its flags on its own FlagValues and imports what it needs when it runs.
Exit codes: 0 done, 1 a check failed, 2 wrong input, 3 the loss is not finite, 130 stopped, 141
nobody reads on.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import io
import json
import os
import pathlib
import re
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import flags

from mdhr_jax import compiled, files, notes
from mdhr_jax.errors import InputError, NonFiniteLossError

Flags = flags.FlagValues

_UNREAD = 128 + signal.SIGPIPE  # as of a program that the signal ends


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
    compiled.keep()
    notes.mute_libraries()
    try:
        return _run(name, [_with_underscores(argument) for argument in arguments])
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            return _UNREAD
        return _report(name, error)


def _report(name: str, error: BaseException) -> int:
    """Says what has ended a command, and returns its exit code."""
    if isinstance(error, KeyboardInterrupt):
        print(f"mdhr {name}: stopped", file=sys.stderr)
        return 130
    said = _said(error)
    if said is None:
        traceback.print_exception(error)
        return 1
    print(f"mdhr {name}: {said}", file=sys.stderr)
    return 3 if isinstance(error, NonFiniteLossError) else 2


def _said(error: BaseException) -> str | None:
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
    said = " ".join(str(error).split())
    reason = said[:200]
    if re.search("RESOURCE_EXHAUSTED|OUT.OF.MEMORY", said, re.IGNORECASE):
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


def _run(name: str, arguments: list[str]) -> int:
    if name not in COMMANDS:
        raise InputError(f"unknown command; choose from {', '.join(COMMANDS)}")
    command = COMMANDS[name]
    values = Flags()
    flags.DEFINE_boolean("help", False, "Show this text.", short_name="h", flag_values=values)
    with _flag_errors():  # a configuration that is there by default is parsed at once
        command.define(values, arguments)
    values.set_gnu_getopt(True)  # flags may follow positional arguments
    if "--help" in arguments or "-h" in arguments:
        print(_help(name, command, values))
        return 0
    with _flag_errors():
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
            f"unknown config key {message}; configs/base.py names every key"
        ) from error
    except (flags.Error, TypeError, ValueError) as error:
        raise InputError(" ".join(str(error).split())) from error


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
    shown = getattr(flag, "config_filename", flag.default)  # a configuration is too long
    return f" (default: {','.join(shown) if isinstance(shown, list) else shown})"


def _exactly(arguments: Sequence[str], *names: str) -> Sequence[str]:
    if len(arguments) != len(names):
        wanted = " ".join(names) if names else "no positional arguments"
        raise InputError(f"expected {wanted}, got {' '.join(arguments) or 'nothing'}")
    return arguments


def _required(values: Flags, *names: str) -> None:
    missing = [f"--{name}" for name in names if values[name].value is None]
    if missing:
        raise InputError(f"{', '.join(missing)} is missing; see --help")


def _path(values: Flags, name: str, text: str, default: str | None = None) -> None:
    flags.DEFINE_string(name, default, text, flag_values=values)


# Commands, in the order of use.


def _quickstart_flags(values: Flags, arguments: Sequence[str]) -> None:
    _path(values, "out", "Directory of the run.", "runs/quickstart")
    flags.DEFINE_enum("layout", "bp4d", ["bp4d", "disfa"], "AU layout.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Of people, scenes and the training.", flag_values=values)


def _quickstart(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax import quickstart

    _exactly(arguments)
    quickstart.quickstart(pathlib.Path(values.out), values.layout, values.seed)
    return 0


def _synthesize_flags(values: Flags, arguments: Sequence[str]) -> None:
    _path(values, "out", "Directory of the data set to make.")
    _path(values, "show", "Instead of a data set: contact sheet (.png) or film (.webp, .gif).")
    _path(values, "lists", "Directory of the official label lists, instead of the label process.")
    flags.DEFINE_string("layout", "bp4d", "AU layout.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Of people, labels and scenes.", flag_values=values)
    flags.DEFINE_list(
        "subjects",
        None,
        "How many people, or their names; with --lists default all.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "videos_per_subject", 8, "Recordings per person (label process).", flag_values=values
    )
    flags.DEFINE_integer(
        "frames_per_video", 64, "Length of a recording (label process).", flag_values=values
    )
    flags.DEFINE_integer(
        "max_frames_per_video", None, "First frames of every video (--lists).", flag_values=values
    )
    _size_flag(values)


def _synthesize(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax import facs

    _exactly(arguments)
    try:
        layout = facs.layout(values.layout)
    except ValueError as error:
        raise InputError(f"--layout: {error}") from error
    if values.show is not None:
        return _show_faces(pathlib.Path(values.show), layout, values.seed)
    from mdhr_jax.data.builders import rendered

    _required(values, "out")
    source = rendered.build(
        values.out,
        layout,
        seed=values.seed,
        subjects=_subjects(values.subjects),
        videos_per_subject=values.videos_per_subject,
        frames_per_video=values.frames_per_video,
        image_size=values.size,
        lists=values.lists,
        max_frames_per_video=values.max_frames_per_video,
    )
    print(f"{values.out}: {len(source.table)} frames of {len(set(source.table.subjects))} people")
    return 0


def _show_faces(path: pathlib.Path, layout: Any, seed: int) -> int:
    from mdhr_jax.synth import film, sheet

    painters = {".png": sheet.contact_sheet, ".webp": film.film, ".gif": film.film}
    if path.suffix not in painters:
        raise InputError(f"--show={path}: end the name in one of {' '.join(painters)}")
    painters[path.suffix](path, layout, seed=seed)
    print(path)
    return 0


def _subjects(given: list[str] | None) -> int | list[str] | None:
    if given and len(given) == 1 and given[0].isdigit():
        return int(given[0])
    return given


def _size_flag(values: Flags) -> None:
    flags.DEFINE_integer(
        "size", 256, "Height and width of pictures, pixels.", lower_bound=1, flag_values=values
    )


def _prepare_flags(values: Flags, arguments: Sequence[str]) -> None:
    from mdhr_jax.data.builders import disfa

    _path(values, "raw", "Directory of the raw data set: labels, and pictures or videos.")
    _path(values, "cropped", "Directory of pictures already cut to squares, instead of raw ones.")
    _path(values, "lists", "Directory of the official lists; with --cropped, instead of --raw.")
    _path(values, "out", "Directory of the data set to make.")
    _crop_flags(values, "mtcnn")
    _size_flag(values)
    flags.DEFINE_enum(
        "image_format",
        "jpeg",
        ["jpeg", "png"],
        "Of the records; cropped files of the same format are kept byte by byte.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "max_subjects", None, "The first so many people, to try.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer(
        "processes", None, "Videos at a time; default: cores.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_enum(
        "on_error",
        "fail",
        ["fail", "skip"],
        "Refuse pictures that cannot be read, or leave a few out.",
        flag_values=values,
    )
    flags.DEFINE_enum("camera", "left", disfa.CAMERAS, "Whose videos (disfa).", flag_values=values)
    flags.DEFINE_integer(
        "active_from",
        disfa.ACTIVE_FROM,
        "Intensity from which an AU is active (disfa).",
        lower_bound=1,
        upper_bound=5,
        flag_values=values,
    )


def _crop_flags(values: Flags, crop: str | None) -> None:
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
        "How a found face lies in its square: bp4d, disfa, or EYE_DISTANCE,EYE_ROW"
        + ("; default: the data set's." if crop else "; default: as in training, or bp4d."),
        flag_values=values,
    )


def _prepare(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax.data.builders import parts, prepare
    from mdhr_jax.faces import align

    (kind,) = _exactly(arguments, "bp4d|disfa|folder")
    _required(values, "out", "cropped" if values.lists else "raw")
    template = values.template or (kind if kind in align.TEMPLATES else "bp4d")
    if values.lists:
        _refuse(values, "with --lists", "raw", "camera", "active_from")
    if values.cropped:
        _refuse(values, "with --cropped", "crop", "template", "smallest_face", "camera")
    if values.crop != "mtcnn":
        _refuse(values, f"with --crop={values.crop}", "smallest_face")
    if kind != "disfa":
        _refuse(values, f"for {kind}", "camera", "active_from")
    found, layout, origin = _find_recordings(values, kind)
    if values.smallest_face:
        origin += f", faces from {values.smallest_face} pixels,"
    said = prepare.prepare(
        values.out,
        found,
        layout,
        parts.Settings(
            crop="none" if values.cropped else values.crop,
            template=align.parse(template),
            size=values.size,
            image_format=values.image_format,
            smallest_face=values.smallest_face,
        ),
        source=origin,
        max_subjects=values.max_subjects,
        processes=values.processes,
        skip=values.on_error == "skip",
    )
    if said:
        print(said)
    return 0


def _refuse(values: Flags, why: str, *names: str) -> None:
    given = [f"--{name}" for name in names if values[name].present]
    if given:
        raise InputError(f"{', '.join(given)}: has no meaning {why}; leave it out")


def _find_recordings(values: Flags, kind: str) -> tuple[Any, Any, str]:
    """The recordings that `mdhr prepare` is to take, the layout of their AUs, and their origin."""
    from mdhr_jax import facs
    from mdhr_jax.data.builders import bp4d, disfa, folder, listed

    labels = pathlib.Path(values.lists or values.raw)
    pictures = pathlib.Path(values.cropped or values.raw)
    cut = "cropped pictures" if values.cropped else "raw recordings"
    if values.lists and kind in ("bp4d", "disfa"):
        layout = facs.LAYOUTS[kind]
        return listed.find(labels, pictures, layout), layout, f"{kind}, official lists, {cut}"
    if kind == "bp4d":
        return bp4d.find(labels, pictures), bp4d.LAYOUT, f"bp4d, {cut}"
    if kind == "disfa":
        choice = {"camera": values.camera, "active_from": values.active_from}
        said = f"disfa, {values.camera} camera, active from {values.active_from}, {cut}"
        return disfa.find(labels, pictures, **choice), disfa.LAYOUT, said
    if kind == "folder":
        _refuse(values, "for folder", "lists", "cropped")
        return *folder.find(labels), f"own labels, {cut}"
    raise InputError(f"{kind!r} is unknown; choose from bp4d, disfa, folder")


def _check_data_flags(values: Flags, arguments: Sequence[str]) -> None:
    _path(values, "out", "Directory for report.md and sheets/; default: DIR.check.")
    flags.DEFINE_list(
        "sources", [], "Folders it was made from: have their files changed?", flag_values=values
    )


def _check_data(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax import check_data

    (path,) = _exactly(arguments, "DIR")
    out = values.out or f"{path.rstrip('/')}.check"
    report, good = check_data.check(path, out, sources=values.sources)
    print(f"{report}\nreport.md and sheets/ in {out}")
    return 0 if good else 1


def _config_flags(values: Flags, arguments: Sequence[str], default: str | None = None) -> None:
    from ml_collections import config_flags

    config_flags.DEFINE_config_file(
        "config",
        default,
        "Configuration file; --config.KEY=VALUE overrides a key of it.",
        flag_values=values,
        lock_config=True,
        sys_argv=["mdhr", *arguments],
    )


def _run_flags(values: Flags, arguments: Sequence[str]) -> None:
    _config_flags(values, arguments)
    _path(values, "workdir", "Directory of the run; an existing one is resumed.")


def _train_flags(values: Flags, arguments: Sequence[str]) -> None:
    _run_flags(values, arguments)
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT of process 0, where several train together; the same for all. Slurm's nodes are "
        "known without it.",
        flag_values=values,
    )
    number = "; from Slurm, Open MPI or Kubernetes where one of them starts the processes."
    flags.DEFINE_integer(
        "processes", None, f"How many train together{number}", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer(
        "process", None, f"Which of them this is, from 0{number}", lower_bound=0, flag_values=values
    )


def _config(values: Flags) -> Any:
    from ml_collections import ConfigDict

    from mdhr_jax import config_check

    _required(values, *sorted({"config", "workdir"} & set(values)))
    file = values["config"].config_filename
    try:
        config = values.config
    except OSError as error:
        reason = " ".join(str(error).split()[-12:])
        raise InputError(f"--config={file}: {reason}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(f"--config={file}: get_config() gives no ConfigDict; see configs/base.py")
    config = config.copy_and_resolve_references()
    config_check.check(config.to_dict())
    return config


def _train(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax import hosts, train

    _exactly(arguments)
    place = hosts.place(
        os.environ,
        coordinator=values.coordinator,
        processes=values.processes,
        process=values.process,
    )
    name = f"train, process {place.process} of {place.processes}" if place else "train"
    with hosts.together(place, functools.partial(_report, name)):
        train.train(_config(values), values.workdir)
    return 0


def _measure_flags(values: Flags) -> None:
    from mdhr_jax import protocol

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


def _crossval_flags(values: Flags, arguments: Sequence[str]) -> None:
    _run_flags(values, arguments)
    _measure_flags(values)


def _crossval(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax import crossval

    _exactly(arguments)
    workdir = pathlib.Path(values.workdir)
    table = crossval.crossval(_config(values), workdir, values.protocol, values.oracle_thresholds)
    print(table.text(), end="")
    return 0


def _compare_flags(values: Flags, arguments: Sequence[str]) -> None:
    _run_flags(values, arguments)
    _path(values, "results", "Directory for runs.jsonl and table.md; default: WORKDIR.")
    flags.DEFINE_multi_string(
        "variant", [], "NAME: KEY=VALUE ...; the first is compared with.", flag_values=values
    )
    _plan_flags(values)


def _plan_flags(values: Flags) -> None:
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


def _compare(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax import compare, experiments

    _exactly(arguments)
    config = _config(values)
    variants = [compare.parse_variant(text, config) for text in values.variant]
    if len({variant.name for variant in variants}) < max(len(values.variant), 1):
        raise InputError("--variant: give at least one, each with a name of its own")
    table = compare.compare(
        experiments.Plan(config, variants, range(values.seeds), _folds(values.folds, config)),
        workdir=pathlib.Path(values.workdir),
        results=pathlib.Path(values.results or values.workdir),
        processes=values.processes,
    )
    print(table, end="")
    return 0


def _tables_flags(values: Flags, arguments: Sequence[str]) -> None:
    import configs

    release = pathlib.Path(configs.__file__).with_name("bp4d_resnet50.py")
    _config_flags(values, arguments, default=str(release))
    flags.DEFINE_string(
        "table", None, "The paper's 1 to 5, or forms: what it writes otherwise.", flag_values=values
    )
    _path(values, "data", "Directory of a prepared data set.")
    _path(values, "workdir", "Directory of the runs; the same command resumes them.", "runs/tables")
    _path(values, "results", "Directory for runs.jsonl, tables, pictures; default: WORKDIR.")
    flags.DEFINE_multi_string(
        "init_from",
        [],
        "BACKBONE=RUN|FILE: where rows with that backbone start; once for each backbone.",
        flag_values=values,
    )
    _plan_flags(values)
    flags.DEFINE_integer(
        "budget_steps",
        None,
        "Training steps of a run; default: the configuration's.",
        lower_bound=1,
        flag_values=values,
    )


def _tables(values: Flags, arguments: Sequence[str]) -> int:
    from configs import ablations as rows
    from mdhr_jax import ablations, config_check, experiments

    _exactly(arguments)
    _required(values, "table")
    if values.table not in rows.TABLES:
        raise InputError(f"--table={values.table} is unknown; choose from {', '.join(rows.TABLES)}")
    table = rows.TABLES[values.table]
    if values.data is None:
        print(ablations.listing(table), end="")
        print("To run these rows, add --data DIRECTORY.")
        return 0
    config = _config(values)
    config.data = values.data
    if not values["config"].present:  # the default one is BP4D's
        config.layout = table.layout
    plan = experiments.Plan(
        config,
        ablations.variants(
            table, config_check.flatten(config.to_dict()), ablations.parse_starts(values.init_from)
        ),
        range(values.seeds),
        _folds(values.folds, config),
        values.budget_steps,
    )
    text = ablations.run(
        table,
        plan,
        workdir=pathlib.Path(values.workdir),
        results=pathlib.Path(values.results or values.workdir),
        name=f"table-{values.table}",
        processes=values.processes,
    )
    print(text, end="")
    return 0


def _folds(given: list[str] | None, config: Any) -> list[int]:
    if given is None:
        return [config.fold]
    if not given or not all(text.isdecimal() and int(text) for text in given):
        raise InputError(f"--folds={','.join(given)}: give numbers from 1, such as 1,2,3")
    return [int(text) for text in given]


def _evaluate_flags(values: Flags, arguments: Sequence[str]) -> None:
    _path(values, "checkpoint", "Directory of a run, or an official .pth or .safetensors.")
    _path(values, "against", "Another one: show the paired difference in F1 as well.")
    _path(values, "data", "Directory of a data set; default: the run's.")
    _path(values, "out", "Directory for the tables; default: RUN/evaluation, or FILE.evaluation.")
    _measure_flags(values)
    flags.DEFINE_integer("fold", None, "Fold to test on; default: the run's.", flag_values=values)
    _seen_flag(values)


def _seen_flag(values: Flags) -> None:
    flags.DEFINE_boolean(
        "allow_seen_subjects",
        False,
        "Test on people whom the model has learned from, too; the result says so.",
        flag_values=values,
    )


def _evaluate(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax import evaluate

    _exactly(arguments)
    _required(values, "checkpoint")
    run = pathlib.Path(values.checkpoint)
    beside = f"{run}.evaluation" if run.is_file() else run / "evaluation"
    out = pathlib.Path(values.out or beside)
    text = evaluate.write_tables(
        values.checkpoint,
        out,
        data=values.data,
        fold=values.fold,
        asked=values.protocol,
        allow_seen=values.allow_seen_subjects,
        oracle=values.oracle_thresholds,
        against=values.against,
    )
    print(f"{text}\ntables in {out}")
    return 0


def _figures_flags(values: Flags, arguments: Sequence[str]) -> None:
    flags.DEFINE_enum(
        "figure",
        None,
        ["3", "4"],
        "Of the paper: 3 scale weights over the face, 4 AUs and their attention.",
        flag_values=values,
    )
    _path(values, "checkpoint", "Directory of a run, or an official .pth or .safetensors.")
    _path(values, "out", "PNG to write.")
    _path(values, "data", "Directory of a data set; default: the run's.")
    flags.DEFINE_integer("fold", None, "Test fold to show; default: the run's.", flag_values=values)
    flags.DEFINE_list(
        "frames", [], "VIDEO:NUMBER,... of the fold; default: 4, by labels.", flag_values=values
    )
    _seen_flag(values)


def _figures(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax import figures

    _exactly(arguments)
    _required(values, "figure", "checkpoint", "out")
    said = figures.figure(
        values.figure,
        values.checkpoint,
        values.out,
        data=values.data,
        fold=values.fold,
        frames=values.frames,
        allow_seen=values.allow_seen_subjects,
    )
    print(said)
    return 0


def _convert_flags(values: Flags, arguments: Sequence[str]) -> None:
    flags.DEFINE_integer(
        "clip_length", 16, "T of a model from a file, frames.", lower_bound=2, flag_values=values
    )
    flags.DEFINE_integer(
        "k", 5, "Half its temporal window, frames.", lower_bound=1, flag_values=values
    )


def _convert(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax import convert

    source, target = map(pathlib.Path, _exactly(arguments, "SOURCE", "TARGET"))
    convert.convert(source, target, clip_length=values.clip_length, k=values.k)
    print(target)
    return 0


def _predict_flags(values: Flags, arguments: Sequence[str]) -> None:
    _path(values, "checkpoint", "Directory of a run, or an official .pth or .safetensors.")
    _path(values, "out", "CSV to write.")
    _crop_flags(values, None)
    flags.DEFINE_boolean(
        "photos",
        None,
        "Pictures of a folder are photos, perhaps of different people, not a film's frames: each "
        "stands alone, and every face that is found has a row; default: unless their names differ "
        "in the number alone, and they have one size.",
        flag_values=values,
    )


def _predict(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax import runs
    from mdhr_jax.infer import predict

    (source,) = _exactly(arguments, "SOURCE")
    _required(values, "checkpoint", "out")
    model = runs.Predictor(values.checkpoint)
    done = predict.predict(
        source,
        model,
        cutter=_cutter_like(model.crop, values.crop, values.template, values.smallest_face),
        out=pathlib.Path(values.out),
        progress=True,
        photos=values.photos,
    )
    lost = done.frames - done.faces
    shown = "photos" if done.photos else "frames"
    print(f"{values.out}: {done.frames} {shown}{f', no face in {lost} of them' if lost else ''}")
    if values.photos is None and pathlib.Path(source).is_dir():
        print(f"mdhr predict: {source}: {_TAKEN_FOR[done.photos]}", file=sys.stderr)
    _tell_of(source, done)
    _warn_of_other_pace(source, done.fps, model.fps)
    return 0


_TAKEN_FOR = {
    True: "taken for photos, for they differ in more than the number in their names; add "
    "--nophotos if they are a film's frames",
    False: "taken for a film's frames; add --photos if each picture stands alone",
}


def _tell_of(source: str, done: Any) -> None:
    """What a user may not expect of a film: other people, and missing frames."""
    lines = []
    if done.several:
        rest = "each has a row" if done.photos else "one of them is followed"
        lines.append(f"{done.several} show more than one face; {rest}")
    if done.changes:
        first, more = ", ".join(map(str, done.changes[:5])), len(done.changes) - 5
        rest = f" and {more} more" if more > 0 else ""
        lines.append(f"another face is followed from frame {first}{rest} on")
    if done.gaps and not done.photos:
        lines.append(f"frames are missing in {done.gaps} places; no clip goes on over them")
    for line in lines:
        print(f"mdhr predict: {source}: {line}", file=sys.stderr)


def _warn_of_other_pace(source: str, shown: float | None, trained: float | None) -> None:
    from mdhr_jax.faces import pace

    if pace.is_other(shown, trained):
        print(
            f"mdhr predict: {source} has {shown:.4g} frames per second, the model was trained on "
            f"{trained:.4g}: its scores may be worse; convert the film with ffmpeg -r {trained:g}",
            file=sys.stderr,
        )


def _cutter_like(
    trained: str | None, crop: str | None, template: str | None, smallest_face: int | None = None
) -> Any:
    """The cutter of the flags; what they leave open is as in training, or the centre."""
    from mdhr_jax.faces import align, squares

    kind, _, trained_template = (trained or "none").partition(", template ")
    crop = crop or ("center" if kind.partition(" ")[0] in ("none", "csv", "yunet") else kind)
    lies = align.parse(template or trained_template or "bp4d")
    ours = squares.describe(crop, lies)
    if trained not in (None, ours):
        print(
            f"mdhr predict: the model was trained on faces cut by {trained}, these are cut by "
            f"{ours}: its scores may be worse",
            file=sys.stderr,
        )
    return squares.parse(crop, lies, smallest_face)


def _bench_flags(values: Flags, arguments: Sequence[str]) -> None:
    _config_flags(values, arguments)
    _path(values, "json", "File for everything that was measured.")
    _path(values, "profile", "Directory for a trace of what was measured (TensorBoard, Perfetto).")
    flags.DEFINE_integer(
        "windows", 5, "Windows whose median counts.", lower_bound=1, flag_values=values
    )


def _bench(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax.bench import run
    from mdhr_jax.run.recipe import Recipe

    (what,) = _exactly(arguments, "train|infer|data|collectives")
    recipe = Recipe.of(_config(values))
    said, table = run.run(what, recipe, windows=values.windows, profile=values.profile)
    print(table, end="")
    if values.json:
        files.write(pathlib.Path(values.json), json.dumps(said, indent=1) + "\n")
    return 0


def _doctor_flags(values: Flags, arguments: Sequence[str]) -> None:
    """None of its own."""


def _doctor(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax import doctor

    place = pathlib.Path(*_exactly(arguments, "DIR")) if arguments else None
    page, well = doctor.doctor(place)
    print(page)
    return 0 if well else 1


def _check_lists_flags(values: Flags, arguments: Sequence[str]) -> None:
    """None of its own."""


def _check_lists(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax.data import list_check

    (root,) = _exactly(arguments, "DIR")
    return 0 if list_check.check(root) else 1


def _verify_flags(values: Flags, arguments: Sequence[str]) -> None:
    _path(values, "golden", "Directory of golden vectors.")
    _path(values, "lists", "Directory of the official label lists.")


def _verify(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax.verify import run

    _exactly(arguments)
    _required(values, "golden")
    return 0 if run.verify(values.golden, values.lists) else 1


COMMANDS = {
    "quickstart": Command(
        "Render faces, train the small model, score it on unseen people; minutes on a CPU.",
        "[--out DIR]",
        "mdhr quickstart --out runs/quickstart",
        _quickstart_flags,
        _quickstart,
    ),
    "synthesize": Command(
        "Render a data set of faces from the label process or from label lists.",
        "--out DIR --subjects N|NAMES [--lists DIR] | --show FILE.png|.webp|.gif",
        "mdhr synthesize --out data/faces --subjects 12 --videos_per_subject 2 "
        "--frames_per_video 30 --size 110",
        _synthesize_flags,
        _synthesize,
    ),
    "prepare": Command(
        "Make a data set of BP4D, DISFA or your own videos: find, align and keep the faces.",
        "bp4d|disfa|folder --raw DIR --out DIR [--cropped DIR]",
        "mdhr prepare folder --raw recordings --out data/own --crop center"
        "  # recordings/: your videos and labels.csv, see docs/data.md",
        _prepare_flags,
        _prepare,
    ),
    "check-data": Command(
        "Look at every record of a data set: counts, labels, what was left out, pictures.",
        "DIR [--sources RAW,...]",
        "mdhr check-data data/faces",
        _check_data_flags,
        _check_data,
    ),
    "train": Command(
        "Train; the same command resumes.",
        "--config FILE --workdir DIR [--config.KEY=VALUE ...]",
        "mdhr train --config configs/quickstart.py --workdir runs/a --config.data=data/faces "
        "--config.epochs=5",
        _train_flags,
        _train,
    ),
    "evaluate": Command(
        "Per-AU F1 of a run under its protocol, with intervals, beside baselines and the paper.",
        "--checkpoint RUN [--against RUN] [--data DIR]",
        "mdhr evaluate --checkpoint runs/a",
        _evaluate_flags,
        _evaluate,
    ),
    "crossval": Command(
        "Train and evaluate every fold, and their mean.",
        "--config FILE --workdir DIR [--config.KEY=VALUE ...]",
        "mdhr crossval --config configs/quickstart.py --workdir runs/folds "
        "--config.data=data/faces --config.epochs=5",
        _crossval_flags,
        _crossval,
    ),
    "compare": Command(
        "Train variants of a configuration with several seeds, and tabulate the differences.",
        "--config FILE --workdir DIR --variant NAME: [KEY=VALUE ...] ... [--folds 1,2,3]",
        "mdhr compare --config configs/quickstart.py --workdir runs/compared "
        "--config.data=data/faces --config.epochs=5 --seeds 1 --variant full "
        "--variant 'no motion: model.dynamics.kind=none'",
        _compare_flags,
        _compare,
    ),
    "tables": Command(
        "The paper's tables as runs: train what is missing, show ours beside the paper's.",
        "--table 1|2|3|4|5|forms [--data DIR --seeds N --budget_steps N]",
        "mdhr tables --table 3",
        _tables_flags,
        _tables,
    ),
    "figures": Command(
        "The paper's Figures 3 and 4, scale weights and AU graph, on faces of a test fold.",
        "--figure 3|4 --checkpoint RUN --out FILE.png [--frames VIDEO:NUMBER,...]",
        "mdhr figures --figure 4 --checkpoint runs/a --out runs/graph.png",
        _figures_flags,
        _figures,
    ),
    "bench": Command(
        "Time steps, scoring, the reading of frames or collectives beside what the device can do.",
        "train|infer|data|collectives --config FILE [--profile DIR] [--config.KEY=VALUE ...]",
        "mdhr bench infer --config configs/quickstart.py --windows 1",
        _bench_flags,
        _bench,
    ),
    "convert": Command(
        "Official .pth or safetensors to a run, and back.",
        "RUN|FILE RUN|FILE.pth|FILE.safetensors",
        "mdhr convert best_model_fold1.pth runs/official  # a file of the release's authors",
        _convert_flags,
        _convert,
    ),
    "predict": Command(
        "AU scores of every frame of a video or of a folder of its frames, or of photos.",
        "SOURCE --checkpoint RUN --out CSV [--crop center|mtcnn|X,Y,W,H|...]",
        "mdhr synthesize --show runs/film.gif\n"
        "mdhr predict runs/film.gif --checkpoint runs/a --out runs/aus.csv --crop 0,0,176,176",
        _predict_flags,
        _predict,
    ),
    "doctor": Command(
        "What is installed, devices, memory and disk, a data set's or a run's state; what to do.",
        "[DIR]",
        "mdhr doctor runs/a",
        _doctor_flags,
        _doctor,
    ),
    "check-lists": Command(
        "Check the official list files, fold by fold, against the release's numbers.",
        "DIR",
        "mdhr check-lists lists  # the list files of the official release",
        _check_lists_flags,
        _check_lists,
    ),
    "verify": Command(
        "Compare with golden vectors of the official release, stage by stage.",
        "--golden DIR [--lists DIR]",
        "mdhr verify --golden tests/golden",
        _verify_flags,
        _verify,
    ),
}


if __name__ == "__main__":
    sys.exit(main())
