#!/usr/bin/env bash
# One training on all GPUs of this machine, or on its CPU. Arguments go to `mdhr train`:
#   bash launch/one_node.sh --config bp4d_resnet50 --workdir runs/fold1 \
#     --config.data=DIR --config.fold=1
# The same command goes on where a killed one stopped, about config.checkpoint_every steps back.
# It is not started again by itself: what ends a training here is a mistake or a machine to look at.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
source launch/gpus.sh
make_environment "$(gpu_extra)"
if [ "$(nvidia-smi -L 2>/dev/null | wc -l)" -gt 1 ]; then
  several_gpus
fi
exec .venv/bin/mdhr train "$@"
