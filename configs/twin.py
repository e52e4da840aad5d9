# SPDX-License-Identifier: Apache-2.0
"""The quickstart's narrow model on the release's clips: for comparing its parts.

    bash launch/twin.sh

Sixteen neighbouring frames and a window of five, as in the release. Eight people a batch teach a
backbone that starts from nothing too little, so all runs start from the same one, which has seen
other faces, as the paper's start from ImageNet's.
"""

from ml_collections import ConfigDict

from mdhr_jax.configs import quickstart


def get_config() -> ConfigDict:
    """One run of a comparison; `model.init_from` is left to the command."""
    config = quickstart.get_config()
    config.clip_length = 16
    config.batch_size = 8
    config.augmentation = 0.15
    config.eval_batch_size = 8
    config.model.dynamics.k = 5
    config.learning_rate = 3e-3
    config.epochs = 1.406  # 599 steps on the set of launch/twin.sh
    config.warmup_epochs = 0.05
    config.eval_every = 600
    return config
