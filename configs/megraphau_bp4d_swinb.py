# SPDX-License-Identifier: Apache-2.0
"""ME-GraphAU on BP4D, Swin-B (IJCAI 2022), stage 1 or 2.

    mdhr train --config megraphau_bp4d_swinb:1 --workdir runs/stage1/fold1 \
        --config.data=DIR --config.fold=1 --config.model.init_from=swin_base.pth

Expected: mean F1 65.5 over three folds after stage 2 (the authors' README). Ours: not measured, the
recordings are licensed. The authors say no learning rates for this backbone; these are ResNet-50's.
"""

from ml_collections import ConfigDict

from mdhr_jax.configs import graphau


def get_config(stage: str = "2") -> ConfigDict:
    """The authors' settings of a stage, "1" or "2", with the other backbone."""
    config = graphau.get_config(stage)
    config.model.backbone = "swin_b"
    return config
