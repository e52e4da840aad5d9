# SPDX-License-Identifier: Apache-2.0
"""Ours and the PyTorch twin, as released and tuned, on the same device in turns: who is faster?

    python benchmarks/side_by_side.py --out side-by-side.json

Both sides begin with the same weights and clips, and nothing is timed unless their scores and their
loss agree in float32. Then each program runs in turns, ours, theirs, ours, theirs; the other side's
process waits meanwhile. Steps begin with pictures in the host's memory as a loader leaves them.
Prints Markdown at the end; `--out` keeps every window as soon as it is known.

PyTorch is looked for in .venv-torch (`bash launch/torch_env.sh`: without CUDA), then beside JAX;
`--torch` names another Python, on a GPU one whose PyTorch has CUDA. Variants are explained in
variants.py.
"""

import argparse
import datetime
import json
import math
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Sequence

import side_table
import sides
import targets
import variants

from mdhr_jax.configs import base
from mdhr_jax.errors import InputError
from mdhr_jax.machine import compile_cache, devices, workers
from mdhr_jax.machine.progress import Bar
from mdhr_jax.run.recipe import PRECISIONS, Recipe, chosen

PROGRAMS = tuple(side_table.PROGRAMS)
WINDOWS = 5  # of each side, at least


def configuration(backbone: str, arguments: argparse.Namespace) -> Recipe:
    """The release's training, as short and narrow as asked for.

    Raises:
      InputError: the configuration is wrong, or the twin has no such backbone.
    """
    if backbone not in sides.OFFICIAL:
        raise InputError(
            f"--backbones: no twin of {backbone!r}; choose from {', '.join(sides.OFFICIAL)}"
        )
    config = base.get_config()
    config.model.backbone = backbone
    config.model.features = arguments.features
    config.clip_length, config.batch_size = arguments.frames, arguments.clips
    config.image_size, config.precision = arguments.image_size, arguments.precision
    # The middle of larger pictures is the same pixels to both; a resize would not be.
    config.evaluation_crop = "centre"
    recipe = Recipe.of(config)
    chosen("precision", PRECISIONS, recipe.precision)
    return recipe


def unmeasured(variant: str, precision: str) -> str:
    """Why a variant says nothing new in this precision; empty if it does."""
    without = variant == "tuned-without-autocast" and precision == "float32"
    return "in float32 no variant has it" if without else ""


class Bench:
    """A backbone against every variant.

    Args:
      recipe: of the backbone.
      arguments: of the command.
      python: has PyTorch.
    """

    def __init__(self, recipe: Recipe, arguments: argparse.Namespace, python: pathlib.Path):
        self.recipe, self.arguments, self.python = recipe, arguments, python
        self.sizes = sides.Sizes(arguments.clips, arguments.eval_clips, arguments.batches)
        self.ours, self.theirs, self.apart, self.transforms = {}, {}, [], math.nan

    @property
    def answered(self) -> bool:
        """Whether both sides have said what they run on."""
        return bool(self.ours and self.theirs)

    def rows(self) -> Iterator[side_table.Row]:
        """A row per variant and program, with a reason where a side stops or the two differ.

        Raises:
          InputError: the sides are not on the same kind of device.
        """
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            sides.prepare(folder, self.recipe, self.sizes)
            with sides.Side(sys.executable, sides.HERE / "jax_speed.py", folder) as ours:
                try:
                    self.ours = ours.ask("about") | ours.ask("machine")
                    self.transforms = ours.ask("host_transforms")
                    check = ours.ask("check")
                except sides.Failed as failed:
                    for variant in self.arguments.variants:
                        yield from self._missing(variant, str(failed))
                    return
                for variant in self.arguments.variants:
                    yield from self._variant(variant, folder, ours, check)

    def _variant(
        self, variant: str, folder: pathlib.Path, ours: sides.Side, check: dict
    ) -> Iterator[side_table.Row]:
        reason = unmeasured(variant, self.recipe.precision)
        if reason:
            yield from self._missing(variant, reason)
            return
        with sides.Side(self.python, sides.HERE / "torch_speed.py", folder, variant) as theirs:
            try:
                self.theirs = self.theirs or theirs.ask("about") | theirs.ask("machine")
                sides.same_device(self.ours, self.theirs)
                self.apart.append(sides.apart(check, theirs.ask("check")))
            except sides.Failed as failed:
                yield from self._missing(variant, str(failed))
                return
            for program in PROGRAMS:
                yield self._timed(variant, program, ours, theirs)

    def _timed(
        self, variant: str, program: str, ours: sides.Side, theirs: sides.Side
    ) -> side_table.Row:
        rounds = self.arguments.rounds
        windows = math.ceil(WINDOWS / rounds)
        seconds = {ours: [], theirs: []}
        try:
            for _ in range(rounds):
                for side, found in seconds.items():
                    found += side.ask(program, windows, self.arguments.seconds)
        except sides.Failed as failed:
            return self._row(variant, program, missing=str(failed))
        return self._row(variant, program, ours=seconds[ours], theirs=seconds[theirs])

    def _missing(self, variant: str, reason: str) -> Iterator[side_table.Row]:
        for program in PROGRAMS:
            yield self._row(variant, program, missing=reason)

    def _row(self, variant: str, program: str, **found: list[float] | str) -> side_table.Row:
        frames = self.sizes.scored(program) * self.recipe.clip_length
        return side_table.Row(self.recipe.model.backbone, variant, program, frames, **found)


