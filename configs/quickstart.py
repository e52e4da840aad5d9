# SPDX-License-Identifier: Apache-2.0
"""Rendered faces, minutes on a laptop CPU: every part of MDHR, narrow.

    bash launch/quickstart.sh

The same classes and slots as the full model (four scales, regional features, auxiliary heads,
cross-region graph, temporal filter), a backbone of width 8 on 4x4 patches, 96-pixel images.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """A small run on rendered faces."""
    config = base.get_config()
    config.image_size = 96
    config.model.backbone = "resnet_narrow"
    config.model.features = 64
    config.clips_per_video = 4
    config.batch_size = 8
    config.epochs = 12.0
    config.learning_rate = 3e-3
    config.warmup_epochs = 0.5
    config.eval_every = 200
    config.checkpoint_every = 100
    return config
