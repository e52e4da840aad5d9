# SPDX-License-Identifier: Apache-2.0
"""Our side of side_by_side.py: what `mdhr train` and `mdhr evaluate` execute, timed on request.

    python jax_speed.py FOLDER

FOLDER holds `config.json`, `facts.json` and `clips.npz`, see `sides.prepare`. The initial
weights are those of the configured seed; they are left there as `initial.pth`.
"""

import dataclasses
import importlib.metadata
import json
import pathlib
import sys
import time

import answers
import jax
import jax.numpy as jnp
import numpy as np

from mdhr_jax.bench import roofline
from mdhr_jax.bench import steps as bench
from mdhr_jax.interop import files, names, official
from mdhr_jax.machine import devices, sharding
from mdhr_jax.models import views
from mdhr_jax.numerics import metrics, preprocess, steps
from mdhr_jax.run.programs import build_scoring
from mdhr_jax.run.recipe import Recipe


class Ours:
    """Programs with their state and clips."""

    def __init__(self, folder: pathlib.Path):
        self.facts = json.loads((folder / "facts.json").read_text())
        self.recipe = Recipe.of_values(json.loads((folder / "config.json").read_text()))
        self.mesh = sharding.make_mesh(devices=devices.found()[:1])
        self.layout = self.recipe.layout
        self.objective = steps.Objective(
            self.layout, (1.0,) * len(self.layout.aus), self.recipe.auxiliary_loss_weight
        )
        programs = bench.training_programs(self.recipe, self.mesh)
        self.step, self.state = programs.train, programs.init(programs.schedule)
        self.schedule = programs.schedule.placed(self.mesh)
        self.scoring = build_scoring(self.recipe, self.mesh)
        # Copied: training steps overwrite the state.
        self.values = jax.tree.map(jnp.copy, self._prepared(self.scoring))
        clips = dict(np.load(folder / "clips.npz"))
        self.held = clips | {"mask": np.ones(clips["labels"].shape, bool)}
        weights = official.export(self.state, names.table(self.layout, self.facts["official"]))
        files.write(folder / "initial.pth", weights)

    def train_step(self) -> dict[str, jax.Array]:
        """One step on `clips` clips."""
        batch = self._put(self.facts["clips"])
        self.state, scalars = self.step(self.state, batch, self.schedule)
        return scalars

    def clips(self) -> jax.Array:
        """Scores of `eval_clips` clips."""
        return self._scored(self.values, self.facts["eval_clips"])

    def one_clip(self) -> np.ndarray:
        """Scores of one clip, in the host's memory."""
        return np.asarray(self._scored(self.values, 1))

    def validation(self) -> np.ndarray:
        """F1 of every AU over `batches` batches of `clips` clips."""
        count, batches = self.facts["clips"], self.facts["batches"]
        values = self._prepared(self.scoring)
        scores = np.stack([self._scored(values, count) for _ in range(batches)])
        labels, mask = (np.stack([self.held[x][:count]] * batches) for x in ("labels", "mask"))
        return metrics.f1(metrics.count(scores, labels, mask))

    def check(self) -> dict[str, object]:
        """Scores of one clip and the loss of the first step in float32, and the scores as timed."""
        exact = dataclasses.replace(self.recipe, precision="float32")
        scoring = build_scoring(exact, self.mesh)
        scores = scoring.step(*self._prepared(scoring), self._put(1))
        loss = jax.jit(self._loss)(*self._values(), self._put(self.facts["clips"]))
        timed = self.one_clip()
        return {"scores": scores.tolist(), "timed": timed.tolist(), "loss": float(loss)}

    def about(self) -> dict[str, str]:
        """What this runs on."""
        (device, *_) = jax.devices()
        versions = (f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax"))
        kind = "cpu" if device.platform == "cpu" else "gpu"
        return {"device": device.device_kind, "kind": kind, "versions": ", ".join(versions)}

    def machine(self) -> dict[str, float]:
        """What the device reaches in the configured precision."""
        return roofline.machine(self.recipe.dtype)._asdict()

    def host_transforms(self) -> float:
        """Seconds that PIL takes on one core for the frames of a training batch (release)."""
        held, count = self.held, self.facts["clips"]
        start = time.perf_counter()
        for clip, row in zip(held["frames"][:count], held["augment"], strict=False):
            for frame in clip:
                preprocess.host_train(frame, row, self.recipe.image_size).transpose(2, 0, 1).copy()
        return time.perf_counter() - start

    def _scored(self, values: tuple[dict, dict], count: int) -> jax.Array:
        return self.scoring.step(*values, self._put(count))

    def _prepared(self, scoring: steps.Scoring) -> tuple[dict, dict]:
        return scoring.prepare(*self._values())

    def _values(self) -> tuple[dict, dict]:
        return self.state["params"], self.state["batch_stats"]

    def _put(self, count: int) -> steps.Batch:
        held = {name: array[:count] for name, array in self.held.items()}
        return sharding.put_batch(self.mesh, held)

    def _loss(self, params: dict, batch_stats: dict, batch: steps.Batch) -> jax.Array:
        """Before the first step, in float32, with all paths kept."""
        view = views.train_view(self.recipe.outline, dtype=jnp.float32, drop_path=False)
        graph, *_ = steps.split(view)
        size = self.recipe.image_size
        images = preprocess.train(batch["frames"], batch["augment"], image_size=size)
        outputs, _ = steps.forward(graph, params, batch_stats, images)
        return self.objective(outputs, batch["labels"], batch["mask"])[0]


def main() -> None:
    """Answers requests."""
    ours = Ours(pathlib.Path(sys.argv[1]))
    programs = (ours.train_step, ours.clips, ours.one_clip, ours.validation)
    facts = (ours.about, ours.machine, ours.check, ours.host_transforms)
    answers.serve(
        {function.__name__: function for function in programs},
        jax.block_until_ready,
        {function.__name__: function for function in facts},
    )


if __name__ == "__main__":
    main()