def measured(benches: Sequence[Bench], arguments: argparse.Namespace) -> Iterator[side_table.Row]:
    """Every row, as soon as it is known.

    Raises:
      InputError: as `Bench.rows`, or one side has never answered.
    """
    with Bar(len(benches) * len(arguments.variants) * len(PROGRAMS), "program") as bar:
        for bench in benches:
            for row in bench.rows():
                yield row
                bar.update()
    if not any(bench.answered for bench in benches):
        raise InputError(f"{row.missing}; nothing is compared")


def place_of(benches: Sequence[Bench], arguments: argparse.Namespace) -> side_table.Place | None:
    """Where the rows come from; None until both sides have answered."""
    answered = [bench for bench in benches if bench.answered]
    if not answered:
        return None
    last = answered[-1]
    apart = [difference for bench in benches for difference in bench.apart]
    return side_table.Place(
        f"{arguments.clips} clips of {arguments.frames} frames, {arguments.image_size} px, "
        f"{arguments.precision}, {datetime.date.today()}",
        last.ours,
        last.theirs,
        workers.cores(),
        last.transforms,
        sides.Apart(*map(max, zip(*apart, strict=True))) if apart else None,
        standard=targets.DEVICE in last.ours["device"]
        and all(getattr(arguments, name) == value for name, value in targets.STANDARD.items()),
    )


def write(
    file: pathlib.Path, rows: Sequence[side_table.Row], place: side_table.Place | None
) -> None:
    """Keeps every window.

    Raises:
      InputError: the file cannot be written.
    """
    said = {"place": place and place._asdict(), "rows": [row._asdict() for row in rows]}
    try:
        file.write_text(json.dumps(said, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"--out: {file}: {error.strerror}; name another file") from error


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; its defaults are those of a GPU or of a CPU.

    Raises:
      InputError: an unknown variant, or a count below 1.
    """
    gpu = devices.GPUS.exists()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbones", type=names, default=["resnet50", "swin_b"])
    parser.add_argument("--variants", type=names, default=list(variants.VARIANTS))
    parser.add_argument("--clips", type=int, default=8 if gpu else 1, help="of a training step")
    parser.add_argument("--frames", type=int, default=16 if gpu else 8, help="of a clip")
    parser.add_argument("--eval_clips", type=int, default=32 if gpu else 4, help="scored at once")
    parser.add_argument("--batches", type=int, default=8 if gpu else 2, help="of a validation")
    parser.add_argument("--image_size", type=int, default=224, help="pixels")
    parser.add_argument("--features", type=int, default=512, help="width of AU nodes")
    parser.add_argument(
        "--precision",
        default="bfloat16" if gpu else "float32",
        help="of ours, and of PyTorch's autocast: bfloat16 or float32",
    )
    parser.add_argument("--rounds", type=int, default=2, help="turns that each side has")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a window, about")
    parser.add_argument("--torch", help="Python that has PyTorch")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file for every window")
    found = parser.parse_args(arguments)
    for name in found.variants:
        if name not in variants.VARIANTS:
            known = ", ".join(variants.VARIANTS)
            raise InputError(f"--variants: {name!r} is none; choose from {known}")
    for name in ("clips", "eval_clips", "batches", "rounds"):
        if getattr(found, name) < 1:
            raise InputError(f"--{name}={getattr(found, name)}: give at least 1")
    return found


def names(value: str) -> list[str]:
    """Those between commas."""
    return value.split(",")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table; 2 after wrong input."""
    compile_cache.keep()
    try:
        asked = parsed(arguments)
        recipes = [configuration(name, asked) for name in asked.backbones]
        python, rows = sides.interpreter(asked.torch), []
        benches = [Bench(recipe, asked, python) for recipe in recipes]
        if asked.out:
            write(asked.out, rows, None)  # before an hour of measuring
        for row in measured(benches, asked):
            rows.append(row)
            if asked.out:
                write(asked.out, rows, place_of(benches, asked))
    except InputError as error:
        print(f"side_by_side: {error}", file=sys.stderr)
        return 2
    print(side_table.table(rows, place_of(benches, asked)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
