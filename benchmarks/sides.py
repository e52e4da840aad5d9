# SPDX-License-Identifier: Apache-2.0
"""The two processes of side_by_side.py: what they are given, asked, and checked for."""

import contextlib
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from mdhr_jax.errors import InputError
from mdhr_jax.machine import workers
from mdhr_jax.numerics import preprocess
from mdhr_jax.run.recipe import Recipe

HERE = pathlib.Path(__file__).parent
TORCH = HERE.parent / ".venv-torch/bin/python"
SAME, ROUNDED = 1e-4, 0.05  # scores in float32, and as timed; the loss: relative
OFFICIAL = {"resnet50": "resnet50", "resnet_narrow": "resnet50", "swin_b": "swin_b"}


class Sizes(NamedTuple):
    """Clips of a training step and a validation batch, clips scored at once, validation batches."""

    clips: int
    eval_clips: int
    batches: int

    def scored(self, program: str) -> int:
        """Clips that one call of a program works on."""
        return {
            "train_step": self.clips,
            "clips": self.eval_clips,
            "one_clip": 1,
            "validation": self.clips * self.batches,
        }[program]


class Apart(NamedTuple):
    """Largest difference of scores in float32 and as timed, relative one of the first loss."""

    scores: float
    timed: float
    loss: float


class Failed(InputError):
    """Why a program has no time."""


class Side:
    """A process that answers requests (answers.py); a context manager."""

    def __init__(self, *command: str | pathlib.Path):
        self._name = pathlib.Path(command[1]).name
        # Both sides are alive: JAX must not take most of a GPU's memory for itself.
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(BrokenPipeError):  # it may have stopped by itself
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def ask(self, name: str, windows: int = 0, seconds: float = 1.0) -> Any:
        """A fact, or seconds per call of a program in so many windows of about `seconds`.

        Raises:
          Failed: it has none, or has stopped.
        """
        try:
            request = {"name": name, "windows": windows, "seconds": seconds}
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Failed(f"{self._name} stopped, its message is above")
        reply = json.loads(line)
        if "error" in reply:
            raise Failed(reply["error"])
        return reply["answer"]


def interpreter(asked: str | None) -> pathlib.Path:
    """A Python that has PyTorch.

    Raises:
      InputError: there is none.
    """
    if asked:
        if not pathlib.Path(asked).exists():
            raise InputError(f"--torch={asked}: no such file; name a Python that has PyTorch")
        return pathlib.Path(asked)
    if TORCH.exists():
        return TORCH
    if importlib.util.find_spec("torch"):
        return pathlib.Path(sys.executable)
    raise InputError(
        "no PyTorch here: bash launch/torch_env.sh installs it without CUDA, pip install torch "
        "beside JAX; or name a Python that has it with --torch"
    )


def prepare(folder: pathlib.Path, recipe: Recipe, sizes: Sizes) -> None:
    """Writes `config.json`, `facts.json` and `clips.npz`, noise with labels, for both sides."""
    (folder / "config.json").write_text(json.dumps(recipe.values()))
    facts = {
        "layout": recipe.layout_name,
        "backbone": recipe.model.backbone,
        "official": OFFICIAL[recipe.model.backbone],
        "features": recipe.model.features,
        "k": recipe.model.dynamics.k,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "precision": recipe.precision,
        "image_size": recipe.image_size,
        "threads": workers.cores(),
        **sizes._asdict(),
    }
    (folder / "facts.json").write_text(json.dumps(facts))
    rng = np.random.default_rng(0)
    count, side = max(sizes.clips, sizes.eval_clips), preprocess.resized(recipe.image_size)
    shape = (count, recipe.clip_length)
    middle = (side - recipe.image_size) // 2
    np.savez(
        folder / "clips.npz",
        frames=rng.integers(0, 256, (*shape, side, side, 3), np.uint8),
        labels=rng.integers(0, 2, (*shape, len(recipe.layout.aus))),
        augment=np.tile(np.float32([middle, middle, 0, 1, 1, 1, 0]), (count, 1)),
    )


def same_device(ours: dict, theirs: dict) -> None:
    """Refuses a GPU beside a CPU.

    Raises:
      InputError: one side has found a GPU and the other has not.
    """
    if ours["kind"] != theirs["kind"]:
        raise InputError(
            f"JAX runs on {ours['device']}, PyTorch on {theirs['device']}: install both for the "
            "same device, or hide it from both with JAX_PLATFORMS=cpu CUDA_VISIBLE_DEVICES=-1"
        )


def apart(ours: dict, theirs: dict) -> Apart:
    """How far the answers to `check` are apart.

    Raises:
      Failed: other scores, or another loss.
    """
    scores, timed = (
        float(np.abs(np.subtract(ours[name], theirs[name])).max()) for name in ("scores", "timed")
    )
    loss = abs(ours["loss"] / theirs["loss"] - 1)
    if not (scores <= SAME and timed <= ROUNDED and loss <= SAME):
        raise Failed(
            f"the two sides differ: scores by {scores:.1e} in float32 (at most {SAME:.0e}), by "
            f"{timed:.1e} as timed ({ROUNDED:.0e}), the loss by {loss:.1e} of it ({SAME:.0e}); "
            "they do not compute the same, so nothing is timed"
        )
    return Apart(scores, timed, loss)
