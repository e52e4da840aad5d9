# SPDX-License-Identifier: Apache-2.0
"""AdamW and the cosine schedule of the release."""

import jax
import jax.numpy as jnp
import optax


def cosine(learning_rate: float, *, total_steps: int, warmup_steps: int = 0) -> optax.Schedule:
    """Linear warm-up from 0, then half a cosine to 0 at `total_steps` (release).

    The step counts from 0 and the rate is that of the update about to be made.
    """

    def schedule(step: int | jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.result_type(float))  # float64 where that is switched on
        warm = learning_rate * step / max(warmup_steps, 1)
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
