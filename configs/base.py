# SPDX-License-Identifier: Apache-2.0
"""Every key with unit and meaning; the values are the release's.

Other files start from here and change what differs. On the command line a key is overridden by
`--config.KEY=VALUE`, nested ones by `--config.model.features=256`.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The release's training of ResNet-50 MDHR on BP4D, fold 1."""
    config = ConfigDict()

    # Data.
    config.data = ""  # directory of a prepared data set
    config.input = "encoded"  # how frames are read: a key of inputs.INPUTS
    config.layout = "bp4d"  # AUs and regions: a name for facs.layout with the data's AUs
    config.fold = 1  # cross-validation fold to test on; the others train
    config.clip_length = 16  # T, frames per clip
    config.hold = 0  # missing frames in a row over which a clip holds the last; more end it
    config.image_size = 224  # network input, pixels; stored pictures are usually 256
    config.batch_size = 8  # clips per training step, over all devices
    config.augmentation = 1.0  # strength of random crops and colours; 0: flips only
    config.jitter_order = "fixed"  # in which colours change: a key of preprocess.TRAINING
    config.clips_per_video = 1  # random clips of a video in an epoch; 0: every frame once
    config.eval_batch_size = 8  # clips per evaluation step, over all devices

    # Model.
    config.model = model = ConfigDict()
    model.kind = "mdhr"  # a key of kinds.KINDS; each has keys of its own beside
    model.backbone = "resnet50"  # a key of backbones.BACKBONES
    model.dynamics = ConfigDict()
    model.dynamics.kind = "multiscale"  # how scales are joined: a key of mdhr.DYNAMICS
    model.dynamics.scales = (1, 2, 3, 4)  # which scales, any subset
    model.dynamics.k = 5  # half the temporal window, frames
    model.dynamics.window = "zero"  # what it sees beyond the clip: a key of dynamics.WINDOWS
    model.features = 512  # width of positions and AU nodes
    model.afe = "block"  # AU-specific features from the AU's region: a key of mdhr.AFE
    model.auxiliary = True  # heads for the regions' AU combinations
    model.edges = "cross_region_activated"  # a key of mdhr.EDGES
    model.temporal = True  # a temporal filter per AU
    model.initial = "release"  # values before training: a key of mdhr.INITIAL
    model.init_from = ""  # run or .pth whose backbone to start from; empty: the values above

    # Arithmetic.
    config.precision = "float32"  # float32 for parity, bfloat16 for speed
    config.deterministic = False  # GPUs sum in one order only, for the same bits; slower there
    config.batch_norm_groups = 1  # parts of a (micro-)batch with statistics of their own
    config.accumulate = 1  # micro-batches of a step, one after another: less memory
    config.remat = "none"  # what the backward pass computes again: a key of programs.REMAT
    config.fsdp = 1  # devices over which the state is split; 1 replicates it

    # Training.
    config.seed = 0  # of initialisation, order, augmentation and drop-path
    config.epochs = 200.0  # of clips_per_video clips from every training video; 0: see steps
    config.steps = 0  # training steps, instead of epochs
    config.optimizer = "adamw"  # a key of optim.OPTIMIZERS
    config.learning_rate = 1e-4  # after warm-up, decays as a cosine to 0
    config.learning_rate_scaling = "none"  # with the batch size: a key of optim.SCALINGS
    config.learning_rate_batch = 8  # clips per step for which learning_rate is meant
    config.warmup_epochs = 0.0  # linear warm-up
    config.warmup_steps = 0  # the same in training steps, instead of warmup_epochs
    config.betas = (0.9, 0.999)  # averaging of gradients (LARS: momentum) and of their squares
    config.epsilon = 1e-8  # added to the root of the averaged squares; LARS has none
    config.weight_decay = 5e-4  # AdamW: on every parameter; LAMB, LARS: not on norms and biases
    config.ema = 0.0  # decay a step of the parameters' average, which is evaluated; 0: none
    config.auxiliary_loss_weight = 0.01  # lambda of the second loss, the region cross-entropy
    config.loss_reduction = "mean"  # over AUs, frames and regions: a key of losses.REDUCTIONS

    # Evaluation and checkpoints.
    config.protocol = "official"  # what is chosen where: a key of protocol.PROTOCOLS
    config.held_out = 0.2  # protocol held-out: share of the training subjects who choose
    config.tune_thresholds = False  # protocol held-out: a threshold per AU, chosen there too
    config.evaluation_crop = "whole"  # whole pictures, or "centre": faces as large as in training
    config.allow_seen_subjects = False  # test on people whom model.init_from has seen, marked so
    config.threshold = 0.5  # score from which an AU counts as active
    config.eval_every = 700  # steps; the release: 25 epochs of 28 steps
    config.checkpoint_every = 350  # steps; a kill loses at most these and a few seconds more
    return config
