# SPDX-License-Identifier: Apache-2.0
"""The training loss (paper Eq. 10-12): weighted asymmetric loss plus region cross-entropy.

The edges of GraphAU have a cross-entropy of their own in the latter's place.
The release takes means where the paper sums (`REDUCTIONS`). A mask says which labels count;
unknown labels and padded frames never reach either.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from mdhr_jax import facs

LOG_FLOOR = 1e-8


def clamped_log(p: Float[Array, "..."]) -> Float[Array, "..."]:
    """`log(max(p, 1e-8))` with PyTorch's gradient: full where p >= 1e-8, zero below."""
    return jnp.log(jnp.where(p >= LOG_FLOOR, p, LOG_FLOOR))


def masked_mean(x: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, ""]:
    """Mean of the entries under the mask, 0 when there are none."""
    return jnp.where(mask, x, 0).sum() / jnp.maximum(mask.sum(), 1)


def clip_sum(x: Float[Array, "b ..."], mask: Bool[Array, "b ..."]) -> Float[Array, ""]:
    """Sum of the entries of a clip under the mask, mean over clips."""
    return jnp.where(mask, x, 0).sum() / x.shape[0]


class Reduction(NamedTuple):
    """How a loss per AU and frame, or per frame and region, becomes one number."""

    entries: Callable[[Array, Array], Array]  # values and mask to one number
    regions: Callable[[Array], Array]  # of one number per region


REDUCTIONS = {
    "mean": Reduction(masked_mean, jnp.mean),  # release
    "sum": Reduction(clip_sum, jnp.sum),  # paper Eq. 10-12: over AUs, frames and regions of a clip
}


def weighted_asymmetric(
    scores: Float[Array, "... n"],
    labels: Num[Array, "... n"],
    mask: Bool[Array, "... n"],
    class_weights: Float[Array, " n"],
    reduction: Reduction = REDUCTIONS["mean"],
) -> Float[Array, ""]:
    """`-mean w_n [y log p + p (1-y) log(1-p)]`, the factor p without gradient (paper Eq. 11).

    Args:
      scores: in [0, 1].
      labels: 1 or 0; other values enter the formula as they are.
      mask: True where the label counts.
      class_weights: `facs.class_weights` of the training fold.
      reduction: a value of `REDUCTIONS`.
    """
    rest = 1 - scores
    # The release computes the factor as 1 - (1 - p), which float32 rounds to 0 for tiny p.
    factor = jax.lax.stop_gradient(1 - rest)
    terms = labels * clamped_log(scores) + factor * (1 - labels) * clamped_log(rest)
    return -reduction.entries(class_weights * terms, mask)


def region_cross_entropy(
    region_logits: tuple[Float[Array, "... _"], ...],
    labels: Num[Array, "... n"],
    mask: Bool[Array, "... n"],
    layout: facs.AuLayout,
    reduction: Reduction = REDUCTIONS["mean"],
) -> Float[Array, ""]:
    """Cross-entropy of the regions' AU combinations, mean over frames, then over regions.

    A frame counts in a region when all AUs of the region are known. 0 without heads.
    """
    if not region_logits:
        return jnp.zeros(())
    combinations = (labels > 0).astype(jnp.int32) @ layout.bit_weights
    unknown = (~mask).astype(jnp.int32) @ layout.bit_weights
    losses = []
    for r, logits in enumerate(region_logits):
        chosen = _log_probability(logits, combinations[..., r])
        losses.append(-reduction.entries(chosen, unknown[..., r] == 0))
    return reduction.regions(jnp.stack(losses))


def edge_cross_entropy(
    edge_logits: Float[Array, "... e 4"] | tuple[()],
    labels: Num[Array, "... _"],
    mask: Bool[Array, "... _"],
    reduction: Reduction = REDUCTIONS["mean"],
) -> Float[Array, ""]:
    """Cross-entropy of which AUs of each pair are active, mean over frames and edges.

    Edge i*n + j has the class 2 y_i + y_j (release: ME-GraphAU). It counts when both AUs are known.
    0 without edge logits.

    Args:
      edge_logits: of the n*n edges between the first n AUs, those without a side.
      labels: 1 or 0; of all AUs.
      mask: True where the label counts.
      reduction: a value of `REDUCTIONS`.
    """
    if isinstance(edge_logits, tuple):
        return jnp.zeros(())
    n = math.isqrt(edge_logits.shape[-2])
    active, known = (labels[..., :n] > 0).astype(jnp.int32), mask[..., :n]
    classes = 2 * active[..., :, None] + active[..., None, :]
    both = known[..., :, None] & known[..., None, :]
    flat = (*labels.shape[:-1], n * n)
    chosen = _log_probability(edge_logits, classes.reshape(flat))
    return -reduction.entries(chosen, both.reshape(flat))


def _log_probability(
    logits: Float[Array, "... classes"], chosen: Int[Array, "..."]
) -> Float[Array, "..."]:
    """Of the chosen class, in float32 at least."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.promote_types(jnp.float32, logits.dtype)))
    # No indexing: its gradient would be a scatter, which is slow where it is deterministic.
    is_chosen = chosen[..., None] == jnp.arange(logits.shape[-1])
    return jnp.where(is_chosen, log_p, 0).sum(-1)


class Auxiliary(NamedTuple):
    """A second loss, beside that of the AUs.

    Attributes:
      name: of its scalar.
      loss: from a model's outputs, labels, mask, layout and reduction to a number.
    """

    name: str
    loss: Callable[[dict, Array, Array, facs.AuLayout, Reduction], Float[Array, ""]]


REGIONS = Auxiliary(
    "region_loss",
    lambda outputs, *labels: region_cross_entropy(outputs["region_logits"], *labels),
)
EDGES = Auxiliary(
    "edge_loss",
    lambda outputs, labels, mask, layout, reduction: edge_cross_entropy(
        outputs["edge_logits"], labels, mask, reduction
    ),
)
NOTHING = Auxiliary("auxiliary_loss", lambda outputs, *labels: jnp.zeros(()))
