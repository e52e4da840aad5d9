# SPDX-License-Identifier: Apache-2.0
"""What runs on the devices: initial state, one training step, one evaluation step.

State is one plain dict of arrays `{"step", "params", "batch_stats", "opt_state"}`. Where parameters
are averaged over the steps, `params` is their average, which is evaluated, and a fifth part,
`trained`, is what the steps change. The model enters as graph definitions, made once; `jax.jit` and
shardings are the caller's.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Num

from mdhr_jax import facs
from mdhr_jax.numerics import losses

State = dict
Batch = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """What training minimises: weighted asymmetric loss + `auxiliary_weight` * auxiliary loss."""

    layout: facs.AuLayout
    class_weights: Sequence[float] | Float[Array, " n"]
    auxiliary_weight: float
    reduction: losses.Reduction = losses.REDUCTIONS["mean"]
    auxiliary: losses.Auxiliary = losses.REGIONS

    def __call__(
        self,
        outputs: dict,
        labels: Num[Array, "b t n"],
        mask: Bool[Array, "b t n"],
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Total loss and its parts, `au_loss` and the auxiliary one by its name."""
        weights = jnp.array(self.class_weights)
        au_loss = losses.weighted_asymmetric(
            outputs["scores"], labels, mask, weights, self.reduction
        )
        other = self.auxiliary.loss(outputs, labels, mask, self.layout, self.reduction)
        total = au_loss + self.auxiliary_weight * other
        return total, {"au_loss": au_loss, self.auxiliary.name: other}


def split(model: nnx.Module) -> tuple[nnx.GraphDef, dict, dict]:
    """Graph definition, parameters and batch statistics, the latter two as plain dicts."""
    graph, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, batch_stats = map(nnx.to_pure_dict, states)
    return graph, params, batch_stats


