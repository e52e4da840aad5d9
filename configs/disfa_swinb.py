# SPDX-License-Identifier: Apache-2.0
"""DISFA, Swin-B (paper, Table 2).

    mdhr train --config disfa_swinb --workdir runs/disfa_swinb/fold1 \
        --config.data=DIR --config.fold=1

Expected: mean F1 66.2 over three folds, `best` checkpoint, threshold 0.5 (paper, Table 2, with
ImageNet weights, to be named by `model.init_from`). Ours: not measured, the recordings are
licensed. Steps and intervals as in `disfa_resnet50`.
"""

from ml_collections import ConfigDict

from mdhr_jax.configs import disfa_resnet50


def get_config() -> ConfigDict:
    """The DISFA settings with the other backbone."""
    config = disfa_resnet50.get_config()
    config.model.backbone = "swin_b"
    return config
