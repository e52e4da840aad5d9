#!/usr/bin/env bash
# Folds, seeds and backbones spread over the GPUs of this machine, one training per GPU at a time:
# a batch of eight clips gives one GPU enough to do, and eight of them too little.
# usage: bash launch/folds.sh --config FILE --config.data=DIR --workdir DIR \
#          --variant "NAME: KEY=VALUE ..." [--variant ...] [--folds 1,2,3] [--seeds 3] [--processes N]
# such as
#   bash launch/folds.sh --config bp4d_resnet50 --config.data=DIR --workdir runs/folds \
#     --variant "ResNet-50: model.init_from=resnet50-19c8e357.pth" \
#     --variant "Swin-B: model.backbone=swin_b model.init_from=SWIN_B.pth"
# Without a GPU one training runs at a time; --processes shares out the cores. Ends with a table,
# in WORKDIR/table.md too. The same command does what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
source launch/gpus.sh
make_environment "$(gpu_extra)"
exec .venv/bin/mdhr compare --folds 1,2,3 --seeds 3 "$@"
