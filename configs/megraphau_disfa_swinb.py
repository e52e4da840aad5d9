# SPDX-License-Identifier: Apache-2.0
"""ME-GraphAU on DISFA, Swin-B (IJCAI 2022), stage 1 or 2.

    mdhr train --config megraphau_disfa_swinb:1 --workdir runs/stage1/fold1 \
        --config.data=DIR --config.fold=1 --config.model.init_from=swin_base.pth

Expected: mean F1 62.4 over three folds after stage 2 (the authors' README). Ours: not measured, the
recordings are licensed.
"""

from ml_collections import ConfigDict

from mdhr_jax.configs import graphau


def get_config(stage: str = "2") -> ConfigDict:
    """The authors' settings of a stage, "1" or "2"."""
    config = graphau.get_config(stage)
    config.layout = "disfa"
    config.model.backbone = "swin_b"
    config.model.neighbours = 3
    config.auxiliary_loss_weight = 0.01
    config.learning_rate = 1e-4 if stage == "1" else 1e-6
    config.eval_every = 1363  # an epoch of DISFA
    config.checkpoint_every = 682
    return config
