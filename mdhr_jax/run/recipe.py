# SPDX-License-Identifier: Apache-2.0
"""A configuration, resolved once: a `ConfigDict` comes in, and what is behind takes a `Recipe`.

A value has the name of its key in `configs/base.py`. What it stands for is looked up when that is
asked for, so that values are refused in the order of their use.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from mdhr_jax import facs
from mdhr_jax.data import records
from mdhr_jax.errors import InputError, choose
from mdhr_jax.models import views
from mdhr_jax.numerics import losses, preprocess
from mdhr_jax.run import config_check, kinds
from mdhr_jax.run.protocol import PROTOCOLS, Protocol

PRECISIONS = {name: jnp.dtype(name) for name in ("float32", "bfloat16")}
# Compiler options: GPUs take no kernel that adds in the order in which its threads finish, nor one
# that was the fastest in a trial. Triton's products have no other choice but such a trial.
DETERMINISTIC = {"xla_gpu_deterministic_ops": True, "xla_gpu_enable_triton_gemm": False}


def chosen[Kind](key: str, table: Mapping[str, Kind], name: str) -> Kind:
    """What a key of the configuration names in a table.

    Raises:
      InputError: the table has no such name; its names are listed.
    """
    try:
        return choose(f"config.{key}", table, name)
    except ValueError as error:
        raise InputError(str(error)) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained or tested, and how.

    Attributes:
      data: directory of a prepared data set.
      input: how frames are read, a key of `inputs.INPUTS`.
      layout_name: AUs and regions, a name for `facs.layout`.
      fold: cross-validation fold to test on, from 1; the others train.
      clip_length: T, frames per clip.
      hold: so many missing frames in a row do not end a clip.
      image_size: of the network's input, pixels.
      batch_size: clips per training step, over all devices.
      augmentation: strength of random crops and colours, from 0 to 1; 0: flips only.
      jitter_order: in which colours change, a key of `preprocess.TRAINING`.
      clips_per_video: random clips of a video in an epoch; 0: every frame once.
      eval_batch_size: clips per evaluation step, over all devices.
      kind_name: of the model, a key of `kinds.KINDS`.
      model: what fills its slots, of the type `kind.slots`.
      precision: of the arithmetic, a key of `PRECISIONS`.
      deterministic: whether GPUs sum in one order only.
      batch_norm_groups: parts of a (micro-)batch with statistics of their own.
      accumulate: micro-batches of a step.
      remat: what the backward pass computes again, a key of `programs.REMAT`.
      fsdp: devices over which the state is split.
      seed: of initialisation, order, augmentation and drop-path.
      epochs: length of the run, of `clips_per_video` clips from every video; 0: see `steps`.
      steps: length of the run in training steps, instead of epochs.
      optimizer: a key of `optim.OPTIMIZERS`.
      learning_rate: after warm-up, for `learning_rate_batch` clips per step.
      learning_rate_scaling: with the batch size, a key of `optim.SCALINGS`.
      learning_rate_batch: clips per step for which `learning_rate` is meant.
      warmup_epochs: length of the linear warm-up.
      warmup_steps: the same in training steps, instead of epochs.
      betas: decay a step of the averages of gradients (LARS: momentum) and of their squares.
      epsilon: added to the root of the averaged squares.
      weight_decay: per step and unit of learning rate.
      ema: decay a step of the parameters' average; 0: none.
      auxiliary_loss_weight: lambda of the second loss, `kind.auxiliary`.
      loss_reduction: over AUs, frames and regions, a key of `losses.REDUCTIONS`.
      protocol_name: what is chosen where, a key of `protocol.PROTOCOLS`, or a weight file's.
      held_out: share of the training subjects who choose, from 0 to 1.
      tune_thresholds: whether a threshold per AU is chosen there, too.
      evaluation_crop: how test pictures are cut, a key of `preprocess.EVALUATION`.
      allow_seen_subjects: whether people are tested whom `model.init_from` has seen.
      threshold: score from which an AU counts as active.
      eval_every: training steps between evaluations.
      checkpoint_every: training steps between checkpoints.
    """

    data: str
    input: str
    layout_name: str
    fold: int
    clip_length: int
    hold: int
    image_size: int
    batch_size: int
    augmentation: float
    jitter_order: str
    clips_per_video: int
    eval_batch_size: int

    kind_name: str
    model: Any

    precision: str
    deterministic: bool
    batch_norm_groups: int
    accumulate: int
    remat: str
    fsdp: int

    seed: int
    epochs: float
    steps: int
    optimizer: str
    learning_rate: float
    learning_rate_scaling: str
    learning_rate_batch: int
    warmup_epochs: float
    warmup_steps: int
    betas: tuple[float, float]
    epsilon: float
    weight_decay: float
    ema: float
    auxiliary_loss_weight: float
    loss_reduction: str

    protocol_name: str
    held_out: float
    tune_thresholds: bool
    evaluation_crop: str
    allow_seen_subjects: bool
    threshold: float
    eval_every: int
    checkpoint_every: int

    @classmethod
    def of(cls, config: ConfigDict) -> "Recipe":
        """The recipe of a configuration.

        Raises:
          InputError: as `config_check.check`.
        """
        return cls.of_values(config.to_dict())

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> "Recipe":
        """The recipe of a configuration's values, nested as `values` gives them.

        Raises:
          InputError: as `config_check.check`.
        """
        config_check.check(values)
        own = dict(values)
        first, second = own.pop("betas")
        model = dict(own.pop("model"))
        kind_name = model.pop("kind")
        return cls(
            layout_name=own.pop("layout"),
            protocol_name=own.pop("protocol"),
            betas=(float(first), float(second)),
            kind_name=kind_name,
            model=kinds.filled(kinds.KINDS[kind_name].slots, model),
            **own,
        )

    def values(self) -> dict[str, Any]:
        """Key and value, nested as in `configs/base.py`."""
        values = dataclasses.asdict(self)
        values["layout"] = values.pop("layout_name")
        values["protocol"] = values.pop("protocol_name")
        values["model"]["kind"] = values.pop("kind_name")
        return values

    def flat(self) -> dict[str, Any]:
        """Dotted key and value, in the order of the keys."""
        return dict(sorted(config_check.flatten(self.values()).items()))

    @functools.cached_property
    def layout(self) -> facs.AuLayout:
        """AUs and regions.

        Raises:
          InputError: there is no layout of that name; the choices are named.
        """
        try:
            return facs.layout(self.layout_name)
        except ValueError as error:
            raise InputError(f"config.layout: {error}") from error

    @functools.cached_property
    def protocol(self) -> Protocol:
        """What is chosen where.

        Raises:
          InputError: there is no protocol of that name, or its keys clash.
        """
        protocol = chosen("protocol", PROTOCOLS, self.protocol_name)
        if self.tune_thresholds and protocol.split != "held-out":
            raise InputError(
                f"config.tune_thresholds: protocol {protocol.name!r} has no frames to choose "
                "thresholds on; use config.protocol=held-out"
            )
        return protocol

    @property
    def reduction(self) -> losses.Reduction:
        """How the loss is summed up; InputError when there is no such way."""
        return chosen("loss_reduction", losses.REDUCTIONS, self.loss_reduction)

    @property
    def dtype(self) -> jnp.dtype:
        """The arithmetic type; InputError when there is none of that name."""
        return chosen("precision", PRECISIONS, self.precision)

    @property
    def compiler_options(self) -> dict[str, bool]:
        """What the compiler is told of a run's programs."""
        return DETERMINISTIC if self.deterministic else {}

    @property
    def augmented(self) -> Callable[[jax.Array, jax.Array], jax.Array]:
        """From frames and draws of clips to network input, in training; InputError: no such."""
        transform = chosen("jitter_order", preprocess.TRAINING, self.jitter_order)
        return functools.partial(transform, image_size=self.image_size)

    @property
    def transform(self) -> Callable[[jax.Array], jax.Array]:
        """From the frames of clips to network input, in testing; InputError: no such crop."""
        transform = chosen("evaluation_crop", preprocess.EVALUATION, self.evaluation_crop)
        return functools.partial(transform, image_size=self.image_size)

    @property
    def kind(self) -> kinds.Kind:
        """What the model is."""
        return kinds.KINDS[self.kind_name]

    def create(self, rngs: nnx.Rngs) -> nnx.Module:
        """The model before training.

        Raises:
          InputError: a slot has no such kind, or the kinds do not go together.
        """
        layout = self.layout
        try:
            return self.kind.create(layout, self.model, rngs)
        except ValueError as error:
            raise InputError(f"config.model: {error}") from error

    @functools.cached_property
    def outline(self) -> Any:
        """Shapes of the model, of the one trace of its constructor; InputError: as `create`."""
        return nnx.eval_shape(lambda: self.create(nnx.Rngs(0)))

    @functools.cached_property
    def tested(self) -> Any:
        """The outline as it runs in testing.

        Raises:
          InputError: as `outline`, or the backbone does not take pictures of this size.
        """
        multiple = self.outline.backbone.image_multiple
        if self.image_size % multiple:
            raise InputError(
                f"config.image_size={self.image_size}: backbone {self.model.backbone!r} takes "
                f"multiples of {multiple}"
            )
        return views.eval_view(self.outline, dtype=self.dtype)

    @property
    def context(self) -> int:
        """Frames before and after a clip that the model reads."""
        return self.outline.context

    def open_data(self) -> records.FrameSource:
        """The data set, with its protocol's splits.

        Raises:
          InputError: no directory given, nothing in it, or other AUs than the layout's.
        """
        if not self.data:
            raise InputError("no data set given; add --config.data=DIRECTORY")
        source = records.open_dataset(self.data)
        if source.layout.aus != self.layout.aus:
            raise InputError(
                f"{self.data}: has layout {source.layout.name!r} with AUs "
                f"{list(source.layout.aus)}, the model has layout {self.layout.name!r} with AUs "
                f"{list(self.layout.aus)}; name another data set, or train another model with "
                f"--config.layout={source.layout.name}"
            )
        held_out = self.held_out if self.protocol_name == "held-out" else 0.0
        return dataclasses.replace(source, held_out=held_out, hold=self.hold)
