# SPDX-License-Identifier: Apache-2.0
"""Saving and restoring a run's state; the only module that knows Orbax.

A run keeps two kinds of checkpoint: `last`, from which it resumes, and `best`, the highest mean
F1 on the test fold so far (the release reports that one). A save is complete or absent: a killed
process leaves the previous one.
"""

import pathlib

import jax
from orbax.checkpoint import v1 as ocp

from mdhr_jax.errors import InputError


def _checkpointer(directory: pathlib.Path) -> ocp.training.Checkpointer:
    return ocp.training.Checkpointer(
        directory.absolute(),
        save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
        preservation_policy=ocp.training.preservation_policies.LatestN(1),
        cleanup_tmp_directories=True,
    )


def _parts(state: dict) -> dict[str, dict]:
    """What is stored separately, so that prediction does not read the optimizer's state."""
    model = {name: state[name] for name in ("step", "params", "batch_stats")}
    return {"model": model} | (
        {"optimizer": {"opt_state": state["opt_state"]}} if "opt_state" in state else {}
    )


def save(directory: pathlib.Path, kind: str, step: int, state: dict) -> None:
    """Saves `state` as the run's checkpoint of that kind, then drops the older one."""
    with _checkpointer(directory / kind) as checkpointer:
        checkpointer.save_checkpointables(step, _parts(state), overwrite=True)


def latest_step(directory: pathlib.Path, kind: str) -> int | None:
    """Step of the newest complete checkpoint, None when there is none."""
    if not (directory / kind).is_dir():
        return None
    with _checkpointer(directory / kind) as checkpointer:
        return None if checkpointer.latest is None else checkpointer.latest.step


def restore(directory: pathlib.Path, kind: str, abstract_state: dict) -> dict:
    """The newest checkpoint of a kind, laid out as `abstract_state` says (shapes, shardings).

    Without `opt_state` in `abstract_state` only the model is read.

    Raises:
      InputError: there is none, or it does not fit.
    """
    step = latest_step(directory, kind)
    if step is None:
        raise InputError(f"{directory}: holds no {kind!r} checkpoint; train first")
    wanted = _parts(abstract_state)
    with _checkpointer(directory / kind) as checkpointer:
        stored = checkpointer.checkpointables_metadata(step).metadata
        if not wanted.keys() <= stored.keys():
            raise InputError(
                f"{directory / kind / str(step)}: holds a converted model, which has no state to "
                "train on from; start a run of its own with config.model.init_from"
            )
        differing = _shapes(wanted["model"]) ^ _shapes(stored["model"])
        if differing:
            name, shape = min(differing)
            raise InputError(
                f"{directory / kind / str(step)}: another model's checkpoint, {len(differing)} "
                f"arrays differ, such as {name} {shape}; use the configuration it was made with"
            )
        parts = checkpointer.load_checkpointables(step, wanted)
    return {name: value for part in parts.values() for name, value in part.items()}


def _shapes(model: dict) -> set[tuple[str, tuple[int, ...]]]:
    leaves = jax.tree_util.tree_leaves_with_path(model)
    return {
        (jax.tree_util.keystr(path, simple=True, separator="."), tuple(leaf.shape))
        for path, leaf in leaves
    }


def abstract(state: dict, shardings: dict) -> dict:
    """Shapes, types and shardings of a state, as `restore` takes them."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        shardings,
    )
