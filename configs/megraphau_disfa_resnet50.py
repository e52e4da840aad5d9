# SPDX-License-Identifier: Apache-2.0
"""ME-GraphAU on DISFA, ResNet-50 (IJCAI 2022), stage 1 or 2.

    mdhr train --config megraphau_disfa_resnet50:1 --workdir runs/stage1/fold1 \
        --config.data=DIR --config.fold=1 --config.model.init_from=resnet50.pth

Expected: mean F1 63.1 over three folds after stage 2 (the authors' README). Ours: not measured, the
recordings are licensed. The authors say no learning rates for this backbone; these are Swin-B's.
"""

from ml_collections import ConfigDict

from mdhr_jax.configs import megraphau_disfa_swinb


def get_config(stage: str = "2") -> ConfigDict:
    """The authors' settings of a stage, "1" or "2", with the other backbone."""
    config = megraphau_disfa_swinb.get_config(stage)
    config.model.backbone = "resnet50"
    return config
