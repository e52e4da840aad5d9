#!/usr/bin/env bash
# MDHR beside its static forerunner on rendered faces, narrow nets: the backbone alone, ME-GraphAU's
# stage 1 (ANFL) and stage 2 (MEFL), three seeds each, the same data, steps, clips and backbone to
# begin with. Arguments go to `mdhr compare`, such as --processes 2. Runs lie in runs/baselines;
# docs/results/baselines gets a line per finished run and the table. Safe to interrupt and repeat:
# what is finished is not done again.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
make_environment "$(gpu_extra)"
source launch/compared_faces.sh

graphau="model.kind=graphau model.edge_head=false"
.venv/bin/mdhr compare --config ablations_narrow --config.data=runs/twin/data \
  --config.model.init_from=runs/twin/backbone --config.epochs=0. --config.steps=400 --seeds 3 \
  --workdir runs/baselines --results docs/results/baselines "$@" \
  --variant "backbone: $graphau model.relations=none" \
  --variant "ANFL (stage 1): $graphau model.relations=nearest" \
  --variant "MEFL (stage 2): model.kind=graphau auxiliary_loss_weight=0.05" \
  --variant "MDHR"
