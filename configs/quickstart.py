# SPDX-License-Identifier: Apache-2.0
"""Rendered faces, minutes on a laptop CPU: every part of MDHR, narrow.

    bash launch/quickstart.sh

The same classes and slots as the full model (four scales, regional features, auxiliary heads,
cross-region graph, temporal filter), with a ResNet of width 8 and one block per stage, 96-pixel
images and clips of four frames: neighbouring frames look alike, so many short clips teach a net
that starts from nothing more than few long ones.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """A small run on rendered faces."""
    config = base.get_config()
    config.image_size = 96
    config.clip_length = 4
    config.clips_per_video = 2
    config.batch_size = 32
    config.eval_batch_size = 32
    config.model.backbone = "resnet_narrow"
    config.model.features = 64
    config.model.dynamics.k = 1
    config.epochs = 48.0
    config.learning_rate = 1e-2
    config.warmup_epochs = 1.0
    config.eval_every = 400
    config.checkpoint_every = 200
    return config
