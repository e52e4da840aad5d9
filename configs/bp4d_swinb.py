# SPDX-License-Identifier: Apache-2.0
"""BP4D, Swin-B (paper, Table 1).

    mdhr train --config bp4d_swinb --workdir runs/bp4d_swinb/fold1 \
        --config.data=DIR --config.fold=1

Expected: mean F1 66.1 over three folds, `best` checkpoint, threshold 0.5 (paper, Table 1, with
ImageNet weights, to be named by `model.init_from`). Ours: not measured, the recordings are
licensed.
"""

from ml_collections import ConfigDict

from mdhr_jax.configs import base


def get_config() -> ConfigDict:
    """The release's settings with the other backbone."""
    config = base.get_config()
    config.model.backbone = "swin_b"
    return config
