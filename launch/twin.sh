#!/usr/bin/env bash
# Does the paper's structure matter on rendered faces? The narrow full model against itself without
# motion features, without hierarchical relations, without temporal filters: three seeds each, the
# same data, steps and clips. Runs lie in runs/twin; docs/results/twin gets a line per finished run
# and the table. Safe to interrupt and repeat: what is finished is not done again.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
make_environment ""
.venv/bin/mdhr synthesize --out runs/twin/data --layout bp4d --seed 0 \
  --subjects 640 --videos_per_subject 2 --frames_per_video 30 --size 110
.venv/bin/mdhr compare --config configs/twin.py --config.data=runs/twin/data --seeds 3 \
  --workdir runs/twin/runs --results docs/results/twin \
  --variant "full" \
  --variant "no motion (MFD): model.dynamics.kind=none" \
  --variant "no relations (HSR): model.afe=false model.auxiliary=false model.edges=none" \
  --variant "no temporal filter: model.temporal=false"
