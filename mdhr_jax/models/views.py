# SPDX-License-Identifier: Apache-2.0
"""How a model runs: in training, in testing, and in scoring many clips."""

from flax import nnx
from jax.typing import DTypeLike

from mdhr_jax.models import layers


def train_view[Model: nnx.Module](
    model: Model,
    *,
    dtype: DTypeLike,
    groups: int = 1,
    drop_path: bool = True,
    remat: bool = False,
) -> Model:
    """The model as it runs in training: batch statistics in `groups` parts, drop-path.

    With `remat` backbone blocks are computed again in the backward pass, to save memory.
    """
    return nnx.view(
        model,
        raise_if_not_found=False,
        dtype=dtype,
        groups=groups,
        use_running_average=False,
        deterministic=not drop_path,
        remat=remat,
    )


def eval_view[Model: nnx.Module](model: Model, *, dtype: DTypeLike) -> Model:
    """The model as it runs in testing: running statistics, no drop-path."""
    return nnx.view(
        model,
        raise_if_not_found=False,
        dtype=dtype,
        use_running_average=True,
        deterministic=True,
    )


def folded_view[Model: nnx.Module](model: Model, *, dtype: DTypeLike) -> Model:
    """`eval_view` with all computed that depends on no frame, for scoring many clips.

    Batch normalisation is part of the layer before it, and layers hold their parameters in `dtype`.
    Scores are those of `eval_view` up to rounding. A class's own `fold` says which layers its norms
    follow; without one, a module stays as it is, and so does a subclass, as it may compute
    otherwise.
    """
    view = eval_view(model, dtype=dtype)
    modules = [module for _, module in nnx.iter_modules(view)]
    for module in modules:
        if fold := vars(type(module)).get("fold"):
            fold(module)
    for module in modules:
        if isinstance(module, layers.Affine):
            module.narrow()
    return view
