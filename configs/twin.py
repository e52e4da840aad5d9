# SPDX-License-Identifier: Apache-2.0
"""The quickstart's narrow model on clips in which something moves: for comparing its parts.

    bash launch/twin.sh

Four frames, four apart, span half a second, nearly as long as the release's sixteen neighbours.
Half as many clips a batch as in the quickstart keep the step as long. Not settled: the full model
learns too little in this budget (docs/measurements.md).
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    """One run of a comparison."""
    config = quickstart.get_config()
    config.clip_length = 4
    config.frame_step = 4
    config.batch_size = 32
    config.eval_batch_size = 32
    config.epochs = 9.35  # 1,000 steps on the set of launch/twin.sh
    config.warmup_epochs = 0.2
    config.eval_every = 1000
    return config
