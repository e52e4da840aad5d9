# SPDX-License-Identifier: Apache-2.0
"""What a GraphAU (ME-GraphAU, OpenGraphAU) has instead of MDHR's slots, and how it is trained.

    mdhr train --config graphau:2 ...

Every key below `model` with its meaning; the others are `base`'s. The values are those of
ME-GraphAU on BP4D with ResNet-50. Stage 1 links an AU with the K that are most like it; stage 2
starts from it (`model.init_from`) and learns features of all pairs.
"""

from ml_collections import ConfigDict

from mdhr_jax.configs import base

STAGES = {"1": "nearest", "2": "gated"}


def get_config(stage: str = "2") -> ConfigDict:
    """ME-GraphAU's training of a stage.

    Raises:
      ValueError: a stage other than "1" and "2".
    """
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r}: a GraphAU has stages 1 and 2, such as NAME:2")
    config = base.get_config()

    config.model = model = ConfigDict()
    model.kind = "graphau"
    model.backbone = "resnet50"  # a key of backbones.BACKBONES
    model.features = 512  # width of positions and AU nodes
    model.relations = STAGES[stage]  # between AUs: a key of graphau.RELATIONS
    model.neighbours = 4  # K of stage 1
    model.metric = "dots"  # in which stage 1 finds them: a key of au_graph.METRICS
    model.update = "activated_sum"  # of nodes in stage 2: a key of au_graph.UPDATES
    model.edge_head = stage == "2"  # stage 2 learns which AUs are active together
    model.sides = "own"  # node of an output for one side of the face: a key of graphau.SIDES
    model.init_from = ""  # run or weight file to start from: a backbone, or a stage 1 but its graph

    config.clip_length = 1  # frames stand alone
    config.clips_per_video = 0  # all of them in an epoch, shuffled
    config.jitter_order = "random"
    config.batch_size = 64
    config.eval_batch_size = 64
    config.evaluation_crop = "centre"
    config.epochs = 20.0
    config.learning_rate = 1e-4 if stage == "1" else 1e-5
    config.learning_rate_batch = 64
    config.auxiliary_loss_weight = 0.05  # lambda of the edge cross-entropy, of stage 2 alone
    config.eval_every = 1531  # an epoch of BP4D
    config.checkpoint_every = 766
    return config
