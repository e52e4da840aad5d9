# SPDX-License-Identifier: Apache-2.0
"""Frames a GraphAU scores a second, ours and the PyTorch twin's, in turns on the same device.

    python benchmarks/graphau_speed.py opengraph_resnet50_stage2

Ours is what `mdhr predict` executes, from grey levels in the host's memory to scores there; the
twin begins with normalised pictures on its device. Both have the recipe's weights, and nothing is
timed unless their scores of the same pictures agree. Each variant of the twin is a process, which
waits while ours runs. Prints Markdown.
"""

import argparse
import datetime
import importlib.metadata
import re
import statistics
import sys
from collections.abc import Sequence

import answers
import jax
import numpy as np
import sides
from flax import nnx
from jaxtyping import Float

from mdhr_jax import facs
from mdhr_jax.configs import graphau as graphau_config
from mdhr_jax.errors import InputError
from mdhr_jax.interop import families
from mdhr_jax.machine import compile_cache, devices, sharding, workers
from mdhr_jax.models import backbones, graphau
from mdhr_jax.numerics import steps
from mdhr_jax.report import markdown
from mdhr_jax.run.programs import build_scoring
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.verify import golden, models

BASE_SEED, PICTURE_SEED = 1, 0  # as torch_graphau_speed's
RECORD_SIZE = 256  # pixels of the pictures that `mdhr predict` cuts
LAYOUTS = {
    "megraph_bp4d": facs.BP4D,
    "megraph_disfa": facs.DISFA,
    "opengraph": facs.OPENGRAPHAU,
}
RELATIONS = {"1": "nearest", "2": "gated"}
VARIANTS = {"released": (), "tuned": ("--channels_last", "--compiled")}
FAMILY = families.FAMILIES["graphau"]
CONFIGURATION = re.compile(rf"({'|'.join(LAYOUTS)})_({'|'.join(FAMILY.backbones)})_stage([12])")


class Normalised(Recipe):
    """A recipe whose pictures are the network's input already."""

    transform = property(lambda recipe: lambda frames: frames)


class Ours:
    """A released model with the recipe's weights, as a command scores with it."""

    def __init__(self, configuration: str, frames: int):
        match = CONFIGURATION.fullmatch(configuration)
        if not match:
            raise InputError(f"{configuration!r} is none; name one like opengraph_resnet50_stage2")
        name, backbone, stage = match.groups()
        layout = LAYOUTS[name]
        width = nnx.eval_shape(lambda: backbones.BACKBONES[backbone](rngs=nnx.Rngs(0))).features
        slots = graphau.Slots(
            backbone=backbone,
            features=width // (4 if backbone.startswith("resnet") else 2),
            relations=RELATIONS[stage],
        )
        release = FAMILY.make(layout, slots)
        config = graphau_config.get_config()
        config.layout, config.evaluation_crop = layout.name, release.crop
        config.model.update_from_flattened_dict(release.slots)
        self.mesh = sharding.make_mesh(devices=devices.found()[:1])
        self.normalised = build_scoring(Normalised.of(config), self.mesh)
        recipe = Recipe.of(config)
        self.scoring, self.count = build_scoring(recipe, self.mesh), frames
        trees = steps.split(recipe.outline)[1:]
        self.values = self.scoring.prepare(
            *(models.drawn(tree, release.rows, BASE_SEED) for tree in trees)
        )
        shape = (1, frames, RECORD_SIZE, RECORD_SIZE, 3)
        self.pictures = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def check(self) -> Float[np.ndarray, "b n"]:
        """Scores of the recipe's pictures."""
        pictures = golden.clips(self.count, 1, PICTURE_SEED)
        return np.asarray(self.normalised.step(*self.values, {"frames": pictures}))[:, 0]

    def scores(self) -> Float[np.ndarray, "b t n"]:
        """Of pictures in the host's memory, there."""
        return np.asarray(self.scoring.step(*self.values, {"frames": self.pictures}))


def timed(ours: Ours, arguments: argparse.Namespace, variant: str) -> list[str]:
    """A row of the table: frames a second of both, their ratio, how far scores are apart.

    Raises:
      InputError: the two do not compute the same, or the twin has stopped.
    """
    command = [sides.interpreter(arguments.torch), sides.HERE / "torch_graphau_speed.py"]
    command += [arguments.configuration, "--frames", str(arguments.frames)]
    command += ["--threads", str(workers.cores()), *VARIANTS[variant]]
    found: dict[str, list[float]] = {"ours": [], "theirs": []}
    with sides.Side(*command) as theirs:
        about = theirs.ask("about")
        sides.same_device({"kind": _kind(), "device": jax.devices()[0].device_kind}, about)
        apart = float(np.abs(ours.check() - np.array(theirs.ask("check")["scores"])).max())
        if not apart <= sides.SAME:
            raise InputError(f"scores are {apart:.1e} apart: the two do not compute the same")
        for _ in range(arguments.rounds):
            found["ours"] += answers.seconds_per_call(
                ours.scores, np.asarray, arguments.windows, arguments.seconds
            )
            found["theirs"] += theirs.ask("frames", arguments.windows, arguments.seconds)
    mine, twins = (statistics.median(found[side]) for side in ("ours", "theirs"))
    rates = (f"{arguments.frames / seconds:.2f}" for seconds in (mine, twins))
    return [variant, about["versions"], *rates, f"{twins / mine:.2f}", f"{apart:.1e}"]


def _kind() -> str:
    return "cpu" if jax.devices()[0].platform == "cpu" else "gpu"


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("configuration", nargs="?", default="opengraph_resnet50_stage2")
    parser.add_argument("--variant", choices=VARIANTS, action="append", help="of PyTorch; all")
    parser.add_argument("--frames", type=int, default=16, help="in one batch")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each side has")
    parser.add_argument("--windows", type=int, default=2, help="of a turn")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a window, at least a call")
    parser.add_argument("--torch", help="Python that has PyTorch")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table; 2 after wrong input."""
    compile_cache.keep()
    asked = parsed(arguments)
    try:
        ours = Ours(asked.configuration, asked.frames)
        rows = [timed(ours, asked, variant) for variant in asked.variant or VARIANTS]
    except InputError as error:
        print(f"graphau_speed: {error}", file=sys.stderr)
        return 2
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax"))
    print(
        f"{asked.configuration}, {asked.frames} frames in one batch, float32, "
        f"{jax.devices()[0].device_kind}, {workers.cores()} cores, {versions}, "
        f"{datetime.date.today()}\n"
    )
    titles = ["PyTorch", "versions", "ours, frames/s", "PyTorch's", "ratio", "scores apart"]
    print(markdown.table(titles, rows), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
