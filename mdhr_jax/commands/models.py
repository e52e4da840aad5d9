# SPDX-License-Identifier: Apache-2.0
"""What is asked of a trained model."""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from mdhr_jax.commands.flags import (
    Command,
    Flags,
    crop_flags,
    exactly,
    measure_flags,
    path_flag,
    require,
    seen_flag,
)


def _evaluate_flags(values: Flags, arguments: Sequence[str]) -> None:
    path_flag(values, "checkpoint", "Directory of a run, or an official .pth or .safetensors.")
    path_flag(values, "against", "Another one: show the paired difference in F1 as well.")
    path_flag(values, "data", "Directory of a data set; default: the run's.")
    path_flag(
        values, "out", "Directory for the tables; default: RUN/evaluation, or FILE.evaluation."
    )
    measure_flags(values)
    flags.DEFINE_integer("fold", None, "Fold to test on; default: the run's.", flag_values=values)
    seen_flag(values)


def _evaluate(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax import evaluate

    exactly(arguments)
    require(values, "checkpoint")
    run = pathlib.Path(values.checkpoint)
    beside = f"{run}.evaluation" if run.is_file() else run / "evaluation"
    out = pathlib.Path(values.out or beside)
    text = evaluate.write_tables(
        values.checkpoint,
        out,
        data=values.data,
        fold=values.fold,
        expected_protocol=values.protocol,
        allow_seen=values.allow_seen_subjects,
        oracle=values.oracle_thresholds,
        against=values.against,
    )
    print(f"{text}\ntables in {out}")
    return 0


EVALUATE = Command(
    "Per-AU F1 of a run under its protocol, with intervals, beside baselines and the paper.",
    "--checkpoint RUN [--against RUN] [--data DIR]",
    "mdhr evaluate --checkpoint runs/a",
    _evaluate_flags,
    _evaluate,
)


def _figures_flags(values: Flags, arguments: Sequence[str]) -> None:
    flags.DEFINE_enum(
        "figure",
        None,
        ["3", "4"],
        "Of the paper: 3 scale weights over the face, 4 AUs and their attention.",
        flag_values=values,
    )
    path_flag(values, "checkpoint", "Directory of a run, or an official .pth or .safetensors.")
    path_flag(values, "out", "PNG to write.")
    path_flag(values, "data", "Directory of a data set; default: the run's.")
    flags.DEFINE_integer("fold", None, "Test fold to show; default: the run's.", flag_values=values)
    flags.DEFINE_list(
        "frames", [], "VIDEO:NUMBER,... of the fold; default: 4, by labels.", flag_values=values
    )
    seen_flag(values)


def _figures(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax.studies import figures

    exactly(arguments)
    require(values, "figure", "checkpoint", "out")
    description = figures.figure(
        values.figure,
        values.checkpoint,
        values.out,
        data=values.data,
        fold=values.fold,
        frames=values.frames,
        allow_seen=values.allow_seen_subjects,
    )
    print(description)
    return 0


FIGURES = Command(
    "The paper's Figures 3 and 4, scale weights and AU graph, on faces of a test fold.",
    "--figure 3|4 --checkpoint RUN --out FILE.png [--frames VIDEO:NUMBER,...]",
    "mdhr figures --figure 4 --checkpoint runs/a --out runs/graph.png",
    _figures_flags,
    _figures,
)


def _convert_flags(values: Flags, arguments: Sequence[str]) -> None:
    flags.DEFINE_integer(
        "clip_length", 16, "T of a model from a file, frames.", lower_bound=2, flag_values=values
    )
    flags.DEFINE_integer(
        "k", 5, "Half its temporal window, frames.", lower_bound=1, flag_values=values
    )


def _convert(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax import convert

    source, target = map(pathlib.Path, exactly(arguments, "SOURCE", "TARGET"))
    convert.convert(source, target, clip_length=values.clip_length, k=values.k)
    print(target)
    return 0


CONVERT = Command(
    "Official .pth or safetensors to a run, and back.",
    "RUN|FILE RUN|FILE.pth|FILE.safetensors",
    "mdhr convert best_model_fold1.pth runs/official  # a file of the release's authors",
    _convert_flags,
    _convert,
)


def _predict_flags(values: Flags, arguments: Sequence[str]) -> None:
    path_flag(values, "checkpoint", "Directory of a run, or an official .pth or .safetensors.")
    path_flag(values, "out", "CSV to write.")
    crop_flags(values, None)
    flags.DEFINE_boolean(
        "photos",
        None,
        "Pictures of a folder are photos, perhaps of different people, not a film's frames: each "
        "stands alone, and every face that is found has a row; default: unless their names differ "
        "in the number alone, and they have one size.",
        flag_values=values,
    )


def _predict(values: Flags, arguments: Sequence[str]) -> int:
    from mdhr_jax.infer import predict
    from mdhr_jax.run.trained import Predictor

    (source,) = exactly(arguments, "SOURCE")
    require(values, "checkpoint", "out")
    model = Predictor(values.checkpoint)
    done = predict.predict(
        source,
        model,
        cutter=_cutter_like(model, values.crop, values.template, values.smallest_face),
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


PREDICT = Command(
    "AU scores of every frame of a video or of a folder of its frames, or of photos.",
    "SOURCE --checkpoint RUN --out CSV [--crop center|mtcnn|X,Y,W,H|...]",
    "mdhr synthesize --show runs/film.gif\n"
    "mdhr predict runs/film.gif --checkpoint runs/a --out runs/aus.csv --crop 0,0,176,176",
    _predict_flags,
    _predict,
)


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
    model: Any, crop: str | None, template: str | None, smallest_face: int | None = None
) -> Any:
    """The cutter of the flags; what they leave open is as in training.

    Where that is not known, faces are looked for, and lie as the model expects them; where it
    cannot be done again, the centre is cut.
    """
    from mdhr_jax.faces import align, squares

    kind, _, trained_template = (model.crop or "mtcnn").partition(", template ")
    again = "center" if kind.partition(" ")[0] in ("none", "csv", "yunet") else kind
    lies = align.parse(template or trained_template or model.template)
    cutter = squares.parse(crop or again, lies, smallest_face)
    ours = squares.describe(crop or again, lies)
    if model.crop is None:
        print(
            f"mdhr predict: faces are cut by {ours}; the model does not say by what those were "
            "that it was trained on",
            file=sys.stderr,
        )
    elif ours != model.crop:
        print(
            f"mdhr predict: the model was trained on faces cut by {model.crop}, these are cut by "
            f"{ours}: its scores may be worse",
            file=sys.stderr,
        )
    return cutter
