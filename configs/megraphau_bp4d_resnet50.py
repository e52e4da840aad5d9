# SPDX-License-Identifier: Apache-2.0
"""ME-GraphAU on BP4D, ResNet-50 (IJCAI 2022), stage 1 or 2.

    mdhr train --config megraphau_bp4d_resnet50:1 --workdir runs/stage1/fold1 \
        --config.data=DIR --config.fold=1 --config.model.init_from=resnet50.pth
    mdhr train --config megraphau_bp4d_resnet50:2 --workdir runs/stage2/fold1 \
        --config.data=DIR --config.fold=1 --config.model.init_from=runs/stage1/fold1

Expected: mean F1 64.7 over three folds after stage 2 (the authors' README). Ours: not measured, the
recordings are licensed.
"""

from ml_collections import ConfigDict

from mdhr_jax.configs import graphau


def get_config(stage: str = "2") -> ConfigDict:
    """The authors' settings of a stage, "1" or "2"."""
    return graphau.get_config(stage)
