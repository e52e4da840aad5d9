# SPDX-License-Identifier: Apache-2.0
"""Data sets: rendered, prepared, checked."""

import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags

from mdhr_jax.commands.flags import (
    Command,
    Flags,
    crop_flags,
    exactly,
    no_flags,
    path_flag,
    refuse,
    require,
    size_flag,
)
from mdhr_jax.errors import InputError


def _synthesize_flags(values: Flags, arguments: Sequence[str]) -> None:
    path_flag(values, "out", "Directory of the data set to make.")
    path_flag(values, "show", "Instead of a data set: contact sheet (.png) or film (.webp, .gif).")
    path_flag(
        values, "lists", "Directory of the official label lists, instead of the label process."
    )
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
    size_flag(values)


def _synthesize(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax import facs

    exactly(arguments)
    try:
        layout = facs.layout(values.layout)
    except ValueError as error:
        raise InputError(f"--layout: {error}") from error
    if values.show is not None:
        return _show_faces(pathlib.Path(values.show), layout, values.seed)
    from mdhr_jax.data.builders import rendered

    require(values, "out")
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


SYNTHESIZE = Command(
    "Render a data set of faces from the label process or from label lists.",
    "--out DIR --subjects N|NAMES [--lists DIR] | --show FILE.png|.webp|.gif",
    "mdhr synthesize --out data/faces --subjects 12 --videos_per_subject 2 "
    "--frames_per_video 30 --size 110",
    _synthesize_flags,
    _synthesize,
)


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


def _prepare_flags(values: Flags, arguments: Sequence[str]) -> None:
    from mdhr_jax.data.builders import disfa

    path_flag(values, "raw", "Directory of the raw data set: labels, and pictures or videos.")
    path_flag(
        values, "cropped", "Directory of pictures already cut to squares, instead of raw ones."
    )
    path_flag(values, "lists", "Directory of the official lists; with --cropped, instead of --raw.")
    path_flag(values, "out", "Directory of the data set to make.")
    crop_flags(values, "mtcnn")
    size_flag(values)
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


def _prepare(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax.data.builders import parts, prepare
    from mdhr_jax.faces import align

    (kind,) = exactly(arguments, "bp4d|disfa|folder")
    require(values, "out", "cropped" if values.lists else "raw")
    template = values.template or (kind if kind in align.TEMPLATES else "bp4d")
    if values.lists:
        refuse(values, "with --lists", "raw", "camera", "active_from")
    if values.cropped:
        refuse(values, "with --cropped", "crop", "template", "smallest_face", "camera")
    if values.crop != "mtcnn":
        refuse(values, f"with --crop={values.crop}", "smallest_face")
    if kind != "disfa":
        refuse(values, f"for {kind}", "camera", "active_from")
    raw, layout, origin = _find_recordings(values, kind)
    if values.smallest_face:
        origin += f", faces from {values.smallest_face} pixels,"
    summary = prepare.prepare(
        values.out,
        raw,
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
    if summary:
        print(summary)
    return 0


PREPARE = Command(
    "Make a data set of BP4D, DISFA or your own videos: find, align and keep the faces.",
    "bp4d|disfa|folder --raw DIR --out DIR [--cropped DIR]",
    "mdhr prepare folder --raw recordings --out data/own --crop center"
    "  # recordings/: your videos and labels.csv, see docs/data.md",
    _prepare_flags,
    _prepare,
)


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
        origin = f"disfa, {values.camera} camera, active from {values.active_from}, {cut}"
        return disfa.find(labels, pictures, **choice), disfa.LAYOUT, origin
    if kind == "folder":
        refuse(values, "for folder", "lists", "cropped")
        return *folder.find(labels), f"own labels, {cut}"
    raise InputError(f"{kind!r} is unknown; choose from bp4d, disfa, folder")


def _check_data_flags(values: Flags, arguments: Sequence[str]) -> None:
    path_flag(values, "out", "Directory for report.md and sheets/; default: DIR.check.")
    flags.DEFINE_list(
        "sources", [], "Folders it was made from: have their files changed?", flag_values=values
    )


def _check_data(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax import check_data

    (path,) = exactly(arguments, "DIR")
    out = values.out or f"{path.rstrip('/')}.check"
    report, good = check_data.check(path, out, sources=values.sources)
    print(f"{report}\nreport.md and sheets/ in {out}")
    return 0 if good else 1


CHECK_DATA = Command(
    "Look at every record of a data set: counts, labels, what was left out, pictures.",
    "DIR [--sources RAW,...]",
    "mdhr check-data data/faces",
    _check_data_flags,
    _check_data,
)


def _check_lists(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax.data import list_check

    (root,) = exactly(arguments, "DIR")
    return 0 if list_check.check(root) else 1


CHECK_LISTS = Command(
    "Check the official list files, fold by fold, against the release's numbers.",
    "DIR",
    "mdhr check-lists lists  # the list files of the official release",
    no_flags,
    _check_lists,
)
