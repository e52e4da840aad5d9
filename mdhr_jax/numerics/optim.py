# SPDX-License-Identifier: Apache-2.0
"""The cosine schedule and AdamW of the release, and what large batches are trained with."""

import math

import jax
import jax.numpy as jnp
import optax

# Factor of the learning rate for a batch so many times larger.
SCALINGS = {"none": lambda times: 1.0, "linear": lambda times: times, "sqrt": math.sqrt}


def cosine(
    learning_rate: float | jax.Array,
    *,
    total_steps: int | jax.Array,
    warmup_steps: int | jax.Array = 0,
) -> optax.Schedule:
    """Linear warm-up from 0, then half a cosine to 0 at `total_steps` (release).

    The step counts from 0 and the rate is that of the update about to be made.
    """

    def schedule(step: int | jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.result_type(float))  # float64 where that is switched on
        warm = learning_rate * step / jnp.maximum(warmup_steps, 1)
        # (1 + cos x) / 2 as a square: exact near the end, where the sum would cancel.
        remaining = (total_steps - step) / (total_steps - warmup_steps)
        decayed = learning_rate * jnp.square(jnp.sin(jnp.pi / 2 * remaining))
        return jnp.where(step < warmup_steps, warm, decayed)

    return schedule


def adamw(
    schedule: optax.Schedule | float,
    *,
    betas: tuple[float, float],
    epsilon: float,
    weight_decay: float,
) -> optax.GradientTransformation:
    """AdamW with decoupled decay on every parameter, norms and biases included (release)."""
    b1, b2 = betas
    return optax.adamw(schedule, b1=b1, b2=b2, eps=epsilon, weight_decay=weight_decay)


def lamb(
    schedule: optax.Schedule | float,
    *,
    betas: tuple[float, float],
    epsilon: float,
    weight_decay: float,
) -> optax.GradientTransformation:
    """LAMB (You et al. 2020): AdamW whose update of an array is as long as the array.

    Norms and biases are neither decayed nor so scaled, as in the authors' code.
    """
    b1, b2 = betas
    return optax.chain(
        optax.scale_by_adam(b1=b1, b2=b2, eps=epsilon),
        optax.masked(
            optax.chain(optax.add_decayed_weights(weight_decay), optax.scale_by_trust_ratio()),
            _is_weight,
        ),
        optax.scale_by_learning_rate(schedule),
    )


def lars(
    schedule: optax.Schedule | float,
    *,
    betas: tuple[float, float],
    epsilon: float,
    weight_decay: float,
) -> optax.GradientTransformation:
    """LARS (You et al. 2017): momentum, a weight's gradient scaled to 0.001 of the weight's length.

    Norms and biases are neither decayed nor so scaled. The first beta is the momentum.
    """
    del epsilon  # nothing is divided by
    return optax.lars(
        schedule,
        weight_decay=weight_decay,
        weight_decay_mask=_is_weight,
        trust_ratio_mask=_is_weight,
        momentum=betas[0],
    )


def _is_weight(params: optax.Params) -> optax.Params:
    """For every array whether it is neither a norm's scale nor a bias."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key not in ("scale", "bias"), params
    )


OPTIMIZERS = {"adamw": adamw, "lamb": lamb, "lars": lars}
