# SPDX-License-Identifier: Apache-2.0
"""The PyTorch twin as seen from our side: a process in PyTorch's own environment."""

import json
import pathlib
import subprocess
from types import TracebackType
from typing import Self

import numpy as np
from jaxtyping import Float, Int

from mdhr_jax.data import records
from mdhr_jax.interop import files, names, official
from mdhr_jax.numerics import steps
from mdhr_jax.run import inputs
from mdhr_jax.run.recipe import Recipe

ROOT = pathlib.Path(__file__).parents[1]
TORCH = ROOT / ".venv-torch/bin/python"
DEPTHS, WIDTH = (1, 1, 1, 1), 8  # of the narrow ResNet


def write_start(
    folder: pathlib.Path, state: steps.State, recipe: Recipe, source: records.FrameSource
) -> None:
    """What the twin begins with: `initial.pth` and `facts.json`.

    Args:
      folder: where they go.
      state: our initial state of the narrow net with every part.
      recipe: how it is trained.
      source: the data set, whose training labels give the class weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files.write(
        folder / "initial.pth", official.export(state, names.table(source.layout, "resnet50"))
    )
    facts = {
        "layout": source.layout.name,
        "depths": DEPTHS,
        "width": WIDTH,
        "features": recipe.model.features,
        "k": recipe.model.dynamics.k,
        "betas": recipe.betas,
        "epsilon": recipe.epsilon,
        "weight_decay": recipe.weight_decay,
        "auxiliary_loss_weight": recipe.auxiliary_loss_weight,
        "class_weights": inputs.class_weights(recipe, source).tolist(),
    }
    (folder / "facts.json").write_text(json.dumps(facts))


class Twin:
    """Trains and scores in PyTorch; a context manager.

    Args:
      folder: holds what `write_start` wrote.
      dtype: float32 or float64.
    """

    def __init__(self, folder: pathlib.Path, dtype: str):
        self.dtype = np.dtype(dtype)
        command = [TORCH, ROOT / "benchmarks/torch_training.py", folder, dtype]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def step(
        self, images: Float[np.ndarray, "b t h w 3"], labels: Int[np.ndarray, "b t n"], rate: float
    ) -> float:
        """Trains on a batch of normalised images; the loss before the step."""
        self._send(float(rate), np.asarray(images, np.float32), np.asarray(labels, np.int64))
        return float(self._receive(()))

    def scores(
        self, images: Float[np.ndarray, "b t h w 3"], aus: int
    ) -> Float[np.ndarray, "b t n"]:
        """Scores of normalised images."""
        self._send(None, np.asarray(images, np.float32))
        return self._receive((*images.shape[:2], aus))

    def _send(self, rate: float | None, *arrays: np.ndarray) -> None:
        header = {"rate": rate, "shapes": [array.shape for array in arrays]}
        self._process.stdin.write(json.dumps(header).encode() + b"\n")
        for array in arrays:
            self._process.stdin.write(array.tobytes())
        self._process.stdin.flush()

    def _receive(self, shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape)) * self.dtype.itemsize
        answer = self._process.stdout.read(size)
        if len(answer) < size:
            raise RuntimeError("the PyTorch process stopped; its message is above")
        return np.frombuffer(answer, self.dtype).reshape(shape)
