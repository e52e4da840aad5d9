# SPDX-License-Identifier: Apache-2.0
"""BP4D, ResNet-50: the paper's main result (Table 1).

    mdhr train --config bp4d_resnet50 --workdir runs/bp4d_r50/fold1 \
        --config.data=DIR --config.fold=1
    mdhr crossval --config bp4d_resnet50 --workdir runs/bp4d_r50 --config.data=DIR

Expected: mean F1 66.6 over three folds, `best` checkpoint, threshold 0.5 (paper, Table 1, with
ImageNet weights, to be named by `model.init_from`; users of the release report 64). Ours: not
measured, the recordings are licensed.
"""

from ml_collections import ConfigDict

from mdhr_jax.configs import base


def get_config() -> ConfigDict:
    """The release's settings, which are the base's."""
    return base.get_config()