def forward(
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
      losses (`loss` and those of `Objective`), gradients, new batch statistics, outputs.
    """

    def loss_fn(params: dict):
        outputs, stats = forward(graph, params, batch_stats, images, key)
        total, parts = objective(outputs, labels, mask)
        return total, (parts, stats, outputs)

    (total, (parts, stats, outputs)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
    return {"loss": total, **parts}, gradients, stats, outputs


def init_state(
    create: Callable[[nnx.Rngs], nnx.Module],
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    *,
    averages: bool = False,
) -> State:
    """The state before step 0, of training that averages its parameters or does not."""
    _, params, batch_stats = split(create(nnx.Rngs(params=key)))
    return new_state(params, batch_stats, optimizer, averages=averages)


def new_state(
    params: dict,
    batch_stats: dict,
    optimizer: optax.GradientTransformation,
    *,
    averages: bool = False,
) -> State:
    """The state before step 0 of a model with these values."""
    state = {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "batch_stats": batch_stats,
        "opt_state": optimizer.init(params),
    }
    return state | ({"trained": params} if averages else {})


def make_train_step(
    graph: nnx.GraphDef,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    transform: Callable[[Array, Array], Array],
    key: jax.Array,
    accumulate: int = 1,
    ema: float = 0.0,
    gather: Callable[[dict], dict] = lambda params: params,
) -> Callable[[State, Batch], tuple[State, dict[str, Array]]]:
    """Builds `(state, batch) -> (state, scalars)`.

    A batch holds `frames` (see `frames`), `labels` and `mask` (b, t, n), and `augment` (b, 7), the
    draw of each clip. Drop-path is a function of (key, step). Where the loss or the gradient is
    not finite, nothing changes but the counts of steps.

    `transform` makes network input of frames and draws (`preprocess.TRAINING`).
    With `accumulate` > 1 that many micro-batches are gone through, see `accumulated`. With `ema`
    > 0 the state's `params` are an average (`averaged`) of its `trained`; the batch statistics are
    those of `trained`, averages over the last ten steps or so in any case. `gather` brings
    parameters that are split over devices together (`sharding.gathered`), before any is used.
    """

    def learn(params: dict, stats: dict, batch: Batch, key: jax.Array) -> tuple[dict, dict, dict]:
        with jax.named_scope("preprocess"):
            images = transform(frames(batch), batch["augment"])
        return loss_and_gradients(
            graph, objective, params, stats, images, batch["labels"], batch["mask"], key
        )[:3]

    learn = learn if accumulate == 1 else accumulated(learn, accumulate)

    def train_step(state: State, batch: Batch) -> tuple[State, dict[str, Array]]:
        step_key = jax.random.fold_in(key, state["step"])
        params = state["trained"] if ema else state["params"]
        scalars, gradients, stats = learn(gather(params), state["batch_stats"], batch, step_key)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(gradients, state["opt_state"], params)
            params = optax.apply_updates(params, updates)
        learned = {"params": params, "batch_stats": stats, "opt_state": opt_state}
        if ema:
            average = averaged(state["params"], params, ema, state["step"])
            learned |= {"params": average, "trained": params}
        scalars |= {
            "gradient_norm": optax.tree.norm(gradients),
            "learning_rate": schedule(state["step"]),
        }
        finite = jnp.isfinite(scalars["loss"]) & jnp.isfinite(scalars["gradient_norm"])
        old = {part: state[part] for part in learned}
        kept = jax.tree.map(functools.partial(_kept, finite), learned, old)
        return {"step": state["step"] + 1, **kept}, scalars

    return train_step


def averaged(average: dict, params: dict, decay: float, step: Int[Array, ""]) -> dict:
    """Mean of the parameters after the steps so far, `step` earlier ones and `params`.

    Each weighs `decay` times what the one after it weighs, and the weights sum to 1 from the first
    step on, if that one was finite: the initial values do not count then (as `optax.ema` with
    `debias`).
    """
    newest = (1 - decay) / -jnp.expm1((step + 1) * math.log(decay))
    return optax.incremental_update(params, average, newest)


def accumulated(learn: Callable, parts: int) -> Callable:
    """`(params, batch_stats, batch, key) -> (losses, gradients, batch_stats)` in micro-batches.

    Losses and gradients are the means of the micro-batches'. They are those of the whole batch if
    every micro-batch has as many known labels and batch normalisation has `parts` groups, the
    micro-batches. Running statistics follow one micro-batch after another. Micro-batch i holds
    clips i, i + parts, ... of what it is given: as many of every device's, so that none is sent to
    another. `pipeline.train_batches` deals them so that they are the parts of its batch in order.

    Args:
      learn: the same for a whole batch.
      parts: number of micro-batches, a divisor of the batch.
    """

    def learn_in_parts(
        params: dict, stats: dict, batch: Batch, key: jax.Array
    ) -> tuple[dict, dict, dict]:
        pictures = {name: x for name, x in batch.items() if name == "pictures"}
        micro_batches = {
            name: rearrange(x, "(b a) ... -> a b ...", a=parts)
            for name, x in batch.items()
            if name not in pictures
        }

        def add(sums: tuple[dict, dict], part: tuple[Array, Batch]) -> tuple[tuple, dict]:
            (gradients, stats), (number, micro_batch) = sums, part
            part_key = jax.random.fold_in(key, number)
            losses, found, stats = learn(params, stats, micro_batch | pictures, part_key)
            return (jax.tree.map(jnp.add, gradients, found), stats), losses

        start = jax.tree.map(jnp.zeros_like, params), stats
        (gradients, stats), losses = jax.lax.scan(add, start, (jnp.arange(parts), micro_batches))
        mean_losses = jax.tree.map(jnp.mean, losses)
        return mean_losses, jax.tree.map(lambda x: x / parts, gradients), stats

    return learn_in_parts


def _kept(finite: Bool[Array, ""], new: Array, old: Array) -> Array:
    """The new values if all is finite; steps are counted in any case."""
    return jnp.where(finite, new, old) if jnp.issubdtype(new.dtype, jnp.inexact) else new


def frames(batch: Batch) -> Num[Array, "b s h w 3"]:
    """The frames of a batch: `frames` itself, or where there are `pictures`, the rows of these."""
    if "pictures" in batch:
        return batch["pictures"][batch["frames"]]
    return batch["frames"]


EvalStep = Callable[[dict, dict, Batch], Float[Array, "b t n"]]


class Scoring(NamedTuple):
    """How a trained model scores clips.

    Attributes:
      prepare: from parameters and batch statistics to what `step` takes of both, once for many
        batches (`views.folded_view`).
      step: from these and a batch to scores, jitted.
    """

    prepare: Callable[[dict, dict], tuple[dict, dict]]
    step: jax.stages.Wrapped


def make_eval_step(graph: nnx.GraphDef, *, transform: Callable[[Array], Array]) -> EvalStep:
    """Builds `(params, batch_stats, batch) -> scores`.

    Args:
      graph: the model in testing.
      transform: from uint8 frames `(b, s, h, h, 3)` to network input, see `preprocess.EVALUATION`.
    """

    def eval_step(params: dict, batch_stats: dict, batch: Batch) -> Float[Array, "b t n"]:
        with jax.named_scope("preprocess"):
            images = transform(frames(batch))
        outputs, _ = forward(graph, params, batch_stats, images)
        return outputs["scores"]

    return eval_step
