# SPDX-License-Identifier: Apache-2.0
"""What checks do with models of either family: weights by recipe, gradients again in float64."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mdhr_jax.interop import names
from mdhr_jax.models import views
from mdhr_jax.numerics import steps
from mdhr_jax.verify import golden
from mdhr_jax.verify.verdict import Check


def drawn(
    tree: dict, rows: list[names.NameRule], seed: int, gains: golden.Places = golden.GAINS
) -> dict:
    """A tree of shapes filled by the recipe, of which `rows` has the official names."""
    found = names.entries(tree, rows)
    official = {
        entry.name: golden.weight(entry.name, entry.shape, seed, gains=gains) for entry in found
    }
    return jax.tree.map(jnp.asarray, names.from_official(tree, found, official))


def settled(checks: list[Check], in_float64: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """Gradient checks as they are, but those that are out in float32 are judged in float64.

    A gradient jumps where the input of a ReLU crosses zero. Of the millions of inputs some lie
    within float32 noise of zero, so on another machine a correct port may differ by such a jump.

    Args:
      checks: in float32.
      in_float64: the same checks in float64, computed if any is out.
    """
    if all(check.passed for check in checks):
        yield from checks
        return
    for check, judge in zip(checks, in_float64(), strict=True):
        note = f"in float64; {check.difference:.2e} in float32"
        yield check if check.passed else dataclasses.replace(judge, note=note)


def train_graph(model: nnx.Module) -> nnx.GraphDef:
    """A model as the training vectors were made: float32, no drop-path."""
    return steps.split(views.train_view(model, dtype=jnp.float32, drop_path=False))[0]


def float64_gradients(
    model: nnx.Module, objective: Any, params: dict, batch_stats: dict, batch: tuple
) -> dict:
    """The training gradients of the same model in float64; blocks recomputed to save memory.

    Args:
      model: shapes suffice.
      objective: as of `steps.loss_and_gradients`.
      params, batch_stats: its values.
      batch: frames, labels and mask.
    """
    view = views.train_view(model, dtype=jnp.float64, drop_path=False, remat=True)
    graph, *_ = steps.split(view)
    frames, *labels_and_mask = batch

    def gradients(*arguments: Any) -> dict:
        return steps.loss_and_gradients(graph, objective, *arguments)[1]

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), (params, batch_stats, frames))
        return jax.tree.map(np.asarray, jax.jit(gradients)(*wide, *labels_and_mask))
