# SPDX-License-Identifier: Apache-2.0
"""What runs on the devices: initial state, one training step, one evaluation step.

State is one plain dict of arrays `{"step", "params", "batch_stats", "opt_state"}`. The model
enters as graph definitions, made once; `jax.jit` and shardings are the caller's.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Num

from mdhr_jax import facs, losses, preprocess

State = dict
Batch = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """What training minimises: weighted asymmetric loss + `region_weight` * cross-entropy."""

    layout: facs.AuLayout
    class_weights: tuple[float, ...]
    region_weight: float
    reduction: losses.Reduction = losses.REDUCTIONS["mean"]

    def __call__(
        self,
        outputs: dict,
        labels: Num[Array, "b t n"],
        mask: Bool[Array, "b t n"],
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Total loss and its parts `au_loss` and `region_loss`."""
        weights = jnp.array(self.class_weights)
        au_loss = losses.weighted_asymmetric(
            outputs["scores"], labels, mask, weights, self.reduction
        )
        region_loss = losses.region_cross_entropy(
            outputs["region_logits"], labels, mask, self.layout, self.reduction
        )
        total = au_loss + self.region_weight * region_loss
        return total, {"au_loss": au_loss, "region_loss": region_loss}


def split(model: nnx.Module) -> tuple[nnx.GraphDef, dict, dict]:
    """Graph definition, parameters and batch statistics, the latter two as plain dicts."""
    graph, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(batch_stats)


def run(
    graph: nnx.GraphDef,
    params: dict,
    batch_stats: dict,
    images: Float[Array, "b t h w 3"],
    key: jax.Array | None = None,
) -> tuple[dict, dict]:
    """The model's outputs and the batch statistics after the call."""
    model = nnx.merge(graph, params, batch_stats)
    outputs = model(images, key)
    return outputs, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))


def loss_and_gradients(
    graph: nnx.GraphDef,
    objective: Objective,
    params: dict,
    batch_stats: dict,
    images: Float[Array, "b t h w 3"],
    labels: Num[Array, "b t n"],
    mask: Bool[Array, "b t n"],
    key: jax.Array | None = None,
) -> tuple[dict[str, Array], dict, dict, dict]:
    """One forward and backward pass in training mode.

    Returns:
      losses (`loss`, `au_loss`, `region_loss`), gradients, new batch statistics, outputs.
    """

    def loss_fn(params: dict):
        outputs, stats = run(graph, params, batch_stats, images, key)
        total, parts = objective(outputs, labels, mask)
        return total, (parts, stats, outputs)

    (total, (parts, stats, outputs)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
    return {"loss": total, **parts}, gradients, stats, outputs


def init_state(
    create: Callable[[nnx.Rngs], nnx.Module], optimizer: optax.GradientTransformation, seed: int
) -> State:
    """The state before step 0."""
    _, params, batch_stats = split(create(nnx.Rngs(params=seed)))
    return {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "batch_stats": batch_stats,
        "opt_state": optimizer.init(params),
    }


def make_train_step(
    graph: nnx.GraphDef,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    image_size: int,
    seed: int,
) -> Callable[[State, Batch], tuple[State, dict[str, Array]]]:
    """Builds `(state, batch) -> (state, scalars)`.

    A batch holds `frames` (see `frames`), `labels` and `mask` (b, t, n), and `augment` (b, 6), the
    draw of each clip. Drop-path is a function of (seed, step). Where the loss or the gradient is
    not finite, nothing changes but the counts of steps.
    """

    def train_step(state: State, batch: Batch) -> tuple[State, dict[str, Array]]:
        images = preprocess.train(frames(batch), batch["augment"], image_size=image_size)
        key = jax.random.fold_in(jax.random.key(seed), state["step"])
        scalars, gradients, stats, _ = loss_and_gradients(
            graph,
            objective,
            state["params"],
            state["batch_stats"],
            images,
            batch["labels"],
            batch["mask"],
            key,
        )
        updates, opt_state = optimizer.update(gradients, state["opt_state"], state["params"])
        learned = {
            "params": optax.apply_updates(state["params"], updates),
            "batch_stats": stats,
            "opt_state": opt_state,
        }
        scalars |= {
            "gradient_norm": optax.tree.norm(gradients),
            "learning_rate": schedule(state["step"]),
        }
        finite = jnp.isfinite(scalars["loss"]) & jnp.isfinite(scalars["gradient_norm"])
        old = {part: state[part] for part in learned}
        kept = jax.tree.map(functools.partial(_kept, finite), learned, old)
        return {"step": state["step"] + 1, **kept}, scalars

    return train_step


def _kept(finite: Bool[Array, ""], new: Array, old: Array) -> Array:
    """The new values if all is finite; steps are counted in any case."""
    return jnp.where(finite, new, old) if jnp.issubdtype(new.dtype, jnp.inexact) else new


def frames(batch: Batch) -> Num[Array, "b s h w 3"]:
    """Those of a batch: `frames` itself, or where there are `pictures`, the rows of these."""
    if "pictures" in batch:
        return batch["pictures"][batch["frames"]]
    return batch["frames"]


def make_eval_step(
    graph: nnx.GraphDef, *, transform: Callable[[Array], Array]
) -> Callable[[dict, dict, Batch], Float[Array, "b t n"]]:
    """Builds `(params, batch_stats, batch) -> scores`.

    Args:
      graph: the model in testing.
      transform: from uint8 frames `(b, s, h, h, 3)` to network input, see `preprocess.EVALUATION`.
    """

    def eval_step(params: dict, batch_stats: dict, batch: Batch) -> Float[Array, "b t n"]:
        outputs, _ = run(graph, params, batch_stats, transform(frames(batch)))
        return outputs["scores"]

    return eval_step
