# SPDX-License-Identifier: Apache-2.0
"""Rendered faces, minutes on a laptop CPU: every part of MDHR, narrow.

    bash launch/quickstart.sh

The same classes and slots as the full model (four scales, regional features, auxiliary heads,
cross-region graph, temporal filter), with a ResNet of width 8 and one block per stage on 96-pixel
images. What makes a net that starts from nothing learn in minutes: clips of two frames, because
neighbouring frames look alike and many people teach more than many moments; initial values that
do not mix frames (`mdhr.calm`); weak augmentation, because a brow moves by less than a random
crop does; test pictures cut as training pictures are; and a high learning rate.

Expected: mean F1 12 to 16 points above always-positive (seeds 0 to 2; docs/measurements.md), on
people outside the training set. The faces are rendered: no number of the paper
compares.
"""

from ml_collections import ConfigDict

from mdhr_jax.configs import base


def get_config() -> ConfigDict:
    """A small run on rendered faces."""
    config = base.get_config()
    config.image_size = 96
    config.clip_length = 2
    config.clips_per_video = 4
    config.batch_size = 64
    config.eval_batch_size = 64
    config.augmentation = 0.3
    config.protocol = "last"
    config.evaluation_crop = "centre"
    config.model.backbone = "resnet_narrow"
    config.model.features = 64
    config.model.dynamics.k = 1
    config.model.initial = "calm"
    config.epochs = 20.0
    config.learning_rate = 1.5e-2
    config.warmup_epochs = 2.0
    config.eval_every = 216
    config.checkpoint_every = 200
    return config
