# SPDX-License-Identifier: Apache-2.0
"""DISFA, ResNet-50 (paper, Table 2).

    mdhr train --config disfa_resnet50 --workdir runs/disfa_r50/fold1 \
        --config.data=DIR --config.fold=1

Expected: mean F1 64.9 over three folds, `best` checkpoint, threshold 0.5 (paper, Table 2, with
ImageNet weights, to be named by `model.init_from`). Ours: not measured, the recordings are
licensed. The release holds no training for DISFA: these are its settings for BP4D. An epoch of 18
clips is three steps here, so the evaluations of every 25th epoch fall on every 75th step.
"""

from ml_collections import ConfigDict

from mdhr_jax.configs import base


def get_config() -> ConfigDict:
    """The release's settings for BP4D on DISFA's layout."""
    config = base.get_config()
    config.layout = "disfa"
    config.eval_every = 75
    config.checkpoint_every = 75
    return config
