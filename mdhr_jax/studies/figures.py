# SPDX-License-Identifier: Apache-2.0
"""The paper's Figures 3 and 4 from a checkpoint, top to bottom, on a few frames of a test fold.

Unless named, frames are chosen by their labels alone, so that all checkpoints of a data set are
shown on the same ones. Their clips are those of evaluation.
"""

import dataclasses
import pathlib
import textwrap
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Int8, UInt8

from mdhr_jax import evaluate, facs
from mdhr_jax.errors import InputError
from mdhr_jax.machine import files
from mdhr_jax.numerics import preprocess, steps
from mdhr_jax.report import au_graph, scale_maps
from mdhr_jax.run import seen
from mdhr_jax.run.trained import Trained
from mdhr_jax.studies import selection

COUNT = 4  # frames of a figure


@dataclasses.dataclass(frozen=True)
class Observed:
    """Frames, and what a model saw in and around them.

    Attributes:
      names: `VIDEO:NUMBER` of each frame.
      labels: 1 active, 0 not, -1 unknown.
      pictures: the frames as they are stored.
      clips: their clips as the network gets them.
      place: of the frames in `clips`.
      predicted: active according to the model.
      shown: the intermediate of the model that the figure shows, in these frames.
    """

    names: Sequence[str]
    labels: Int8[np.ndarray, "k n"]
    pictures: UInt8[np.ndarray, "k h w 3"]
    clips: UInt8[np.ndarray, "k s y x 3"]
    place: Int[np.ndarray, " k"]
    predicted: Bool[np.ndarray, "k n"]
    shown: Float[np.ndarray, "k ..."]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A figure of the paper.

    Attributes:
      shows: the intermediate of the model that it draws.
      remedy: which configuration has it, in words.
      interest: how much each AU makes each frame worth showing.
      rule: the same in words.
      draw: writes the picture and returns its content in words, a line per frame.
    """

    shows: str
    remedy: str
    interest: Callable[[selection.TestFold], Float[np.ndarray, "m n"]]
    rule: str
    draw: Callable[[pathlib.Path, Trained, Observed, str], list[str]]


def figure(
    number: str,
    checkpoint: str | pathlib.Path,
    out: str | pathlib.Path,
    *,
    data: str | pathlib.Path | None = None,
    fold: int | None = None,
    frames: Sequence[str] = (),
    allow_seen: bool = False,
) -> str:
    """Draws a figure of the paper, a key of `FIGURES`, and says in words what it shows.

    Args:
      number: in the paper.
      checkpoint: a run, or an official weight file.
      out: PNG to write.
      data: data set; the one that the run trained on when None.
      fold: fold whose test frames are shown; the run's own when None.
      frames: `VIDEO:NUMBER` of each; `COUNT` are chosen when there are none.
      allow_seen: shows people who were seen in training, too; the caption says so.

    Raises:
      InputError: as `evaluate.load`; no such frame, a name that does not end in `.png`, or a model
        without what the figure shows.
    """
    kind, out = FIGURES[number], pathlib.Path(out)
    if out.suffix != ".png":
        raise InputError(f"--out={out}: end the name in .png")
    trained = evaluate.load(checkpoint, data=data, fold=fold, allow_seen=allow_seen)
    recipe = trained.recipe
    source = recipe.open_data()
    test = selection.open_fold(
        source, recipe.fold, clip_length=recipe.clip_length, context=recipe.context
    )
    rows = [test.find(name) for name in frames] or selection.choose(
        kind.interest(test), test.people, COUNT
    )
    observed = observe(trained, test, rows, kind)
    how = "as asked for" if frames else f"chosen by their labels, one per person: {kind.rule}"
    known = seen.verdict(seen.of_model(trained.path), source, test.fold)
    caption = (
        f"{trained.path.name}, step {int(trained.state['step'])}, on people of test fold "
        f"{test.fold}, seen in training: {known}. Frames {how}."
    )
    with files.writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        content = kind.draw(out, trained, observed, caption)
    return "\n".join([f"{out}: {caption}", *content])


def observe(
    trained: Trained, test: selection.TestFold, rows: Sequence[int], kind: Kind
) -> Observed:
    """Runs the model once, on the clips of these frames."""
    clip, place = np.array([test.clip(row) for row in rows]).T
    recipe = trained.recipe
    graph, *_ = steps.split(recipe.tested)

    def run(params: dict, batch_stats: dict, frames: jax.Array) -> tuple[jax.Array, ...]:
        images = recipe.transform(frames)
        outputs, _ = steps.forward(graph, params, batch_stats, images)
        if kind.shows not in outputs:  # known while tracing, before anything is compiled
            raise InputError(f"{trained.path}: its model has no {kind.remedy}")
        each = np.arange(len(rows))
        return images, outputs["scores"][each, place], outputs[kind.shows][each, place]

    frames = np.stack([test.source.pictures(test.rows[own]) for own in test.index.rows[clip]])
    state = trained.state
    images, scores, shown = jax.jit(run)(state["params"], state["batch_stats"], frames)
    return Observed(
        names=[test.name(row) for row in rows],
        labels=test.table.labels[rows],
        pictures=test.source.pictures(test.rows[rows]),
        clips=preprocess.denormalise(np.asarray(images)),
        place=place + recipe.context,
        predicted=np.asarray(scores) >= trained.thresholds,
        shown=np.asarray(shown, np.float32),
    )


def motion(
    clips: UInt8[np.ndarray, "k s h w 3"], place: Int[np.ndarray, " k"], window: int
) -> Float[np.ndarray, "k h w"]:
    """Mean change between neighbouring frames, `window` before and after a place; grey levels."""
    change = np.abs(np.diff(clips.mean(axis=-1), axis=1))
    near = np.abs(np.arange(change.shape[1]) + 0.5 - place[:, None]) < window
    return np.einsum("kj,kjhw->khw", near / near.sum(axis=1, keepdims=True), change)


def _draw_scale_maps(
    out: pathlib.Path, trained: Trained, observed: Observed, caption: str
) -> list[str]:
    dynamics = trained.recipe.model.dynamics
    scales = sorted(dynamics.scales)
    active = [_aus(trained.layout, labels == 1) for labels in observed.labels]
    rows, columns = observed.shown.shape[1:3]
    scale_maps.scale_maps(
        out,
        observed.clips[np.arange(len(observed.place)), observed.place],
        motion(observed.clips, observed.place, dynamics.k),
        observed.shown,
        scales,
        [_title(name, aus) for name, aus in zip(observed.names, active, strict=True)],
        f"{caption} Motion: mean change between frames, {dynamics.k} before and after this one, as "
        f"the model averages it. Weights are chosen at {rows} x {columns} positions.",
    )
    return [
        f"{name}: active AUs {aus}; mean weight "
        + ", ".join(f"scale {s} {mean:.2f}" for s, mean in zip(scales, own, strict=True))
        for name, aus, own in zip(
            observed.names, active, observed.shown.mean(axis=(1, 2)), strict=True
        )
    ]


def _title(name: str, aus: str) -> str:
    video, _, number = name.rpartition(":")
    return "\n".join([video, f"frame {number}", "active AUs", *textwrap.wrap(aus, 12)])


def _aus(layout: facs.AuLayout, active: Bool[np.ndarray, " n"]) -> str:
    """Numbers of the active AUs."""
    return " ".join(str(layout.aus[n]) for n in np.flatnonzero(active)) or "none"


def _draw_au_graphs(
    out: pathlib.Path, trained: Trained, observed: Observed, caption: str
) -> list[str]:
    layout = trained.layout
    au_graph.au_graphs(
        out,
        layout,
        observed.pictures,
        observed.predicted,
        observed.labels,
        observed.shown,
        [name.replace(":", ", frame ") for name in observed.names],
        f"{caption} Edges {trained.recipe.model.edges}: an arrow leads from an AU to one that "
        f"attends to it; the strongest {au_graph.NUMBERED} have their weight. Attention of AUs to "
        "themselves is not drawn.",
    )
    return [
        f"{name}: active AUs {_aus(layout, labels == 1)}; predicted {_aus(layout, predicted)}; "
        f"strongest attention {_strongest(layout, attention)}"
        for name, labels, predicted, attention in zip(
            observed.names, observed.labels, observed.predicted, observed.shown, strict=True
        )
    ]


def _strongest(layout: facs.AuLayout, attention: Float[np.ndarray, "n n"]) -> str:
    links = au_graph.links(attention)[: au_graph.NUMBERED]
    return ", ".join(
        f"AU{layout.aus[link.receiver]} to AU{layout.aus[link.sender]} {link.weight:.2f}"
        for link in links
    )


FIGURES = {
    "3": Kind(
        "scale_weights",
        "scale weights, which Figure 3 shows; use a checkpoint trained with "
        "config.model.dynamics.kind=multiscale",
        selection.label_changes,
        f"most AUs beginning or ending within {selection.NEAR} frames, of which those not shown "
        "yet count more",
        _draw_scale_maps,
    ),
    "4": Kind(
        "attention",
        "attention between AUs, which Figure 4 shows; use a checkpoint trained with "
        "config.model.edges other than none",
        selection.active_regions,
        "active AUs in most regions, of which those not shown yet count more",
        _draw_au_graphs,
    ),
}
