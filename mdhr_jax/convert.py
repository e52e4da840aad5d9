# SPDX-License-Identifier: Apache-2.0
"""`mdhr convert`: a trained model from one form to another, run or weight file."""

import pathlib

from configs import base
from mdhr_jax import checkpoint, runs
from mdhr_jax.errors import InputError
from mdhr_jax.interop import files, names, official

# Keys of the model whose values the entries of an official file imply.
SLOTS = (
    "dynamics.kind",
    "dynamics.scales",
    "features",
    "afe",
    "auxiliary",
    "edges",
    "temporal",
)


def convert(
    source: pathlib.Path, target: pathlib.Path, *, kind: str, clip_length: int, k: int
) -> None:
    """Reads a model from `source` and writes it to `target`; either is a run or a weight file.

    Args:
      source: a run, or an official file (`.pth`, `.pt`, `.safetensors`).
      target: a directory for a new run, or a file of such a suffix.
      kind: which checkpoint of a run, `last` or `best`.
      clip_length: T, frames, for a model from a file: files do not say it.
      k: half the temporal window, frames, likewise.

    Raises:
      InputError: nothing readable in `source`, a model that has no official form, or a run that is
        there already.
    """
    config = runs.load_config(source)
    if files.is_weight_file(source):
        config.clip_length, config.model.dynamics.k = clip_length, k
    state = runs.restore_model(source, config, kind)
    if files.is_weight_file(target):
        files.write(target, _official(state, source, config))
        return
    if runs.config_file(target).exists():
        raise InputError(f"{target}: holds a run already; name another directory")
    runs.claim(target, config)
    checkpoint.save(runs.checkpoints(target), "last", int(state["step"]), state)


def _official(state: dict, source: pathlib.Path, config: runs.ConfigDict) -> dict:
    own, released = (runs.flatten(c.model.to_dict()) for c in (config, base.get_config()))
    other = [f"model.{key}={own[key]}" for key in SLOTS if own[key] != released[key]]
    if own["backbone"] not in names.BACKBONE_ROWS:
        other.insert(0, f"model.backbone={own['backbone']}")
    if other:
        raise InputError(
            f"{source}: not a model of the release, which has no {', '.join(other)}; only the "
            "release's have an official form"
        )
    return official.export(state, runs.layout_of(config), own["backbone"])
